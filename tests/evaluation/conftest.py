"""Small DAVIS data sets and results, made in a temporary folder."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from osmn_tf.masks.files import write_mask

HEIGHT, WIDTH = 48, 80


def draw(boxes, height=HEIGHT, width=WIDTH):
    """A label mask of boxes (row, column, height, width), the k-th one with label k; None leaves an object out."""
    mask = np.zeros((height, width), np.uint8)
    for label, spot in enumerate(boxes, start=1):
        if spot is not None:
            row, column, rows, columns = spot
            mask[max(row, 0) : row + rows, max(column, 0) : column + columns] = label
    return mask


def write_binary(path: Path, mask) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), (np.asarray(mask) != 0).astype(np.uint8) * 255)


def write_labels(path: Path, mask) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mask(path, mask)


def moving_boxes(frames, objects=2, speed=2):
    """Label masks of boxes that walk to the right."""
    return [draw([(6 + 20 * k, 4 + 10 * k + speed * t, 14, 16) for k in range(objects)]) for t in range(frames)]


class MadeDavis:
    """A DAVIS tree with two sequences, `alpha` of 12 frames and `beta` of 9, in both editions."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for year in (2016, 2017):
            path = root / "ImageSets" / str(year) / "val.txt"
            path.parent.mkdir(parents=True)
            path.write_text("alpha\nbeta\n")
        self.masks = {"alpha": moving_boxes(12), "beta": moving_boxes(9, objects=1, speed=4)}
        self.write_annotations()
        for name, masks in self.masks.items():
            folder = root / "JPEGImages" / "480p" / name
            folder.mkdir(parents=True)
            for t, mask in enumerate(masks):
                image = np.dstack([90 + 60 * (mask == 1), 110 + 50 * (mask == 2), np.full_like(mask, 140)])
                cv2.imwrite(str(folder / f"{t:05d}.jpg"), image.astype(np.uint8))

    def write_annotations(self) -> None:
        for name, masks in self.masks.items():
            for t, mask in enumerate(masks):
                write_labels(self.root / "Annotations" / "480p" / name / f"{t:05d}.png", mask)

    def write_results(self, folder: Path, change, binary=False) -> Path:
        """Writes `change(name, t, mask)` of every scored frame. The first and the last frame are left out."""
        for name, masks in self.masks.items():
            for t in range(1, len(masks) - 1):
                mask = change(name, t, masks[t])
                (write_binary if binary else write_labels)(folder / name / f"{t:05d}.png", mask)
        return folder


@pytest.fixture
def davis(tmp_path):
    return MadeDavis(tmp_path / "DAVIS")

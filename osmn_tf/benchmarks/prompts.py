"""How good first masks from boxes and clicks are, beside GrabCut's."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from osmn_tf.datasets.coco import open_coco
from osmn_tf.datasets.davis import read_split
from osmn_tf.datasets.index import ImageItem, check_size, decode_image, decode_mask, require_folder
from osmn_tf.errors import InputError
from osmn_tf.evaluation.metrics import jaccard
from osmn_tf.inference.prompting import mask_from_box, mask_from_click
from osmn_tf.masks.labels import VOID, labels_of
from osmn_tf.masks.prompts import Box, Click, ellipse

Array = NDArray[Any]

_BOX_ERROR = 0.03  # of its sides: how exactly a box is drawn
_CLICKS = 3


@dataclasses.dataclass(frozen=True)
class PromptScores:
    """One object.

    Attributes:
        name: its picture and its label.
        scores: way of prompting -> IoU with the annotation; 0 where no mask was found.
    """

    name: str
    scores: dict[str, float]


def list_pictures(root: str | os.PathLike[str], split: str | None = None, every: int = 1) -> list[ImageItem]:
    """The annotated pictures of COCO, or of videos in the layout of DAVIS with or without its lists.

    Args:
        root: the data set's folder.
        split: of COCO, like "val2017", or a list of DAVIS 2016; None: all videos.
        every: of a video every n-th annotated frame, or of COCO every n-th image.

    Raises:
        InputError: the data set is neither of these, or incomplete.
    """
    root = Path(root)
    if (root / "annotations").is_dir():
        return list(open_coco(root, split or "val2017").items)[::every]
    masks = require_folder(root / "Annotations" / "480p", "root", "the annotations of COCO or of DAVIS")
    names = read_split(root, 2016, split) if split else sorted(path.name for path in masks.iterdir() if path.is_dir())
    items = []
    for name in names:
        binary = (root / "ImageSets").is_dir()
        for path in sorted((masks / name).glob("*.png"))[::every]:
            frame = root / "JPEGImages" / "480p" / name / f"{path.stem}.jpg"
            items.append(ImageItem(f"{name}/{path.stem}", frame, _MaskFile(path, binary)))
    if not items:
        raise InputError(f"root: {masks} has no annotations")
    return items


@dataclasses.dataclass(frozen=True)
class _MaskFile:
    path: Path
    binary: bool

    def __call__(self) -> Array:
        return decode_mask(self.path, binary=self.binary)


def measure_prompts(items: list[ImageItem], network: Any, min_area: float = 0.005) -> Iterator[PromptScores]:
    """Prompts for every object of every picture.

    A box is the object's, each side moved by up to 3% of its length. The first click is at the object's innermost
    pixel, the next ones are at the innermost pixel of the largest mistake, on the object or on the background, as usual
    in interactive segmentation.

    Args:
        items: pictures with their masks.
        network: see `mask_from_box`.
        min_area: smaller objects are left out, as a share of the picture.

    Yields:
        The scores, object by object.

    Raises:
        InputError: a file is damaged.
    """
    rng = np.random.default_rng(0)
    for item in items:
        frame, mask = decode_image(item.image_path), item.read_mask()
        check_size(frame, mask, item.name)
        for label in item.labels or labels_of(mask):
            truth = mask == label
            error = rng.uniform(-_BOX_ERROR, _BOX_ERROR, 4)
            if truth.mean() < min_area:
                continue
            known = mask != VOID
            box = _box(truth, error)
            scores = _box_scores(frame, box, truth, known, network)
            scores.update(_click_scores(frame, truth, known, network))
            yield PromptScores(f"{item.name}:{label}", scores)


def _box_scores(frame: Array, box: Box, truth: Array, known: Array, network: Any) -> dict[str, float]:
    ways: dict[str, Callable[[], Array]] = {
        "the box's ellipse": lambda: ellipse(box, truth.shape),
        "box, GrabCut": lambda: _grabcut(frame, box),
        "box": lambda: mask_from_box(frame, box, network=network) > 0,
    }
    scores = {}
    for way, make in ways.items():
        try:
            scores[way] = float(jaccard(truth, make(), ~known))
        except InputError:
            scores[way] = 0.0
    return scores


def _box(truth: Array, error: Array) -> Box:
    rows, columns = np.nonzero(truth)
    left, right, top, bottom = columns.min(), columns.max() + 1, rows.min(), rows.max() + 1
    moves = error * np.array([right - left, right - left, bottom - top, bottom - top])
    left, right = (int(np.clip(round(x), 0, truth.shape[1])) for x in (left + moves[0], right + moves[1]))
    top, bottom = (int(np.clip(round(y), 0, truth.shape[0])) for y in (top + moves[2], bottom + moves[3]))
    return left, top, max(4, right - left), max(4, bottom - top)


def _click_scores(frame: Array, truth: Array, known: Array, network: Any) -> dict[str, float]:
    scores: dict[str, float] = {}
    clicks: list[Click] = []
    background: list[Click] = []
    found = np.zeros(truth.shape, bool)
    for count in range(1, _CLICKS + 1):
        missing, wrong = (_innermost(part & known) for part in (truth & ~found, found & ~truth))
        (clicks if not clicks or missing[0] >= wrong[0] else background).append(max(missing, wrong)[1])
        try:
            found = mask_from_click(frame, *clicks, background=background, network=network) > 0
        except InputError:
            found = np.zeros(truth.shape, bool)
        scores[f"{count} click{'s' if count > 1 else ''}"] = float(jaccard(truth, found, ~known))
    return scores


def _innermost(part: Array) -> tuple[float, Click]:
    """The pixel farthest from the outline of a part of the picture: (how far, (x, y))."""
    inside = cv2.distanceTransform(np.pad(part, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    return float(inside[row, column]), (int(column), int(row))


def _grabcut(frame: Array, box: Box) -> Array:
    """OpenCV's GrabCut (Rother, Kolmogorov, Blake, SIGGRAPH 2004) from a box, five rounds."""
    mask = np.zeros(frame.shape[:2], np.uint8)
    cv2.setRNGSeed(0)
    try:
        cv2.grabCut(frame[..., ::-1].copy(), mask, box, np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_RECT)
    except cv2.error as error:  # too few pixels for its colour models
        raise InputError("box: no colours to tell apart") from error
    return (mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)


def format_table(objects: list[PromptScores]) -> str:
    """Mean and median IoU in percent of every way of prompting."""
    lines = [f"{len(objects)} objects      mean  median"]
    for name in objects[0].scores if objects else ():
        values = 100 * np.array([item.scores[name] for item in objects])
        lines.append(f"{name:<18}{values.mean():6.1f}{np.median(values):8.1f}")
    return "\n".join(lines)

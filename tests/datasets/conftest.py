"""Small data sets in the published layouts, made in a temporary folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from osmn_tf.masks.files import write_mask


def write_frame(path: Path, height: int = 24, width: int = 32, value: int = 0) -> None:
    """A JPEG whose red channel is about `value`, green 0 to the left and 255 to the right."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = value
    image[:, width // 2 :, 1] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])


def write_labels(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mask(path, mask.astype(np.uint8))


def two_boxes(height: int = 24, width: int = 32, shift: int = 0) -> np.ndarray:
    """Object 1: 6 x 8 pixels; object 2: 10 x 6 pixels; they move by `shift` columns."""
    mask = np.zeros((height, width), np.uint8)
    mask[2:8, 3 + shift : 11 + shift] = 1
    mask[10:20, 15 + shift : 21 + shift] = 2
    return mask


def truncate(path: Path) -> None:
    """Cuts the second half of a file off."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def make_davis(root: Path) -> Path:
    """Sequences `ant` (5 frames) and `bee` (4 frames of another size), two objects each."""
    for name, length, height, width in (("ant", 5, 24, 32), ("bee", 4, 28, 40)):
        for i in range(length):
            write_frame(root / "JPEGImages" / "480p" / name / f"{i:05d}.jpg", height, width, value=40 * i)
            write_labels(root / "Annotations" / "480p" / name / f"{i:05d}.png", two_boxes(height, width, shift=i))
    for year in ("2016", "2017"):
        folder = root / "ImageSets" / year
        folder.mkdir(parents=True)
        (folder / "train.txt").write_text("bee\nant\n")
        (folder / "val.txt").write_text("ant\n")
    return root


def make_stills(root: Path) -> Path:
    """Sets `cups` (6 images) and `hats` (2 images)."""
    for name, count in (("cups", 6), ("hats", 2)):
        for i in range(count):
            write_frame(root / name / "images" / f"{i}.jpg", value=40 * i)
            mask = two_boxes()
            mask[0, :] = 255
            write_labels(root / name / "masks" / f"{i}.png", mask)
    return root


@pytest.fixture
def davis_root(tmp_path: Path) -> Path:
    return make_davis(tmp_path / "davis")


@pytest.fixture
def stills_root(tmp_path: Path) -> Path:
    return make_stills(tmp_path / "stills")


@pytest.fixture
def coco_root(tmp_path: Path) -> Path:
    """Images 1 (polygon, uncompressed run lengths, crowd, small instance) and 2 (nothing large enough)."""
    root = tmp_path / "coco"
    for i in (1, 2):
        write_frame(root / "train2017" / f"{i:012d}.jpg", 20, 30)
    # Run lengths run down the columns: 10 columns of background, 5 columns of object, the rest background.
    runs = {"size": [20, 30], "counts": [200, 100, 300]}
    square = [2.0, 3.0, 12.0, 3.0, 12.0, 15.0, 2.0, 15.0]
    annotations = [
        {"id": 1, "image_id": 1, "segmentation": [square], "area": 120.0, "iscrowd": 0, "category_id": 1},
        {"id": 2, "image_id": 1, "segmentation": runs, "area": 100.0, "iscrowd": 0, "category_id": 1},
        {"id": 3, "image_id": 1, "segmentation": runs, "area": 600.0, "iscrowd": 1, "category_id": 1},
        {"id": 4, "image_id": 1, "segmentation": [[20, 2, 23, 2, 23, 5]], "area": 18.0, "iscrowd": 0, "category_id": 1},
        {"id": 5, "image_id": 2, "segmentation": [[20, 2, 23, 2, 23, 5]], "area": 18.0, "iscrowd": 0, "category_id": 1},
    ]
    content = {
        "images": [{"id": i, "file_name": f"{i:012d}.jpg", "height": 20, "width": 30} for i in (2, 1)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "thing"}],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def youtube_vos_root(tmp_path: Path) -> Path:
    """Video `v1`: 11 frames, every fifth annotated; object 1 from frame 0, object 2 from frame 5."""
    root = tmp_path / "ytvos" / "train"
    for i in range(11):
        write_frame(root / "JPEGImages" / "v1" / f"{i:05d}.jpg", value=20 * i)
    for i in (0, 5, 10):
        mask = two_boxes(shift=i // 5)
        if i == 0:
            mask[mask == 2] = 0
        write_labels(root / "Annotations" / "v1" / f"{i:05d}.png", mask)
    objects = {
        "1": {"category": "dog", "frames": ["00000", "00005", "00010"]},
        "2": {"category": "cat", "frames": ["00005", "00010"]},
    }
    (root / "meta.json").write_text(json.dumps({"videos": {"v1": {"objects": objects}}}))
    return root.parent


@pytest.fixture(scope="session")
def real_data_root() -> Path:
    root = os.environ.get("OSMN_DATA_ROOT")
    if not root:
        pytest.skip("OSMN_DATA_ROOT is not set: it names a folder with davis/, coco_mini/ and stills/")
    return Path(root)

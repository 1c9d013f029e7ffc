"""A small data set in every layout: coloured squares that move over noise."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from osmn_tf.masks.files import write_mask

HEIGHT, WIDTH, LENGTH = 48, 72, 6


def draw(seed: int, t: int) -> tuple[np.ndarray, np.ndarray]:
    """A frame uint8 RGB with a red and a blue square, and its mask with labels 1 and 2."""
    rng = np.random.default_rng(seed)
    frame = cv2.resize(rng.integers(0, 90, (6, 9, 3), np.uint8), (WIDTH, HEIGHT))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for label, colour in ((1, (230, 60, 30)), (2, (40, 90, 240))):
        top, left = int(rng.integers(4, 24)), int(rng.integers(2, 14)) + 30 * (label - 1) + 2 * t
        mask[top : top + 16, left : left + 18] = label
        frame[mask == label] = colour
    return frame, mask


def _write(folder: Path, masks: Path, name: str, seed: int, t: int) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    frame, mask = draw(seed, t)
    cv2.imwrite(str(folder / f"{name}.jpg"), frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    return mask


def make_davis(root: Path) -> None:
    for seed, name in enumerate(("one", "two", "three")):
        for t in range(LENGTH):
            masks = root / "Annotations/480p" / name
            mask = _write(root / "JPEGImages/480p" / name, masks, f"{t:05d}", seed, t)
            write_mask(masks / f"{t:05d}.png", mask)
    for year in (2016, 2017):
        folder = root / "ImageSets" / str(year)
        folder.mkdir(parents=True)
        for split, names in (("train", "one\ntwo\n"), ("val", "three\n"), ("dev", "three\n")):
            (folder / f"{split}.txt").write_text(names)


def make_youtube_vos(root: Path) -> None:
    masks = root / "train/Annotations/v"
    for t in range(LENGTH):
        mask = _write(root / "train/JPEGImages/v", masks, f"{t:05d}", 9, t)
        if t % 2 == 0:
            write_mask(masks / f"{t:05d}.png", mask)
    objects = {str(k): {"category": "square", "frames": ["00000", "00002", "00004"]} for k in (1, 2)}
    (root / "train/meta.json").write_text(json.dumps({"videos": {"v": {"objects": objects}}}))


def make_coco(root: Path) -> None:
    for split in ("train2017", "val2017"):
        annotations: list[dict[str, Any]] = []
        for i in (1, 2):
            mask = _write(root / split, root / "annotations", f"{i:012d}", 20 + i, 0)
            for label in (1, 2):
                x, y, w, h = cv2.boundingRect((mask == label).astype(np.uint8))
                box = [[float(v) for v in (x, y, x + w, y, x + w, y + h, x, y + h)]]
                annotations.append(
                    {"id": 10 * i + label, "image_id": i, "segmentation": box, "area": float(w * h), "iscrowd": 0}
                    | {"category_id": 1}
                )
        images = [{"id": i, "file_name": f"{i:012d}.jpg", "height": HEIGHT, "width": WIDTH} for i in (1, 2)]
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "square"}]}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def make_stills(root: Path) -> None:
    for i in range(3):
        masks = root / "squares/masks"
        mask = _write(root / "squares/images", masks, str(i), 40 + i, 0)
        write_mask(masks / f"{i}.png", mask)


def make_data(root: Path) -> Path:
    make_davis(root / "davis")
    make_youtube_vos(root / "youtube_vos")
    make_coco(root / "coco")
    make_coco(root / "coco_mini")
    make_stills(root / "stills")
    return root


def tiny_command(*words: str, prelude: str = "") -> list[str]:
    """`osmn WORDS...` in a process of its own that knows TinyNet, after the statements of `prelude`."""
    program = f"{prelude}\nfrom osmn_tf.cli.main import main\nraise SystemExit(main())"
    plugin = Path(__file__).parents[1] / "tiny_network.py"
    return [sys.executable, "-c", program, "--plugin", str(plugin), *words]


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration that trains TinyNet."""
    import tiny_network

    path = tmp_path_factory.mktemp("tiny") / "tiny.yaml"
    path.write_text(tiny_network.CONFIG)
    return path


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("training_data"))

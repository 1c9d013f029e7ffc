"""A small network as LiteRT files for two objects at a time, and a clip with three objects."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from support import BACKEND, box_mask, made_once

FRAME_SIZE = (80, 120)  # the network runs at 64 x 96


@pytest.fixture(scope="session")
def exported(tiny_reconvnet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Float32 files of `tiny_reconvnet` with batches of two objects. Do not change them: see `copied`."""
    if BACKEND != "tensorflow":
        pytest.skip("LiteRT files are made with TensorFlow")
    from osmn_tf.export.litert import export_litert

    return made_once(tmp_path_factory, "exported", lambda folder: export_litert(tiny_reconvnet, folder, objects=2))


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return shutil.copytree(exported, tmp_path / "copied")


@pytest.fixture(scope="session")
def frames() -> list[np.ndarray]:
    """Eight frames of smooth noise that drifts to the right."""
    rng = np.random.default_rng(4)
    wide = cv2.GaussianBlur(rng.integers(0, 256, (FRAME_SIZE[0], FRAME_SIZE[1] + 40, 3)).astype(np.float32), None, 3)
    wide = np.clip((wide - 127.5) * 6 + 127.5, 0, 255).astype(np.uint8)
    return [np.ascontiguousarray(wide[:, 5 * t : 5 * t + FRAME_SIZE[1]]) for t in range(8)]


@pytest.fixture(scope="session")
def first_mask() -> np.ndarray:
    """Three objects: labels 1, 2, 3."""
    return box_mask(*FRAME_SIZE, (10, 40, 5, 45), (30, 70, 60, 110), (50, 75, 10, 40))

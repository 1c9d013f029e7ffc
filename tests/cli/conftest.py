"""A small network with random weights as a preset, and a short video: what the command line is tried on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from osmn_tf.masks.files import write_mask
from osmn_tf.video.writer import write_video

SIZE = (96, 128)
LENGTH = 12


@pytest.fixture(scope="module")
def tiny_preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ReConvNet that takes little time a frame; its masks mean nothing, but depend on its state.

    It stands on a backbone of the tests, which other processes do not know.
    """
    from support import TINY, randomise

    from osmn_tf.models.reconvnet import ReConvNet

    model = ReConvNet(**{**TINY, "guide_size": 64}, recurrent_channels=(4, 6, 8))
    folder = tmp_path_factory.mktemp("presets") / "tiny"
    randomise(model, seed=3).save_to_preset(str(folder), {"description": "random weights"})
    return folder


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clip.mp4: a bright square that moves over noise, 12 frames, 96 x 128, 10 frames per second."""
    rng = np.random.default_rng(0)
    background = rng.integers(0, 120, (*SIZE, 3), np.uint8)
    frames = []
    for t in range(LENGTH):
        frame = background.copy()
        frame[30:60, 10 + 5 * t : 40 + 5 * t] = (230, 200, 40)
        frames.append(frame)
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    write_video(path, frames, 10)
    return path


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    """first.png: two objects, labels 2 and 7, for the first frame of `video`."""
    labels = np.zeros(SIZE, np.uint8)
    labels[30:60, 10:40] = 2
    labels[70:90, 80:120] = 7
    path = tmp_path / "first.png"
    write_mask(path, labels)
    return path

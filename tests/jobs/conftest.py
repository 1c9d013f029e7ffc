"""The video of the tests of jobs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from osmn_tf.masks.drawing import write_image
from tests.jobs.drift import LENGTH, SIZE


@pytest.fixture(scope="session")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ten frames of noise."""
    folder = tmp_path_factory.mktemp("video") / "frames"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for index in range(LENGTH):
        write_image(folder / f"{index:05d}.png", rng.integers(0, 256, (*SIZE, 3), np.uint8))
    return folder

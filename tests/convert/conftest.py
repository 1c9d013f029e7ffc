from __future__ import annotations

import keras
import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="checkpoints are read with TensorFlow")

from convert import release

if keras.backend.backend() != "tensorflow":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def lite_values() -> dict[str, np.ndarray]:
    return release.random_values(release.lite_shapes(), seed=5)


@pytest.fixture(scope="session")
def lite_checkpoint(lite_values, tmp_path_factory) -> str:
    """The MobileNet form with Adam's slots of one trunk, written by TensorFlow 1's Saver at step 1200."""
    prefix = tmp_path_factory.mktemp("lite") / "osmn.ckpt"
    return release.write_checkpoint(prefix, lite_values, step=1200, adam="osmn/seg/")

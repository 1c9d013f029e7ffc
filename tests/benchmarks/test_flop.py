from __future__ import annotations

import keras
import numpy as np
import pytest

from osmn_tf.benchmarks.flop import forward_flop


@pytest.mark.backend
def test_operations_of_a_convolution() -> None:
    inputs = {"frame": keras.Input((8, 8, 3), name="frame")}
    network = keras.Model(inputs, keras.layers.Conv2D(2, 3, padding="same", use_bias=False)(inputs["frame"]))
    count = forward_flop(network, {"frame": np.ones((1, 8, 8, 3), np.float32)})
    if keras.backend.backend() == "jax":  # leaves out what falls on the padding
        assert count == pytest.approx(2 * 2 * 3 * (3 * 8 - 2) ** 2)
    else:
        assert count == 2 * (3 * 3 * 3) * 2 * (8 * 8)

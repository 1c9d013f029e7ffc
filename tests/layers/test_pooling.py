"""Averages over blocks: literal numbers, and what Keras's own layer gives."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from support import assert_close, numpy

from osmn_tf.layers.pooling import BlockAverage

pytestmark = pytest.mark.backend


def test_literal():
    x = np.arange(32, dtype=np.float32).reshape(1, 4, 4, 2)  # a row is 8 further, a column 2
    np.testing.assert_array_equal(numpy(BlockAverage(2)(x))[0, ..., 0], [[5, 9], [21, 25]])
    np.testing.assert_array_equal(numpy(BlockAverage(2)(x))[0, ..., 1], [[6, 10], [22, 26]])
    np.testing.assert_array_equal(numpy(BlockAverage(4)(x)), [[[[15, 16]]]])


@pytest.mark.parametrize(("size", "channels"), [(2, 1), (4, 2), (3, 5)])
def test_equals_average_pooling(size, channels):
    x = np.random.default_rng(size).normal(0, 1, (3, 12, 24, channels)).astype(np.float32)
    # A rounding for each of the values that are added.
    assert_close(BlockAverage(size)(x), keras.layers.AveragePooling2D(size)(x), roundings=size**2)


def test_sizes_may_be_unknown_and_configuration_comes_back():
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, BlockAverage(4, name="pool")(inputs))
    assert model.output.shape == (None, None, None, 2)
    copy = keras.Model.from_config(model.get_config())
    x = np.random.default_rng(0).normal(0, 1, (2, 8, 16, 2)).astype(np.float32)
    np.testing.assert_array_equal(numpy(copy(x)), numpy(model(x)))
    assert copy.get_layer("pool").size == 4

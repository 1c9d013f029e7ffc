"""Fusion before upsampling against literal numbers, and against the releases' order."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from support import as_one, assert_close, numpy

from osmn_tf.layers.fusion import SideFusion
from osmn_tf.layers.upsampling import BilinearTransposedConv, CentreCropLike, CornerUpsampling

pytestmark = pytest.mark.backend


def image(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def fusion(kernel, bias, sides):
    layer = SideFusion()
    layer.build([side.shape for side in sides])
    layer.set_weights([np.reshape(kernel, (1, 1, -1, 1)).astype(np.float32), np.array([bias], np.float32)])
    return layer


def test_literal():
    first = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32).reshape(1, 1, 2, 2)
    second = np.array([[5.0]], np.float32).reshape(1, 1, 1, 1)
    layer = fusion([1.0, 10.0, 100.0], 0.5, [first, second])
    scores = [numpy(score) for score in layer([first, second])]
    assert [score.shape for score in scores] == [(1, 1, 2, 1), (1, 1, 1, 1), (1, 1, 1, 1)]
    assert scores[0].ravel().tolist() == [21.0, 43.0]
    assert scores[1].item() == 500.0
    assert scores[2].item() == 0.5


@pytest.mark.parametrize("up", [BilinearTransposedConv, CornerUpsampling])
def test_the_order_of_the_releases_gives_the_same(up):
    """Upsample, concatenate, convolve. Sizes that no factor divides, and a first side shared by two objects."""
    height, width = 21, 34
    guide = np.zeros((2, height, width, 1), np.float32)
    factors, channels = (2, 4, 8), 3
    sides = [image(2 if f > 2 else 1, -(-height // f), -(-width // f), channels, seed=f) for f in factors]
    weights = image(len(factors) * channels)
    crop = CentreCropLike()

    def upsampled(factor, x):
        layer = up(factor)
        layer.build(x.shape)
        return numpy(as_one(lambda x: crop(layer(x), guide))(x))

    full = [upsampled(factor, side) for factor, side in zip(factors, sides)]
    full[0] = np.repeat(full[0], 2, axis=0)
    expected = np.concatenate(full, -1) @ weights[:, None] + 0.3

    *scores, bias = fusion(weights, 0.3, sides)(sides)
    found = sum(upsampled(factor, score) for factor, score in zip(factors, scores)) + numpy(bias)
    assert_close(found, expected, 4 * channels * len(sides))  # 2 x 2 pixels reach one


def test_files_shapes_and_training(tmp_path):
    inputs = [keras.Input((None, None, 4)), keras.Input((None, None, 2))]
    *scores, bias = SideFusion()(inputs)
    model = keras.Model(inputs, [*scores, bias])
    assert [tuple(output.shape) for output in model.outputs] == [(None, None, None, 1)] * 2 + [(1, 1, 1, 1)]
    assert [tuple(weight.shape) for weight in model.trainable_weights] == [(1, 1, 6, 1), (1,)]
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras")
    values = [image(2, 5, 6, 4), image(2, 3, 3, 2)]
    for found, expected in zip(copy(values), model(values)):
        np.testing.assert_array_equal(numpy(found), numpy(expected))

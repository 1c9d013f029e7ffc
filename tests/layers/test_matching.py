"""Matching against literal numbers and plain NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from support import assert_close, numpy

from osmn_tf.layers.matching import CUES, FirstFrameMemory, Matching, _largest

pytestmark = pytest.mark.backend


def keys(*shape, seed=0):
    values = np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def test_literal():
    """A row of four cells, two of them the object's; keys along two axes."""
    right, up = (1.0, 0.0), (0.0, 1.0)
    memory = np.array([right, right, up, up], np.float32).reshape(1, 1, 4, 2)
    coverage = np.array([1.0, 1.0, 0.0, 0.0], np.float32).reshape(1, 1, 4, 1)
    key = np.array([right, up, (0.6, 0.8), (-1.0, 0.0)], np.float32).reshape(1, 1, 4, 2)
    found = numpy(Matching()(key, memory, coverage))
    assert found.shape == (1, 1, 4, CUES)
    # Similarities with the cells: right, right, up, up. What does not count loses 2.
    expected = [
        [1.0, (1 + 1 - 2 - 2) / 4, 0.0, (0 + 0 - 1 - 1) / 4],
        [0.0, (0 + 0 - 1 - 1) / 4, 1.0, (1 + 1 - 2 - 2) / 4],
        [0.6, (0.6 + 0.6 - 1.2 - 1.2) / 4, 0.8, (0.8 + 0.8 - 1.4 - 1.4) / 4],
        [-1.0, (-1 - 1 - 2 - 2) / 4, 0.0, (0 + 0 - 3 - 3) / 4],
    ]
    np.testing.assert_allclose(found[0, 0, :, :4], expected, atol=1e-6)
    # The softmax of 20 times the similarities: nearly all of it lies on one side.
    odds = np.exp(20 * np.array([1.0, -1.0, -0.2, -1.0]))
    np.testing.assert_allclose(found[0, 0, :, 4], odds / (1 + odds), rtol=1e-4, atol=1e-7)


def reference(key, memory, coverage, temperature, distance):
    """Cell by cell, for one object: [h, w, K], [h, w, K], [h, w] -> [h, w, 5]."""
    height, width, _ = key.shape
    places = [(y, x) for y in range(height) for x in range(width)]
    result = np.zeros((height, width, 5))
    for y, x in places:
        similarity = np.array(
            [key[y, x] @ memory[v, u] - distance * ((y - v) ** 2 + (x - u) ** 2) for v, u in places], np.float64
        )
        share = np.array([coverage[v, u] for v, u in places], np.float64)
        inside = np.sort(similarity - 2 * (1 - share / max(share.max(), 0.05)))[::-1]
        outside = np.sort(similarity - 2 * share)[::-1]
        weights = np.exp(temperature * (similarity - similarity.max()))
        result[y, x] = [
            inside[0],
            inside[:4].mean(),
            outside[0],
            outside[:4].mean(),
            (weights * share).sum() / weights.sum(),
        ]
    return result


@pytest.mark.parametrize("local", [False, True])
def test_equals_numpy(local):
    """Two objects that share the frame's key; partly covered cells; learned scalars that are not the initial ones."""
    layer = Matching(local=local)
    key, memory = keys(1, 3, 5, 8), keys(2, 3, 5, 8, seed=1)
    coverage = np.random.default_rng(2).uniform(0, 0.7, (2, 3, 5, 1)).astype(np.float32)
    layer(key, memory, coverage)
    scalars = [np.float32(np.log(7.0)), np.float32(np.log(0.05))]
    layer.set_weights(scalars[: 2 if local else 1])
    found = numpy(layer(key, memory, coverage))
    for n in range(2):
        expected = reference(key[0], memory[n], coverage[n, ..., 0], 7.0, 0.05 if local else 0.0)
        assert_close(found[n], expected, 7 * 8 * 4)  # seven times the sums of eight terms in the exponent


def test_an_absent_object_is_like_nothing():
    found = numpy(Matching()(keys(1, 2, 3, 4), keys(1, 2, 3, 4, seed=1), np.zeros((1, 2, 3, 1), np.float32)))
    assert (found[..., :2] <= -1).all()
    assert (found[..., 2:4] > -1).all()
    np.testing.assert_array_equal(found[..., 4], 0)


def test_a_local_match_prefers_the_neighbour():
    """Two cells with the key that is looked for, the near one the object's."""
    memory = np.tile(np.array([0.0, 1.0], np.float32), (1, 1, 12, 1))
    memory[0, 0, [2, 11]] = (1.0, 0.0)
    coverage = np.zeros((1, 1, 12, 1), np.float32)
    coverage[0, 0, 2] = 1
    key = np.tile(np.array([1.0, 0.0], np.float32), (1, 1, 12, 1))
    found = numpy(Matching(local=True)(key, memory, coverage))[0, 0, :, 4]
    everywhere = numpy(Matching()(key, memory, coverage))[0, 0, :, 4]
    np.testing.assert_allclose(everywhere, 0.5, atol=1e-3)
    assert found[3] > 0.99
    assert found[10] < 0.01


def test_the_first_frame_is_kept():
    kept_key, kept_mask = keys(2, 2, 2, 3), np.zeros((2, 2, 2, 1), np.float32)
    kept_mask[1, 0, 1] = 0.3
    key, mask = keys(1, 2, 2, 3, seed=1), np.full((2, 2, 2, 1), 0.5, np.float32)
    new_key, new_mask = (numpy(x) for x in FirstFrameMemory()([kept_key, kept_mask, key, mask]))
    np.testing.assert_array_equal(new_key, np.stack([key[0], kept_key[1]]))
    np.testing.assert_array_equal(new_mask, np.stack([mask[0], kept_mask[1]]))


def test_shapes_files_and_training(tmp_path):
    key, memory = keras.Input((None, None, 4), name="key"), keras.Input((None, None, 4), name="memory")
    coverage = keras.Input((None, None, 1), name="coverage")
    cues = Matching(local=True)(key, memory, coverage)
    assert tuple(cues.shape) == (None, None, None, CUES)
    score = keras.layers.Conv2D(1, 1, kernel_initializer="ones")(cues)
    model = keras.Model([key, memory, coverage], score)
    x = [keys(2, 2, 3, 4), keys(2, 2, 3, 4, seed=1), np.full((2, 2, 3, 1), 0.4, np.float32)]
    x[2][:, 0] = 0
    before = [numpy(weight) for weight in model.trainable_weights]
    model.compile(keras.optimizers.SGD(1.0), "mse")  # no step is lost in a weight's rounding
    model.fit(x, np.ones((2, 2, 3, 1)), verbose=0)
    assert len(before) == 4
    assert all((numpy(weight) != value).any() for weight, value in zip(model.trainable_weights, before))
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(numpy(again(x)), numpy(model(x)))


@pytest.mark.parametrize(("height", "width"), [(22, 38), (4, 3), (3, 9), (2, 3)])
def test_the_largest_are_those_of_a_whole_sort(height, width):
    """Ties too; grids of fewer rows than neighbours are looked through as a whole."""
    rng = np.random.default_rng(height)
    scores = rng.normal(0, 1, (2, height * width, height * width)).astype(np.float32)
    scores[0] = np.round(scores[0])
    scores[1, :, : width + 2] -= 9  # the best are in few rows
    expected = -np.sort(-scores, axis=-1)[..., :4]
    np.testing.assert_array_equal(numpy(_largest(keras.ops.convert_to_tensor(scores), height, width)), expected)

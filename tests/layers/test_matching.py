"""Matching against literal numbers and plain NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from support import assert_close, numpy, record_compared

from osmn_tf.layers.matching import CUES, RECENT_EVERY, FirstFrameMemory, Matching, RecentFrameMemory, _places

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
    found = numpy(Matching()([key, memory, coverage]))
    assert found.shape == (1, 1, 4, CUES)
    # Two cells that are alike are surer than one; the other side's are 2 less.
    twice = np.log(2) / 20
    expected = [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]]
    np.testing.assert_allclose(found[0, 0, :, :2], np.array(expected) + twice, atol=1e-5)
    # The exponentials of 20 times the similarities: nearly all of them lie on one side.
    odds = np.exp(20 * np.array([1.0, -1.0, -0.2, -1.0]))
    np.testing.assert_allclose(found[0, 0, :, 2], odds / (1 + odds), rtol=1e-4, atol=1e-7)


def reference(key, frames, temperature, distance):
    """Cell by cell, for one object: key [h, w, K], pairs of key and coverage [h, w] -> [h, w, 3]."""
    height, width, _ = key.shape
    places = [(y, x) for y in range(height) for x in range(width)]
    result = np.zeros((height, width, 3))
    for y, x in places:
        inside = outside = read = total = 0.0
        for number, (memory, coverage) in enumerate(frames):
            for v, u in places:
                far = distance * ((y - v) ** 2 + (x - u) ** 2)
                similarity = float(key[y, x] @ memory[v, u]) - far - 0.15 * (number > 0)
                share = coverage[v, u]
                inside += np.exp(temperature * (similarity - 2 * (1 - share / max(coverage.max(), 0.05))))
                outside += np.exp(temperature * (similarity - 2 * share))
                read += np.exp(temperature * similarity) * share
                total += np.exp(temperature * similarity)
        result[y, x] = [np.log(inside) / temperature, np.log(outside) / temperature, read / total]
    return result


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("earlier", [1, 2])
def test_equals_numpy(local, earlier):
    """Two objects that share the frame's key; partly covered cells; learned scalars that are not the initial ones."""
    layer, rng = Matching(local=local), np.random.default_rng(2)
    frames = [
        (keys(2, 3, 5, 8, seed=1 + number), rng.uniform(0, 0.7, (2, 3, 5, 1)).astype(np.float32))
        for number in range(earlier)
    ]
    inputs = [keys(1, 3, 5, 8), *(x for frame in frames for x in frame)]
    layer(inputs)
    scalars = [np.float32(np.log(7.0)), np.float32(np.log(0.05))]
    layer.set_weights(scalars[: 2 if local else 1])
    found = numpy(layer(inputs))
    for n in range(2):
        pairs = [(memory[n], coverage[n, ..., 0]) for memory, coverage in frames]
        expected = reference(inputs[0][0], pairs, 7.0, 0.05 if local else 0.0)
        assert_close(found[n], expected, 7 * 8 * 4)  # seven times the sums of eight terms in the exponent


@pytest.mark.parametrize("local", [False, True])
def test_frames_that_objects_share_are_compared_once(local, monkeypatch):
    """Three objects: of the first frame they have all the same key, of the second all but one, of the third each its
    own; an absent object among them.
    """
    rng, frames = np.random.default_rng(3), []
    for own in ([0, 0, 0], [0, 0, 1], [0, 1, 2]):
        coverage = rng.uniform(0, 0.7, (3, 3, 5, 1)).astype(np.float32)
        coverage[1] *= len(frames) != 1
        frames += [keys(3, 3, 5, 8, seed=1 + len(frames))[own], coverage]
    inputs = [keys(1, 3, 5, 8), *frames]
    layer = Matching(local=local)
    expected = numpy(layer(inputs))
    tensors = [keras.ops.convert_to_tensor(x) for x in inputs]
    assert_close(numpy(layer.call_at_once(tensors)), expected, 20 * 8 * 4)
    one = [x[:1] for x in tensors]
    assert_close(numpy(layer.call_at_once(one)), expected[:1], 20 * 8 * 4)
    if keras.backend.backend() != "jax":  # which looks into both cases
        compared = record_compared(monkeypatch)
        layer.call_at_once(tensors)
        assert compared == [1, 3, 3]


def test_an_absent_object_is_like_nothing():
    found = numpy(Matching()([keys(1, 2, 3, 4), keys(1, 2, 3, 4, seed=1), np.zeros((1, 2, 3, 1), np.float32)]))
    assert (found[..., 0] <= -0.5).all()
    assert (found[..., 1] > -1).all()
    np.testing.assert_array_equal(found[..., 2], 0)


def test_what_is_like_nothing_at_all_is_a_number():
    """All similarities so small that their exponentials are 0 in float32."""
    layer = Matching(local=True)
    key = np.zeros((1, 1, 30, 2), np.float32)
    key[..., 0] = 1
    coverage = np.zeros((1, 1, 30, 1), np.float32)
    coverage[0, 0, 0] = 1
    layer([key, key, coverage])
    layer.set_weights([np.float32(np.log(80.0)), np.float32(0.0)])
    found = numpy(layer([key, key, coverage]))
    assert np.isfinite(found).all()
    assert (np.diff(found[0, 0, :, 0]) <= 0).all()
    found = numpy(layer([key, -key, coverage]))
    assert np.isfinite(found).all()


def test_a_local_match_prefers_the_neighbour():
    """Two cells with the key that is looked for, the near one the object's."""
    memory = np.tile(np.array([0.0, 1.0], np.float32), (1, 1, 12, 1))
    memory[0, 0, [2, 11]] = (1.0, 0.0)
    coverage = np.zeros((1, 1, 12, 1), np.float32)
    coverage[0, 0, 2] = 1
    key = np.tile(np.array([1.0, 0.0], np.float32), (1, 1, 12, 1))
    found = numpy(Matching(local=True)([key, memory, coverage]))[0, 0, :, 2]
    everywhere = numpy(Matching()([key, memory, coverage]))[0, 0, :, 2]
    np.testing.assert_allclose(everywhere, 0.5, atol=1e-3)
    assert found[3] > 0.99
    assert found[10] < 0.01


def test_places_multiply_to_distances():
    own, places = (numpy(x) for x in _places(2, 3))  # cells (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)
    expected = [[0, 1, 4, 1, 2, 5], [1, 0, 1, 2, 1, 2], [4, 1, 0, 5, 2, 1]]
    np.testing.assert_array_equal(own[:3] @ places.T, -np.array(expected, np.float32))
    np.testing.assert_array_equal(own @ places.T, places @ own.T)


def test_the_first_frame_is_kept():
    kept_key, kept_mask = keys(2, 2, 2, 3), np.zeros((2, 2, 2, 1), np.float32)
    kept_mask[1, 0, 1] = 0.3
    key, mask = keys(1, 2, 2, 3, seed=1), np.full((2, 2, 2, 1), 0.5, np.float32)
    new_key, new_mask = (numpy(x) for x in FirstFrameMemory()([kept_key, kept_mask, key, mask]))
    np.testing.assert_array_equal(new_key, np.stack([key[0], kept_key[1]]))
    np.testing.assert_array_equal(new_mask, np.stack([mask[0], kept_mask[1]]))


def test_a_recent_frame_is_kept_for_a_while():
    """Two objects; the second is not found in the frame that is due, so it keeps its own until it is."""
    layer, first_key, first_mask = RecentFrameMemory(), keys(2, 2, 2, 3), np.full((2, 2, 2, 1), 0.5, np.float32)
    kept = [np.zeros((2, 2, 2, 3), np.float32), *np.zeros((2, 2, 2, 2, 1), np.float32)]
    previous, ages = np.zeros((2, 2, 2, 3), np.float32), []
    for frame in range(RECENT_EVERY + 3):
        score = np.full((2, 2, 2, 1), -3.0, np.float32)
        score[0, 0, 1] = 2.0
        if frame == RECENT_EVERY + 1:
            score[1, 1, 0] = 0.1
        mask = np.full((2, 2, 2, 1), 0.1 * frame, np.float32)
        kept = [numpy(x) for x in layer([*kept, previous, score, mask, first_key, first_mask])]
        ages.append(kept[2][:, 0, 0, 0].tolist())
        assert (kept[2] == kept[2][:, :1, :1]).all()
        for n, due in ((0, RECENT_EVERY), (1, RECENT_EVERY + 1)):
            expected = first_key[n] if frame < due else keys(2, 2, 2, 3, seed=due - 1)[n]
            np.testing.assert_array_equal(kept[0][n], expected)
            np.testing.assert_allclose(kept[1][n], 0.5 if frame < due else 0.1 * due, rtol=1e-6)
        previous = keys(2, 2, 2, 3, seed=frame)
    assert ages[:RECENT_EVERY] == [[age, age] for age in range(1, RECENT_EVERY + 1)]
    assert ages[RECENT_EVERY:] == [[1, RECENT_EVERY + 1], [2, 1], [3, 2]]


def test_shapes_files_and_training(tmp_path):
    key, memory = keras.Input((None, None, 4), name="key"), keras.Input((None, None, 4), name="memory")
    coverage = keras.Input((None, None, 1), name="coverage")
    cues = Matching(local=True)([key, memory, coverage])
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

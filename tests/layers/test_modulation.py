"""Scales and shifts, channel by channel."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from support import numpy

from osmn_tf.layers.modulation import Modulation, ObjectAxis

pytestmark = pytest.mark.backend


def test_literal_numbers():
    features = np.array([1.0, 2.0], np.float32).reshape(1, 1, 1, 2)
    modulation = np.array([[9.0, 3.0, -1.0, 7.0]], np.float32)
    shift = np.array([0.5, 0.25], np.float32).reshape(1, 1, 1, 2)
    assert numpy(Modulation(1)(features, modulation, shift)).ravel().tolist() == [3.5, -1.75]
    assert numpy(Modulation(2)(features, modulation)).ravel().tolist() == [-1.0, 14.0]
    assert numpy(Modulation()(features, modulation)).ravel().tolist() == [9.0, 6.0]


def test_no_clipping_after_the_sum():
    features = np.ones((1, 1, 1, 1), np.float32)
    assert numpy(Modulation()(features, np.array([[-5.0]], np.float32))).item() == -5.0


def test_one_frame_and_many_objects():
    rng = np.random.default_rng(0)
    features = rng.normal(0, 1, (1, 3, 4, 2)).astype(np.float32)
    modulation = rng.normal(0, 1, (5, 6)).astype(np.float32)
    shift = rng.normal(0, 1, (5, 3, 4, 2)).astype(np.float32)
    found = numpy(Modulation(3)(features, modulation, shift))
    assert found.shape == (5, 3, 4, 2)
    for index in range(5):
        expected = features[0] * modulation[index, 3:5] + shift[index]
        np.testing.assert_allclose(found[index], expected, rtol=1e-6)


@pytest.mark.parametrize("offset", [3, 100])
def test_too_few_scales_are_refused(offset):
    message = f"modulation has 4 scales, expected at least {offset + 2} \\(offset {offset} \\+ 2 channels\\)"
    with pytest.raises(ValueError, match=message):
        Modulation(offset)(keras.Input((3, 3, 2)), keras.Input((4,)))
    with pytest.raises(ValueError, match=message):
        Modulation(offset)(np.ones((1, 3, 3, 2), np.float32), np.ones((1, 4), np.float32))


def test_a_negative_offset_is_refused():
    with pytest.raises(ValueError, match="offset"):
        Modulation(-2)


def test_object_axis():
    features = np.arange(6, dtype=np.float32).reshape(1, 1, 3, 2)
    found = numpy(ObjectAxis()(features, np.zeros((4, 9), np.float32)))
    np.testing.assert_array_equal(found, np.repeat(features, 4, 0))
    own = np.arange(12, dtype=np.float32).reshape(2, 1, 3, 2)
    np.testing.assert_array_equal(numpy(ObjectAxis()(own, np.zeros((2, 9), np.float32))), own)


def test_files_and_symbolic_shapes(tmp_path):
    features, modulation = keras.Input((None, None, 2), 1), keras.Input((7,))
    shift = keras.Input((None, None, 2))
    x = ObjectAxis()(Modulation(4, name="mine")(features, modulation, shift), modulation)
    assert tuple(x.shape) == (None, None, None, 2)
    model = keras.Model([features, modulation, shift], x)
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras")
    assert copy.get_layer("mine").offset == 4
    values = [np.full((1, 2, 3, 2), 2.0), np.arange(21.0).reshape(3, 7), np.ones((3, 2, 3, 2))]
    expected = np.array([[9.0, 11.0], [23.0, 25.0], [37.0, 39.0]]).reshape(3, 1, 1, 2) * np.ones((1, 2, 3, 1))
    np.testing.assert_allclose(numpy(copy([v.astype(np.float32) for v in values])), expected)

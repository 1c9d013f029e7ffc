"""Normalisation inside the graph."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from support import numpy

from osmn_tf.guides import VGG_MEAN_RGB
from osmn_tf.layers.preprocessing import FrameNormalization

pytestmark = pytest.mark.backend


def test_vgg_order_and_means():
    frame = np.array([[[[255, 0, 10]]]], np.uint8)
    layer = FrameNormalization(VGG_MEAN_RGB, to_bgr=True)
    assert numpy(layer(frame)).ravel().tolist() == [10 - 104, 0 - 117, 255 - 123]  # B, G, R
    assert VGG_MEAN_RGB == (123.0, 117.0, 104.0)


def test_scale_follows_the_mean():
    frame = np.array([[[[255, 0, 10]]]], np.uint8)
    scaled = FrameNormalization(VGG_MEAN_RGB, scale=0.00787, to_bgr=True)
    np.testing.assert_allclose(numpy(scaled(frame)).ravel(), np.array([-94, -117, 132]) * 0.00787, rtol=1e-6)
    signed = FrameNormalization((127.5,) * 3, scale=1 / 127.5)
    np.testing.assert_allclose(numpy(signed(frame)).ravel(), [1.0, -1.0, 10 / 127.5 - 1], rtol=1e-6)


def test_known_kinds():
    frame = np.array([[[[255, 0, 10]]]], np.uint8)
    osvos = FrameNormalization.of_kind("osvos", "osvos")
    expected = [10 - 104.00699, 0 - 116.66877, 255 - 122.67892]
    np.testing.assert_allclose(numpy(osvos(frame)).ravel(), expected, rtol=1e-6)
    torch = FrameNormalization.of_kind("torch", "torch")
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (10 / 255 - 0.406) / 0.225]
    np.testing.assert_allclose(numpy(torch(frame)).ravel(), expected, rtol=1e-5)
    copy = FrameNormalization.from_config(torch.get_config())
    np.testing.assert_array_equal(numpy(copy(frame)), numpy(torch(frame)))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
@pytest.mark.parametrize("shape", [(1, 2, 3, 3), (2, 1, 2, 3, 3)])
def test_any_dtype_and_leading_axes(dtype, shape):
    frame = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    found = FrameNormalization((1, 2, 3))(frame)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    np.testing.assert_array_equal(numpy(found), frame - np.array([1, 2, 3], np.float32))


@pytest.mark.parametrize("mixed_precision", ["mixed_bfloat16", "mixed_float16"], indirect=True)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_arithmetic_is_exact_in_mixed_precision(mixed_precision, dtype):
    """bfloat16 rounds 201 to 201 or 202: 201 - 123 must still be 78 and 202 - 123 be 79."""
    layer = FrameNormalization(VGG_MEAN_RGB)
    inputs = keras.Input((None, None, 3), dtype=dtype)
    model = keras.Model(inputs, layer(inputs))
    values = np.arange(256, dtype=dtype)
    frame = np.stack([values] * 3, -1)[None, None]
    found = model(frame)
    assert keras.backend.standardize_dtype(found.dtype) == mixed_precision.removeprefix("mixed_")
    np.testing.assert_array_equal(numpy(found)[0, 0, :, 0].astype(np.float32), np.arange(256) - 123.0)


def test_configuration_round_trip():
    layer = FrameNormalization((1, 2, 3), scale=0.5, to_bgr=True, name="mine")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert copy.get_config() == layer.get_config()
    assert (copy.mean, copy.scale, copy.to_bgr) == ([1.0, 2.0, 3.0], 0.5, True)
    frame = np.full((1, 1, 1, 3), 9, np.uint8)
    assert numpy(copy(frame)).ravel().tolist() == [3.0, 3.5, 4.0]

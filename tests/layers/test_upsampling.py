"""Bilinear upsampling, crops and padding against literal numbers and TensorFlow's own operations."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from support import assert_close, needs_tensorflow, numpy

from osmn_tf.layers.preprocessing import PadToMultiple
from osmn_tf.layers.upsampling import (
    AlignedResizeLike,
    AlignedUpsampling,
    BilinearTransposedConv,
    CentreCropLike,
    CornerUpsampling,
    ResizeLike,
    TopLeftCropLike,
    bilinear_kernel,
)

pytestmark = pytest.mark.backend


# 2 x 2 pixels reach one, with weights and, where the sides are no multiples, positions that are rounded too.
ROUNDINGS = 64


def image(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def like(height, width, batch=1):
    return np.zeros((batch, height, width, 1), np.float32)


# The kernel -------------------------------------------------------------------------------------------------------


def test_bilinear_kernel_literal():
    kernel = bilinear_kernel(4, 2)
    assert kernel.shape == (4, 4, 2, 2)
    assert kernel.dtype == np.float32
    profile = np.array([0.25, 0.75, 0.75, 0.25])
    np.testing.assert_allclose(kernel[:, :, 0, 0], np.outer(profile, profile), rtol=1e-7)
    np.testing.assert_array_equal(kernel[:, :, 1, 1], kernel[:, :, 0, 0])
    assert not kernel[:, :, 0, 1].any()
    assert not kernel[:, :, 1, 0].any()
    np.testing.assert_allclose(bilinear_kernel(3, 1)[1, :, 0, 0], [0.5, 1.0, 0.5])


@pytest.mark.parametrize("size", [2, 3, 4, 8, 16, 32])
def test_bilinear_kernel_is_the_formula(size):
    f = (size + 1) // 2
    centre = f - 0.5 if size % 2 == 0 else f - 1
    kernel = bilinear_kernel(size, 1)
    for r in range(size):
        for q in range(size):
            expected = (1 - abs(r - centre) / f) * (1 - abs(q - centre) / f)
            assert kernel[r, q, 0, 0] == pytest.approx(expected, abs=1e-7)


def test_transposed_conv_literal():
    layer = BilinearTransposedConv(2)
    x = np.array([1.0, 2.0], np.float32).reshape(1, 1, 2, 1)
    found = numpy(layer(x))
    assert found.shape == (1, 4, 6, 1)
    row = np.array([0.25, 0.75, 0.75 + 0.5, 0.25 + 1.5, 1.5, 0.5])
    np.testing.assert_allclose(found[0, :, :, 0], np.outer([0.25, 0.75, 0.75, 0.25], row), rtol=1e-6)


def test_transposed_conv_has_a_fixed_kernel():
    layer = BilinearTransposedConv(4)
    layer(image(1, 3, 3, 16))
    assert [tuple(weight.shape) for weight in layer.weights] == [(8, 8, 16, 16)]
    assert layer.trainable_weights == []
    np.testing.assert_array_equal(numpy(layer.weights[0]), bilinear_kernel(8, 16))
    copy = BilinearTransposedConv.from_config(layer.get_config())
    assert (copy.stride, copy.trainable) == (4, False)


def test_transposed_conv_of_fewer_channels_than_are_stored():
    x = image(1, 3, 4, 1)
    layer = BilinearTransposedConv(4, channels=16)
    found = numpy(layer(x))
    assert tuple(layer.kernel.shape) == (8, 8, 16, 16)
    np.testing.assert_array_equal(found, numpy(BilinearTransposedConv(4)(x)))
    assert BilinearTransposedConv.from_config(layer.get_config()).channels == 16
    with pytest.raises(ValueError, match="expected at most 2 channels, received 3"):
        BilinearTransposedConv(4, channels=2)(image(1, 3, 4, 3))


@needs_tensorflow
@pytest.mark.parametrize("stride", [2, 4, 8, 16])
def test_transposed_conv_equals_tensorflow(stride):
    import tensorflow as tf

    x = image(2, 4, 7, 3)
    layer = BilinearTransposedConv(stride)
    shape = (2, 5 * stride, 8 * stride, 3)
    expected = tf.nn.conv2d_transpose(x, bilinear_kernel(2 * stride, 3), shape, stride, "VALID")
    assert_close(layer(x), expected, ROUNDINGS)


# The crops --------------------------------------------------------------------------------------------------------


@needs_tensorflow
@pytest.mark.parametrize("stride", [2, 4, 8, 16])
@pytest.mark.parametrize("size", [(48, 854), (29, 427), (33, 64), (31, 17)])
def test_valid_and_same_give_identical_values_after_the_floor_crop(stride, size):
    """The statement of the reference: the SAME transposed convolution with the same centre crop is the same."""
    import tensorflow as tf

    height, width = size
    rows, columns = -(-height // stride), -(-width // stride)
    x = image(1, rows, columns, 2)
    found = numpy(CentreCropLike()(BilinearTransposedConv(stride)(x), like(height, width)))
    same = tf.nn.conv2d_transpose(
        x, bilinear_kernel(2 * stride, 2), (1, rows * stride, columns * stride, 2), stride, "SAME"
    ).numpy()
    top, left = (rows * stride - height) // 2, (columns * stride - width) // 2
    assert_close(found, same[:, top : top + height, left : left + width], ROUNDINGS)
    if (stride, width) == (16, 854):
        assert left == 5


@pytest.mark.parametrize(
    ("output", "size", "start"),
    [((880, 864), (854, 854), (13, 5)), ((7, 8), (4, 4), (1, 2)), ((9, 6), (9, 5), (0, 0))],
)
def test_centre_crop_starts_at_the_floor(output, size, start):
    rows, columns = np.meshgrid(np.arange(output[0]), np.arange(output[1]), indexing="ij")
    x = np.stack([rows, columns], -1)[None].astype(np.float32)
    found = numpy(CentreCropLike()(x, like(*size)))
    assert found.shape == (1, *size, 2)
    assert found[0, 0, 0].tolist() == list(start)
    assert found[0, -1, -1].tolist() == [start[0] + size[0] - 1, start[1] + size[1] - 1]


def test_stride_16_at_width_854_shifts_by_five_pixels():
    # 854 needs 54 columns at stride 16: 864 wide, 10 too many, 5 of them on the left (behind the 8 of the kernel).
    x = np.zeros((1, 2, 54, 1), np.float32)
    x[0, :, 20] = 1.0
    found = numpy(CentreCropLike()(BilinearTransposedConv(16)(x), like(32, 854)))[0, 16, :, 0]
    mass_centre = (found * np.arange(854)).sum() / found.sum()
    assert mass_centre == pytest.approx(20 * 16 + 7.5 - 5, abs=1e-3)


def test_top_left_crop():
    x = image(2, 9, 8, 3)
    np.testing.assert_array_equal(numpy(TopLeftCropLike()(x, like(5, 8))), x[:, :5])


# TensorFlow 1's corners -------------------------------------------------------------------------------------------


def test_corner_upsampling_literal():
    x = np.array([0.0, 4.0, 2.0], np.float32).reshape(1, 1, 3, 1)
    found = numpy(CornerUpsampling(4)(x))
    assert found.shape == (1, 4, 12, 1)
    for row in found[0, :, :, 0]:
        assert_close(row, np.array([0, 1, 2, 3, 4, 3.5, 3, 2.5, 2, 2, 2, 2]), ROUNDINGS)


@needs_tensorflow
@pytest.mark.parametrize("factor", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("size", [(5, 7), (1, 3), (8, 8)])
def test_corner_upsampling_equals_tensorflow_1(factor, size):
    import tensorflow as tf

    x = image(2, *size, 3)
    expected = tf.compat.v1.image.resize_bilinear(
        x, [size[0] * factor, size[1] * factor], align_corners=False, half_pixel_centers=False
    )
    assert_close(CornerUpsampling(factor)(x), expected, ROUNDINGS)


# Aligned corners --------------------------------------------------------------------------------------------------


def test_aligned_upsampling_literal():
    x = np.array([0.0, 3.0, 6.0, 0.0], np.float32).reshape(1, 2, 2, 1)
    found = numpy(AlignedUpsampling(2)(x))[0, :, :, 0]
    assert_close(found, np.array([[0, 1, 2, 3], [2, 2, 2, 2], [4, 3, 2, 1], [6, 4, 2, 0]]), ROUNDINGS)
    row = np.array([0.0, 4.0, 2.0], np.float32).reshape(1, 1, 3, 1)
    assert_close(numpy(AlignedResizeLike()(row, like(1, 5)))[0, 0, :, 0], np.array([0, 2, 4, 3, 2]), ROUNDINGS)
    np.testing.assert_allclose(numpy(AlignedResizeLike()(row, like(2, 1)))[0, :, 0, 0], [0, 0], atol=1e-6)


@needs_tensorflow
@pytest.mark.parametrize("size", [(10, 14), (15, 9), (5, 7), (3, 4), (1, 13)])
def test_aligned_resize_equals_tensorflow_1(size):
    import tensorflow as tf

    x = image(2, 5, 7, 3)
    expected = tf.compat.v1.image.resize_bilinear(x, size, align_corners=True).numpy()
    assert_close(AlignedResizeLike()(x, like(*size)), expected, ROUNDINGS)
    if size == (10, 14):
        assert_close(AlignedUpsampling(2)(x), expected, ROUNDINGS)


# Half-pixel centres -----------------------------------------------------------------------------------------------


def test_resize_literal():
    x = np.array([0.0, 4.0], np.float32).reshape(1, 1, 2, 1)
    assert_close(ResizeLike()(x, like(1, 4))[0, 0, :, 0], np.array([0, 1, 3, 4]), ROUNDINGS)
    assert_close(ResizeLike()(x, like(2, 2))[0, :, :, 0], np.array([[0, 4], [0, 4]]), ROUNDINGS)


@needs_tensorflow
@pytest.mark.parametrize("size", [(10, 14), (15, 9), (5, 7), (3, 4)])
def test_resize_equals_tensorflow(size):
    import tensorflow as tf

    x = image(2, 5, 7, 3)
    expected = tf.image.resize(x, size, method="bilinear", antialias=False)
    assert_close(ResizeLike()(x, like(*size)), expected, ROUNDINGS)


# Padding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected"), [((32, 64), (32, 64)), ((33, 64), (64, 64)), ((31, 1), (32, 32)), ((480, 854), (480, 864))]
)
def test_pad_to_multiple(size, expected):
    x = image(1, *size, 2) + 5.0
    found = numpy(PadToMultiple(32)(x))
    assert found.shape == (1, *expected, 2)
    np.testing.assert_array_equal(found[:, : size[0], : size[1]], x)
    assert not found[:, size[0] :].any()
    assert not found[:, :, size[1] :].any()


# What holds for all -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "references"),
    [
        (BilinearTransposedConv(4), 0),
        (CornerUpsampling(4), 0),
        (AlignedUpsampling(4), 0),
        (PadToMultiple(8), 0),
        (CentreCropLike(), 1),
        (TopLeftCropLike(), 1),
        (ResizeLike(), 1),
        (AlignedResizeLike(), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, keras.layers.Layer) else None,
)
def test_functional_models_of_any_size_and_files(layer, references, tmp_path):
    """One graph for several sizes, in `predict` too, where sides are unknown; the static shapes are the real ones."""
    inputs = [keras.Input((None, None, 3)), *(keras.Input((None, None, 1)) for _ in range(references))]
    model = keras.Model(inputs, layer(*inputs))
    assert model.output_shape == (None, None, None, 3)
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras")
    for height, width in ((16, 24), (13, 9)):
        values = [image(2, height, width, 3), *(like(height - 3, width - 2, 2) for _ in range(references))]
        expected = numpy(layer(*values))
        np.testing.assert_array_equal(numpy(model(values)), expected)
        np.testing.assert_array_equal(numpy(copy(values)), expected)
        assert_close(model.predict(values, verbose=0), expected, ROUNDINGS)
        static = layer(*(keras.Input(value.shape[1:], 2) for value in values)).shape
        assert tuple(static) == expected.shape


@pytest.mark.parametrize("mixed_precision", ["mixed_bfloat16"], indirect=True)
def test_mixed_precision(mixed_precision):
    x = image(1, 4, 5, 2)
    for layer in (BilinearTransposedConv(2), CornerUpsampling(2), AlignedUpsampling(2)):
        found = layer(x)
        assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"
        exact = numpy(type(layer).from_config({**layer.get_config(), "dtype": "float32"})(x))
        assert np.abs(numpy(found) - exact).max() < 4 * 2**-8 * np.abs(exact).max()  # bfloat16 has eight bits
    assert keras.backend.standardize_dtype(ResizeLike()(x, like(8, 9)).dtype) == "bfloat16"

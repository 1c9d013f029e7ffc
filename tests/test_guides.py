"""The guides against golden values and against slow, literal NumPy and OpenCV."""

from __future__ import annotations

import math

import cv2
import keras
import numpy as np
import pytest
from support import as_one, assert_close, box_mask, call, numpy, random_frames

from osmn_tf import guides
from osmn_tf.guides import VGG_MEAN_RGB, SpatialGuide

pytestmark = pytest.mark.backend

mask_statistics = as_one(guides.mask_statistics)
spatial_guide = as_one(guides.spatial_guide)
search_near = as_one(guides.search_near)
search_window = as_one(guides.search_window)
visual_guide = as_one(guides.visual_guide, "size", "background")


# Literal versions -------------------------------------------------------------------------------------------------


def literal_statistics(mask):
    """Centre and sigma (y, x) of one mask by numpy.median."""
    coordinates = np.argwhere(mask)
    centre = np.median(coordinates, axis=0)
    mad = np.median(np.abs(coordinates - centre), axis=0)
    return centre, np.maximum(1.4826 * mad, 5.0)


def literal_spatial_guide(mask, shift=(0.0, 0.0), scale=(1.0, 1.0)):
    if not mask.any():
        return np.zeros(mask.shape)
    centre, sigma = literal_statistics(mask)
    centre, sigma = centre + np.array(shift) * sigma, sigma * np.array(scale)
    y, x = np.meshgrid(np.arange(mask.shape[0]), np.arange(mask.shape[1]), indexing="ij")
    return np.exp(-((y - centre[0]) ** 2 / (2 * sigma[0] ** 2) + (x - centre[1]) ** 2 / (2 * sigma[1] ** 2)))


def literal_visual_guide(frame, mask, size, margins=(0.03, 0.03, 0.03, 0.03), background=VGG_MEAN_RGB):
    """Crop by slices, pad with black, cv2.resize, background outside the resized mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = rows[0], columns[0]
    height, width = max(rows[-1] - top, 1), max(columns[-1] - left, 1)
    before_y, after_y = int(margins[0] * height), int(margins[1] * height)
    before_x, after_x = int(margins[2] * width), int(margins[3] * width)
    # A canvas that is large enough for any crop: black, where the frame has nothing.
    far = 2 * max(mask.shape) + 5
    canvas = np.pad(frame.astype(np.float32), ((far, far), (far, far), (0, 0)))
    labels = np.pad((mask > 0).astype(np.uint8), far)
    y, x = far + top - before_y, far + left - before_x
    side_y, side_x = max(height + before_y + after_y, 1), max(width + before_x + after_x, 1)
    crop, label = canvas[y : y + side_y, x : x + side_x], labels[y : y + side_y, x : x + side_x]
    image = cv2.resize(np.ascontiguousarray(crop), (size, size), interpolation=cv2.INTER_LINEAR)
    label = cv2.resize(np.ascontiguousarray(label), (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
    return np.where(label[..., None] > 0, image, np.array(background, np.float32))


def random_mask(rng, height, width):
    """A few pixels, many pixels, blobs, bands along a border or nothing at all."""
    kind = rng.integers(6)
    mask = np.zeros((height, width), np.uint8)
    if kind == 0:
        mask.flat[rng.choice(mask.size, rng.integers(1, 6), replace=False)] = 1
    elif kind == 1:
        mask[rng.random((height, width)) < rng.random()] = 1
    elif kind == 2:
        top, left = rng.integers(height), rng.integers(width)
        mask[top : top + rng.integers(1, height + 1), left : left + rng.integers(1, width + 1)] = 1
    elif kind == 3:
        mask[: rng.integers(1, 4)] = 1
        mask[:, -rng.integers(1, 4) :] = 1
    elif kind == 4:
        mask[-1, -1] = 1
    return mask


# The spatial guide ------------------------------------------------------------------------------------------------


def test_golden_values():
    masks = box_mask(60, 100, (10, 40, 20, 80))[None]
    centre, sigma, present = mask_statistics(masks)
    np.testing.assert_allclose(numpy(centre), [[24.5, 49.5]], rtol=0, atol=1e-6)
    np.testing.assert_allclose(numpy(sigma), [[11.1195, 22.239]], rtol=0, atol=2e-6)
    assert numpy(present).tolist() == [True]
    guide = numpy(spatial_guide(masks))
    assert guide.shape == (1, 60, 100, 1)
    assert guide.dtype == np.float32
    assert guide[0, 25, 50, 0] == pytest.approx(0.99873708, abs=1e-6)
    assert guide[0, 10, 20, 0] == pytest.approx(0.17727958, abs=1e-6)
    assert guide.sum(dtype=np.float64) == pytest.approx(1495.795205, rel=1e-6)


@pytest.mark.parametrize(
    ("pixels", "centre", "sigma"),
    [
        ([(3, 7)], (3.0, 7.0), (5.0, 5.0)),  # one pixel: no deviation
        ([(0, 0), (39, 59)], (19.5, 29.5), (1.4826 * 19.5, 1.4826 * 29.5)),  # even count: between the two
        ([(0, 0), (10, 0), (39, 59)], (10.0, 0.0), (1.4826 * 10, 5.0)),  # odd count; left column
        ([(0, 5), (0, 6), (0, 7), (39, 8)], (0.0, 6.5), (5.0, 5.0)),  # an outlier does not move the median
    ],
)
def test_statistics_of_a_few_pixels(pixels, centre, sigma):
    mask = np.zeros((1, 40, 60), np.uint8)
    for y, x in pixels:
        mask[0, y, x] = 9
    found = mask_statistics(mask)
    np.testing.assert_allclose(numpy(found[0])[0], centre, atol=1e-6)
    np.testing.assert_allclose(numpy(found[1])[0], sigma, rtol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(17, 31), (40, 40), (64, 9)])
def test_random_masks_equal_numpy(height, width):
    rng = np.random.default_rng(height)
    masks = np.stack([random_mask(rng, height, width) for _ in range(80)])
    centre, sigma, present = (numpy(x) for x in mask_statistics(masks))
    assert 0 < present.sum() < len(masks)
    np.testing.assert_array_equal(present, masks.any((1, 2)))
    for index in np.flatnonzero(present):
        expected = literal_statistics(masks[index])
        np.testing.assert_allclose(centre[index], expected[0], atol=1e-6, err_msg=str(index))
        np.testing.assert_allclose(sigma[index], expected[1], rtol=1e-6, err_msg=str(index))
    expected = np.stack([literal_spatial_guide(mask) for mask in masks])
    np.testing.assert_allclose(numpy(spatial_guide(masks))[..., 0], expected, atol=2e-6)


def test_one_call_for_many_objects_equals_many_calls():
    rng = np.random.default_rng(5)
    masks = np.stack([random_mask(rng, 33, 47) for _ in range(5)])
    together = numpy(spatial_guide(masks))
    for index in range(5):
        alone = numpy(spatial_guide(masks[index : index + 1]))[0]
        assert_close(together[index], alone, 16)


def test_empty_mask_gives_zeros_beside_others():
    masks = np.stack([np.zeros((20, 30), np.uint8), box_mask(20, 30, (5, 9, 3, 8))])
    guide = numpy(spatial_guide(masks))
    assert guide[0].max() == 0.0
    assert guide[1].max() > 0.98  # the centre lies between pixels


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "float32"])
def test_masks_of_any_dtype(dtype):
    mask = box_mask(20, 30, (5, 9, 3, 8))[None]
    expected = numpy(spatial_guide(mask))
    value = mask.astype(dtype) * (True if dtype == "bool" else 200) if dtype != "uint8" else mask * 254
    np.testing.assert_array_equal(numpy(spatial_guide(value)), expected)


def test_an_object_is_looked_for_near_its_box():
    masks = np.zeros((2, 20, 50), np.uint8)
    masks[0, 8:12, 20:26] = 1  # 4 x 6: half of it and 4 pixels more on each side
    window = np.zeros((2, 20, 50), bool)
    window[0, 2:18, 13:33] = True
    np.testing.assert_array_equal(numpy(search_window(masks)), window)
    logits = np.full((2, 20, 50), -9, np.float32)
    logits[:, 2, 2] = 3
    far = logits.copy()
    np.testing.assert_array_equal(numpy(search_near(logits, masks)), far)  # nothing is near
    logits[0, 17, 32], far[0, 17, 32], far[0, 2, 2] = 0.5, 0.5, -8
    np.testing.assert_array_equal(numpy(search_near(logits, masks)), far)


def test_jitter_moves_and_scales():
    mask = np.stack([box_mask(60, 100, (10, 40, 20, 80)), box_mask(60, 100, (1, 8, 50, 99))])
    shift = np.array([[0.2, -0.1], [-0.2, 0.15]], np.float32)
    scale = np.array([[1.4, 0.8], [0.75, 1.1]], np.float32)
    expected = [literal_spatial_guide(m, s, k) for m, s, k in zip(mask, shift, scale)]
    np.testing.assert_allclose(numpy(spatial_guide(mask, shift, scale))[..., 0], expected, atol=1e-5)
    only_shift = [literal_spatial_guide(m, s) for m, s in zip(mask, shift)]
    np.testing.assert_allclose(numpy(spatial_guide(mask, centre_shift=shift))[..., 0], only_shift, atol=1e-5)
    only_scale = [literal_spatial_guide(m, scale=k) for m, k in zip(mask, scale)]
    np.testing.assert_allclose(numpy(spatial_guide(mask, sigma_scale=scale))[..., 0], only_scale, atol=1e-5)


def test_layer_equals_function_for_any_size():
    inputs = keras.Input((None, None))
    model = keras.Model(inputs, SpatialGuide()(inputs))
    assert model.output_shape == (None, None, None, 1)
    for height, width in ((24, 36), (31, 17)):
        mask = box_mask(height, width, (3, 12, 4, 9))[None].astype(np.float32)
        np.testing.assert_array_equal(numpy(call(model, mask)), numpy(spatial_guide(mask)))


# The visual guide -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "box",
    [
        (10, 50, 20, 81),  # upsampled in y, downsampled in x
        (0, 60, 0, 100),  # the whole frame: the padding reaches beyond it
        (0, 5, 0, 40),  # touches the corner
        (55, 60, 93, 100),  # touches the other corner
        (30, 31, 50, 51),  # one pixel
        (30, 31, 10, 60),  # one row
        (12, 50, 99, 100),  # one column at the border
    ],
)
@pytest.mark.parametrize("size", [32, 45])
def test_visual_guide_equals_opencv(box, size):
    frame, mask = random_frames(60, 100), box_mask(60, 100, box)
    found = numpy(visual_guide(frame[None], mask[None], size))
    assert found.shape == (1, size, size, 3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], literal_visual_guide(frame, mask, size), atol=0.01)


@pytest.mark.parametrize("margin", [-0.1, -0.04, 0.0, 0.1, 0.5])
def test_margins_equal_opencv(margin):
    frame = random_frames(60, 100)
    mask = box_mask(60, 100, (10, 51, 20, 83))
    margins = (margin, 0.07, -0.05, margin)
    found = numpy(visual_guide(frame[None], mask[None], 40, margins=np.array([margins], np.float32)))
    np.testing.assert_allclose(found[0], literal_visual_guide(frame, mask, 40, margins), atol=0.01)


def test_random_objects_share_a_frame():
    rng = np.random.default_rng(3)
    frame = random_frames(50, 70)
    masks = np.stack([mask for mask in (random_mask(rng, 50, 70) for _ in range(30)) if mask.any()])
    margins = rng.uniform(-0.1, 0.1, (len(masks), 4)).astype(np.float32)
    found = numpy(visual_guide(frame[None], masks, 24, margins=margins))
    repeated = numpy(visual_guide(np.repeat(frame[None], len(masks), 0), masks, 24, margins=margins))
    np.testing.assert_allclose(found, repeated, atol=1e-4)
    for index, mask in enumerate(masks):
        expected = literal_visual_guide(frame, mask, 24, margins[index])
        np.testing.assert_allclose(found[index], expected, atol=0.01, err_msg=str(index))


def test_different_frames_stay_with_their_masks():
    frames = random_frames(3, 30, 40)
    masks = np.stack([box_mask(30, 40, (i, 20 + i, 2 * i, 30)) for i in range(3)])
    found = numpy(visual_guide(frames, masks, 24))
    for index in range(3):
        expected = literal_visual_guide(frames[index], masks[index], 24)
        np.testing.assert_allclose(found[index], expected, atol=0.01)


def test_background_is_the_mean_and_an_empty_mask_is_all_background():
    frame = random_frames(30, 40)
    masks = np.stack([np.zeros((30, 40), np.uint8), np.eye(30, 40, dtype=np.uint8)])
    found = numpy(visual_guide(frame[None], masks, 32))
    assert np.all(found[0] == np.array([123.0, 117.0, 104.0], np.float32))
    assert np.all(found[1, 3, 28] == np.array([123.0, 117.0, 104.0], np.float32))
    assert not np.all(found[1, 16, 16] == np.array([123.0, 117.0, 104.0], np.float32))
    other = numpy(visual_guide(frame[None], masks, 32, background=(1.0, 2.0, 3.0)))
    assert np.all(other[0] == np.array([1.0, 2.0, 3.0], np.float32))


def test_the_last_row_and_column_of_the_box_are_lost():
    frame = np.zeros((40, 40, 3), np.uint8)
    frame[10:30, 10:30] = 50
    frame[29], frame[:, 29] = 250, 250  # the last row and column of the object
    mask = box_mask(40, 40, (10, 30, 10, 30))
    found = numpy(visual_guide(frame[None], mask[None], 19, margins=np.zeros((1, 4), np.float32)))
    np.testing.assert_allclose(found, np.full((1, 19, 19, 3), 50.0), atol=1e-4)


def test_the_margin_truncates_like_int_for_every_side():
    # int(0.03 * side) in float64 at the sides where float32 rounding could differ.
    sides = [side for side in range(1, 4001) if abs(0.03 * side - round(0.03 * side)) < 1e-3]
    product = np.float32(0.03) * np.array(sides, np.float32)
    assert np.floor(product).astype(int).tolist() == [int(0.03 * side) for side in sides]
    # ... and through the guide itself: 100 pixels get 3 on each side, 99 get 2.
    for side, margin in ((100, 3), (99, 2)):
        frame = random_frames(120, 140)
        mask = box_mask(120, 140, (10, 10 + side + 1, 20, 20 + side + 1))
        found = numpy(visual_guide(frame[None], mask[None], side + 2 * margin))[0]
        assert math.isclose(found[margin, margin, 0], frame[10, 20, 0], abs_tol=0.01)
        assert np.all(found[margin - 1] == np.array(VGG_MEAN_RGB, np.float32))
        assert np.all(found[:, margin - 1] == np.array(VGG_MEAN_RGB, np.float32))

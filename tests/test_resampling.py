"""Frames and masks at network size: literal numbers, and no displacement."""

from __future__ import annotations

import numpy as np
import pytest
from support import random_frames

from osmn_tf.resampling import (
    coverage,
    fitted_size,
    resize_frame,
    resize_labels,
    resize_mask,
    scaled_size,
    square_size,
)


def test_frames_become_smaller_by_averaging():
    frame = np.zeros((2, 4, 3), np.uint8)
    frame[0, 0], frame[1, 3] = 100, (40, 80, 120)
    np.testing.assert_array_equal(resize_frame(frame, (1, 2)), [[[25] * 3, [10, 20, 30]]])
    assert resize_frame(frame, (2, 4)) is frame


def test_frames_become_larger_bilinearly():
    frame = np.array([[[0] * 3, [100] * 3]], np.uint8)
    np.testing.assert_array_equal(resize_frame(frame, (1, 4))[0, :, 0], [0, 25, 75, 100])


def test_network_sizes_are_whole_cells():
    assert scaled_size((352, 608), 1.5) == (528, 912)
    assert scaled_size((64, 96), 0.1) == (32, 32)
    assert square_size((352, 608)) == (464, 464)
    assert square_size((64, 96)) == (80, 80)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ((480, 854), (352, 608)),  # DAVIS
        ((1080, 2560), (352, 608)),  # wider still
        ((1000, 1500), (352, 608)),  # 3:2
        ((480, 640), (464, 464)),
        ((500, 500), (464, 464)),
        ((1920, 1080), (464, 464)),
    ],
)
def test_videos_that_are_not_wide_are_seen_as_squares(frame, expected):
    assert fitted_size((352, 608), frame) == expected
    assert fitted_size(expected, expected) == expected  # as a network size tells which one was chosen


def test_a_network_that_is_not_wide_has_one_size():
    assert fitted_size((320, 320), (480, 854)) == (320, 320)
    assert fitted_size((320, 320), (1920, 1080)) == (320, 320)
    assert fitted_size((608, 352), (1920, 1080)) == (608, 352)


def test_masks_literal():
    mask = np.array([[1, 1, 0, 0, 7, 0], [1, 0, 0, 0, 7, 0]], np.uint8)
    np.testing.assert_array_equal(coverage(mask, (1, 3)), [[0.75, 0.0, 0.5]])
    np.testing.assert_array_equal(resize_mask(mask, (1, 3)), [[1, 0, 1]])
    np.testing.assert_array_equal(resize_labels(mask, (1, 3)), [[1, 0, 7]])


def test_what_covers_no_pixel_by_half_is_not_lost():
    mask = np.zeros((100, 100), np.uint8)
    mask[1, 1] = 1
    small = resize_mask(mask, (10, 10))
    assert small[0, 0] == 1
    assert small.sum() == 1
    assert not resize_mask(np.zeros((100, 100), np.uint8), (10, 10)).any()


@pytest.mark.parametrize(("size", "target"), [((480, 854), (256, 448)), ((60, 80), (33, 61)), ((60, 80), (90, 130))])
def test_nothing_moves(size, target):
    """The centre of gravity of a box stays where it was, to a tenth of a pixel."""
    height, width = size
    mask = np.zeros(size, np.uint8)
    mask[height // 5 : height // 2, width // 3 : width * 3 // 4] = 1

    def centre(m):
        return (np.argwhere(m).mean(0) + 0.5) / m.shape

    for small in (resize_mask(mask, target), resize_labels(mask, target)):
        assert small.shape == target
        np.testing.assert_allclose(centre(small) * target, centre(mask) * target, atol=0.51)
        # A box's border is rounded to a pixel, so its centre to half of one: on average over many it is nothing.
    offsets = []
    for shift in range(12):
        moved = np.roll(mask, (shift, shift), (0, 1))
        offsets.append((centre(resize_mask(moved, target)) - centre(moved)) * target)
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.15


def test_labels_keep_their_size_and_values():
    labels = random_frames(30, 40)[..., 0] // 100
    assert resize_labels(labels, (30, 40)) is labels
    assert set(np.unique(resize_labels(labels, (15, 20)))) <= {0, 1, 2}

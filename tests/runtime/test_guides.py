"""The guides in NumPy are those of `osmn_tf.guides`."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops
from support import numpy, random_frames

from osmn_tf import guides as reference
from osmn_tf.runtime import guides
from osmn_tf.runtime.frames import resize_planes

SIZES = ((37, 53), (64, 96), (90, 41))


def random_masks(height: int, width: int, seed: int) -> list[np.ndarray]:
    """Boxes, scattered pixels, ellipses, single pixels, all of the frame: odd and even numbers of pixels."""
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[:height, :width]
    masks = [np.zeros((height, width), np.uint8) for _ in range(7)]
    for mask in masks[:3]:
        top, left = rng.integers(0, height - 4), rng.integers(0, width - 4)
        mask[top : top + rng.integers(1, height), left : left + rng.integers(1, width)] = 1
    masks[3][rng.random((height, width)) < 0.02] = 1
    masks[4][((ys - 0.4 * height) / 9) ** 2 + ((xs - 0.8 * width) / 14) ** 2 < 1] = 1
    masks[5][rng.integers(0, height), rng.integers(0, width)] = 1
    masks[6][:] = 1
    return masks


def test_spatial_guide_of_a_mask_by_hand() -> None:
    mask = np.zeros((4, 5), np.uint8)
    mask[1, 2] = mask[2, 2] = 1  # centre (1.5, 2), deviations too small: sigma 5
    guide = guides.spatial_guide(mask)
    assert guide.dtype == np.float32
    np.testing.assert_allclose(guide[1, 2], np.exp(-(0.5**2) / 50), rtol=1e-6)
    np.testing.assert_allclose(guide[3, 0], np.exp(-(1.5**2 + 2**2) / 50), rtol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_spatial_guide(size: tuple[int, int]) -> None:
    masks = [*random_masks(*size, seed=0), *random_masks(*size, seed=1)]
    expected = numpy(reference.spatial_guide(np.stack(masks)))[..., 0]
    np.testing.assert_allclose(np.stack([guides.spatial_guide(mask) for mask in masks]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_search_window(size: tuple[int, int]) -> None:
    masks = [*random_masks(*size, seed=4), *random_masks(*size, seed=5), np.zeros(size, np.uint8)]
    received = np.zeros((len(masks), *size), bool)
    for window, mask in zip(received, masks):
        window[guides.search_window(mask)] = True
    np.testing.assert_array_equal(received, numpy(reference.search_window(np.stack(masks))))

    logits = np.random.default_rng(0).normal(-2, 1.5, received.shape).astype(np.float32)
    logits[:3][received[:3]] -= 9  # nothing near
    expected = numpy(reference.search_near(logits, np.stack(masks)))
    np.testing.assert_array_equal(expected[[0, 1, 2, -1]], logits[[0, 1, 2, -1]])
    assert (expected != logits).any()
    for plane, mask in zip(logits, masks):
        guides.search_near(plane, mask)
    np.testing.assert_array_equal(logits, expected)


def test_an_empty_mask_has_an_empty_guide() -> None:
    assert not guides.spatial_guide(np.zeros((8, 9), np.uint8)).any()


@pytest.mark.parametrize("size", SIZES)
def test_visual_guide(size: tuple[int, int]) -> None:
    frame, background = random_frames(*size, seed=2), (123.0, 117.0, 104.0)
    masks = [*random_masks(*size, seed=2), *random_masks(*size, seed=3)]
    expected = numpy(reference.visual_guide(frame[None], np.stack(masks), 32, background))
    received = np.stack([guides.visual_guide(frame, mask, 32, background) for mask in masks])
    assert received.dtype == np.float32
    # Both are in 0..255.
    np.testing.assert_allclose(received / 255, expected / 255, rtol=0, atol=1e-5)
    assert (received != background).any(axis=(1, 2, 3)).sum() >= len(masks) - 1


def test_full_guide() -> None:
    mask = np.zeros((40, 50), np.uint8)
    mask[5:20, 10:30] = 1
    for channels, kind in ((1, "gaussian"), (2, "gaussian+mask")):
        received = np.full((*mask.shape, channels), np.nan, np.float32)
        for one, value in ((mask, 1), (mask, 7), (np.zeros_like(mask), 1)):
            guides.write_full_guide(one * np.uint8(value), received)
            expected = numpy(reference.full_guide(one[None], kind))[0]
            np.testing.assert_allclose(received, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_logits_are_resized_as_the_keras_segmenter_does(size: tuple[int, int]) -> None:
    frame = random_frames(*size, seed=6)
    for target in ((32, 40), (61, 97)):
        exact = numpy(ops.image.resize(ops.cast(frame, "float32")[None], target, data_format="channels_last"))[0]
        planes = np.moveaxis(frame, -1, 0).astype(np.float32)
        np.testing.assert_allclose(np.moveaxis(resize_planes(planes, target), 0, -1), exact, rtol=0, atol=3e-3)

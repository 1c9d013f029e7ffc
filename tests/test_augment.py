from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from dataclasses import replace

import cv2
import keras
import numpy as np
import pytest
from keras import ops

from osmn_tf import augment
from osmn_tf.augment import NO_AUGMENTATION, AugmentOptions
from osmn_tf.errors import InputError
from osmn_tf.guides import visual_guide


def some_seeds(count: int) -> np.ndarray:
    return np.stack([np.arange(count), 7 * np.arange(count) + 3], axis=1).astype(np.int32)


def some_pictures(count: int = 2, height: int = 24, width: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Smooth pictures; the mask is where the red channel is above 128."""
    noise = np.random.default_rng(0).uniform(0, 255, (count, height, width, 3)).astype(np.float32)
    images = np.stack([cv2.GaussianBlur(image, (0, 0), 3) for image in noise])
    images = (images - images.min()) / np.ptp(images) * 255
    return images.astype(np.uint8), (images[..., 0] > 128).astype(np.uint8)


def reference_uniform(seed: tuple[int, int], counter: int, stream: int) -> float:
    """The hash in Python's integers."""

    def scramble(x: int) -> int:
        x &= 0xFFFFFFFF
        x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
        x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
        return x ^ (x >> 16)

    state = scramble(seed[0] + 0x9E3779B9)
    state = scramble((state ^ (seed[1] & 0xFFFFFFFF)) + stream)
    return (scramble(state ^ scramble(counter + 0x85EBCA6B)) >> 8) / 2**24


_PRINT_SOME = """
import keras
import numpy as np
from keras import ops
from osmn_tf import augment as a
augment_clips = a.augment_clips
if keras.backend.backend() == "jax":  # compiled once, and not operation by operation
    import jax
    augment_clips = jax.jit(augment_clips, static_argnames="options")
seeds = np.array([[0, 0], [1, 2], [-5, 2**31 - 1]], np.int32)
frames = np.arange(3 * 2 * 12 * 16 * 3).reshape(3, 2, 12, 16, 3) % 251
masks = (frames[..., 0] > 99).astype("uint8")
options = a.AugmentOptions(elastic=0.05)
frames, masks = augment_clips(frames.astype("uint8"), masks, seeds, options=options, motion=np.ones(3, "float32"))
print(ops.convert_to_numpy(a.uniform(seeds, 3, 4)).tobytes().hex())
print(*ops.convert_to_numpy(frames).mean((1, 2, 3, 4)), *ops.convert_to_numpy(masks).sum((1, 2, 3)))
"""


class TestUniform:
    def test_values(self) -> None:
        seeds = np.array([[0, 0], [1, 2], [-5, 2**31 - 1]], np.int32)
        got = ops.convert_to_numpy(augment.uniform(seeds, 3, stream=4))
        expected = [[reference_uniform((int(a), int(b)), k, 4) for k in range(3)] for a, b in seeds]
        np.testing.assert_array_equal(got, np.float32(expected))

    def test_distribution(self) -> None:
        u = ops.convert_to_numpy(augment.uniform(some_seeds(20000), 4))
        assert u.min() >= 0
        assert u.max() < 1
        for column in u.T:
            histogram = np.histogram(column, 20, (0, 1))[0]
            assert np.abs(histogram - 1000).max() < 5 * 1000**0.5
        assert np.abs(np.corrcoef(u.T) - np.eye(4)).max() < 0.03
        assert abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 0.03

    def test_streams_differ(self) -> None:
        seeds = some_seeds(2000)
        a, b = (ops.convert_to_numpy(augment.uniform(seeds, 1, stream))[:, 0] for stream in (0, 1))
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.1

    @pytest.mark.slow
    def test_another_backend_gives_the_same(self) -> None:
        other = "jax" if keras.backend.backend() == "tensorflow" else "tensorflow"
        pytest.importorskip(other)
        got = subprocess.run(
            [sys.executable, "-c", _PRINT_SOME],
            capture_output=True,
            check=True,
            text=True,
            env={**os.environ, "KERAS_BACKEND": other, "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"},
        ).stdout.splitlines()
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(_PRINT_SOME, {})
        expected = printed.getvalue().splitlines()
        assert got[0] == expected[0]  # random numbers: every bit
        # Sums of pixels: rounding moves a few of them across the border of a pixel.
        np.testing.assert_allclose(np.array(got[1].split(), float), np.array(expected[1].split(), float), atol=2)


class TestWarp:
    def test_against_opencv(self) -> None:
        images, masks = some_pictures()
        matrix = cv2.getRotationMatrix2D((15.5, 11.5), 25, 0.8)
        matrix[:, 2] += (3.3, -2.2)
        inverse = cv2.invertAffineTransform(matrix)
        y, x = np.mgrid[0:24, 0:32].astype(np.float32)
        source = np.stack(
            [
                inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2],
                inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2],
            ],
            axis=-1,
        ).astype(np.float32)
        coordinates = np.stack([source, source])
        for fill, flag in ((None, cv2.BORDER_REFLECT_101), (0.0, cv2.BORDER_CONSTANT)):
            got = ops.convert_to_numpy(augment.warp(images, coordinates, fill=fill))
            labels = ops.convert_to_numpy(augment.warp(masks[..., None], coordinates, nearest=True, fill=fill))
            inside = (source[..., 0] >= 0) & (source[..., 0] <= 23) & (source[..., 1] >= 0) & (source[..., 1] <= 31)
            where = inside if fill == 0 else np.ones_like(inside)
            for k in range(2):
                maps = source[..., 1], source[..., 0]
                expected = cv2.remap(images[k].astype(np.float32), *maps, cv2.INTER_LINEAR, borderMode=flag)
                # OpenCV rounds positions to 1/32 of a pixel.
                np.testing.assert_allclose(got[k][where], expected[where], atol=3)
                nearest = cv2.remap(masks[k], *maps, cv2.INTER_NEAREST, borderMode=flag)
                assert (labels[k, ..., 0] != nearest)[where].mean() < 0.02

    def test_reflection(self) -> None:
        row = np.array([10.0, 20, 30, 40], np.float32).reshape(1, 1, 4, 1)
        row = np.repeat(row, 2, axis=1)
        x = np.arange(-5, 9, dtype=np.float32)
        coordinates = np.stack([np.zeros_like(x), x], axis=-1)[None, None]
        got = ops.convert_to_numpy(augment.warp(row, coordinates))[0, 0, :, 0]
        np.testing.assert_allclose(got, [20, 30, 40, 30, 20, 10, 20, 30, 40, 30, 20, 10, 20, 30])

    def test_void_is_filled(self) -> None:
        image = np.full((1, 2, 4, 3), 7, np.uint8)
        coordinates = np.array([[[[0, -0.6], [0, -0.4], [1.4, 3.4], [1.6, 0]]]], np.float32)
        got = ops.convert_to_numpy(augment.warp(image, coordinates, fill=(1, 2, 3)))
        np.testing.assert_allclose(got[0, 0], [[1, 2, 3], [7, 7, 7], [7, 7, 7], [1, 2, 3]])


class TestAffine:
    @staticmethod
    def parameters(**values: float) -> dict[str, np.ndarray]:
        defaults = {"y": 0.0, "x": 0.0, "log_scale": 0.0, "angle": 0.0, "flip": 1.0}
        return {name: np.full((1, 1), values.get(name, value), np.float32) for name, value in defaults.items()}

    def transformed(self, mask: np.ndarray, **values: float) -> np.ndarray:
        coordinates = augment.affine_coordinates(self.parameters(**values), *mask.shape)[:, 0]
        return ops.convert_to_numpy(augment.warp(mask[None, ..., None], coordinates, nearest=True, fill=0.0))[0, ..., 0]

    def test_shift_moves_the_content_down_and_right(self) -> None:
        mask = np.zeros((20, 40), np.uint8)
        mask[4:8, 10:16] = 1
        expected = np.zeros_like(mask)
        expected[6:10, 14:20] = 1
        np.testing.assert_array_equal(self.transformed(mask, y=0.1, x=0.1), expected)

    def test_flip(self) -> None:
        mask = np.arange(12, dtype=np.uint8).reshape(3, 4)
        np.testing.assert_array_equal(self.transformed(mask, flip=-1.0), mask[:, ::-1])

    def test_scale_magnifies_about_the_centre(self) -> None:
        mask = np.zeros((21, 41), np.uint8)
        mask[8:13, 16:25] = 1
        result = self.transformed(mask, log_scale=np.log(2))
        rows, columns = np.flatnonzero(result.any(1)), np.flatnonzero(result.any(0))
        assert abs(len(rows) - 10) <= 1
        assert abs(len(columns) - 18) <= 1
        assert abs(rows[0] + rows[-1] - 20) <= 2  # its ends lie between pixels: either one may be seen

    def test_quarter_turn_keeps_lengths_in_wide_pictures(self) -> None:
        mask = np.zeros((41, 81), np.uint8)
        mask[18:23, 30:51] = 1  # 5 x 21
        result = self.transformed(mask, angle=np.pi / 2)
        assert result.any(1).sum() == 21
        assert result.any(0).sum() == 5


class TestClips:
    def test_nothing_happens_without_options(self) -> None:
        images, masks = some_pictures(4)
        frames, labels = augment.augment_clips(
            images.reshape(2, 2, 24, 32, 3), masks.reshape(2, 2, 24, 32), some_seeds(2), NO_AUGMENTATION
        )
        np.testing.assert_array_equal(ops.convert_to_numpy(frames).reshape(images.shape), images)
        np.testing.assert_array_equal(ops.convert_to_numpy(labels).reshape(masks.shape), masks)

    @pytest.mark.parametrize("border", ["reflect", "mean"])
    def test_masks_move_with_the_picture(self, border: str) -> None:
        images, masks = some_pictures(6, 48, 64)
        options = replace(AugmentOptions(elastic=0.02, border=border), brightness=0, contrast=0, saturation=0, hue=0)
        frames, labels = augment.augment_clips(
            images[:, None].repeat(3, 1), masks[:, None].repeat(3, 1), some_seeds(6), options, np.ones(6, np.float32)
        )
        frames, labels = ops.convert_to_numpy(frames), ops.convert_to_numpy(labels)
        assert labels.dtype == np.uint8
        known = labels != 255
        assert 0.6 < known.mean() < 0.99
        plain = (np.abs(frames - [123, 117, 104]) < 0.01).all(-1)
        np.testing.assert_array_equal(plain, ~known if border == "mean" else False)
        assert ((frames[..., 0] > 128) != labels)[known].mean() < 0.04
        assert (labels[:, 0] != masks).mean() > 0.1  # they did move
        assert (labels[:, 0] != labels[:, 2]).mean() > 0.02

    def test_a_clip_without_motion_has_one_transformation(self) -> None:
        images, masks = some_pictures(2)
        frames, _ = augment.augment_clips(
            images[:, None].repeat(3, 1), masks[:, None].repeat(3, 1), some_seeds(2), AugmentOptions()
        )
        frames = ops.convert_to_numpy(frames)
        np.testing.assert_array_equal(frames[:, 0], frames[:, 2])

    def test_motion_is_smooth(self) -> None:
        parameters = augment.affine_parameters(some_seeds(50), 9, AugmentOptions(), np.ones(50, np.float32))
        for name in ("x", "angle"):
            path = ops.convert_to_numpy(parameters[name])
            extent = np.ptp(path, axis=1)
            assert extent.max() > 0.05
            steps, bends = np.diff(path, axis=1), np.diff(path, 2, axis=1)
            assert np.abs(bends).mean() < 0.4 * np.abs(steps).mean()

    def test_an_example_is_the_same_in_every_batch(self) -> None:
        images, masks = some_pictures(3)
        options = AugmentOptions(elastic=0.03, blur=1.5, noise=5)
        images, masks = images[:, None], masks[:, None]
        together, _ = augment.augment_clips(images, masks, some_seeds(3), options)
        alone, _ = augment.augment_clips(images[2:], masks[2:], some_seeds(3)[2:], options)
        np.testing.assert_allclose(ops.convert_to_numpy(together)[2], ops.convert_to_numpy(alone)[0], atol=1e-3)

    def test_flip_probability(self) -> None:
        seeds = some_seeds(2000)
        flip = ops.convert_to_numpy(augment.affine_parameters(seeds, 1, AugmentOptions(flip=0.25))["flip"])
        assert set(np.unique(flip)) == {-1.0, 1.0}
        assert (flip < 0).mean() == pytest.approx(0.25, abs=0.03)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"border": "zero"}, "border: expected 'reflect' or 'mean', received 'zero'"),
            ({"scale": (1.2, 0.8)}, "scale: expected a range"),
            ({"noise": -1}, "noise: expected 0 or more, received -1"),
            ({"flip": 2}, "flip: expected a probability, received 2"),
        ],
    )
    def test_bad_options(self, values: dict[str, object], message: str) -> None:
        with pytest.raises(InputError, match=message):
            AugmentOptions(**values)  # type: ignore[arg-type]


class TestColour:
    def test_neutral(self) -> None:
        matrices = ops.convert_to_numpy(augment.colour_matrices(some_seeds(3), NO_AUGMENTATION))
        np.testing.assert_allclose(matrices, np.tile(np.vstack([np.eye(3), np.zeros((1, 3))]), (3, 1, 1)), atol=1e-5)

    def test_hue_and_saturation_keep_greys_and_luma(self) -> None:
        options = replace(NO_AUGMENTATION, hue=40.0, saturation=0.5)
        matrices = augment.colour_matrices(some_seeds(20), options)
        grey = np.full((20, 1, 1, 3), 90.0, np.float32)
        np.testing.assert_allclose(ops.convert_to_numpy(augment.apply_colour(grey, matrices)), grey, atol=1e-3)
        colour = np.tile(np.float32([120, 100, 140]), (20, 1, 1, 1))
        changed = ops.convert_to_numpy(augment.apply_colour(colour, matrices))
        np.testing.assert_allclose(changed @ [0.299, 0.587, 0.114], colour @ [0.299, 0.587, 0.114], atol=0.02)
        assert np.abs(changed - colour).max() > 5

    def test_brightness_and_contrast_stay_in_their_ranges(self) -> None:
        options = replace(NO_AUGMENTATION, brightness=25.0, contrast=0.2)
        matrices = ops.convert_to_numpy(augment.colour_matrices(some_seeds(1000), options))
        gain = matrices[:, 0, 0]
        offset = matrices[:, 3, 0] - 128 * (1 - gain)
        assert 0.8 <= gain.min() < 0.81 < 1.19 < gain.max() <= 1.2
        assert -25.001 <= offset.min() < -24.5 < 24.5 < offset.max() <= 25.001

    def test_result_is_clipped(self) -> None:
        matrices = np.tile(np.vstack([3 * np.eye(3), -300 * np.ones((1, 3))]), (1, 1, 1)).astype(np.float32)
        got = ops.convert_to_numpy(augment.apply_colour(np.float32([[[[50, 120, 250]]]]), matrices))
        np.testing.assert_allclose(got, [[[[0, 60, 255]]]])


class TestBlurAndNoise:
    def test_blur_against_opencv(self) -> None:
        images, _ = some_pictures(2)
        images = images.astype(np.float32)
        got = ops.convert_to_numpy(augment.blur(images, np.float32([0.0, 1.2])))
        np.testing.assert_allclose(got[0], images[0], atol=1e-3)
        expected = cv2.GaussianBlur(images[1], (7, 7), 1.2, borderType=cv2.BORDER_REFLECT_101)
        np.testing.assert_allclose(got[1], expected, atol=0.05)

    def test_noise_has_the_deviation_that_was_asked_for(self) -> None:
        grey = np.full((2, 60, 80, 3), 128, np.float32)
        noise = ops.convert_to_numpy(augment.add_noise(grey, some_seeds(2), np.float32([4.0, 0.0]))) - 128
        assert noise[0].mean() == pytest.approx(0, abs=0.1)
        assert noise[0].std() == pytest.approx(4, abs=0.1)
        assert abs(np.corrcoef(noise[0, :, 1:].ravel(), noise[0, :, :-1].ravel())[0, 1]) < 0.03
        assert not noise[1].any()


class TestGuides:
    def test_jitter_ranges_of_the_release(self) -> None:
        seeds = some_seeds(2000)
        margins = ops.convert_to_numpy(augment.visual_guide_margins(seeds))
        assert margins.shape == (2000, 4)
        assert -0.1 <= margins.min() < -0.099 < 0.099 < margins.max() <= 0.1
        shift, scale = (ops.convert_to_numpy(x) for x in augment.spatial_guide_jitter(seeds, length=3))
        assert shift.shape == scale.shape == (2000, 3, 2)
        assert -0.2 <= shift.min() < -0.199 < 0.199 < shift.max() <= 0.2
        assert 1 / 1.4 <= scale.min() < 0.716 < 1.399 < scale.max() <= 1.4

    def test_visual_guide_turns_and_flips(self) -> None:
        image = np.zeros((1, 40, 60, 3), np.uint8)
        image[0, 10:30, 15:35] = (200, 50, 50)
        image[0, 10:30, 35:45] = (50, 50, 200)
        mask = (image.any(-1)).astype(np.uint8)
        guide = visual_guide(image, mask, size=32)
        seeds = some_seeds(40)
        many = ops.convert_to_numpy(augment.jitter_visual_guide(ops.repeat(guide, 40, axis=0), seeds))
        red_left = many[:, 12:20, 6:10, 0].mean((1, 2)) > 150
        assert 10 < red_left.sum() < 30
        # Corners of the turned pictures are background.
        assert (np.abs(many[:, 0, 0] - [123, 117, 104]) < 2).all(-1).sum() > 10
        same = ops.convert_to_numpy(augment.jitter_visual_guide(guide, seeds[:1], rotation=0, flip=0))
        np.testing.assert_allclose(same, ops.convert_to_numpy(guide), atol=1e-2)


class TestSpoiledMasks:
    def boxes(self, count: int) -> np.ndarray:
        masks = np.zeros((count, 64, 96), np.uint8)
        masks[:, 16:48, 24:72] = 1
        return masks

    def test_they_stay_near_the_truth_and_none_is_like_another(self) -> None:
        masks = self.boxes(200)
        spoiled = ops.convert_to_numpy(augment.spoil_masks(masks, some_seeds(200), 1.0))
        assert spoiled.shape == masks.shape
        assert set(np.unique(spoiled)) == {0, 1}
        overlap = (spoiled & masks).sum((1, 2)) / (spoiled | masks).sum((1, 2))
        lost = spoiled.sum((1, 2)) == 0
        assert 0.01 < lost.mean() < 0.1
        assert 0.6 < overlap[~lost].mean() < 0.9
        assert overlap[~lost].min() > 0.1
        area = spoiled.sum((1, 2)) / masks.sum((1, 2))
        assert (area[~lost] > 1.1).any()
        assert (area[~lost] < 0.9).any()
        assert len({mask.tobytes() for mask in spoiled}) > 150

    def test_some_are_left_as_they_are(self) -> None:
        masks = self.boxes(4)
        np.testing.assert_array_equal(ops.convert_to_numpy(augment.spoil_masks(masks, some_seeds(4), 0.0)), masks)

    def test_sizes_that_no_step_divides_and_absent_objects(self) -> None:
        masks = np.zeros((3, 33, 47), np.uint8)
        spoiled = ops.convert_to_numpy(augment.spoil_masks(masks, some_seeds(3), 0.0))
        assert spoiled.shape == masks.shape
        assert not spoiled.any()


def test_traces_with_unknown_sizes() -> None:
    tf = pytest.importorskip("tensorflow")
    options = AugmentOptions(elastic=0.02, blur=1.0, noise=3.0)

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, 2, None, None, 3), tf.uint8),
            tf.TensorSpec((None, 2, None, None), tf.uint8),
            tf.TensorSpec((None, 2), tf.int32),
        ]
    )
    def traced(frames: object, masks: object, seeds: object) -> tuple[object, object]:
        return augment.augment_clips(frames, masks, seeds, options)

    images, masks = some_pictures(4)
    inputs = images.reshape(2, 2, 24, 32, 3), masks.reshape(2, 2, 24, 32), some_seeds(2)
    for got, expected in zip(traced(*inputs), augment.augment_clips(*inputs, options), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-2)


class TestPrompts:
    def test_ellipses_of_boxes_that_are_not_drawn_exactly_and_discs_inside_of_the_object(self) -> None:
        masks = np.zeros((200, 100, 160), np.uint8)
        masks[:, 30:70, 40:120] = 1
        masks[:, 46:54, 70:90] = 0  # a hole, which nobody clicks
        shown = ops.convert_to_numpy(augment.prompt_masks(masks, some_seeds(200)))
        assert shown.shape == masks.shape
        assert set(np.unique(shown)) == {0, 1}
        area = shown.sum((1, 2))
        boxes = area > 1000  # three discs of radius 4 have 150 pixels
        assert 0.45 < boxes.mean() < 0.75
        full = np.pi / 4 * 40 * 80
        assert 0.75 * full < area[boxes].min() < area[boxes].max() < 1.3 * full
        # One, two or three clicks, each a disc of 0.04 of the height around a pixel of the object.
        disc = np.pi * (augment.CLICK_RADIUS * 100) ** 2
        assert area[~boxes].min() > 0.8 * disc
        assert disc * 2 < area[~boxes].max() < disc * 3.3
        inside = (shown * masks).sum((1, 2))[~boxes] / area[~boxes]
        assert inside.min() > 0.5
        assert inside.mean() > 0.8
        assert len({mask.tobytes() for mask in shown}) > 150

    def test_the_same_for_the_same_seeds_whatever_else_is_in_the_batch(self) -> None:
        masks = (np.random.default_rng(0).random((5, 33, 47)) < 0.5).astype(np.uint8)
        masks[2] = 0
        together = ops.convert_to_numpy(augment.prompt_masks(masks, some_seeds(5)))
        for index in range(5):
            alone = augment.prompt_masks(masks[index : index + 1], some_seeds(5)[index : index + 1])
            np.testing.assert_array_equal(ops.convert_to_numpy(alone)[0], together[index])

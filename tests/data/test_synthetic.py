from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from osmn_tf.data import drawing
from osmn_tf.data.sampling import SyntheticSource
from osmn_tf.data.synthetic import ClipOptions, SyntheticClips
from osmn_tf.datasets.stills import open_stills
from osmn_tf.errors import InputError
from osmn_tf.masks.labels import labels_of
from tests.datasets.conftest import two_boxes, write_labels

CALM = ClipOptions(
    max_objects=1,
    motion=0,
    camera_motion=0,
    rotation=0,
    growth=0,
    elastic=0,
    distractors=0,
    occluders=0,
    light=0,
    shadows=0,
    blur=0,
    noise=0,
)


def test_shapes_labels_and_first_frame() -> None:
    clips = SyntheticClips(None, size=(48, 80), length=3, seed=5)
    seen = set()
    for frames, masks in itertools.islice(clips, 12):
        assert frames.shape == (3, 48, 80, 3)
        assert masks.shape == (3, 48, 80)
        assert frames.dtype == masks.dtype == np.uint8
        labels = labels_of(masks[0])
        assert labels == tuple(range(1, len(labels) + 1))
        assert set(labels_of(masks)) == set(labels)
        assert min((masks[0] == k).sum() for k in labels) >= 0.003 * 48 * 80
        seen.add(len(labels))
    assert seen == {1, 2, 3}


def test_clip_depends_on_seed_and_number_alone() -> None:
    clips = SyntheticClips(None, size=(48, 80), length=2, seed=5)
    first = clips[7]
    clips[0], clips[1]
    for again in (clips[7], SyntheticClips(None, size=(48, 80), length=2, seed=5)[7]):
        np.testing.assert_array_equal(again[0], first[0])
        np.testing.assert_array_equal(again[1], first[1])
    assert (clips[8][0] != first[0]).mean() > 0.5
    assert (SyntheticClips(None, size=(48, 80), length=2, seed=6)[7][0] != first[0]).mean() > 0.5


def test_same_in_another_process() -> None:
    code = (
        "from osmn_tf.data.synthetic import SyntheticClips; import zlib\n"
        "f, m = SyntheticClips(None, size=(48, 80), length=2, seed=5)[3]; print(zlib.crc32(f), zlib.crc32(m))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_without_motion_the_frames_are_equal() -> None:
    for index in range(4):
        frames, masks = SyntheticClips(None, size=(48, 80), length=4, options=CALM)[index]
        assert (masks == masks[0]).all()
        assert (frames == frames[0]).all()
        assert labels_of(masks[0]) == (1,)


def test_motion_moves_the_mask_with_the_picture() -> None:
    """The object's pixels move as its mask does: taken back by the masks' shift, it looks like itself."""
    options = ClipOptions(**{**CALM.__dict__, "motion": 0.03})
    moved = 0
    for index in range(8):
        frames, masks = SyntheticClips(None, size=(64, 128), length=2, seed=1, options=options)[index]
        centres = [np.argwhere(mask == 1).mean(0) for mask in masks]
        dy, dx = np.round(centres[1] - centres[0]).astype(int)
        if (dy, dx) == (0, 0) or masks[0, [0, -1]].any() or masks[0][:, [0, -1]].any():
            continue
        moved += 1
        back = np.roll(frames[1], (-dy, -dx), (0, 1)).astype(int)
        inside = (masks[0] == 1) & (np.roll(masks[1], (-dy, -dx), (0, 1)) == 1)
        with_object = np.abs(back - frames[0])[inside].mean()
        standing_still = np.abs(frames[1].astype(int) - frames[0])[inside].mean()
        assert with_object < standing_still
    assert moved >= 2


def test_objects_come_from_the_images(stills_root: Path) -> None:
    clips = SyntheticClips(open_stills(stills_root), size=(48, 64), length=2, options=CALM)
    frames, masks = clips[0]
    assert labels_of(masks[0]) == (1,)
    # The pictures are black or green, each with some red: blue comes from nowhere.
    assert frames[..., 2].max() < 40


def test_images_without_objects_still_give_a_clip(stills_root: Path) -> None:
    for path in stills_root.glob("*/masks/*.png"):
        write_labels(path, two_boxes() * 0)
    _, masks = SyntheticClips(open_stills(stills_root), size=(48, 64), length=2)[0]
    assert labels_of(masks[0])


def test_bad_arguments() -> None:
    with pytest.raises(InputError, match="size: expected at least 32 x 32 pixels, received 16 x 64"):
        SyntheticClips(None, size=(16, 64))
    with pytest.raises(InputError, match=r"max_objects: expected 1\.\.254, received 0"):
        SyntheticClips(None, options=ClipOptions(max_objects=0))
    with pytest.raises(InputError, match=r"elastic: expected 0 or more, received -0\.1"):
        ClipOptions(elastic=-0.1)
    with pytest.raises(InputError, match="samples: expected at least 1, received 0"):
        SyntheticSource(None, (48, 64), samples=0)
    with pytest.raises(InputError, match="min_area: no object of clip 0 covers 100"):
        SyntheticClips(None, size=(32, 32), length=1, options=ClipOptions(min_area=1.0))[0]
    with pytest.raises(IndexError):
        SyntheticClips(None)[-1]


class TestDrawing:
    @pytest.mark.parametrize("kind", drawing.KINDS)
    def test_sprites_are_solid_inside_and_empty_around(self, kind: str) -> None:
        sprite = drawing.draw_random(np.random.default_rng(0), kind, 96)
        assert sprite.shape == (96, 96, 4)
        assert sprite.dtype == np.uint8
        alpha = sprite[..., 3]
        assert 0.1 < (alpha > 127).mean() < 0.75
        assert alpha[[0, -1]].max() == 0
        assert ((alpha > 0) & (alpha < 255)).mean() < 0.1
        assert sprite[alpha == 255].std() > 10  # shading and texture
        np.testing.assert_array_equal(sprite, drawing.draw_random(np.random.default_rng(0), kind, 96))

    def test_relief_of_a_disk_is_a_dome(self) -> None:
        y, x = np.mgrid[-50:51, -50:51]
        height = drawing.relief((x**2 + y**2 <= 40**2).astype(np.float32), radius=40)
        assert height[50, 50] == pytest.approx(40, abs=2)
        # A quarter circle: at 20 px from the edge sqrt(1 - 0.25) of the radius.
        assert height[50, 70] == pytest.approx(40 * 0.75**0.5, abs=2)
        assert height[0, 0] == 0

    def test_light_comes_from_the_upper_left(self) -> None:
        ball = drawing.draw_ball(np.random.default_rng(0), 96, colours=[(128, 128, 128)])
        assert ball[24, 30, :3].mean() > ball[72, 66, :3].mean() + 30

    def test_noise_spans_the_unit_interval(self) -> None:
        noise = drawing.fractal_noise(np.random.default_rng(0), (40, 60), 20)
        assert noise.shape == (40, 60)
        assert (noise.min(), noise.max()) == (0, 1)
        # Smooth: neighbours differ much less than the range.
        assert np.abs(np.diff(noise, axis=1)).mean() < 0.1


@pytest.mark.real_data
def test_real_cut_outs(real_data_root: Path) -> None:
    clips = SyntheticClips(open_stills(real_data_root / "stills"), size=(128, 224), length=3, seed=2)
    for index in range(10):
        frames, masks = clips[index]
        assert labels_of(masks[0])
        assert frames.std() > 10

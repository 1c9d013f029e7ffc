from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from osmn_tf.benchmarks import matte
from osmn_tf.cli.main import main
from osmn_tf.errors import InputError, MissingDependencyError
from osmn_tf.masks.exr import to_linear, write_layers
from osmn_tf.masks.matting import cutout, feather, foreground, guided_matte


def half_plane() -> np.ndarray:
    inside = np.zeros((40, 60), bool)
    inside[:, 30:] = True
    return inside


def test_feather_rises_evenly_across_the_outline() -> None:
    alpha = feather(half_plane(), 2)
    np.testing.assert_allclose(alpha[20, 26:34], [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])
    assert alpha.dtype == np.float32
    np.testing.assert_array_equal(feather(half_plane(), 0), half_plane())
    assert not feather(np.zeros((5, 5), bool), 3).any()
    assert feather(np.ones((5, 5), bool), 3).min() == 1  # the frame's edge is no outline
    for radius in (-1, float("nan")):
        with pytest.raises(InputError, match="feather: expected 0 or more"):
            feather(half_plane(), radius)


def test_matte_finds_the_edge_that_the_mask_misses_by_two_pixels() -> None:
    inside = half_plane()
    truth = np.roll(inside, 2, axis=1)
    truth[:, :2] = False
    noise = np.random.default_rng(0).integers(-3, 4, (40, 60, 3))
    frame = (np.where(truth[..., None], (200, 60, 40), (40, 120, 60)) + noise).astype(np.uint8)
    alpha = guided_matte(frame, inside, radius=6)
    np.testing.assert_array_equal(alpha > 0.5, truth)
    assert not alpha[:, :10].any()
    assert alpha[:, -10:].min() == 1
    assert not guided_matte(frame, np.zeros_like(inside)).any()


def test_colours_of_the_object_are_without_the_ground() -> None:
    """A red object whose edge fades over ten pixels into green."""
    alpha = np.clip((np.arange(60, dtype=np.float32) - 25) / 10, 0, 1) * np.ones((40, 1), np.float32)
    front, ground = np.array([220, 30, 20]), np.array([20, 160, 40])
    frame = np.round(alpha[..., None] * front + (1 - alpha[..., None]) * ground).astype(np.uint8)
    colours = foreground(frame, alpha, radius=8)
    seen = alpha > 0.3
    assert np.abs(colours[seen] - front).max() < 0.4 * np.abs(frame[seen].astype(int) - front).max()
    np.testing.assert_array_equal(colours[alpha == 1], frame[alpha == 1])
    assert not colours[alpha == 0].any()
    hard = alpha > 0.95
    frame[hard], frame[~hard] = front, ground
    bled = foreground(frame, hard.astype(np.float32), radius=8, bleed=True)
    np.testing.assert_array_equal(bled[:, 30:], np.broadcast_to(front, bled[:, 30:].shape))
    assert not bled[:, :20].any()


def test_cutouts_straight_and_premultiplied() -> None:
    frame = np.full((8, 8, 3), (200, 100, 50), np.uint8)
    alpha = np.zeros((8, 8), np.float32)
    alpha[2:6, 2:6] = 0.5
    straight, multiplied = cutout(frame, alpha), cutout(frame, alpha, premultiplied=True)
    np.testing.assert_array_equal(straight[3, 3], [200, 100, 50, 128])
    np.testing.assert_array_equal(multiplied[3, 3], [100, 50, 25, 128])
    assert not straight[0].any()
    assert not cutout(frame, alpha, premultiplied=True, bleed=True)[0].any()


def test_matte_is_closer_to_the_truth_than_hard_and_feathered_masks() -> None:
    """On small scenes of the benchmark; every measure that it prints."""
    rows = {row.way: row for row in matte.measure(4, (180, 320), feathers=(2,))}
    for measure in ("absolute", "squared", "gradient", "colour"):
        assert getattr(rows["matte"], measure) < 0.8 * getattr(rows["hard"], measure), measure
    assert rows["feather 2"].absolute < rows["hard"].absolute


def test_benchmark_prints_a_row_for_every_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "matte", "--scenes", "1", "--size", "90x160", "--feathers", "1.5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["hard", "feather", "matte"]
    assert len(lines) == 5


def test_openexr_reads_the_layers_by_name(tmp_path: Path) -> None:
    exr = pytest.importorskip("OpenEXR", reason="OpenEXR is not installed: pip install 'osmn-tf[exr]'")
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (30, 40, 3), np.uint8)
    alphas = {"object_2": np.zeros((30, 40), np.float32), "object_13": np.ones((30, 40), np.float32)}
    alphas["object_2"][5:20, 4:30] = 0.25
    write_layers(tmp_path / "a.exr", frame, alphas, Fraction(24000, 1001))
    with exr.File(str(tmp_path / "a.exr")) as file:
        layers = {name: channel.pixels for name, channel in file.channels().items()}
        assert file.header()["framesPerSecond"] == Fraction(24000, 1001)
    assert set(layers) == {"RGB", *alphas}
    light = to_linear(frame)
    np.testing.assert_allclose(layers["RGB"], light, rtol=1e-3, atol=1e-6)
    for name, alpha in alphas.items():
        assert layers[name].dtype == np.float16
        np.testing.assert_array_equal(layers[name][..., 3], alpha)
    np.testing.assert_allclose(layers["object_13"][..., :3], light, rtol=1e-3, atol=1e-6)
    assert not layers["object_2"][..., :3][alphas["object_2"] == 0].any()
    with exr.File(str(tmp_path / "a.exr"), separate_channels=True) as file:
        assert {"R", "G", "B", "object_2.A", "object_13.R"} <= set(file.channels())
    with pytest.raises(InputError, match="names without dots"):
        write_layers(tmp_path / "b.exr", frame, {"a.b": alphas["object_2"]})
    assert [path.name for path in tmp_path.iterdir()] == ["a.exr"]


def test_light_of_srgb() -> None:
    """Three values of IEC 61966-2-1."""
    np.testing.assert_allclose(to_linear(np.array([0, 10, 188, 255], np.uint8)), [0, 0.003035, 0.502886, 1], rtol=1e-3)


def test_without_openexr(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(MissingDependencyError, match=r"osmn-tf\[exr\]"):
        write_layers(tmp_path / "a.exr", np.zeros((4, 4, 3), np.uint8), {})

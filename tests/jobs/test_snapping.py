"""Masks that follow the contours of the frame, through the job and the command."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("skimage", reason="scikit-image is not installed: pip install 'osmn-tf[snapping]'")

from osmn_tf.cli.main import main
from osmn_tf.errors import InputError
from osmn_tf.jobs import many
from osmn_tf.jobs.options import SegmentOptions
from osmn_tf.jobs.rows import columns_of, make_rows, options_of, read_table
from osmn_tf.masks.drawing import write_image
from osmn_tf.masks.files import read_label_png, write_mask
from tests.jobs.drift import LENGTH, SIZE, options_for, run, run_until


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames of noise on blocks of colour."""
    folder = tmp_path_factory.mktemp("video") / "frames"
    folder.mkdir()
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 230, (4, 6, 3)).repeat(8, axis=0).repeat(8, axis=1)
    for index in range(LENGTH):
        write_image(folder / f"{index:05d}.png", (blocks + rng.integers(0, 26, (*SIZE, 3))).astype(np.uint8))
    return folder


def options(frames: Path, out: Path, snap: bool = True) -> SegmentOptions:
    return options_for(frames, out, snap=snap, outputs={"scores": None}, both_ways=False)


def masks(out: Path) -> np.ndarray:
    return np.stack([read_label_png(out / "frames" / f"{index:05d}.png") for index in range(LENGTH)])


def test_an_interrupted_run_goes_on_and_the_given_masks_stay(frames: Path, tmp_path: Path) -> None:
    plain, whole, parts = (options(frames, tmp_path / name, name != "plain") for name in ("plain", "whole", "parts"))
    for each in (plain, whole):
        assert run(each).problem is None
    stopped = run_until(parts, "forward", lambda: os.kill(os.getpid(), signal.SIGINT))
    assert (stopped.interrupted, stopped.frames) == (True, 8)
    assert run(parts).resumed == 8
    snapped, unsnapped = masks(tmp_path / "whole"), masks(tmp_path / "plain")
    np.testing.assert_array_equal(masks(tmp_path / "parts"), snapped)
    assert set(np.unique(snapped)) == {0, 2, 7}
    assert (snapped != unsnapped).any(axis=(1, 2)).sum() > LENGTH // 2
    first, second = plain.masks[0], plain.masks[6]
    np.testing.assert_array_equal(snapped[0], first)
    np.testing.assert_array_equal(snapped[6] == 7, second == 7)
    # The network's state and its scores know nothing of it.
    for name in ("00005.png", "00009.png"):
        one, other = (tmp_path / out / "frames_scores/2" / name for out in ("whole", "plain"))
        assert one.read_bytes() == other.read_bytes()
    # It is another command.
    with pytest.raises(InputError, match="use --force"):
        run(dataclasses.replace(whole, snap=False))


def test_both_ways(frames: Path, tmp_path: Path) -> None:
    found = []
    for snap in (False, True):
        out = tmp_path / str(snap)
        run(dataclasses.replace(options(frames, out, snap), both_ways=True, outputs={}))
        found.append(masks(out))
    assert (found[0][3] == 7).any()
    assert ((found[0][:6] == 7) != (found[1][:6] == 7)).any()


def test_it_is_a_column_of_tables(frames: Path, tmp_path: Path) -> None:
    columns = columns_of(dataclasses.replace(SegmentOptions(frames), snap=True))
    assert columns["snap"] is True
    assert options_of({"video": "a.mp4", "snap": "yes"}, tmp_path).snap


def test_without_scikit_image(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    out = tmp_path / "out"
    mask = tmp_path / "mask.png"
    write_mask(mask, np.ones(SIZE, np.uint8))
    assert main(["segment", str(frames), "--mask", str(mask), "--snap", "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--snap needs the package 'scikit-image'" in error
    assert not out.exists()
    scores = ["evaluate", str(tmp_path), "--preset", "osmn_match_lite", "--snap", "--out", str(out)]
    assert main(scores) == 2
    assert "pip install 'osmn-tf[snapping]'" in capsys.readouterr().err
    assert not out.exists()
    assert main(["evaluate", str(tmp_path), "--results", "x", "--snap", "--out", str(out)]) == 2
    assert "--snap: expected a --preset with it" in capsys.readouterr().err


def test_contours_of_a_network(frames: Path, tmp_path: Path) -> None:
    from support import NARROW_VGG

    from osmn_tf.models.hed import HED

    HED(block_channels=NARROW_VGG, network_size=SIZE).save_to_preset(tmp_path / "hed")
    chosen = dataclasses.replace(options(frames, tmp_path / "out"), contours=tmp_path / "hed", outputs={})
    assert run(chosen).problem is None
    assert set(np.unique(masks(tmp_path / "out"))) == {0, 2, 7}
    with pytest.raises(InputError, match="use --force"):  # it is another command
        run(dataclasses.replace(chosen, contours=None))
    assert columns_of(chosen)["contours"] == str(tmp_path / "hed")
    table = tmp_path / "jobs.csv"
    table.write_text(f"video,snap,contours\n{frames},yes,hed\n")
    (row,) = read_table(table, tmp_path / "more", {"mask": [str(frames / "00000.png")]})
    assert row.options.contours == str(tmp_path / "hed")
    # What is in its files is what results depend on, not where they are.
    many._network_digest.cache_clear()
    before = many.fingerprint_of(row).facts
    (tmp_path / "hed").rename(tmp_path / "moved")
    (moved,) = make_rows([{**row.columns, "contours": str(tmp_path / "moved")}], row.out)
    assert many.fingerprint_of(moved).facts == before
    config = tmp_path / "moved/config.json"
    config.write_text(config.read_text() + " ")
    many._network_digest.cache_clear()
    assert many.fingerprint_of(moved).facts != before

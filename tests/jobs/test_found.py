"""Rows of a table in which nobody says where the objects are: a network that finds them does, and no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import BACKEND, NARROW_MOBILENET, random_frames, randomise

from osmn_tf.errors import InputError
from osmn_tf.inference.predictor import find_network
from osmn_tf.jobs.many import process_one, run_here, segment_many
from osmn_tf.jobs.rows import make_rows
from osmn_tf.jobs.segment import SegmentOptions, segment
from osmn_tf.masks.files import read_label_png
from osmn_tf.models.rvos import RVOS
from osmn_tf.video.writer import write_video

if BACKEND != "tensorflow":
    pytest.skip("LiteRT files are made with TensorFlow", allow_module_level=True)

from osmn_tf.export.litert import export_litert

pytestmark = pytest.mark.filterwarnings("ignore:.*np.object.*:FutureWarning")

SMALL = {"backbone": "mobilenet", "block_channels": NARROW_MOBILENET, "hidden_channels": 8, "network_size": (64, 96)}
PLAIN = {"overlay": False, "sheet": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.mp4 and b.mp4; "finder", "exported": an RVOS that finds three objects; "needy": one that needs masks."""
    folder = tmp_path_factory.mktemp("found")
    for name, seed in (("a", 1), ("b", 2)):
        write_video(folder / f"{name}.mp4", list(random_frames(2, 80, 110, seed=seed)), 10)
    network = randomise(RVOS(**SMALL, slots=3), seed=7)
    network.save_to_preset(folder / "finder")
    (folder / "exported").mkdir()
    export_litert(network, folder / "exported", objects=2)
    (folder / "needy").mkdir()
    export_litert(randomise(RVOS(**SMALL), seed=7), folder / "needy")
    return folder


def masks_in(folder: Path) -> list[np.ndarray]:
    return [read_label_png(path) for path in sorted(folder.glob("*.png"))]


@pytest.mark.parametrize("preset", ["exported", "finder"])
def test_rows_without_objects_are_those_of_single_commands(preset: str, folder: Path, tmp_path: Path) -> None:
    """One process does both: the objects of one video are not the other's."""
    given = [{"video": str(folder / f"{name}.mp4"), "preset": str(folder / preset), **PLAIN} for name in "ab"]
    rows = make_rows(given, tmp_path / "out")
    if preset == "exported":
        summary = segment_many(rows, run_here(1))
        assert (summary.done, summary.failed) == (2, [])
    else:
        assert [process_one(row)["status"] for row in rows] == ["done", "done"]
    for name in "ab":
        single = SegmentOptions(folder / f"{name}.mp4", preset=folder / preset, out=tmp_path / "one", outputs={})
        segment(single)
        expected = masks_in(tmp_path / "one" / name)
        assert expected[0].any()
        for mask, right in zip(masks_in(tmp_path / "out" / name), expected, strict=True):
            np.testing.assert_array_equal(mask, right)
    limited = make_rows([{**given[0], "objects": "1"}], tmp_path / "limited")
    assert process_one(limited[0])["status"] == "done"
    assert {int(mask.max()) for mask in masks_in(tmp_path / "limited/a")} == {1}


def test_every_preset_of_a_table_is_asked(folder: Path, tmp_path: Path) -> None:
    """A preset that finds objects lets no other row pass."""
    given = [{"video": str(folder / "a.mp4"), "out": name} for name in ("x", "y", "z")]
    presets = [str(folder / "exported"), str(folder / "needy"), "osmn_match_lite"]
    rows = [{**row, "preset": preset} for row, preset in zip(given, presets)]
    with pytest.raises(InputError, match=r"^video 2: expected the objects as one of .*; video 3: expected ") as caught:
        make_rows(rows, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_network_that_only_its_class_knows_is_asked_in_its_own_row(folder: Path, tmp_path: Path) -> None:
    assert find_network(str(folder / "finder")).zero_shot is None
    assert find_network(str(folder / "exported")).zero_shot is True
    assert find_network("grpc://localhost:1/name").zero_shot is False
    randomise(RVOS(**SMALL), seed=7).save_to_preset(tmp_path / "needy")
    row = {"video": str(folder / "a.mp4"), "preset": str(tmp_path / "needy")}
    record = process_one(make_rows([row], tmp_path / "out")[0])
    assert (record["status"], record["kind"]) == ("failed", "InputError")
    assert record["message"].startswith("--mask: this preset finds no objects by itself; give --mask PNG")

"""Videos in which nobody says where the objects are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import BACKEND, TINY_RVOS, random_frames, randomise

from osmn_tf.errors import InputError
from osmn_tf.inference import segmenter
from osmn_tf.jobs.many import process_one, run_here, segment_many
from osmn_tf.jobs.options import SegmentOptions
from osmn_tf.jobs.rows import make_rows
from osmn_tf.jobs.segment import segment
from osmn_tf.masks.files import read_label_png
from osmn_tf.models.rvos import RVOS
from osmn_tf.video.writer import write_video

if BACKEND != "tensorflow":
    pytest.skip("LiteRT files are made with TensorFlow", allow_module_level=True)

from osmn_tf.export.litert import export_litert

pytestmark = pytest.mark.filterwarnings("ignore:.*np.object.*:FutureWarning")

PLAIN = {"overlay": False, "sheet": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.mp4 and b.mp4; "finder", "exported": an RVOS that finds three objects; "needy": one that needs masks."""
    folder = tmp_path_factory.mktemp("found")
    for name, seed in (("a", 1), ("b", 2)):
        write_video(folder / f"{name}.mp4", list(random_frames(2, 80, 110, seed=seed)), 10)
    network = randomise(RVOS(**TINY_RVOS, slots=3), seed=7)
    network.save_to_preset(folder / "finder")
    (folder / "exported").mkdir()
    export_litert(network, folder / "exported", objects=2)
    (folder / "needy").mkdir()
    export_litert(randomise(RVOS(**TINY_RVOS), seed=7), folder / "needy")
    return folder


def masks_in(folder: Path) -> list[np.ndarray]:
    return [read_label_png(path) for path in sorted(folder.glob("*.png"))]


@pytest.mark.usefixtures("loaded_once")
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


def test_what_stands_out_is_followed_by_networks_that_find_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An RVOS that needs masks, as an export and as a preset, and the default one: the objects are found for them."""
    randomise(RVOS(**TINY_RVOS), seed=7).save_to_preset(tmp_path / "needy")
    asked = []

    def find(frame: np.ndarray, objects: int) -> np.ndarray:
        asked.append(objects)
        mask = np.zeros(frame.shape[:2], np.uint8)
        mask[20:50, 10:40], mask[20:50, 60:100] = 1, min(2, objects)
        return mask

    monkeypatch.setattr(segmenter, "find_objects", find)
    presets = [str(folder / "needy"), str(tmp_path / "needy"), "osmn_match_lite"]
    given = [{"video": str(folder / "a.mp4"), "out": f"{k}", **PLAIN, "preset": each} for k, each in enumerate(presets)]
    rows = make_rows([*given, {**given[2], "out": "3", "objects": "1"}], tmp_path / "out")
    assert [process_one(row)["status"] for row in rows] == ["done"] * 4
    for k, labels in enumerate(({1, 2}, {1, 2}, {1, 2}, {1})):
        first = masks_in(tmp_path / f"out/{k}/a")[0]
        assert set(np.unique(first[first > 0])) == labels
    assert asked == [segmenter.MOST_OBJECTS] * 3 + [1]


def test_what_is_said_where_nothing_is_marked(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    segment(SegmentOptions(folder / "a.mp4", preset=folder / "finder", out=tmp_path, outputs={}), remark=said.append)
    assert len(said) == 1
    assert said[0].startswith("--mask: nothing is marked: what stands out is followed")
    learns = SegmentOptions(folder / "a.mp4", preset="osvos_lite", out=tmp_path / "learns")
    with pytest.raises(InputError, match="--mask: this preset learns what an object is from its mask; give --mask PNG"):
        segment(learns)
    assert not (tmp_path / "learns").exists()

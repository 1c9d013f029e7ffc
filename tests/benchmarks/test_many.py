"""`osmn benchmark many` and `osmn benchmark start`, at their smallest."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from osmn_tf.benchmarks.many import BROKEN, make_clips, measure_manifest
from osmn_tf.benchmarks.processes import run_osmn
from osmn_tf.cli.main import main
from osmn_tf.errors import InputError
from osmn_tf.masks.files import read_mask
from osmn_tf.video.source import open_source


def test_clips_have_a_mask_with_an_object_and_are_broken_where_they_are_said_to_be(tmp_path: Path) -> None:
    table = make_clips(tmp_path, count=4, frames=2, broken=1)
    with open(table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [row["video"] for row in rows]
    assert [name.startswith("broken_") for name in names] == [False, False, True, False]
    for row in rows[:2]:
        assert open_source(tmp_path / row["video"]).count_frames() == 2
        assert read_mask(tmp_path / row["mask"]).any()
    assert (tmp_path / names[2]).read_bytes() == b""
    with pytest.raises(InputError, match="at most 10 broken ones"):
        make_clips(tmp_path, count=20, broken=11)


def test_every_way_of_being_broken_is_recorded_and_the_rest_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--clips", "12", "--frames", "2", "--broken", str(len(BROKEN)), "--singles", "1", "--workers", "2"]
    assert main(["benchmark", "many", *words]) == 0
    header, single, many, _ = capsys.readouterr().out.splitlines()
    assert header.split() == ["videos", "seconds", "videos/s", "times", "CPU", "s", "times", "MiB", "masks"]
    assert single.split()[:3] == ["single", "commands", "1"]
    assert single.endswith("1 right")
    assert many.split()[:3] == ["--workers", "2", "12"]
    assert many.endswith("2 right, 10 recorded as failed; 1 equal to single commands'")


def test_the_manifest_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "many", "--rows", "30"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["30", "read", "plan", "record", "resume"]
    assert all(value > 0 for value in vars(measure_manifest(30)).values())


def test_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "start", "--engines", "litert", "--frames", "2", "--repeat", "1"]) == 0
    _, plain, litert, _ = capsys.readouterr().out.splitlines()
    assert plain.split()[:2] == ["osmn", "--help"]
    name, first, done, cpu, mebibytes = litert.split()
    assert name == "litert"
    assert 0 < float(first) <= float(done)
    assert float(cpu) > 0
    assert float(mebibytes) > 10
    with pytest.raises(InputError, match="--repeat: expected at least 1"):
        main(["--debug", "benchmark", "start", "--repeat", "0"])


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(InputError, match=r"'osmn segment none.mp4 .*' has ended with 2: .*none.mp4"):
        run_osmn(["segment", "none.mp4", "--mask", "none.png"])

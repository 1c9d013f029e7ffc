"""`osmn benchmark many` and `osmn benchmark start`, at their smallest."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from osmn_tf.benchmarks.many import BROKEN, make_clips, measure_manifest
from osmn_tf.benchmarks.processes import _Family, run_osmn
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
    words = ["--clips", "12", "--frames", "2", "--broken", str(len(BROKEN)), "--singles", "1", "--workers", "2", "1"]
    assert main(["benchmark", "many", *words]) == 0
    header, single, many, again, _ = capsys.readouterr().out.splitlines()
    assert header.split() == ["videos", "seconds", "videos/s", "times", "CPU", "s", "times", "MiB", "masks"]
    assert single.split()[:3] == ["single", "commands", "1"]
    assert single.endswith("1 right")
    assert many.split()[:3] == ["--workers", "2", "12"]
    assert many.endswith("2 right, 10 recorded as failed; 1 equal to single commands'")
    assert again.split()[:3] == ["--workers", "1", "12"]
    assert again.endswith("1 equal to single commands', 12 to the first table's")


def test_what_a_process_has_started_counts_also_where_nobody_waits_for_it() -> None:
    """As Ray's actors: the process in the middle is gone, or does not wait."""
    inner = "import time; memory = bytearray(200 << 20); end = time.process_time() + 0.5\n"
    inner += "while time.process_time() < end: pass\nprint('here', flush=True)\ntime.sleep(60)"
    outer = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {inner!r}]); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        family = _Family(process.pid)
        family.look()
        assert 200 < family.mebibytes < 1000
        assert 0.5 <= family.cpu_seconds < 60
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.slow
def test_ray_beside_the_processes_of_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray.data", reason="Ray is not installed")
    words = ["--clips", "3", "--frames", "2", "--broken", "1", "--singles", "1", "--workers", "1"]
    assert main(["benchmark", "many", *words, "--runners", "local", "ray"]) == 0
    ray = capsys.readouterr().out.splitlines()[3]
    assert ray.split()[:4] == ["ray,", "1", "actors", "3"]
    assert ray.endswith("2 right, 1 recorded as failed; 1 equal to single commands', 3 to the first table's")


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

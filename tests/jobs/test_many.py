"""Many videos: with the shipped network's LiteRT files, which start in no time, on clips of two and three frames."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from osmn_tf.cli.main import main
from osmn_tf.datasets.examples import example_path
from osmn_tf.errors import InputError
from osmn_tf.jobs import many
from osmn_tf.jobs.manifest import CLAIMS, RESULTS, Manifest
from osmn_tf.jobs.many import Setting, process_one, run_here, segment_many
from osmn_tf.jobs.on_ray import check_address
from osmn_tf.jobs.options import SegmentOptions
from osmn_tf.jobs.outputs import outputs
from osmn_tf.jobs.rows import Row, make_rows
from osmn_tf.jobs.segment import segment
from osmn_tf.masks.files import read_label_png, read_mask, write_mask
from osmn_tf.video.source import open_source
from osmn_tf.video.writer import write_video
from tests.jobs import strange

ROOT = Path(__file__).parents[2]
NAMES = ("a", "b", "c", "d")
PLAIN = {"overlay": False, "sheet": False}


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.mp4, ... of two frames, and of three (d), with masks of one object; and broken.mp4."""
    folder = tmp_path_factory.mktemp("clips")
    frames = list(open_source(example_path() / "meadow.mp4", end=6))
    mask = (read_mask(example_path() / "first_mask.png") == 1).astype(np.uint8)
    for index, name in enumerate(NAMES):
        write_video(folder / f"{name}.mp4", frames[index : index + (3 if name == "d" else 2)], 24)
        write_mask(folder / f"{name}.png", mask)
    (folder / "broken.mp4").write_bytes(b"no video")
    write_mask(folder / "broken.png", mask)
    return folder


@pytest.fixture
def rows(clips: Path, tmp_path: Path) -> Callable[..., list[Row]]:
    """Rows of the clips of these names."""

    def make(*names: str, out: Path = tmp_path / "out", **columns: Any) -> list[Row]:
        given = [{"video": str(clips / f"{name}.mp4"), "mask": str(clips / f"{name}.png")} for name in names]
        return make_rows([{**row, **PLAIN, **columns} for row in given], out)

    return make


@pytest.fixture(scope="session")
def expected(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[np.ndarray]]:
    """The masks that a job of each clip's own makes."""
    out = tmp_path_factory.mktemp("expected")
    for name in NAMES:
        segment(SegmentOptions(clips / f"{name}.mp4", {0: clips / f"{name}.png"}, out=out, outputs={}))
    return {name: masks_in(out / name) for name in NAMES}


def masks_in(folder: Path) -> list[np.ndarray]:
    return [read_label_png(path) for path in sorted(folder.glob("*.png"))]


def records_in(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / RESULTS).read_text().splitlines()]


def assert_same(out: Path, expected: dict[str, list[np.ndarray]], names: tuple[str, ...] = NAMES) -> None:
    for name in names:
        for mask, other in zip(masks_in(out / name), expected[name], strict=True):
            np.testing.assert_array_equal(mask, other)


# One row


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (InputError("the mask is\nwrong"), "InputError", "the mask is wrong"),
        (OSError(errno.ENOSPC, "No space left on device"), "OSError", "[Errno 28] No space left on device"),
        (MemoryError(), "MemoryError", "MemoryError"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError", "division by zero"),
    ],
)
def test_process_one_does_not_raise(rows, monkeypatch, error: Exception, kind: str, message: str) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise error

    (row,) = rows("a")
    monkeypatch.setattr(many, "segment", failing)
    record = process_one(row)
    assert (record["name"], record["row"], record["video"]) == ("a", 1, row.columns["video"])
    assert (record["status"], record["kind"], record["message"]) == ("failed", kind, message)
    assert not list((Path(row.out) / CLAIMS).iterdir())


def test_process_one_says_what_is_there(rows, expected, tmp_path) -> None:
    (row,) = rows("d")
    record = process_one(row)
    assert (record["status"], record["frames"], record["results"]) == ("done", 3, {"masks": "d"})
    assert json.loads(json.dumps(record)) == record
    assert_same(tmp_path / "out", expected, ("d",))
    again = process_one(row)
    assert (again["status"], again["frames"], again["content"]) == ("done", 3, record["content"])


def test_process_one_stops_when_it_is_told(rows, tmp_path) -> None:
    calls = iter(range(100))
    (row,) = rows("d")
    assert process_one(row, stop=lambda: next(calls) >= 1)["status"] == "interrupted"
    kept = len(masks_in(tmp_path / "out" / "d"))
    assert 0 < kept < 3
    record = process_one(row)
    assert (record["status"], record["frames"]) == ("done", 3)


def test_the_network_is_loaded_once_and_for_as_long_as_its_files_do_not_change(rows, monkeypatch) -> None:
    opened: list[str] = []

    def counting(options: SegmentOptions) -> Any:
        opened.append(Path(options.video).stem)
        return many.default_segmenter(options)

    monkeypatch.setattr(many, "_predictors", type(many._predictors)())
    for row in rows("a", "b"):
        assert process_one(row, open_segmenter=counting)["status"] == "done"
    assert opened == ["a"]
    (row,) = rows("c", threads=1)
    assert process_one(row, open_segmenter=counting)["status"] == "done"
    assert opened == ["a", "c"]
    assert len(many._predictors) == many.MOST_NETWORKS


# All rows


def test_a_broken_row_stops_no_other(clips, expected, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    (tmp_path / "jobs.csv").write_text(
        "video,mask\n" + "".join(f"{clips}/{name}.mp4,{clips}/{name}.png\n" for name in ("a", "broken", *NAMES[1:]))
    )
    words = ["segment", "--list", str(tmp_path / "jobs.csv"), "--out", str(out), "--workers", "2"]
    assert main([*words, "--no-overlay", "--no-sheet"]) == 1
    printed = capsys.readouterr()
    assert "5 videos: 4 done, 1 failed\n9 frames in" in printed.out
    assert "5/5 " in printed.out
    assert "row 2, broken: InputError:" in printed.err
    assert_same(out, expected)
    records = {record["name"]: record for record in records_in(out)}
    assert {name: record["status"] for name, record in records.items()} == {
        **dict.fromkeys(NAMES, "done"),
        "broken": "failed",
    }
    assert not (out / CLAIMS).exists()
    # Once more: what is done is not done again, and what has failed is tried again.
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert main([*words, "--no-overlay", "--no-sheet", "--quiet"]) == 1
    assert "5 videos: 0 done, 4 done before, 1 failed" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.png")} == times
    # Another setting makes another result, which is in the way of the first one's.
    assert main([*words, "--no-overlay", "--no-sheet", "--quiet", "--end", "1"]) == 1
    assert "row 1, a: InputError: --out:" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.png")} == times


def test_killed_and_given_again(rows, clips, expected, tmp_path) -> None:
    """The first process is killed while its worker has a video in hand: the worker ends too, and the rest is done."""
    out = tmp_path / "out"
    words = [f"{clips}/{name}.mp4" for name in NAMES]
    command = ["segment", *words, "--mask", f"{clips}/{{name}}.png", "--no-overlay", "--no-sheet", "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-m", "osmn_tf.cli.main", *command, "--quiet"], cwd=ROOT)
    wait_for(lambda: (out / RESULTS).exists() and records_in(out) and list((out / CLAIMS).glob("*")))
    process.kill()
    assert process.wait() == -signal.SIGKILL
    before = len(records_in(out))
    assert main([*command, "--quiet"]) == 0
    assert [record["status"] for record in records_in(out)] == ["done"] * len(NAMES)
    assert before < len(NAMES)
    assert_same(out, expected)


def wait_for(happened: Callable[[], object]) -> None:
    for _ in range(6000):
        if happened():
            return
        time.sleep(0.01)
    raise TimeoutError


def test_interrupted_and_given_again(rows, clips, tmp_path, monkeypatch) -> None:
    """Ctrl-C, while the worker is held up in its first video."""
    local = tmp_path / "local"
    local.mkdir()
    for name in "ab":
        (local / f"{name}.mp4").write_bytes((clips / f"{name}.mp4").read_bytes())
    table = make_rows(
        [{"video": str(local / f"{n}.mp4"), "mask": str(clips / f"{n}.png"), **PLAIN} for n in "ab"], tmp_path
    )

    def press() -> None:
        wait_for((local / "a.here").exists)
        os.kill(os.getpid(), signal.SIGINT)
        (local / "a.go").touch()

    thread = threading.Thread(target=press)
    thread.start()
    summary = segment_many(table, run_here(1, Setting(strange.waiting)))
    thread.join()
    # The worker may have ended its two frames before it was told; the second video was never begun.
    assert summary.failed == []
    assert summary.done + summary.left == 2
    assert summary.left >= 1
    again = segment_many(table, run_here(1))
    assert (again.before, again.done) == (summary.done, summary.left)


def deadly_rows(clips: Path, folder: Path) -> list[Row]:
    """For `strange.deadly`: the results go to FOLDER/deaths."""
    given = []
    for name, clip in (("deadly", "a"), ("unlucky", "b"), ("c", "c")):
        (folder / f"{name}.mp4").write_bytes((clips / f"{clip}.mp4").read_bytes())
        columns = {"threads": 2 if name == "deadly" else 1, **PLAIN}  # a network of its own is opened for it
        given.append({"video": str(folder / f"{name}.mp4"), "mask": str(clips / f"{clip}.png"), **columns})
    return make_rows(given, folder / "deaths")


def test_a_process_that_dies_takes_only_its_own_row_with_it(clips, expected, tmp_path) -> None:
    out = tmp_path / "deaths"
    summary = segment_many(deadly_rows(clips, tmp_path), run_here(1, Setting(strange.deadly)))
    assert (summary.done, [record["name"] for record in summary.failed]) == (2, ["deadly"])
    (record,) = (record for record in records_in(out) if record["status"] == "failed")
    assert (record["kind"], record["row"]) == ("ProcessDiedError", 1)
    for name, clip in (("unlucky", "b"), ("c", "c")):
        np.testing.assert_array_equal(masks_in(out / name), expected[clip])
    assert not list(out.rglob("*.part*"))


def test_a_process_that_dies_with_nothing_in_hand_is_replaced(rows, expected) -> None:
    class Killer:
        def begin(self, summary: many.Summary) -> None: ...

        def share(self, done: float) -> None: ...

        def record(self, record: dict[str, Any]) -> None:
            for process in multiprocessing.active_children():
                process.kill()
                process.join()
            time.sleep(0.5)  # until its executor has noticed

    table = rows("a", "b")
    summary = segment_many(table, run_here(1), Killer())
    assert (summary.done, summary.failed) == (2, [])
    assert_same(Path(table[0].out), expected, ("a", "b"))


def test_two_runs_in_one_folder_do_no_row_twice(rows, expected, tmp_path) -> None:
    """Another run has two of the rows in hand, one of them broken, and ends with them meanwhile."""
    table = rows("a", "broken", *NAMES[1:])
    out = Path(table[0].out)
    first, second = (many.Claim.take(out / CLAIMS, name) for name in ("b", "broken"))
    assert first is not None
    assert second is not None

    def other() -> None:
        with first, second:
            wait_for(lambda: len(Manifest(out)._records) == 3)
            # What another process does, with the claims in hand.
            records = [process_one(row) for row in rows("broken", "b", out=tmp_path / "other")]
            os.rename(tmp_path / "other" / "b", out / "b")
            for record in records:
                Manifest(out).add(record)
            time.sleep(many.BUSY / 2)  # who has asked for the record just before finds the claim still taken

    thread = threading.Thread(target=other)
    thread.start()
    summary = segment_many(table, run_here(1))
    thread.join()
    assert (summary.done, [record["name"] for record in summary.failed], summary.left) == (4, ["broken"], 0)
    assert sorted(record["name"] for record in records_in(out)) == sorted(["broken", *NAMES])
    assert_same(out, expected)


def test_plugins_are_imported_in_the_processes(clips, tmp_path) -> None:
    (tmp_path / "counting.py").write_text(
        "from osmn_tf.jobs.outputs import Output, outputs\n"
        "@outputs.register('count')\n"
        "class Count(Output):\n"
        "    title, ending = 'count', '_count.txt'\n"
        "    frames = 0\n"
        "    def add(self, *arguments):\n"
        "        self.frames += 1\n"
        "    def close(self):\n"
        "        self.path.write_text(str(self.frames))\n"
    )
    (tmp_path / "jobs.csv").write_text(f"video,mask,count\n{clips}/d.mp4,{clips}/d.png,yes\n")
    words = [
        "segment",
        "--list",
        str(tmp_path / "jobs.csv"),
        "--out",
        str(tmp_path / "out"),
        "--no-overlay",
        "--no-sheet",
    ]
    try:
        assert main(["--plugin", str(tmp_path / "counting.py"), *words, "--quiet"]) == 0
    finally:
        outputs._items.pop("count", None)
        sys.modules.pop("counting", None)
    assert (tmp_path / "out" / "d_count.txt").read_text() == "3"


def test_detections_give_the_objects_of_the_first_frame(clips, tmp_path) -> None:
    """The best of two that overlap is in front; one with a low score does not count."""
    boxes = [([100, 100, 50, 40], 0.6), ([120, 110, 60, 40], 0.9), ([300, 200, 40, 40], 0.2)]
    instances = [
        {"image_id": 1, "category_id": 1, "score": score, "segmentation": [rectangle(*box)]} for box, score in boxes
    ]
    images = [{"id": i + 1, "file_name": f"{i:05d}.jpg", "height": 480, "width": 854} for i in range(2)]
    (tmp_path / "found.json").write_text(json.dumps({"images": images, "annotations": instances}))
    row = {"video": str(clips / "a.mp4"), "detections": str(tmp_path / "found.json"), **PLAIN}
    record = process_one(make_rows([row], tmp_path / "out")[0])
    assert record["status"] == "done", record
    first = read_label_png(tmp_path / "out" / "a" / "00000.png")
    assert set(np.unique(first)) == {0, 1, 2}
    assert (first[115:145, 125:175] == 1).all()
    assert (first[102:108, 105:145] == 2).all()
    strict = make_rows([{**row, "min_score": 0.95}], tmp_path / "none")
    assert "has nothing in frame 0 with a score of 0.95 or more" in process_one(strict[0])["message"]


def test_names_that_are_no_utf_8(clips, tmp_path, capsys) -> None:
    video = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    shutil.copy(clips / "a.mp4", video)
    words = ["--mask", str(clips / "a.png"), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert main(["segment", str(video), str(clips / "b.mp4"), *words]) == 0
    assert "2 videos: 2 done, 0 failed" in capsys.readouterr().out
    assert main(["segment", str(video), str(clips / "b.mp4"), *words]) == 0
    assert "2 videos: 0 done, 2 done before" in capsys.readouterr().out
    assert main(["segment", str(video), *words[:2], "--out", str(tmp_path / "single")]) == 0
    assert "caf\\udce9_overlay.mp4" in capsys.readouterr().out


def rectangle(x: int, y: int, width: int, height: int) -> list[int]:
    return [x, y, x + width, y, x + width, y + height, x, y + height]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give one or more videos, or a table of them as --list FILE"),
        (("a.mp4", "--list", "x.csv"), "give one or more videos, or a table"),
        (("a.mp4", "b.mp4", "--mask", "{name}.png", "--workers", "0"), "--workers: expected 1 or more"),
        (
            ("a.mp4", "b.mp4", "--mask", "{name}.png", "--workers", "all"),
            "--workers: expected 1 or more, or auto, received",
        ),
        (("a.mp4", "b.mp4", "--mask", "{name}.png", "--address", "auto"), "add --runner ray"),
        (("a.mp4", "b.mp4", "--mask", "{name}.png", "--preset", "nothing"), "no preset"),
        (("a.mp4", "a.mp4", "--mask", "{name}.png"), "video 2: its results would be those of row 1 (a)"),
        (("a.mp4", "e.mp4", "--mask", "a.png"), "video 2: there is no"),
        (("a.mp4", "b.mp4", "--mask", "c/{name}.png"), "video 1: there is no"),
        (("a.mp4", "b.mp4", "--mask", "a.png", "--coco", "all.json"), "its results would be those of row 1"),
        (("--list", "x.csv"), "--list: cannot read x.csv"),
        (("--list", "x.txt"), "expected a .csv or a .jsonl file"),
    ],
)
def test_bad_input(words: tuple[str, ...], message: str, clips, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(clips)
    assert main(["segment", *words, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


# Ray


@pytest.mark.filterwarnings("default")  # Ray warns of its own parts
def test_ray_makes_the_same_files_and_records(rows, clips, expected, tmp_path) -> None:
    """An actor that is killed over its video loses nothing; a video that kills all its actors is recorded."""
    pytest.importorskip("ray.data", reason="Ray is not installed")
    from osmn_tf.jobs.on_ray import run_on_ray

    table = rows("a", "broken", "b")
    summary = segment_many(table, run_on_ray(1, Setting()))
    assert (summary.done, [record["name"] for record in summary.failed]) == (2, ["broken"])
    assert_same(tmp_path / "out", expected, ("a", "b"))
    here = rows("a", "broken", "b", out=tmp_path / "here")
    segment_many(here, run_here(1))

    def plain(out: Path) -> dict[str, Any]:
        changing = ("seconds", "total_seconds")
        return {r["name"]: {k: v for k, v in r.items() if k not in changing} for r in records_in(out)}

    assert plain(tmp_path / "out") == plain(tmp_path / "here")
    assert segment_many(table[::2], run_on_ray(1, Setting())).before == 2

    table = deadly_rows(clips, tmp_path)
    summary = segment_many(table, run_on_ray(1, Setting(strange.deadly)))
    assert (summary.done, [(r["name"], r["kind"]) for r in summary.failed]) == (2, [("deadly", "ProcessDiedError")])
    for name, clip in (("unlucky", "b"), ("c", "c")):
        np.testing.assert_array_equal(masks_in(tmp_path / "deaths" / name), expected[clip])


def test_nobody_at_the_address() -> None:
    with socket.socket() as place:  # a port that is taken, and at which nobody listens
        place.bind(("127.0.0.1", 0))
        with pytest.raises(InputError, match="--address: nobody answers at 127"):
            check_address(f"127.0.0.1:{place.getsockname()[1]}")
    for other in (None, "auto", "ray://head:10001"):
        check_address(other)


def test_without_ray_a_line_names_the_extra(clips, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    words = [f"{clips}/a.mp4", "--mask", f"{clips}/a.png", "--runner", "ray", "--out", str(tmp_path / "out")]
    assert main(["segment", *words]) == 2
    assert "pip install 'osmn-tf[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

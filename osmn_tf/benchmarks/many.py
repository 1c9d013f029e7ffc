"""`osmn segment --list` on many short clips, some of them broken, beside a command for each; and its manifest alone."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from osmn_tf.benchmarks.processes import Ended, run_osmn
from osmn_tf.datasets.davis import open_davis
from osmn_tf.datasets.examples import example_path
from osmn_tf.datasets.index import decode_mask
from osmn_tf.errors import InputError
from osmn_tf.files import ensure_directory, file_digest
from osmn_tf.jobs.manifest import RESULTS, Manifest
from osmn_tf.jobs.many import fingerprint_of, pending
from osmn_tf.jobs.rows import read_table
from osmn_tf.masks.drawing import write_image
from osmn_tf.masks.files import read_label_png, write_mask
from osmn_tf.video.images import read_image
from osmn_tf.video.source import open_source
from osmn_tf.video.writer import write_video

BROKEN = (
    "empty file",
    "text",
    "half a file",
    "folder without images",
    "images of two sizes",
    "mask of another size",
    "mask without an object",
    "mask that is text",
    "mask of a later frame",
    "box outside",
)
"""The ways in which clips are broken."""

_FPS = 24
_TABLE = "clips.csv"


# The clips --------------------------------------------------------------------------------------------------------


def make_clips(
    folder: str | os.PathLike[str],
    *,
    davis: str | os.PathLike[str] | None = None,
    split: str = "train",
    count: int = 200,
    frames: int = 8,
    broken: int = 10,
) -> Path:
    """Cuts short clips out of the shipped example and of DAVIS 2016, and breaks some of them.

    Args:
        folder: where they are written.
        davis, split: the data set, which may be left out.
        count: how many clips, those that are broken included, which are spread among the others.
        frames: of each.
        broken: how many are broken, each in another way of `BROKEN`.

    Returns:
        The table of all clips: "video", "mask" and "box". The broken ones are called "broken_...".

    Raises:
        InputError: a number is out of its range, or the data set is incomplete.
    """
    if not 0 <= broken <= min(len(BROKEN), count) or frames < 1:
        raise InputError(f"clips: expected at most {len(BROKEN)} broken ones, and frames, received {broken}, {frames}")
    out = ensure_directory(folder, "--clips")
    example = example_path()
    masks = sorted((example / "masks").glob("*.png"))
    sources = [_Cut(example.name, example / f"{example.name}.mp4", masks, frames, binary=False)]
    for sequence in open_davis(davis, 2016, split).sequences if davis is not None else ():
        annotated = [path for path in sequence.mask_paths if path is not None]
        sources.append(_Cut(sequence.name, sequence.frame_paths, annotated, frames, binary=True))
    every = count // broken if broken else count + 1
    rows = []
    for index in range(count):
        kind = BROKEN[index // every] if index % every == every // 2 and index // every < broken else None
        pictures, mask, name = sources[index % len(sources)](index // len(sources))
        stem = f"{index:03d}_{name}" if kind is None else f"broken_{index:03d}"
        write_video(out / f"{stem}.mp4", pictures, _FPS)
        write_mask(out / f"{stem}.png", mask)
        row = {"video": f"{stem}.mp4", "mask": f"{stem}.png", "box": ""}
        rows.append(row if kind is None else {**row, **_break(kind, out, stem, pictures[0])})
    with open(out / _TABLE, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["video", "mask", "box"])
        writer.writeheader()
        writer.writerows(rows)
    return out / _TABLE


class _Cut:
    """Cuts clips out of one video, each a few frames behind the one before."""

    _STEP = 3

    def __init__(
        self, name: str, frames: Sequence[Path] | Path, masks: Sequence[Path], length: int, binary: bool
    ) -> None:
        self.name, self._frames, self._masks, self._length, self._binary = name, frames, masks, length, binary

    def __call__(self, number: int) -> tuple[list[np.ndarray], np.ndarray, str]:
        """Frames and first mask of a clip whose first mask has an object, and what to call it."""
        places = max(1, len(self._masks) - self._length)
        for more in range(places):
            start = (number * self._STEP + more) % places
            mask = decode_mask(self._masks[start], binary=self._binary)
            if mask.any():
                break
        if isinstance(self._frames, Path):
            pictures = list(open_source(self._frames, start=start, end=start + self._length))
        else:
            pictures = [read_image(path, oriented=False) for path in self._frames[start : start + self._length]]
        return pictures, mask, f"{self.name}_{start:03d}"


def _break(kind: str, folder: Path, stem: str, frame: np.ndarray) -> dict[str, str]:
    """Breaks a clip, and returns what its row has instead."""
    video, mask = folder / f"{stem}.mp4", folder / f"{stem}.png"
    if kind == "empty file":
        video.write_bytes(b"")
    elif kind == "text":
        video.write_text("This is no video.\n" * 100)
    elif kind == "half a file":
        video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    elif kind in ("folder without images", "images of two sizes"):
        (folder / stem).mkdir(exist_ok=True)
        if kind == "images of two sizes":
            write_image(folder / stem / "00000.png", frame)
            write_image(folder / stem / "00001.png", frame[:-2])
        video.unlink()
        return {"video": stem}
    elif kind == "mask of another size":
        write_mask(mask, read_label_png(mask)[:-2])
    elif kind == "mask without an object":
        write_mask(mask, np.zeros_like(read_label_png(mask)))
    elif kind == "mask that is text":
        mask.write_text("This is no image.\n")
    elif kind == "mask of a later frame":
        return {"mask": f"1000:{mask.name}"}
    else:
        return {"mask": "", "box": f"{frame.shape[1]},0,10,10"}
    return {}


# The commands -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Throughput:
    """Of one way to segment the clips.

    Attributes:
        name: what was run.
        videos: how many there were.
        seconds: in all.
        cpu_seconds: of the processor, in all: what a machine that is busy with other things does not change much.
        mebibytes: of the process that had most.
        right: how many have all their masks.
        recorded: how many are in the records as failed; None for single commands.
        equal: how many of those that single commands have segmented too have the same masks.
        same: how many have the files of the first run over the table, byte for byte, and its record but for the times;
            None for that run, and for single commands.
    """

    name: str
    videos: int
    seconds: float
    cpu_seconds: float
    mebibytes: float
    right: int
    recorded: int | None
    equal: int
    same: int | None = None


def measure(
    table: str | os.PathLike[str],
    *,
    workers: Sequence[int] = (1, 2),
    runners: Sequence[str] = ("local",),
    singles: int = 10,
    frames: int = 8,
    words: Sequence[str] = (),
) -> Iterator[Throughput]:
    """Runs single commands on some clips, and `osmn segment --list` on all.

    Args:
        table: of `make_clips`.
        workers: numbers of processes to try.
        runners: where they are, each tried with each number: "local" or "ray".
        singles: how many clips get a command of their own; they are spread over the table.
        frames: of a clip.
        words: further arguments of every command ("--engine", "keras").

    Raises:
        InputError: a command fails that should not.
    """
    rows = [row for row in read_table(table, "") if not row.name.startswith("broken_")]
    chosen = rows[:: max(1, len(rows) // max(1, singles))][:singles]
    with tempfile.TemporaryDirectory() as folder:
        single = Path(folder, "single")
        runs: list[Ended] = []
        for row in chosen:
            mask = ["--mask", row.columns["mask"][0]]
            runs.append(run_osmn(["segment", row.columns["video"], *mask, "--out", str(single), "--quiet", *words]))
        if chosen:
            right = sum(len(_masks(single / row.name)) == frames for row in chosen)
            yield Throughput(
                "single commands",
                len(chosen),
                sum(run.seconds for run in runs),
                sum(run.cpu_seconds for run in runs),
                max(run.mebibytes for run in runs),
                right,
                None,
                len(chosen),
            )
        first: dict[str, tuple[dict[str, Any], dict[str, str]]] | None = None
        for runner, count in itertools.product(runners, workers):
            out = Path(folder, f"{runner}_{count}")
            line = ["segment", "--list", os.fspath(table), "--out", str(out), "--quiet", *words]
            line += ["--runner", runner, "--workers", str(count)]
            run = run_osmn(line, expected=(0, 1), family=runner == "ray")
            with open(out / RESULTS, encoding="utf-8") as file:
                records = [json.loads(text) for text in file]
            found = {record["name"]: (_lasting(record), _files(out, record["name"])) for record in records}
            yield Throughput(
                f"--workers {count}" if runner == "local" else f"{runner}, {count} actors",
                len(records),
                run.seconds,
                run.cpu_seconds,
                run.mebibytes,
                sum(len(_masks(out / row.name)) == frames for row in rows),
                sum(record["status"] == "failed" for record in records),
                sum(_equal(single / row.name, out / row.name) for row in chosen),
                None if first is None else sum(found.get(name) == what for name, what in first.items()),
            )
            first = first or found


def _lasting(record: Mapping[str, Any]) -> dict[str, Any]:
    """What is the same of a record however the video was segmented."""
    return {key: value for key, value in record.items() if key not in ("seconds", "total_seconds")}


def _files(out: Path, name: str) -> dict[str, str]:
    """Path below `out` -> digest of the results of one video."""
    places = [out / name, *out.glob(f"{name}_*")]
    files = [file for place in places for file in ([place] if place.is_file() else place.rglob("*")) if file.is_file()]
    return {str(file.relative_to(out)): file_digest(file) for file in files}


def _masks(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png"))


def _equal(folder: Path, other: Path) -> bool:
    pairs = zip(_masks(folder), _masks(other), strict=True)
    return all(np.array_equal(read_label_png(path), read_label_png(second)) for path, second in pairs)


# The manifest -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ManifestTimes:
    """Seconds that a table of many rows costs before and beside its videos.

    Attributes:
        rows: how many there are.
        read: reading and checking the table.
        plan: finding out which rows are to be done, when none is.
        record: adding all records.
        resume: reading the records and finding out that all are done.
    """

    rows: int
    read: float
    plan: float
    record: float
    resume: float


def measure_manifest(rows: int = 100_000) -> ManifestTimes:
    """Times everything that `osmn segment --list` does for a row but for segmenting its video.

    The rows are of one small video and mask, with different settings.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "clip.mp4").write_bytes(b"video")
        (folder / "clip.png").write_bytes(b"mask")
        for index in range(100):
            (folder / f"done{index}").mkdir()
        lines = "".join(f"clip.mp4,clip.png,{index % 7 + 10},{index:06d}\n" for index in range(rows))
        (folder / "table.csv").write_text(f"video,mask,end,out\n{lines}")
        began = time.perf_counter()
        table = read_table(folder / "table.csv", folder)
        read = time.perf_counter()
        to_do = pending(table, Manifest(folder))
        planned = time.perf_counter()
        prints = {row.name: fingerprint_of(row) for row in to_do}
        prepared = time.perf_counter()
        manifest = Manifest(folder)
        for row in to_do:
            of = prints[row.name]
            manifest.add(
                {
                    "name": row.name,
                    "row": row.number,
                    "video": row.columns["video"],
                    "status": "done",
                    "results": {"masks": f"done{row.number % 100}"},
                    "facts": of.facts,
                    "stamp": of.stamp,
                }
            )
        recorded = time.perf_counter()
        left = pending(table, Manifest(folder))
        resumed = time.perf_counter()
        if len(to_do) != rows or left:
            raise RuntimeError(f"{len(to_do)} of {rows} rows were to be done, and {len(left)} are left")
        return ManifestTimes(rows, read - began, planned - read, recorded - prepared, resumed - recorded)

"""The benchmarks: folders of result masks against a data set, in all processes, with the official tables.

from osmn_tf.evaluation.benchmark import evaluate_results
evaluation = evaluate_results("DAVIS", {"mine": "results/mine"}, protocol="davis-2016", split="val")
evaluation.methods[0].j.mean
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import csv
import dataclasses
import io
import json
import math
import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from osmn_tf import files
from osmn_tf.errors import InputError, import_extra
from osmn_tf.evaluation.facts import youtube_vos_seen
from osmn_tf.evaluation.metrics import Statistics, defined_mean, statistics
from osmn_tf.evaluation.protocols import PROTOCOLS, Protocol, Sequence, find_sequences, png_names
from osmn_tf.evaluation.scoring import FRAMES_PER_CHUNK, MEASURES, ChunkJob, ChunkScores, score_chunk
from osmn_tf.machine import usable_cores
from osmn_tf.version import __version__

Array = NDArray[Any]
Progress = Callable[[int, int], None]
"""Called with (frames done, frames in all)."""

# Below this many masks starting other processes takes longer than scoring them.
_WORTH_A_POOL = 60


@dataclasses.dataclass(frozen=True)
class ObjectScores:
    """One object of one sequence, scored over T frames.

    Attributes:
        sequence: name of the sequence.
        name: `<sequence>_<n>`.
        label: its value in the annotations; 1 where objects are merged.
        matched: its value in the results: the label, or the proposal that was matched to it (0: none).
        category: of YouTube-VOS, or "".
        frames: names of the T frames.
        j, f: float64 [T], 0..1.
        false_close, false_far, missed: float64 [T], share of the union of both masks; they add up to 1 - j.
        stability: float64 [T - 1], T between neighbouring frames, NaN where a mask is empty; [0] if not measured.
    """

    sequence: str
    name: str
    label: int
    matched: int
    category: str
    frames: tuple[str, ...]
    j: Array
    f: Array
    false_close: Array
    false_far: Array
    missed: Array
    stability: Array


@dataclasses.dataclass(frozen=True)
class MethodScores:
    """All objects of one method. The statistics are means over the objects, as in the official tables."""

    name: str
    results: Path
    objects: tuple[ObjectScores, ...]

    @property
    def j(self) -> Statistics:
        """Region similarity: mean, recall and decay."""
        return _mean_statistics([statistics(scores.j) for scores in self.objects])

    @property
    def f(self) -> Statistics:
        """Boundary accuracy: mean, recall and decay."""
        return _mean_statistics([statistics(scores.f) for scores in self.objects])

    @property
    def t(self) -> float:
        """Temporal stability: mean over the sequences for which it is defined; NaN if it was not measured."""
        return defined_mean([stability_mean(scores) for scores in self.objects])

    @property
    def j_and_f(self) -> float:
        """(mean J + mean F) / 2."""
        return (self.j.mean + self.f.mean) / 2


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Several methods on the same sequences."""

    protocol: Protocol
    split: str
    sequences: tuple[Sequence, ...]
    methods: tuple[MethodScores, ...]


def stability_mean(scores: ObjectScores) -> float:
    """T of one object: mean over the pairs of frames for which it is defined, else NaN."""
    return defined_mean(scores.stability)


def _mean_statistics(rows: list[Statistics]) -> Statistics:
    return Statistics(*(float(column) for column in np.mean(np.array(rows), axis=0)))


def evaluate_results(
    root: str | os.PathLike[str],
    results: Mapping[str, str | os.PathLike[str]],
    *,
    protocol: str = "davis-2017",
    split: str = "val",
    sequences: Iterable[str] | None = None,
    resolution: str = "480p",
    workers: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Scores folders of result masks.

    Args:
        root: the data set (`protocols.find_sequences`).
        results: name of a method -> folder with `<sequence>/<frame>.png`: palette or greyscale PNGs whose values are
            the objects, or black and white masks where there is one object.
        protocol: a name in `protocols.PROTOCOLS`.
        split, sequences, resolution: `protocols.find_sequences`.
        workers: processes; None takes every core that this process may use. More than one starts new interpreters, so a
            script that calls this needs `if __name__ == "__main__":`.
        cache: folder in which scores are kept by the content of the files they come from; None keeps nothing.
        progress: called after every stretch of frames with (frames done, frames in all).

    Raises:
        InputError: the data set or the results are incomplete or do not fit the protocol. The message names the file.
        MissingDependencyError: SciPy is not installed, and the protocol matches proposals.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol: expected one of {', '.join(PROTOCOLS)}, received {protocol!r}")
    if not results:
        raise InputError("results: expected at least one folder of results, received none")
    rules = PROTOCOLS[protocol]
    if rules.match_proposals:
        _linear_sum_assignment()  # before minutes of scoring, rather than after
    found = find_sequences(root, rules, split=split, sequences=sequences, resolution=resolution)
    folders = {name: Path(path) for name, path in results.items()}
    for folder in folders.values():
        check_results(folder, found)
    jobs = [
        ChunkJob(
            sequence,
            begin,
            min(begin + FRAMES_PER_CHUNK, len(sequence.frames)),
            tuple(folder / sequence.name for folder in folders.values()),
            rules,
            Path(cache) if cache is not None else None,
        )
        for sequence in found
        for begin in range(0, len(sequence.frames), FRAMES_PER_CHUNK)
    ]
    scores: dict[str, list[ObjectScores]] = {name: [] for name in folders}
    with contextlib.closing(_run(jobs, workers, progress)) as chunks:
        for sequence in found:
            stretch = [next(chunks) for _ in range(0, len(sequence.frames), FRAMES_PER_CHUNK)]
            for index, name in enumerate(folders):
                scores[name].extend(_collect(sequence, rules, [chunk[index] for chunk in stretch]))
    methods = tuple(MethodScores(name, folders[name], tuple(scores[name])) for name in folders)
    return Evaluation(rules, split, tuple(found), methods)


def check_results(folder: Path, sequences: Iterable[Sequence]) -> None:
    """Raises `InputError` unless `folder` has a file for every scored frame of every sequence."""
    if not folder.is_dir():
        raise InputError(f"--results: expected a folder of masks, but there is no folder {folder}")
    missing: list[Path] = []
    absent: list[str] = []
    total = 0
    for sequence in sequences:
        present = set(png_names(folder / sequence.name))
        total += len(sequence.frames)
        absent += [] if present else [sequence.name]
        missing += [
            folder / sequence.name / f"{frame}.png" for frame in sequence.frames if frame not in present and present
        ]
    if absent:
        raise InputError(
            f"{folder}: expected a folder of PNG masks for every sequence, found none for {len(absent)}:"
            f" {', '.join(absent[:5])}{', ...' if len(absent) > 5 else ''}"
        )
    if missing:
        raise InputError(f"{folder}: {len(missing)} of {total} masks are missing, first {missing[0]}")


def start_worker() -> None:
    """To be run first in every process that scores masks."""
    # Ctrl-C goes to the parent, which ends the workers; one thread each, because there is a worker per core.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def _run(
    jobs: list[ChunkJob], workers: int | None, progress: Progress | None
) -> Generator[list[ChunkScores], None, None]:
    """The scores of all jobs, in their order."""
    total = sum((job.end - job.begin) * len(job.results) for job in jobs)
    done = 0

    def report(job: ChunkJob) -> None:
        nonlocal done
        done += (job.end - job.begin) * len(job.results)
        if progress is not None:
            progress(done, total)

    count = min(usable_cores() if workers is None else max(workers, 1), len(jobs))
    if count == 1 or total < _WORTH_A_POOL:
        for job in jobs:
            result = score_chunk(job)
            report(job)
            yield result
        return
    # "spawn": a fork of a process with TensorFlow's threads may hang.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(count, mp_context=context, initializer=start_worker) as pool:
        futures = [pool.submit(score_chunk, job) for job in jobs]
        try:
            for job, future in zip(jobs, futures):
                result = future.result()
                report(job)
                yield result
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _collect(sequence: Sequence, protocol: Protocol, chunks: list[ChunkScores]) -> list[ObjectScores]:
    """The chunks of one sequence and method, put together object by object."""
    if protocol.match_proposals:
        values, matched = _match([chunk.values for chunk in chunks])
    else:
        values, matched = np.concatenate([chunk.values for chunk in chunks], axis=-1), list(sequence.labels)
    stability = np.concatenate([chunk.stability for chunk in chunks])
    objects = []
    for k, start in enumerate(sequence.starts):
        if start >= len(sequence.frames):
            continue  # first seen in the last annotated frame
        named = dict(zip(MEASURES, values[:, k, start:]))
        union = np.maximum(named["union"], 1)  # without a union there is no error to share out
        objects.append(
            ObjectScores(
                sequence=sequence.name,
                name=sequence.object_name(k),
                label=sequence.labels[k],
                matched=matched[k],
                category=sequence.categories[k] if sequence.categories else "",
                frames=sequence.frames[start:],
                j=named["j"],
                f=named["f"],
                false_close=named["false_close"] / union,
                false_far=named["false_far"] / union,
                missed=named["missed"] / union,
                stability=stability,
            )
        )
    return objects


def _linear_sum_assignment() -> Callable[..., tuple[Array, Array]]:
    scipy = import_extra("scipy.optimize", "scipy", "evaluation", "matching proposals to objects")
    return scipy.linear_sum_assignment


def _match(chunks: list[Array]) -> tuple[Array, list[int]]:
    """[6, K, P + 1, T] of every chunk to [6, K, T], and the proposal of every object (0: none).

    Every object gets the proposal that suits it best, none twice, so that the mean of (J + F) / 2 over frames and
    objects is the largest possible.
    """
    objects = chunks[0].shape[1]
    proposals = max(chunk.shape[2] - 1 for chunk in chunks)
    # Proposals that a chunk does not have are empty there; one spare empty proposal for every object.
    columns = proposals + objects
    values = np.concatenate(
        [
            np.concatenate([c[:, :, :-1], np.repeat(c[:, :, -1:], columns - c.shape[2] + 1, axis=2)], axis=2)
            for c in chunks
        ],
        axis=-1,
    )
    # There are as many columns as rows, or more: every object gets one, in their order.
    assigned = _linear_sum_assignment()(values[:2].mean(axis=(0, 3)), maximize=True)[1].tolist()
    matched = [column + 1 if column < proposals else 0 for column in assigned]
    return np.stack([values[:, k, p] for k, p in enumerate(assigned)], axis=1), matched


GLOBAL_COLUMNS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
"""Overall numbers of the official DAVIS table."""
SEEN_COLUMNS = ("Overall", "J-Seen", "J-Unseen", "F-Seen", "F-Unseen")
"""Overall numbers of YouTube-VOS."""


def global_row(evaluation: Evaluation, method: MethodScores) -> dict[str, float]:
    """The overall numbers of a method by the protocol's columns, 0..1 (NaN: there are no such objects)."""
    if evaluation.protocol.name != "youtube-vos":
        return dict(zip(GLOBAL_COLUMNS, (method.j_and_f, *method.j, *method.f)))
    seen = youtube_vos_seen()
    groups = [[s for s in method.objects if (s.category in seen) == wanted] for wanted in (True, False)]
    four = [
        float(np.mean([getattr(s, measure).mean() for s in group])) if group else math.nan
        for measure in ("j", "f")
        for group in groups
    ]
    return dict(zip(SEEN_COLUMNS, (defined_mean(four), *four)))


def _csv(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow(
            ["" if isinstance(v, float) and math.isnan(v) else f"{v:.3f}" if isinstance(v, float) else v for v in row]
        )
    return buffer.getvalue()


def write_tables(evaluation: Evaluation, out: str | os.PathLike[str]) -> list[Path]:
    """Writes `<out>/<method>/{global_results,per-sequence_results}-<split>.csv`, as the official tool does, and
    `scores.json` with everything per frame. Existing files are overwritten. Returns the paths."""
    paths = []
    for method in evaluation.methods:
        folder = files.ensure_directory(Path(out) / method.name, "--out")
        row = global_row(evaluation, method)
        contents = {
            f"global_results-{evaluation.split}.csv": _csv(row, [row.values()]),
            f"per-sequence_results-{evaluation.split}.csv": _csv(
                ("Sequence", "J-Mean", "F-Mean"),
                [(scores.name, statistics(scores.j).mean, statistics(scores.f).mean) for scores in method.objects],
            ),
            "scores.json": json.dumps(as_json(evaluation, method), allow_nan=False) + "\n",
        }
        for name, content in contents.items():
            files.write_text(folder / name, content)
            paths.append(folder / name)
    return paths


def as_json(evaluation: Evaluation, method: MethodScores) -> dict[str, Any]:
    """All numbers of a method, down to the single frame, as JSON values (null: not defined). Shares are 0..1."""
    return {
        "format": 1,
        "osmn_tf": __version__,
        "protocol": evaluation.protocol.name,
        "split": evaluation.split,
        "method": method.name,
        "results": str(method.results),
        "global": {
            **{name: _number(value) for name, value in global_row(evaluation, method).items()},
            "T-Mean": _number(method.t),
        },
        "objects": {
            scores.name: {
                "sequence": scores.sequence,
                **({"category": scores.category} if scores.category else {}),
                "J": _statistics_json(scores.j),
                "F": _statistics_json(scores.f),
                "T": _number(stability_mean(scores)),
                "frames": list(scores.frames),
                "per_frame": {
                    "J": _numbers(scores.j),
                    "F": _numbers(scores.f),
                    "false_close": _numbers(scores.false_close),
                    "false_far": _numbers(scores.false_far),
                    "missed": _numbers(scores.missed),
                    "T": _numbers(scores.stability),
                },
            }
            for scores in method.objects
        },
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _numbers(values: Array) -> list[float | None]:
    return [_number(value) for value in values.tolist()]


def _statistics_json(values: Array) -> dict[str, float | None]:
    mean, recall, decay = statistics(values)
    return {"mean": _number(mean), "recall": _number(recall), "decay": _number(decay)}

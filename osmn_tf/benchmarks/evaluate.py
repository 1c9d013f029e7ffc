"""How fast J and F are here, against the way they are usually computed, on the same masks in the same run."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import multiprocessing
import os
import threading
import time
from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from osmn_tf.errors import InputError
from osmn_tf.evaluation.benchmark import available_cores, start_worker
from osmn_tf.evaluation.metrics import boundary_radius, jaccard_and_boundary_f
from osmn_tf.evaluation.protocols import PROTOCOLS, Sequence, find_sequences
from osmn_tf.masks.files import read_label_png
from osmn_tf.masks.labels import VOID

Array = NDArray[Any]


@dataclasses.dataclass(frozen=True)
class SpeedRow:
    """Seconds for the J and F of all pairs of masks of one sequence, by both implementations."""

    sequence: str
    frames: int
    literal_seconds: float
    seconds: float
    identical: bool
    workers: int


def compare(
    root: str | os.PathLike[str],
    *,
    year: int = 2016,
    split: str = "val",
    sequences: Iterable[str] | None = None,
    workers: int | None = None,
    repeat: int = 3,
) -> list[SpeedRow]:
    """Times both implementations on the annotations of a DAVIS folder, each against that of the frame before.

    Files are read and processes are started before the clock runs. The literal implementation looks for boundaries and
    dilates them with a disk-shaped kernel on the whole frame, with OpenCV, which may use all of its threads.

    Args:
        root, year, split, sequences: the data set (`protocols.find_sequences`).
        workers: processes for the implementation of this package; None: one per core.
        repeat: runs, of which the fastest counts.

    Returns:
        One row per sequence.

    Raises:
        InputError: the data set is incomplete, or `repeat` or `workers` is below 1.
    """
    if repeat < 1:
        raise InputError(f"--repeat: expected at least 1, received {repeat}")
    count = available_cores() if workers is None else workers
    if count < 1:
        raise InputError(f"--workers: expected at least 1, received {count}")
    found = find_sequences(root, PROTOCOLS[f"davis-{year}"], split=split, sequences=sequences)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        count, mp_context=context, initializer=_start_timed_worker, initargs=(context.Barrier(count),)
    ) as pool:
        return [_compare_sequence(pool, sequence, count, repeat) for sequence in found]


def _compare_sequence(
    pool: concurrent.futures.ProcessPoolExecutor, sequence: Sequence, count: int, repeat: int
) -> SpeedRow:
    masks = [_mask(sequence, frame) for frame in sequence.frames]
    pairs = list(zip(masks[1:], masks))
    # Each process gets its share before the clock runs: every n-th frame, as objects come nearer and go away.
    futures = [pool.submit(_time_share, pairs[part::count], repeat) for part in range(count)]
    done = [future.result() for future in futures]
    # One run takes from the first process's start to the last one's end.
    runs = [max(times[run][1] for times, _ in done) - min(times[run][0] for times, _ in done) for run in range(repeat)]
    scores: list[tuple[float, float]] = [(0.0, 0.0)] * len(pairs)
    for part, (_, share_scores) in enumerate(done):
        scores[part::count] = share_scores
    literal_runs = []
    for _ in range(repeat):
        started = time.perf_counter()
        literal = [literal_scores(*pair) for pair in pairs]
        literal_runs.append(time.perf_counter() - started)
    return SpeedRow(sequence.name, len(pairs), min(literal_runs), min(runs), scores == literal, count)


_barrier: threading.Barrier | None = None


def _start_timed_worker(barrier: threading.Barrier) -> None:
    global _barrier
    _barrier = barrier
    start_worker()


def _time_share(
    pairs: list[tuple[Array, Array]], repeat: int
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Start and end of every run, and the (J, F) of all pairs. All processes start together."""
    times = []
    scores: list[tuple[float, float]] = []
    for _ in range(repeat):
        if _barrier is not None:
            _barrier.wait()
        started = time.perf_counter()
        scores = [jaccard_and_boundary_f(*pair) for pair in pairs]
        times.append((started, time.perf_counter()))
    return times, scores


def _mask(sequence: Sequence, frame: str) -> Array:
    mask = read_label_png(sequence.annotations / f"{frame}.png")
    return mask != 0 if sequence.binary else (mask != 0) & (mask != VOID)


def _literal_boundary(mask: Array) -> Array:
    east, south, south_east = mask.copy(), mask.copy(), mask.copy()
    east[:, :-1] = mask[:, 1:]
    south[:-1] = mask[1:]
    south_east[:-1, :-1] = mask[1:, 1:]
    boundary = (mask ^ east) | (mask ^ south) | (mask ^ south_east)
    boundary[-1] = mask[-1] ^ east[-1]
    boundary[:, -1] = mask[:, -1] ^ south[:, -1]
    boundary[-1, -1] = False
    return boundary


def literal_scores(annotation: Array, prediction: Array) -> tuple[float, float]:
    """J and F of two masks, bool [H, W], the usual way: boundaries by shifted copies of the frame, dilated with OpenCV
    by a disk-shaped kernel."""
    union = np.count_nonzero(annotation | prediction)
    j = np.count_nonzero(annotation & prediction) / union if union else 1.0
    radius = boundary_radius(annotation.shape[0], annotation.shape[1])
    offsets = np.arange(-radius, radius + 1)
    disk = (offsets[:, None] ** 2 + offsets[None, :] ** 2 <= radius**2).astype(np.uint8)
    truth, guess = _literal_boundary(annotation), _literal_boundary(prediction)
    truth_dilated = cv2.dilate(truth.astype(np.uint8), disk).astype(bool)
    guess_dilated = cv2.dilate(guess.astype(np.uint8), disk).astype(bool)
    truth_count, guess_count = np.count_nonzero(truth), np.count_nonzero(guess)
    if not truth_count or not guess_count:
        return j, float(truth_count == guess_count)
    precision = np.count_nonzero(guess & truth_dilated) / guess_count
    recall = np.count_nonzero(truth & guess_dilated) / truth_count
    return j, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def total(rows: list[SpeedRow]) -> SpeedRow:
    """The sum of all rows."""
    return SpeedRow(
        "all",
        sum(row.frames for row in rows),
        sum(row.literal_seconds for row in rows),
        sum(row.seconds for row in rows),
        all(row.identical for row in rows),
        rows[0].workers,
    )

"""Segments many videos: each by `process_one`, which does not raise, in processes that load the network once.

The videos are rows of a table (`osmn_tf.jobs.rows`); what became of each is a line of OUT/results.jsonl
(`osmn_tf.jobs.manifest`). A runner brings the rows to processes: this machine's (`run_here`), or those of a Ray cluster
(`osmn_tf.jobs.on_ray`).
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import multiprocessing
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol

from osmn_tf.errors import one_line
from osmn_tf.files import ensure_directory, file_digest
from osmn_tf.inference.contours import find_contours
from osmn_tf.inference.predictor import Predictor
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.jobs.background import deferred_interrupt
from osmn_tf.jobs.manifest import CLAIMS, Claim, Fingerprint, Manifest, Record
from osmn_tf.jobs.options import SegmentOptions
from osmn_tf.jobs.rows import FILES, Row, files_read
from osmn_tf.jobs.segment import Progress, default_segmenter, find_source, network_files, preset_files, segment
from osmn_tf.machine import free_memory, usable_cores

MOST_NETWORKS = 2  # that a process keeps loaded
MEMORY = 1 << 29  # bytes for a process with LiteRT; 0.3 GiB were measured with frames of 854x480
_TRIES = 2  # of a video whose process dies
_TICK = 0.5  # seconds between two looks at how far the processes are
BUSY = 2.0  # seconds until a video is looked at again that another process has

Opener = Callable[[SegmentOptions], VideoSegmenter]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a process is told that segments videos; it can be pickled.

    Attributes:
        open_segmenter: makes a segmenter, as `osmn_tf.jobs.segment.segment` takes it.
        prepare: called first, to import plugins.
        threads: that the process computes with; None: as many as it likes.
    """

    open_segmenter: Opener = default_segmenter
    prepare: Callable[[], None] | None = None
    threads: int | None = None

    def apply(self) -> None:
        """Makes this process ready."""
        if self.threads is not None:
            limit_threads(self.threads)
        if self.prepare is not None:
            self.prepare()


def limit_threads(count: int) -> None:
    """Lets what this process computes with have so many threads. Comes before TensorFlow is used."""
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ[name] = str(count)
    import cv2

    cv2.setNumThreads(count)


# One video --------------------------------------------------------------------------------------------------------


def process_one(
    row: Row,
    *,
    open_segmenter: Opener = default_segmenter,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
    tries: int | None = None,
) -> Record:
    """Segments the video of a row, and says what became of it. Does not raise.

    What it does depends on the row alone, so that any process on any machine may do it. The network stays loaded for
    the next row.

        record = process_one(make_rows([{"video": "dog.mp4", "mask": "dog.png"}], "results")[0])

    Args:
        row: see `Row`.
        open_segmenter, progress, stop: as `osmn_tf.jobs.segment.segment`.
        tries: how many processes may die over the video before it has failed; None: any number.

    Returns:
        "name", "row" and "video" of the row; "status": "done", "failed", "interrupted" or, where another process is at
        work on it, "busy"; of one that failed "kind" (the class of the error) and "message" (a line); "remarks", lines
        on what is probably not meant, where there are any; of what is there
        "frames", "seconds" and "results" (what it is -> where, below OUT); what the results depend on as "facts",
        "stamp" and "content" (see `Fingerprint`); and "host".
    """
    began = time.perf_counter()
    record: Record = {"name": row.name, "row": row.number, "video": str(row.columns.get("video"))}
    try:
        claim = Claim.take(Path(row.out) / CLAIMS, row.name)
        if claim is None:
            return {**record, "status": "busy"}
        with claim:
            if tries is not None and claim.number >= tries:
                raise ProcessDiedError
            record |= _process(row, functools.partial(shared_segmenter, open_segmenter), progress, stop)
    except KeyboardInterrupt:
        record["status"] = "interrupted"
    except Exception as error:
        record |= {"status": "failed", "kind": type(error).__name__, "message": one_line(error)}
    return {**record, "total_seconds": round(time.perf_counter() - began, 3), "host": platform.node()}


class ProcessDiedError(RuntimeError):
    """A process that was at work on a video was gone before it was done."""

    def __init__(self) -> None:
        super().__init__("the process that segmented it died: out of memory, killed, or a crash in a decoder")


def _process(row: Row, opener: Opener, progress: Progress | None, stop: Callable[[], bool] | None) -> Record:
    fingerprint = fingerprint_of(row)
    remarks: list[str] = []
    outcome = segment(row.options, progress=progress, open_segmenter=opener, stop=stop, remark=remarks.append)
    found: Record = {
        "status": "interrupted" if outcome.interrupted else "done",
        "frames": outcome.frames,
        "seconds": round(outcome.seconds, 3),
        "results": {title: os.path.relpath(path, row.out) for title, path in outcome.results},
    }
    if remarks:
        found["remarks"] = remarks
    if outcome.problem is not None:
        return found | {"status": "failed", "kind": outcome.kind, "message": outcome.problem}
    if not outcome.interrupted:
        found |= {"facts": fingerprint.facts, "stamp": fingerprint.stamp, "content": fingerprint.content}
    return found


def fingerprint_of(row: Row) -> Fingerprint:
    """What the results of a row depend on.

    Raises:
        InputError: a value cannot be read, or there is no such network.
        OSError: a file is not there.
    """
    options = row.options
    facts = {name: value for name, value in row.columns.items() if name not in ("preset", "contours", "force", *FILES)}
    facts["mask"] = list(options.masks)  # of which frames they are; what is in them is content
    contours = None if options.contours is None else str(options.contours)
    networks = _network_digest(str(options.preset), options.network, options.finetunes, contours)
    return Fingerprint.of([facts, networks], files_read(options))


@functools.lru_cache(maxsize=64)
def _network_digest(preset: str, network: Any, adapts: bool, contours: str | None) -> list[Any]:
    source = find_source(SegmentOptions("", preset=preset, network=network, finetune=int(adapts)))
    files = network_files(source)
    if (path := find_contours(contours)) is not None:
        files += preset_files(path)
    return [preset if source.path is None else source.kind, *(file_digest(path) for path in files)]


# Networks that stay -----------------------------------------------------------------------------------------------

_predictors: collections.OrderedDict[Any, Predictor] = collections.OrderedDict()


def shared_segmenter(open_segmenter: Opener, options: SegmentOptions) -> VideoSegmenter:
    """A segmenter of a network that stays loaded in this process, for one video after the other.

    Args:
        open_segmenter: makes one where the network is not loaded, or is on a server, whose connection does not stay.
        options: of the job.
    """
    source = find_source(options)
    if source.path is None:
        return open_segmenter(options)
    stamps = tuple((path.stat().st_size, path.stat().st_mtime_ns) for path in network_files(source))
    key = (str(source.path), stamps, source.engine, options.network)
    if key not in _predictors:
        while len(_predictors) >= MOST_NETWORKS:
            _predictors.popitem(last=False)[1].close()
        _predictors[key] = open_segmenter(options).predictor
    _predictors.move_to_end(key)
    return VideoSegmenter(_predictors[key])


# All videos -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Summary:
    """How a run over many videos has ended.

    Attributes:
        rows: how many videos there are.
        before: of those, how many were done already.
        done: how many this run has done, or another one meanwhile.
        failed: the records of those that could not be done.
        left: how many an interruption has left.
        frames: that were segmented.
        seconds: that it took.
    """

    rows: int
    before: int = 0
    done: int = 0
    failed: list[Record] = dataclasses.field(default_factory=list)
    left: int = 0
    frames: int = 0
    seconds: float = 0.0


class Watcher(Protocol):
    """Is told how a run over many videos goes on."""

    def begin(self, summary: Summary) -> None:
        """Before the first one."""

    def record(self, record: Record) -> None:
        """A video has ended."""

    def share(self, done: float) -> None:
        """So many videos have ended, with the parts of those in hand."""


Runner = Callable[[Sequence[Row], Callable[[Row], bool], Callable[[float], None]], Iterator[Record]]
"""Takes the rows, what says whether another run has ended with one of them meanwhile, and what is told how much of
those in hand is done. Gives the record of each row with which no other run has ended."""


def segment_many(rows: Sequence[Row], runner: Runner, watcher: Watcher | None = None) -> Summary:
    """Segments the videos of a table that are not done.

    Args:
        rows: of `osmn_tf.jobs.rows`, all with one folder of results.
        runner: `run_here(...)` or `osmn_tf.jobs.on_ray.run_on_ray(...)`.
        watcher: see `Watcher`.

    Raises:
        InputError: the folder cannot be written, or a network does not exist. Nothing is written then.
    """
    began = time.perf_counter()
    out = rows[0].out
    manifest = Manifest(out)
    to_do = pending(rows, manifest)
    summary = Summary(len(rows), before=len(rows) - len(to_do))
    if watcher is not None:
        watcher.begin(summary)
    if not to_do:
        return summary
    ensure_directory(out, "--out")

    def has_ended(row: Row) -> bool:
        manifest.refresh()
        known = manifest.get(row.name)
        if known is None or known is before[row.name]:
            return False
        return known["status"] == "failed" or manifest.is_done(row.name, fingerprint_of(row))

    def share(part: float) -> None:
        if watcher is not None:
            watcher.share(summary.before + summary.done + len(summary.failed) + part)

    before = {row.name: manifest.get(row.name) for row in to_do}
    ended = set()
    with contextlib.closing(runner(to_do, has_ended, share)) as records:  # type: ignore[type-var]
        for record in records:
            if record["status"] == "interrupted":
                continue
            ended.add(record["name"])
            manifest.add(record)
            if record["status"] == "done":
                summary.done += 1
                summary.frames += record["frames"]
            else:
                summary.failed.append(record)
            share(0.0)
            if watcher is not None:
                watcher.record(record)
    manifest.refresh()
    for row in to_do:
        if row.name in ended:
            continue
        known = manifest.get(row.name)
        if known is None or known is before[row.name]:
            summary.left += 1
        elif known["status"] == "done":
            summary.done += 1
        else:
            summary.failed.append(known)
    with contextlib.suppress(OSError):  # others are at work, or were killed
        (Path(out) / CLAIMS).rmdir()
    summary.seconds = time.perf_counter() - began
    return summary


def pending(rows: Sequence[Row], manifest: Manifest) -> list[Row]:
    """The rows whose results are not there, of their settings and of what is in their files now.

    Raises:
        InputError: there is no such network.
    """
    found = []
    for row in rows:
        try:
            if row.options.force or not manifest.is_done(row.name, fingerprint_of(row)):
                found.append(row)
        except OSError:  # gone, or unreadable: the row's own record will say so
            found.append(row)
    return found


# Processes of this machine ----------------------------------------------------------------------------------------


def run_here(workers: int | None = None, setting: Setting | None = None) -> Runner:
    """A runner in processes of this machine.

    A process that dies, as by lack of memory or in a decoder, takes only its own video with it, which is tried once
    more. Ctrl-C stops after the frames in hand.

    Args:
        workers: how many processes; None: see `enough_workers`.
        setting: of each; by default it has its share of the cores.
    """
    return functools.partial(_run_here, workers, setting or Setting())


def enough_workers(rows: Sequence[Row]) -> int:
    """How many processes are as fast as any number, without asking for what others need.

    Where LiteRT runs the networks it is one for every core, which is the fastest split, as far as there are videos and
    memory. Keras takes three times the memory and more, and may compute on a device that processes would share: one.

    Raises:
        InputError: there is no such network.
    """
    asked: dict[Any, bool] = {}  # network -> whether LiteRT runs it
    for row in rows:
        options = row.options
        key = str(options.preset), options.network, options.finetunes
        if key not in asked:
            asked[key] = find_source(options).engine == "litert"
        if not asked[key] or options.contours is not None:
            return 1
    return max(1, int(min(usable_cores(), len(rows), free_memory() // MEMORY)))


def _run_here(
    workers: int | None,
    setting: Setting,
    rows: Sequence[Row],
    has_ended: Callable[[Row], bool],
    share: Callable[[float], None],
) -> Iterator[Record]:
    waiting = collections.deque(rows)
    busy: list[tuple[float, Row]] = []  # that other processes have, and when to look again
    tries: collections.Counter[str] = collections.Counter()
    workers = enough_workers(rows) if workers is None else min(workers, len(rows))
    if setting.threads is None:
        setting = dataclasses.replace(setting, threads=max(1, usable_cores() // workers))
    pool = _Pool(workers, setting)
    with pool, deferred_interrupt() as interrupted:
        while True:
            if interrupted.is_set():
                pool.stop()
                waiting.clear()
                busy.clear()
            while busy and busy[0][0] <= time.monotonic():
                waiting.append(busy.pop(0)[1])
            while waiting and pool.has_room():
                row = waiting.popleft()
                if not has_ended(row):
                    pool.submit(row)
            if not (waiting or busy or pool.is_working()):
                return
            for row, record in pool.ended(_TICK):
                if record is None:
                    tries[row.name] += 1
                    if tries[row.name] < _TRIES and not interrupted.is_set():
                        waiting.append(row)
                        continue
                    record = _died(row)
                if record["status"] == "busy":
                    busy.append((time.monotonic() + BUSY, row))
                else:
                    yield record
            share(pool.share())


def _died(row: Row) -> Record:
    """The record of a row whose process has died each time."""
    record = {"name": row.name, "row": row.number, "video": str(row.columns["video"]), "status": "failed"}
    error = ProcessDiedError()
    return record | {"kind": type(error).__name__, "message": str(error), "host": platform.node()}


class _Pool:
    """Processes, each an executor of its own, so that the death of one breaks no other."""

    def __init__(self, workers: int, setting: Setting) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._setting = setting
        self._stop, self._quit = self._context.Event(), self._context.Event()
        self._shares = self._context.Array("d", workers, lock=False)
        self._executors = [self._start(index) for index in range(workers)]
        self._running: dict[Future[Record], tuple[int, Row]] = {}

    def _start(self, index: int) -> ProcessPoolExecutor:
        arguments = (self._setting, self._stop, self._quit, self._shares, index)
        return ProcessPoolExecutor(1, self._context, _begin, arguments)

    def _replace(self, index: int) -> None:
        """Starts a process in the place of one that has died."""
        self._executors[index].shutdown()
        self._executors[index] = self._start(index)

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *error: object) -> None:
        self._quit.set()
        for executor in self._executors:
            executor.shutdown(wait=True, cancel_futures=True)

    def stop(self) -> None:
        """Has the videos in hand left behind their present frame."""
        self._stop.set()

    def has_room(self) -> bool:
        return len(self._running) < len(self._executors)

    def is_working(self) -> bool:
        return bool(self._running)

    def share(self) -> float:
        """How much of the videos in hand is done, in videos."""
        return sum(self._shares[index] for index, _ in self._running.values())

    def submit(self, row: Row) -> None:
        index = min(set(range(len(self._executors))) - {index for index, _ in self._running.values()})
        self._shares[index] = 0.0
        try:
            future = self._executors[index].submit(_work, row)
        except BrokenProcessPool:  # the process has died with nothing in hand
            self._replace(index)
            future = self._executors[index].submit(_work, row)
        self._running[future] = index, row

    def ended(self, timeout: float) -> Iterator[tuple[Row, Record | None]]:
        """The rows that have ended, with None for a record where the process has died."""
        for future in wait(self._running, timeout, FIRST_COMPLETED).done:
            index, row = self._running.pop(future)
            try:
                yield row, future.result()
            except BrokenProcessPool:
                self._replace(index)
                yield row, None


# In the process

_place: tuple[Setting, Any, Any, int] | None = None


def _begin(setting: Setting, stop: Any, quit_now: Any, shares: Any, index: int) -> None:
    """Makes a process of the pool ready."""
    global _place
    _place = setting, stop, shares, index
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the first process, which sets `stop`
    threading.Thread(target=_follow, args=(quit_now,), daemon=True).start()
    setting.apply()


def _follow(quit_now: Any) -> None:
    """Ends this process with the first one, which may have been killed."""
    parent = multiprocessing.parent_process()
    while parent is not None and parent.is_alive() and not quit_now.is_set():
        parent.join(_TICK)
    sys.stderr.flush()
    os._exit(1)


def _work(row: Row) -> Record:
    """`process_one` in a process of the pool."""
    if _place is None:
        raise RuntimeError("this is no process of the pool")
    setting, stop, shares, index = _place

    def progress(what: str, done: int, total: int | None, note: str) -> None:
        shares[index] = done / total if total else 0.0

    return process_one(row, open_segmenter=setting.open_segmenter, progress=progress, stop=stop.is_set)

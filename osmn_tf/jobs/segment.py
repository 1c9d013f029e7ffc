"""The run behind `osmn segment`: where results go, what is done already, and the loop over the frames."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from tqdm import tqdm

from osmn_tf.cli.main import EXIT_INCOMPLETE, EXIT_INTERRUPTED, EXIT_OK
from osmn_tf.errors import InputError
from osmn_tf.files import atomic_path, ensure_directory, write_text
from osmn_tf.inference.predictor import find_network
from osmn_tf.masks.coco import TrackWriter
from osmn_tf.masks.contact_sheet import ContactSheet
from osmn_tf.masks.drawing import cutout, draw_overlay, write_image
from osmn_tf.masks.files import read_label_png, write_mask
from osmn_tf.masks.labels import labels_of
from osmn_tf.video.readers import TruncatedVideoError
from osmn_tf.video.writer import VideoWriter

if TYPE_CHECKING:
    from osmn_tf.inference.segmenter import VideoSegmenter
    from osmn_tf.video.source import FrameSource

SNAPSHOT_INTERVAL = 100  # frames between two snapshots of the state, for runs that are killed
MOST_PENDING = 8  # frames that wait to be written: each holds a frame and a mask


class _Background:
    """A thread that does jobs in order; a job's error is raised by the next call."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._slots = threading.Semaphore(MOST_PENDING)
        self._error: BaseException | None = None

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        """Queues a job; waits while too many are queued."""
        self._raise_error()
        self._slots.acquire()
        self._pool.submit(function, *arguments).add_done_callback(self._finished)

    def _finished(self, future: Future[None]) -> None:
        self._error = self._error or future.exception()
        self._slots.release()

    def wait(self) -> None:
        """Returns when all jobs are done."""
        for _ in range(MOST_PENDING):
            self._slots.acquire()
        self._slots.release(MOST_PENDING)
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Ends the thread behind the last job; errors stay where they are."""
        self._pool.shutdown()


def _reason(error: Exception) -> str:
    """What went wrong, in the words of the operating system where it was the system's doing."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot write the results ({error.strerror})"
    return str(error)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file.

    Raises:
        ValueError: the file is damaged.
        OSError: it cannot be read.
    """
    # NumPy leaves a damaged file open that it has opened itself.
    with open(path, "rb") as file:
        try:
            with np.load(file) as arrays:
                return dict(arrays)
        except (EOFError, KeyError, BadZipFile, zlib.error) as error:
            raise ValueError(str(error)) from error


@contextmanager
def _deferred_interrupt(requested: threading.Event) -> Iterator[None]:
    """The first Ctrl-C only sets `requested`, so that the frame in hand is finished; the second one interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: Any) -> None:
        if requested.is_set():
            raise KeyboardInterrupt
        requested.set()

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


class SegmentationJob:
    """One video: where its results go, what is done already, and the loop over its frames."""

    def __init__(self, arguments: argparse.Namespace, source: FrameSource, given: dict[int, np.ndarray]) -> None:
        self.arguments, self.source, self.given = arguments, source, given
        self.name = source.name
        self.out = Path(arguments.out)
        self.masks = self.out / self.name
        self.overlay = (
            None if arguments.no_overlay else Path(arguments.overlay or self.out / f"{self.name}_overlay.mp4")
        )
        self.sheet = None if arguments.no_sheet else self.out / f"{self.name}_sheet.png"
        self.coco = Path(arguments.coco) if arguments.coco else None
        self.cutouts = self.out / f"{self.name}_cutouts" if arguments.cutouts else None
        self.first_mask = self.out / f"{self.name}_first_mask.png"
        self.first_mask_preview = self.out / f"{self.name}_first_mask_preview.png"
        # What belongs to an unfinished or finished run: how it was called, and the state to continue from.
        self.record = self.out / f".{self.name}.osmn.json"
        self.snapshot = self.out / f".{self.name}.osmn.npz"
        self.tuned_weights = self.out / f".{self.name}.osmn.weights.npz"
        self.signature = self._signature()
        self.done = 0  # frames whose results are written or queued
        self.resumed = 0  # of those, the ones that an interrupted run has left

    def _signature(self) -> str:
        """Digest of everything that the masks depend on: a run continues only what the same command began."""
        arguments = self.arguments
        path = Path(arguments.video)
        files = [path, *sorted(path.iterdir())] if path.is_dir() else [path]
        preset = find_network(arguments.preset).path
        if preset is not None:
            files += sorted(preset.iterdir()) if preset.is_dir() else [preset]
        facts: list[Any] = [arguments.preset] if preset is None else []
        facts += [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        facts += [arguments.start, arguments.end, arguments.every, arguments.network_size, arguments.merge]
        facts += [arguments.own_guides, arguments.no_recover, arguments.both_ways, arguments.precision]
        facts += [arguments.finetune, arguments.finetune_rate if arguments.finetune else None]
        facts += [(index, hashlib.sha256(mask.tobytes()).hexdigest()) for index, mask in sorted(self.given.items())]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _recorded(self) -> dict[str, Any]:
        try:
            content = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _targets(self) -> list[Path]:
        return [path for path in (self.masks, self.overlay, self.sheet, self.coco, self.cutouts) if path is not None]

    def is_complete(self) -> bool:
        """Whether the same command has finished before and its results are still there."""
        recorded = self._recorded()
        done = recorded.get("signature") == self.signature and recorded.get("complete") is True
        return done and not self.arguments.force and all(path.exists() for path in self._targets())

    def prepare(self, boxes_given: bool) -> None:
        """Checks the folders, refuses to overwrite what this command did not begin, and claims the results."""
        for path, argument in ((self.out, "--out"), (self.overlay and self.overlay.parent, "--overlay")):
            if path is not None:
                ensure_directory(path, argument)
        if self.coco is not None:
            ensure_directory(self.coco.parent, "--coco")
        if self.overlay is not None and self.overlay.suffix.lower() not in (".mp4", ".webm"):
            raise InputError(f"--overlay: expected a file that ends in .mp4 or .webm, received {self.overlay}")
        recorded = self._recorded()
        ours = recorded.get("signature") == self.signature
        if self.arguments.force:
            if recorded:
                for folder in (self.masks, self.cutouts):
                    if folder is not None:
                        shutil.rmtree(folder, ignore_errors=True)
            self._forget()
        elif not ours:
            existing = [path for path in self._targets() if path.is_file() or (path.is_dir() and any(path.iterdir()))]
            if existing:
                raise InputError(f"--out: {existing[0]} exists already; use --force to overwrite it, or another --out")
            self._forget()
        ensure_directory(self.masks, "--out")
        write_text(self.record, json.dumps({"signature": self.signature, "complete": False}) + "\n")
        if boxes_given:
            self._write_first_mask()

    def _forget(self) -> None:
        """Removes what an unfinished run would continue from."""
        self.snapshot.unlink(missing_ok=True)
        self.tuned_weights.unlink(missing_ok=True)

    def _write_first_mask(self) -> None:
        write_mask(self.first_mask, self.given[0])
        write_image(self.first_mask_preview, draw_overlay(self.source[0], self.given[0]))

    # The run ----------------------------------------------------------------------------------------------------

    def _finetune(self, segmenter: VideoSegmenter) -> AbstractContextManager[object]:
        """Fine-tunes the network on the given masks, or gives it the weights that an interrupted run has left.

        The weights are kept until the run is complete: training again would take its time again, and may give slightly
        other weights on another machine. An interrupted fine-tuning leaves nothing.
        """
        if self.tuned_weights.is_file():
            try:
                return segmenter.load_adapted(_read_arrays(self.tuned_weights))
            except (OSError, ValueError) as error:
                raise InputError(
                    f"--out: the weights of the interrupted run in {self.tuned_weights} are damaged; --force starts"
                    " again"
                ) from error
        annotated = [(self.source[index], mask) for index, mask in sorted(self.given.items())]
        with tqdm(
            total=self.arguments.finetune,
            unit="step",
            desc="fine-tuning",
            disable=True if self.arguments.quiet else None,
            dynamic_ncols=True,
        ) as progress:

            def show(done: int, total: int, loss: float) -> None:
                progress.set_postfix_str(f"loss {loss:.3f}", refresh=False)
                progress.update()

            tuned = segmenter.finetune(annotated, self.arguments.finetune, self.arguments.finetune_rate, progress=show)
        with atomic_path(self.tuned_weights) as temporary:
            content: dict[str, Any] = segmenter.adapted_weights()
            np.savez(temporary, **content)
        return tuned

    def _restore(self, segmenter: VideoSegmenter) -> int:
        """Restores the segmenter from the snapshot and returns how many frames are done."""
        if not self.snapshot.is_file():
            return 0
        try:
            content = _read_arrays(self.snapshot)
            done = int(content.pop("done"))
            segmenter.restore(content)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"--out: the state of the interrupted run in {self.snapshot} is damaged; --force starts again"
            ) from error
        if not all(self._mask_path(index).is_file() for index in range(done)):
            segmenter.reset()
            return 0
        return done

    def _pairs(self, segmenter: VideoSegmenter) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(frame, mask) of every frame; those that an interrupted run has done come from its files."""
        if self.arguments.both_ways:
            # A backward pass has no middle from which to go on: it starts again.
            yield from segmenter.track_both_ways(self.source, self.given)
            return
        self.resumed = self._restore(segmenter)
        count = 0
        for index, frame in enumerate(self.source):
            count += 1
            if index < self.resumed:
                yield frame, read_label_png(self._mask_path(index))
            elif index in self.given:
                yield frame, segmenter.add(frame, self.given[index])
            else:
                yield frame, segmenter.step(frame)
        if max(self.given) >= count:
            number = self.source.number(max(self.given))
            raise InputError(f"--mask: a mask is given for frame {number}, but the selection ends before it")

    def _mask_path(self, index: int) -> Path:
        return self.masks / f"{self.source.frame_name(index)}.png"

    def execute(self, segmenter: VideoSegmenter) -> int:
        """Segments the video and writes the results; returns the exit code."""
        try:
            tuned = self._finetune(segmenter) if self.arguments.finetune else nullcontext()
        except BaseException:
            self._clean_up()
            raise
        with tuned:
            return self._segment(segmenter)

    def _segment(self, segmenter: VideoSegmenter) -> int:
        info = self.source.info
        size = (info.height, info.width)
        sheet = ContactSheet()
        tracks = TrackWriter(self.name, size) if self.coco else None
        interrupted = threading.Event()
        problem: str | None = None
        overlay = VideoWriter(self.overlay, info.fps, size) if self.overlay else None
        began = time.perf_counter()
        written = False  # whether the files of all frames that were segmented are there
        try:
            try:
                self._loop(segmenter, overlay, sheet, tracks, interrupted)
                written = True
            except TruncatedVideoError as error:
                problem, written = str(error), True
            except (OSError, InputError) as error:
                if not self.done:
                    self._clean_up()
                    raise
                problem = _reason(error)
            seconds = time.perf_counter() - began
            if self.done:
                complete = problem is None and not interrupted.is_set()
                try:
                    if written and not complete:
                        self._save_snapshot(segmenter)
                    self._finish(overlay, sheet, tracks, complete)
                except (OSError, InputError) as error:
                    problem = problem or _reason(error)
        finally:
            if overlay is not None:
                overlay.abort()  # nothing is left of it where it was not closed
        if problem is not None:
            kept = len(list(self.masks.glob("*.png")))
            print(f"osmn segment: error: {problem}; kept {kept} masks in {self.masks}", file=sys.stderr)
            return EXIT_INCOMPLETE
        if interrupted.is_set():
            print(f"osmn segment: interrupted after {self.done} frames; the same command continues", file=sys.stderr)
            return EXIT_INTERRUPTED
        print(f"{self.done} frames in {seconds:.1f} s ({self.done / seconds:.1f} frames per second)")
        self.print_results()
        return EXIT_OK

    def _loop(
        self,
        segmenter: VideoSegmenter,
        overlay: VideoWriter | None,
        sheet: ContactSheet,
        tracks: TrackWriter | None,
        interrupted: threading.Event,
    ) -> None:
        """Goes through the frames; writing and drawing are done by two threads beside the network."""
        files, pictures = _Background(), _Background()

        def present(index: int, frame: np.ndarray, mask: np.ndarray) -> None:
            name = self.source.frame_name(index)
            sheet.add(frame, mask, name, given=index in self.given)
            if tracks is not None:
                tracks.add(index, mask, name)
            if overlay is not None:
                overlay.write(draw_overlay(frame, mask))

        with ExitStack() as stack:
            stack.callback(files.close)
            stack.callback(pictures.close)
            stack.enter_context(_deferred_interrupt(interrupted))
            progress = stack.enter_context(
                tqdm(
                    total=self.source.info.frames,
                    unit="frame",
                    desc=self.name,
                    disable=True if self.arguments.quiet else None,
                    dynamic_ncols=True,
                )
            )
            for frame, mask in self._pairs(segmenter):
                files.submit(self._write_files, self.done, frame, mask)
                pictures.submit(present, self.done, frame, mask)
                self.done += 1
                progress.update()
                if interrupted.is_set():
                    break
                if self.done % SNAPSHOT_INTERVAL == 0:
                    files.wait()
                    self._save_snapshot(segmenter)
            files.wait()
            pictures.wait()

    def _write_files(self, index: int, frame: np.ndarray, mask: np.ndarray) -> None:
        path = self._mask_path(index)
        if index >= self.resumed:
            write_mask(path, mask)
        if self.cutouts is not None:
            for label in labels_of(mask):
                folder = self.cutouts / str(label)
                folder.mkdir(parents=True, exist_ok=True)
                write_image(folder / path.name, cutout(frame, mask, label))

    def _save_snapshot(self, segmenter: VideoSegmenter) -> None:
        if self.arguments.both_ways or not segmenter.labels:
            return
        with atomic_path(self.snapshot) as temporary:
            content: dict[str, Any] = {**segmenter.snapshot(), "done": np.array(self.done)}
            np.savez(temporary, **content)

    def _finish(
        self, overlay: VideoWriter | None, sheet: ContactSheet, tracks: TrackWriter | None, complete: bool
    ) -> None:
        """Closes the files over the whole video, also of a part of it, and leaves the record of the run."""
        if complete:
            self._forget()
        if overlay is not None:
            overlay.close()
        if self.sheet is not None:
            write_image(self.sheet, sheet.image())
        if tracks is not None and self.coco is not None:
            tracks.save(self.coco)
        write_text(self.record, json.dumps({"signature": self.signature, "complete": complete}) + "\n")

    def _clean_up(self) -> None:
        """Removes what was made before the first frame failed."""
        if not any(self.masks.iterdir()):
            self.masks.rmdir()
            self.record.unlink(missing_ok=True)

    def print_results(self) -> None:
        """Says where the results are."""
        lines = [("masks", self.masks), ("overlay", self.overlay), ("contact sheet", self.sheet)]
        lines += [("COCO tracks", self.coco), ("cut-outs", self.cutouts)]
        if self.first_mask.exists():
            lines += [("first mask", self.first_mask), ("its preview", self.first_mask_preview)]
        for name, path in lines:
            if path is not None:
                print(f"{name + ':':15}{path}")

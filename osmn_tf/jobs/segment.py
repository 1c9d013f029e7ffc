"""Segments one video from its file to the files of its results; what an interrupted run has done is kept."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.files import OwnFolder, ensure_directory, remove_leftovers
from osmn_tf.inference.contours import find_contours, open_contours
from osmn_tf.inference.predictor import NetworkSource, find_network
from osmn_tf.inference.snapping import SnappingPredictor, check_snapping
from osmn_tf.jobs.background import Background, deferred_interrupt
from osmn_tf.jobs.given import frame_of, given_objects, read_detections_of
from osmn_tf.jobs.options import SegmentOptions
from osmn_tf.jobs.outputs import Output, Scores, Video, outputs
from osmn_tf.jobs.resume import Record, State, array_digest, signature
from osmn_tf.masks.drawing import draw_overlay, write_image
from osmn_tf.masks.files import read_label_png, write_mask
from osmn_tf.masks.labels import labels_of
from osmn_tf.masks.prompts import box_remark
from osmn_tf.video.readers import TruncatedVideoError
from osmn_tf.video.source import open_source

if TYPE_CHECKING:
    from osmn_tf.inference.segmenter import VideoSegmenter

SNAPSHOT_INTERVAL = 100  # frames between two snapshots of the state, for runs that are killed

Progress = Callable[[str, int, "int | None", str], None]
"""Called with (what is being done, how much of it is done, how much there is or None, a note)."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a job has ended.

    Attributes:
        name: of the video.
        results: (what it is, where it is) of everything that is there.
        frames: how many are done.
        kept: how many masks there are.
        resumed: of those, the ones that an interrupted run had left.
        seconds: that the others took.
        already_done: the same command had finished before, and nothing was done.
        interrupted: by Ctrl-C; the same command continues.
        problem: why not all frames are done, or not all results written, in one line.
        kind: the class of the error that this was.
    """

    name: str
    results: tuple[tuple[str, Path], ...] = ()
    frames: int = 0
    kept: int = 0
    resumed: int = 0
    seconds: float = 0.0
    already_done: bool = False
    interrupted: bool = False
    problem: str | None = None
    kind: str | None = None


class _InterruptedError(Exception):
    """Ctrl-C was pressed, and the frame in hand is done."""


def segment(
    options: SegmentOptions,
    *,
    progress: Progress | None = None,
    open_segmenter: Callable[[SegmentOptions], VideoSegmenter] | None = None,
    stop: Callable[[], bool] | None = None,
    remark: Callable[[str], None] | None = None,
) -> Outcome:
    """Segments a video and writes its results.

        outcome = segment(SegmentOptions("dog.mp4", {0: "dog.png"}, out="results"))

    Args:
        options: see `SegmentOptions`.
        progress: told after every step of fine-tuning and every frame.
        open_segmenter: makes the segmenter, once everything else has been checked; by default with the network that
            `options.preset` names.
        stop: asked after every frame and every step; True is what Ctrl-C is otherwise, which then is left alone.
        remark: told, before the first frame and in a line each, what is allowed and probably not meant.

    Returns:
        How it has ended. Files that could not be written or read behind the first frame, and Ctrl-C, are no exceptions:
        what is done is kept, and the same call continues.

    Raises:
        InputError: an argument is wrong, or nothing could be done. Nothing is written then.
        KeyboardInterrupt: Ctrl-C while fine-tuning, or a second time.
    """
    job = _Job(options, progress or (lambda what, done, total, note: None), stop)
    if job.is_complete():
        return Outcome(job.video.name, job.results(), frames=job.kept(), kept=job.kept(), already_done=True)
    job.check_targets()
    with (open_segmenter or default_segmenter)(options) as segmenter:
        if options.finetunes and not segmenter.predictor.can_adapt:
            raise InputError("--finetune: this network cannot be trained")
        segmenter = job.with_snapping(job.with_detections(segmenter))
        if "scores" in options.outputs and not segmenter.predictor.gives_scores:
            raise InputError("--scores: this network keeps them, expected one that gives them")
        if not job.given and segmenter.predictor.adapts_itself:
            raise InputError(
                "--mask: this preset learns what an object is from its mask; give --mask PNG, --box X,Y,W,H or "
                "--click X,Y"
            )
        if job.given and not segmenter.predictor.takes_masks:
            raise InputError(
                "--mask: this preset takes none, it finds the objects by itself; leave it out, or give a --preset that "
                "takes masks"
            )
        job.claim()
        if remark is not None:
            for text in job.remarks():
                remark(text)
        return job.run(segmenter)


def default_segmenter(options: SegmentOptions) -> VideoSegmenter:
    """A segmenter with the network that the options name."""
    from osmn_tf.inference.segmenter import VideoSegmenter

    return VideoSegmenter(find_source(options).open(options.network))


def find_source(options: SegmentOptions) -> NetworkSource:
    """Where the network of a job is, and which engine runs it.

    Raises:
        InputError: there is no such network, or it cannot do what is asked for.
        MissingDependencyError: what runs it is not installed.
    """
    return find_network(options.preset, options.network, adapts=options.finetunes)


def _reason(error: Exception) -> str:
    """What went wrong, in the words of the operating system where it was the system's doing."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot write the results ({error.strerror})"
    return str(error)


class _Job:
    """One video: where its results go, what is done already, and the loops over its frames."""

    def __init__(self, options: SegmentOptions, progress: Progress, stop: Callable[[], bool] | None) -> None:
        self.options, self.progress, self.stop = options, progress, stop
        self.source = open_source(options.video, start=options.start, end=options.end, every=options.every)
        objects = given_objects(options, self.source)
        self.given, self.prompted, self.absent = objects.masks, objects.prompted, objects.absent
        if options.detections is None and (options.explain or options.detection_images is not None):
            raise InputError("--explain and --detection-images: expected --detections with them")
        semantic = options.detections is not None and options.marked
        if options.explain and not semantic:
            raise InputError("--explain: expected a --mask, --box or --click with --detections")
        self.detections = read_detections_of(options, self.source) if semantic else None
        self.contours = _find_contours(options)
        self.network = find_source(options)
        if options.finetunes and self.network.can_adapt is False:
            raise InputError(f"--finetune: {self.network.kind} cannot be trained; take the preset that it was made of")
        info = self.source.info
        self.video = Video(
            self.source.name,
            (info.height, info.width),
            info.fps,
            self.source.frame_name,
            frozenset(self.given),
            options.look,
            info.colors,
            self.source.sound(),
        )
        self.out = Path(options.out)
        paths = {"masks": self.out / self.source.name, **options.outputs}
        self.targets = {
            kind: self.out / f"{self.source.name}{outputs.get(kind).ending}" if path is None else Path(path)
            for kind, path in paths.items()
        }
        for kind, path in self.targets.items():
            outputs.get(kind).check(path)
        if options.both_ways and "scores" in self.targets:
            raise InputError("--scores: the backward pass keeps none, expected it without --both-ways")
        self.uses_scores = any(outputs.get(kind).uses_scores for kind in self.targets)
        self.confidence: dict[int, dict[int, float]] = {}  # index -> label -> mean score within its mask
        self.first_mask = [self.out / f"{self.source.name}_first_mask{part}.png" for part in ("", "_preview")]
        self.signature = signature(self._inputs(), self._facts())
        self.record = Record(self.out, self.source.name)
        self.snapshot, self.backward, self.weights = (
            State(self.out / f".{self.source.name}.osmn{part}.npz", what)
            for part, what in (
                ("", "the state of the interrupted run"),
                (".backward", "the backward pass of the interrupted run"),
                (".weights", "what the interrupted run has learned"),
            )
        )
        self.done = 0  # frames whose results are written or queued
        self.resumed = 0  # of those, the ones that an interrupted run has left

    # What the results depend on, and where they go --------------------------------------------------------------

    def _inputs(self) -> list[Path]:
        """The files that are read, but for the masks, whose values count."""
        files = [*self.source.files, *network_files(self.network), *self.options.detection_files]
        return files + (preset_files(self.contours) if self.contours is not None else [])

    def _facts(self) -> list[object]:
        options = self.options
        facts: list[object] = [None if self.network.path else str(options.preset)]
        # The same command on another number of threads goes on with what this one has begun.
        network = dataclasses.replace(options.network, threads=None)
        facts += [dataclasses.asdict(network), options.both_ways, dataclasses.asdict(options.look)]
        absent = [(label, [(span.start, span.stop) for span in spans]) for label, spans in sorted(self.absent.items())]
        facts += [absent, self.uses_scores, "scores" in self.targets]
        facts += [options.start, options.end, options.every]
        facts += [options.finetune, options.time, options.finetune_rate, options.explain]
        facts += ["snap"] if options.snap else []
        facts += [options.min_score] if self.detections is not None else []
        return [*facts, [(index, array_digest(mask)) for index, mask in sorted(self.given.items())]]

    def with_detections(self, segmenter: VideoSegmenter) -> VideoSegmenter:
        """A segmenter that takes the detector's word too, where there is one."""
        detections, source = self.detections, self.source
        if detections is None:
            return segmenter
        from osmn_tf.inference.segmenter import VideoSegmenter
        from osmn_tf.inference.semantic import SemanticPredictor

        predictor = SemanticPredictor(
            segmenter.predictor,
            lambda index, frame: detections(source.number(index)),
            annotated={index: frame_of(source, index, "--mask") for index in self.given},
            merge=self.options.network.merge,
        )
        return VideoSegmenter(predictor)

    def with_snapping(self, segmenter: VideoSegmenter) -> VideoSegmenter:
        """A segmenter whose masks follow the contours of the frame, where that is asked for."""
        if not self.options.snap:
            return segmenter
        from osmn_tf.inference.segmenter import VideoSegmenter

        return VideoSegmenter(SnappingPredictor(segmenter.predictor, open_contours(self.contours)))

    def _folders(self) -> list[OwnFolder]:
        return [OwnFolder(path) for kind, path in self.targets.items() if outputs.get(kind).is_folder]

    def _files(self) -> list[Path]:
        """The single files that are going to be written."""
        files = [path for kind, path in self.targets.items() if not outputs.get(kind).is_folder]
        return files + (self.first_mask if self.prompted is not None else [])

    def is_complete(self) -> bool:
        """Whether the same command has finished before and its results are still there."""
        done = self.record.complete and self.record.signature == self.signature
        there = all(path.exists() for path in self.targets.values()) and all(map(OwnFolder.is_whole, self._folders()))
        return done and not self.options.force and there

    def remarks(self) -> list[str]:
        """What is allowed and probably not meant, a line each."""
        boxes = [box for of_frame in self.options.boxes.values() for box in of_frame]
        found = [f"--{text}" for box in boxes if (text := box_remark(box, self.source.size)) is not None]
        if not self.given:
            found.append(
                "--mask: nothing is marked: what stands out is followed (--mask, --box and --click mark objects)"
            )
        return found

    def results(self) -> tuple[tuple[str, Path], ...]:
        """(what it is, where it is) of the results that are there."""
        named = [(outputs.get(kind).title, path) for kind, path in self.targets.items()]
        named += zip(("first mask", "its preview"), self.first_mask)
        return tuple((title, path) for title, path in named if path.exists())

    def kept(self) -> int:
        """How many masks there are."""
        return sum(1 for _ in self.targets["masks"].glob("*.png"))

    def check_targets(self) -> None:
        """Refuses whatever would touch a file that this package has not written, or the results of another command.

        Raises:
            InputError: such a file is where results are to be written; nothing was written or removed.
        """
        read = [self.source.path, *self.options.mask_files]
        targets = [*(folder.path for folder in self._folders()), *self._files()]
        for path, target in itertools.product(read, targets):
            if target.resolve() in (path.resolve(), *path.resolve().parents):
                raise InputError(f"--out: the results would go to {target}, where {path} is read; take another folder")
        if self.source.path.is_dir() and self.out.resolve() == self.source.path.resolve():
            raise InputError(f"--out: expected another folder than that of the frames, received {self.out}")
        foreign = [folder.foreign() for folder in self._folders()]
        foreign += [path for path in self._files() if not self.record.owns(path)]
        if any(foreign):
            first = next(filter(None, foreign))
            raise InputError(f"--out: {first} is in the way: osmn segment has not written it, and leaves it alone")
        if self.record.signature == self.signature or self.options.force:
            return
        there = [folder.path for folder in self._folders() if not folder.is_empty()]
        there += [path for path in self._files() if path.exists()]
        if there:
            raise InputError(f"--out: {there[0]} exists already; use --force to overwrite it, or another --out")

    def claim(self) -> None:
        """Creates the folders, and makes the results this command's."""
        ensure_directory(self.out, "--out")
        for kind, path in self.targets.items():
            ensure_directory(path.parent, f"--{kind}")
        try:
            if self.options.force or self.record.signature != self.signature:
                for folder in self._folders():
                    folder.remove()
                self._forget()
            self.record.begin(self.signature, self._files())
            for folder in self._folders():
                folder.claim()
            remove_leftovers([*self._files(), self.record.path, self.snapshot.path])
            if self.prompted is not None:
                mask = self.given[self.prompted]
                write_mask(self.first_mask[0], mask)
                write_image(self.first_mask[1], draw_overlay(self.source[self.prompted], mask))
        except OSError as error:
            self._withdraw()
            raise InputError(f"--out: {_reason(error)}") from error

    def _forget(self) -> None:
        """Removes what an unfinished run would continue from."""
        for state in (self.snapshot, self.backward, self.weights):
            state.remove()

    def _withdraw(self) -> None:
        """Leaves no trace where not even the first frame was done."""
        with contextlib.suppress(OSError):
            if not all(folder.is_empty() for folder in self._folders()):
                return
            for folder in self._folders():
                folder.remove()
            if self.prompted is not None:
                for path in self.first_mask:
                    path.unlink(missing_ok=True)
            self.record.withdraw(keep=self.weights.path.exists() or self.backward.path.exists())

    # The run ----------------------------------------------------------------------------------------------------

    def run(self, segmenter: VideoSegmenter) -> Outcome:
        """Segments the video and writes the results."""
        segmenter.keep_scores = self.uses_scores
        try:
            with self._finetuned(segmenter):
                if self.stop is not None:
                    return self._segment(segmenter, self.stop)
                with deferred_interrupt() as interrupted:
                    return self._segment(segmenter, interrupted.is_set)
        except OSError as error:
            raise InputError(f"--out: {_reason(error)}") from error
        finally:
            if not self.done:
                self._withdraw()

    def _finetuned(self, segmenter: VideoSegmenter) -> contextlib.AbstractContextManager[object]:
        """Fine-tunes the network on the given masks, or gives it the weights that an interrupted run has left.

        The weights are kept until the run is complete: training again would take its time again, and may give slightly
        other weights on another machine. An interrupted fine-tuning leaves nothing.
        """
        options = self.options
        if not options.finetunes and not segmenter.predictor.adapts_itself:
            return contextlib.nullcontext()
        kept = self.weights.load()
        if kept is not None:
            try:
                return segmenter.load_adapted(kept)
            except InputError as error:
                raise self.weights.damaged() from error

        def show(done: int, total: int, loss: float) -> None:
            if self.stop is not None and self.stop():
                raise KeyboardInterrupt
            self.progress("fine-tuning", done, total, f"loss {loss:.3f}")

        annotated = [(frame_of(self.source, index, "--mask"), mask) for index, mask in sorted(self.given.items())]
        tuned = segmenter.finetune(
            annotated, options.finetune, options.finetune_rate, progress=show, seconds=options.time
        )
        self.weights.save(segmenter.adapted_weights())
        return tuned

    def _segment(self, segmenter: VideoSegmenter, interrupted: Callable[[], bool]) -> Outcome:
        problem: OSError | InputError | None = None
        stopped = whole = False  # whether the files of all frames that were segmented are there
        made: list[Output] = []
        self.began = time.perf_counter()
        try:
            try:
                for kind, path in self.targets.items():
                    made.append(outputs.get(kind)(path, self.video))
                self._loop(segmenter, made, interrupted)
                whole = True
            except _InterruptedError:
                stopped = whole = True
            except TruncatedVideoError as error:
                problem, whole = error, True
            except (OSError, InputError) as error:
                problem = error
                if not self.done:
                    raise
            seconds = time.perf_counter() - self.began
            if self.done:
                problem = self._finish(segmenter, made, whole, complete=not stopped and problem is None) or problem
        finally:
            for output in made:
                output.abort()
        return Outcome(
            self.video.name,
            self.results(),
            frames=self.done,
            kept=self.kept(),
            resumed=self.resumed,
            seconds=seconds,
            interrupted=stopped,
            problem=None if problem is None else _reason(problem),
            kind=None if problem is None else type(problem).__name__,
        )

    def _loop(self, segmenter: VideoSegmenter, made: Sequence[Output], interrupted: Callable[[], bool]) -> None:
        """Goes through the frames; writing and drawing are done by two threads beside the network."""
        with contextlib.ExitStack() as stack:
            files, pictures = Background(), Background()
            stack.callback(files.close)
            stack.callback(pictures.close)

            def write(folders: bool, index: int, frame: np.ndarray, mask: np.ndarray, scores: Scores) -> None:
                for output in made:
                    if output.is_folder == folders:
                        output.add(index, frame, mask, scores)

            for frame, mask, maps in self._pairs(segmenter, interrupted):
                scores = Scores(self.confidence.get(self.done, {}), maps)
                files.submit(write, True, self.done, frame, mask, scores)
                if self.options.explain and self.done >= self.resumed:
                    frame = _explained(segmenter, frame)
                pictures.submit(write, False, self.done, frame, mask, scores)
                self.done += 1
                self.progress(self.video.name, self.done, self.source.info.frames, "")
                if interrupted():
                    break
                if self.done % SNAPSHOT_INTERVAL == 0 and self.done > self.resumed:
                    files.wait()
                    self._save_snapshot(segmenter)
            files.wait()
            pictures.wait()
            if interrupted():
                raise _InterruptedError

    def _pairs(
        self, segmenter: VideoSegmenter, interrupted: Callable[[], bool]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, Mapping[int, np.ndarray] | None]]:
        """(frame, mask, scores) of every frame; those that an interrupted run has done come from its files."""
        self.began = time.perf_counter()
        before = self._backward_pass(segmenter, interrupted) if self.options.both_ways else {}
        self.resumed = self._restore(segmenter)
        count = 0
        for index, frame in enumerate(self.source):
            count += 1
            if index < self.resumed:
                yield frame, read_label_png(self._mask_path(index)), None
                self.began = time.perf_counter()
                continue
            absent = [label for label, spans in self.absent.items() if any(index in span for span in spans)]
            segmenter.remove([label for label in segmenter.labels if label in absent])
            if index == 0 and not self.given:
                mask = segmenter.start(frame)
            else:
                mask = segmenter.add(frame, self.given[index]) if index in self.given else segmenter.step(frame)
            maps = self._note_confidence(segmenter, index, mask)
            if index in before:
                earlier = np.frombuffer(zlib.decompress(before[index]), np.uint8).reshape(mask.shape)
                mask = np.where((mask == 0) & ~np.isin(earlier, absent), earlier, mask)
            yield frame, mask, maps
        if max(self.given, default=0) >= count:
            number = self.source.number(max(self.given))
            raise InputError(f"--mask: a mask is given for frame {number}, but the selection ends before it")

    def _note_confidence(
        self, segmenter: VideoSegmenter, index: int, mask: np.ndarray
    ) -> Mapping[int, np.ndarray] | None:
        """Remembers how sure the network is of the objects that it has found in a frame, and returns their scores."""
        if not (self.uses_scores and segmenter.has_scores):
            return None
        maps = segmenter.scores
        given = labels_of(self.given[index]) if index in self.given else ()
        found = {label: float(score[mask == label].mean()) for label, score in maps.items() if (mask == label).any()}
        noted = self.confidence.setdefault(index, {})
        noted |= {label: value for label, value in found.items() if label not in given}
        return maps

    def _backward_pass(self, segmenter: VideoSegmenter, interrupted: Callable[[], bool]) -> dict[int, bytes]:
        """Index -> compressed mask of the objects that are given later; the whole pass is kept for a run that goes on.

        Raises:
            _InterruptedError: Ctrl-C; a half pass is not kept.
        """
        kept = self.backward.load()
        if kept is not None:
            self._take_confidence(kept.pop("confidence"))
            return {int(index): packed.tobytes() for index, packed in kept.items()}
        masks: dict[int, bytes] = {}
        total = max(self.given) + 1
        for index, mask in segmenter.track_back(self.source, self.given):
            self._note_confidence(segmenter, index, mask)
            if mask.any():
                masks[index] = zlib.compress(mask.tobytes(), 1)
            self.progress("backward", total - index, total, "")
            if interrupted():
                raise _InterruptedError
        packed_masks = {str(index): np.frombuffer(packed, np.uint8) for index, packed in masks.items()}
        self.backward.save({**packed_masks, "confidence": self._all_confidence()})
        segmenter.reset()
        return masks

    def _all_confidence(self) -> np.ndarray:
        """What was noted, as float64 [N, 3]: index, label, value."""
        rows = [(i, label, value) for i, noted in self.confidence.items() for label, value in noted.items()]
        return np.array(rows, np.float64).reshape(-1, 3)

    def _take_confidence(self, rows: np.ndarray) -> None:
        """The reverse of `_all_confidence`."""
        for index, label, value in rows.tolist():
            self.confidence.setdefault(int(index), {})[int(label)] = value

    def _mask_path(self, index: int) -> Path:
        return self.targets["masks"] / f"{self.source.frame_name(index)}.png"

    def _restore(self, segmenter: VideoSegmenter) -> int:
        """Restores the segmenter from the snapshot and returns how many frames are done."""
        content = self.snapshot.load()
        if content is None or "done" not in content:
            return 0
        done = int(content.pop("done"))
        confidence = content.pop("confidence")
        try:
            segmenter.restore(content)
        except (InputError, KeyError) as error:
            raise self.snapshot.damaged() from error
        if all(self._mask_path(index).is_file() for index in range(done)):
            self._take_confidence(confidence)
            return done
        segmenter.reset()
        return 0

    def _save_snapshot(self, segmenter: VideoSegmenter) -> None:
        if segmenter.labels:
            facts = {"done": np.array(self.done), "confidence": self._all_confidence()}
            self.snapshot.save({**segmenter.snapshot(), **facts})

    def _finish(
        self, segmenter: VideoSegmenter, made: Sequence[Output], whole: bool, complete: bool
    ) -> OSError | InputError | None:
        """Closes the results, also of a part of the video, and leaves the record of the run. Returns what failed."""
        problem: OSError | InputError | None = None
        try:
            if whole and not complete:
                self._save_snapshot(segmenter)
            for output in made:
                output.close()
            self.record.finish(complete)
            if complete:
                self._forget()
        except (OSError, InputError) as error:
            problem = error
            if whole and complete:
                with contextlib.suppress(OSError):
                    self._save_snapshot(segmenter)
        return problem


def _explained(segmenter: VideoSegmenter, frame: np.ndarray) -> np.ndarray:
    from osmn_tf.inference.semantic import SemanticPredictor

    predictor = segmenter.predictor
    if isinstance(predictor, SnappingPredictor):
        predictor = predictor.base
    return predictor.explain(frame) if isinstance(predictor, SemanticPredictor) else frame


def _find_contours(options: SegmentOptions) -> Path | None:
    if options.snap:
        check_snapping()
    elif options.contours is not None:
        raise InputError("--contours: expected --snap with it")
    return find_contours(options.contours)


def network_files(network: NetworkSource) -> list[Path]:
    return preset_files(network.path) if network.path is not None else []


def preset_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())

"""Segments one video from its file to the files of its results; what an interrupted run has done is kept."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from osmn_tf.datasets.annotations import is_annotation_file, read_annotations
from osmn_tf.datasets.index import name_some
from osmn_tf.errors import InputError
from osmn_tf.files import OwnFolder, ensure_directory, remove_leftovers
from osmn_tf.inference.contours import find_contours, open_contours
from osmn_tf.inference.predictor import NetworkSource, PredictorOptions, find_network
from osmn_tf.inference.prompting import mask_from_box, mask_from_click
from osmn_tf.inference.snapping import SnappingPredictor, check_snapping
from osmn_tf.jobs.background import Background, deferred_interrupt
from osmn_tf.jobs.outputs import Look, Output, Scores, Video, outputs
from osmn_tf.jobs.resume import Record, State, array_digest, signature
from osmn_tf.masks.drawing import draw_overlay, write_image
from osmn_tf.masks.files import read_label_png, read_mask, resize_mask, write_mask
from osmn_tf.masks.labels import VOID, labels_of
from osmn_tf.masks.prompts import Box, Click, box_remark
from osmn_tf.models.presets import DEFAULT_PRESET
from osmn_tf.video.readers import TruncatedVideoError
from osmn_tf.video.source import FrameSource, open_source

if TYPE_CHECKING:
    from osmn_tf.datasets.detections import FileDetections
    from osmn_tf.inference.segmenter import VideoSegmenter

SNAPSHOT_INTERVAL = 100  # frames between two snapshots of the state, for runs that are killed

Progress = Callable[[str, int, "int | None", str], None]
"""Called with (what is being done, how much of it is done, how much there is or None, a note)."""


@dataclasses.dataclass(frozen=True)
class SegmentOptions:
    """What to segment, with which network, and which results to write where.

    Attributes:
        video: video file, folder of images, or image.
        masks: number of a frame of the video (from 0) -> its mask, as uint8 [H, W], a file, or a file of annotations
            (`osmn_tf.datasets.annotations`) of which this frame is taken.
        annotations: file of annotations all of whose frames are given, of those that are selected; where it has
            tracks, the frames in which somebody has drawn an object.
        boxes: number of a frame -> boxes around objects in it, (x, y, width, height) in pixels. Their labels go on
            behind those in `masks`, in the order of the frames and of the boxes.
        clicks: number of a frame -> objects that were clicked in it, each by one or more (x, y) in pixels. Their labels
            go on behind those in boxes. With no mask, box or click the objects are those that stand out
            (`VideoSegmenter.start`).
        ends: label of an object -> number of the frame from which on it is not tracked.
        detections: a detector's results (`osmn_tf.datasets.detections`). With masks or boxes they help in every frame
            (`osmn_tf.inference.semantic`); without, the objects are what it has found in the first frame, numbered from
            the best score on.
        detection_images: file with the list of images or videos that they belong to, where it is not in the same file.
        min_score: of the detections that count.
        resize_mask: accept masks of another size than the video's.
        both_ways: also go backward, to the frames before an object's first mask.
        start, end, every: which frames to take, as `open_source`.
        preset: name, folder or file of a preset, folder of an exported network, or address of a server.
        network: how it is used.
        finetune: steps of online fine-tuning on the given masks; None: `time`, or what the network needs.
        finetune_rate: their learning rate; None: the network's own.
        time: seconds of fine-tuning for every object, instead of steps.
        snap: let the masks follow the contours of the frame (`osmn_tf.inference.snapping`), but for those given.
        contours: preset of a network that finds them; None: they are gradients of the colour.
        explain: draw what the detector has found into the overlay and the contact sheet, white where it was taken.
        out: folder of the results.
        outputs: kind of result (`osmn_tf.jobs.outputs`) -> its file or folder; None: named after the video, in `out`.
            "masks" are always written, to OUT/NAME.
        look: how the pictures among them look.
        force: replace the results of another command. What this package has not written is never touched.
    """

    video: str | os.PathLike[str]
    masks: Mapping[int, str | os.PathLike[str] | np.ndarray] = dataclasses.field(default_factory=dict)
    annotations: str | os.PathLike[str] | None = None
    boxes: Mapping[int, Sequence[Box]] = dataclasses.field(default_factory=dict)
    clicks: Mapping[int, Sequence[Sequence[Click]]] = dataclasses.field(default_factory=dict)
    ends: Mapping[int, int] = dataclasses.field(default_factory=dict)
    detections: str | os.PathLike[str] | None = None
    detection_images: str | os.PathLike[str] | None = None
    min_score: float = 0.5
    resize_mask: bool = False
    both_ways: bool = False
    start: int = 0
    end: int | None = None
    every: int = 1
    preset: str | os.PathLike[str] = DEFAULT_PRESET
    network: PredictorOptions = dataclasses.field(default_factory=PredictorOptions)
    finetune: int | None = None
    finetune_rate: float | None = None
    time: float | None = None
    snap: bool = False
    contours: str | os.PathLike[str] | None = None
    explain: bool = False
    out: str | os.PathLike[str] = "osmn_output"
    outputs: Mapping[str, str | os.PathLike[str] | None] = dataclasses.field(
        default_factory=lambda: {"overlay": None, "sheet": None}
    )
    look: Look = dataclasses.field(default_factory=Look)
    force: bool = False

    @property
    def marked(self) -> bool:
        """Whether it is said where objects are: by masks, annotations, boxes or clicks."""
        masks = bool(self.masks) or self.annotations is not None
        return masks or any(self.boxes.values()) or any(self.clicks.values())

    @property
    def mask_files(self) -> list[Path]:
        """The files that masks are read from."""
        given = [*self.masks.values(), *([] if self.annotations is None else [self.annotations])]
        return [Path(mask) for mask in given if not isinstance(mask, np.ndarray)]

    @property
    def finetunes(self) -> bool:
        """Whether fine-tuning is asked for, whatever the network does by itself."""
        return bool(self.finetune) or self.time is not None


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
        annotated = _annotated(options, self.source)
        self.given, self.prompted = _given_masks(options, self.source, annotated)
        self.absent = _absences(options, self.given, annotated)
        if options.detections is None and (options.explain or options.detection_images is not None):
            raise InputError("--explain and --detection-images: expected --detections with them")
        semantic = options.detections is not None and options.marked
        if options.explain and not semantic:
            raise InputError("--explain: expected a --mask, --box or --click with --detections")
        self.detections = _read_detections(options, self.source) if semantic else None
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
        files = [*self.source.files, *network_files(self.network), *_detection_files(self.options)]
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
        return [*facts, [(index, array_digest(mask)) for index, mask in sorted(self.given.items())]]

    def with_detections(self, segmenter: VideoSegmenter) -> VideoSegmenter:
        """A segmenter that takes the detector's word too, where there is one."""
        detections, source = self.detections, self.source
        if detections is None:
            return segmenter
        from osmn_tf.inference.segmenter import VideoSegmenter
        from osmn_tf.inference.semantic import SemanticPredictor

        annotated = {index: source[index] for index in self.given}
        merge = self.options.network.merge
        return VideoSegmenter(
            SemanticPredictor(
                segmenter.predictor,
                lambda index, frame: detections(source.number(index)),
                annotated=annotated,
                merge=merge,
            )
        )

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
        return done and not self.options.force and all(path.exists() for path in self.targets.values())

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

        annotated = [(self.source[index], mask) for index, mask in sorted(self.given.items())]
        tuned = segmenter.finetune(
            annotated, options.finetune, options.finetune_rate, progress=show, seconds=options.time
        )
        self.weights.save(segmenter.adapted_weights())
        return tuned

    def _segment(self, segmenter: VideoSegmenter, interrupted: Callable[[], bool]) -> Outcome:
        problem: OSError | InputError | None = None
        stopped = whole = False  # whether the files of all frames that were segmented are there
        made: list[Output] = []
        clock = _Clock()
        try:
            try:
                for kind, path in self.targets.items():
                    made.append(outputs.get(kind)(path, self.video))
                self._loop(segmenter, made, clock, interrupted)
                whole = True
            except _InterruptedError:
                stopped = whole = True
            except TruncatedVideoError as error:
                problem, whole = error, True
            except (OSError, InputError) as error:
                problem = error
                if not self.done:
                    raise
            seconds = clock.seconds()
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

    def _loop(
        self, segmenter: VideoSegmenter, made: Sequence[Output], clock: _Clock, interrupted: Callable[[], bool]
    ) -> None:
        """Goes through the frames; writing and drawing are done by two threads beside the network."""
        with contextlib.ExitStack() as stack:
            files, pictures = Background(), Background()
            stack.callback(files.close)
            stack.callback(pictures.close)

            def present(index: int, frame: np.ndarray, mask: np.ndarray, scores: Scores) -> None:
                for output in made:
                    if not output.is_folder:
                        output.add(index, frame, mask, scores)

            def write(index: int, frame: np.ndarray, mask: np.ndarray, scores: Scores) -> None:
                for output in made:
                    if output.is_folder:
                        output.add(index, frame, mask, scores)

            for frame, mask, maps in self._pairs(segmenter, clock, interrupted):
                scores = Scores(self.confidence.get(self.done, {}), maps)
                files.submit(write, self.done, frame, mask, scores)
                if self.options.explain and self.done >= self.resumed:
                    frame = _explained(segmenter, frame)
                pictures.submit(present, self.done, frame, mask, scores)
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
        self, segmenter: VideoSegmenter, clock: _Clock, interrupted: Callable[[], bool]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, Mapping[int, np.ndarray] | None]]:
        """(frame, mask, scores) of every frame; those that an interrupted run has done come from its files."""
        clock.start()
        before = self._backward_pass(segmenter, interrupted) if self.options.both_ways else {}
        self.resumed = self._restore(segmenter)
        count = 0
        for index, frame in enumerate(self.source):
            count += 1
            if index < self.resumed:
                yield frame, read_label_png(self._mask_path(index)), None
                clock.start()
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


class _Clock:
    """Seconds since it was started last."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self._began = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._began


def _detection_files(options: SegmentOptions) -> list[Path]:
    return [Path(path) for path in (options.detections, options.detection_images) if path is not None]


def _read_detections(options: SegmentOptions, source: FrameSource) -> FileDetections:
    """The instances of all frames of the video, whichever are selected; all of them checked.

    Raises:
        InputError: a file is damaged, or of another video.
    """
    from osmn_tf.datasets.detections import read_detections

    whole = open_source(options.video)
    names = [file.name for file in whole.files] if whole.path.is_dir() else whole.count_frames()
    return read_detections(
        options.detections or "",
        names,
        source.size,
        images=options.detection_images,
        video=source.name,
        min_score=options.min_score,
    )


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


def _index(number: int, options: SegmentOptions, source: FrameSource, argument: str) -> int:
    """The index among the selected frames that frame `number` of the video has.

    Raises:
        InputError: it is not selected.
    """
    index, remainder = divmod(number - options.start, options.every)
    if index < 0 or remainder:
        raise InputError(f"{argument}: frame {number} is not among those chosen by --start and --every")
    if source.info.frames is not None and index >= source.info.frames:
        # What a file says of its length is an estimate at times.
        with contextlib.suppress(TruncatedVideoError):
            if index >= (count := source.count_frames()):
                kind = argument.removeprefix("--")
                raise InputError(
                    f"{argument}: a {kind} is given for frame {number}, but the selection has {count} frames"
                )
    return index


@dataclasses.dataclass(frozen=True)
class _Annotated:
    """What a file of annotations says of a video.

    Attributes:
        masks: number of a frame -> its mask uint8 [H, W].
        boxes: number of a frame -> label -> box of an object of which there is no mask.
        hidden: label -> numbers of the frames in which the object is not seen.
    """

    masks: Mapping[int, np.ndarray] = dataclasses.field(default_factory=dict)
    boxes: Mapping[int, Mapping[int, Box]] = dataclasses.field(default_factory=dict)
    hidden: Mapping[int, Sequence[range]] = dataclasses.field(default_factory=dict)


def _given_masks(
    options: SegmentOptions, source: FrameSource, annotated: _Annotated
) -> tuple[dict[int, np.ndarray], int | None]:
    """({index among the selected frames: uint8 [H, W]}, the first of them whose mask was made from boxes
    or clicks).

    Raises:
        InputError: a mask is unreadable, unusable or of a frame that is not selected; a box or a click is not inside
            its frame or nothing was found there; or there is none of them where they are needed.
    """
    if not (options.marked or options.detections) and (options.both_ways or options.finetunes):
        what = "--both-ways" if options.both_ways else "--finetune"
        raise InputError(f"{what}: needs the objects as --mask PNG, --box X,Y,W,H or --click X,Y")
    if options.detections and not options.marked:
        return {0: _detected(options, source)}, None
    given: dict[int, np.ndarray] = {}
    boxed: dict[int, Mapping[int, Box]] = {}
    for number, mask in (*options.masks.items(), *annotated.masks.items()):
        index = _index(number, options, source, "--mask")
        if index in given:
            raise InputError(f"--mask {options.annotations}: frame {number} has a mask already")
        boxes = annotated.boxes.get(number, {})
        if not isinstance(mask, np.ndarray):
            mask, boxes = _read_one(number, mask, options, source)
        given[index] = mask
        if boxes:
            boxed[index] = boxes
    labels = {label for mask in given.values() for label in labels_of(mask)}
    label = max(labels.union(*boxed.values()), default=0)
    for index, boxes in boxed.items():
        _fill_boxes(given[index], boxes, source[index], source.number(index))
    prompted: int | None = min(boxed, default=None)
    for argument, number, count, make in _prompts(options):
        index = _index(number, options, source, argument)
        prompted = index if prompted is None else prompted
        if label + count >= VOID:
            raise InputError(f"{argument}: expected at most {VOID - 1} objects, received {label + count}")
        try:
            found = make(source[index])
        except IndexError:
            kind = argument.removeprefix("--")
            raise InputError(
                f"{argument}: a {kind} is given for frame {number}, which the video does not have"
            ) from None
        found = np.where(found > 0, found + np.uint8(label), 0).astype(np.uint8)
        label += count
        given[index] = np.where(given[index] > 0, given[index], found) if index in given else found
        if hidden := set(range(label - count + 1, label + 1)) - set(labels_of(given[index])):
            raise InputError(f"{argument}: the objects before it cover all of object {min(hidden)} in frame {number}")
    return given, prompted


def _annotated(options: SegmentOptions, source: FrameSource) -> _Annotated:
    """Of all annotated frames that are selected.

    Raises:
        InputError: the file is damaged, of another video, or has no object in what is selected.
    """
    if options.annotations is None:
        return _Annotated()
    found = _read_annotated(options.annotations, options, source)
    end = math.inf if options.end is None else options.end
    chosen = {
        number: mask
        for number, mask in found.masks.items()
        if options.start <= number < end and (number - options.start) % options.every == 0
    }
    if not chosen:
        there = name_some(list(found.masks))
        raise InputError(f"--mask {options.annotations}: no annotated frame (it has {there}) is among those selected")
    return _Annotated(chosen, found.boxes, found.hidden)


def _fill_boxes(mask: np.ndarray, boxes: Mapping[int, Box], frame: np.ndarray, number: int) -> None:
    """Makes masks of the boxes in a frame, behind the objects in `mask` [H, W], which has them then.

    Raises:
        InputError: nothing is found in a box, or other objects cover what is.
    """
    try:
        found = mask_from_box(frame, *boxes.values())
    except InputError as error:
        raise InputError(f"--mask, frame {number}: {error}") from error
    free = mask == 0
    for place, label in enumerate(boxes, 1):
        mask[free & (found == place)] = label
        if label not in labels_of(mask):
            raise InputError(f"--mask, frame {number}: the other objects cover all of object {label}, which has a box")


def _read_one(
    number: int, path: str | os.PathLike[str], options: SegmentOptions, source: FrameSource
) -> tuple[np.ndarray, Mapping[int, Box]]:
    """The mask of a frame uint8 [H, W], of a PNG or of annotations, and the boxes of these."""
    if not is_annotation_file(path):
        return read_mask(path, size=source.size, resize=options.resize_mask), {}
    found = _read_annotated(path, options, source)
    if number not in found.masks:
        there = name_some(list(found.masks))
        raise InputError(f"--mask {number}:{path}: expected an annotated frame, it has {there}")
    return found.masks[number], found.boxes.get(number, {})


def _read_annotated(path: str | os.PathLike[str], options: SegmentOptions, source: FrameSource) -> _Annotated:
    """Of a file of annotations.

    Raises:
        InputError: the file is damaged, of another video, or has no objects.
    """
    annotations = read_annotations(path, interpolated=False)
    height, width = source.size
    whole = open_source(options.video)
    try:
        numbers = annotations.numbers([file.stem for file in whole.files] if whole.path.is_dir() else None)
    except InputError as error:
        raise InputError(f"--mask {path}: {error}") from error
    if annotations.size != source.size and not options.resize_mask:
        received = f"{annotations.size[1]}x{annotations.size[0]}"
        raise InputError(
            f"--mask {path}: expected annotations of the video's size, {width}x{height}, but they are of {received} "
            "(width x height); give --resize-mask (resize_mask=True) to scale them"
        )
    nothing = np.zeros(annotations.size, np.uint8)
    masks = {number: annotations.masks.get(index, nothing).copy() for index, number in numbers.items()}
    boxes = {numbers[index]: of_frame for index, of_frame in annotations.boxes.items()}
    if annotations.size != source.size:
        scale = width / annotations.size[1], height / annotations.size[0]
        boxes = {number: {label: _scaled(box, scale) for label, box in some.items()} for number, some in boxes.items()}
        masks = {number: resize_mask(mask, source.size) for number, mask in masks.items()}
        masks = {number: mask for number, mask in masks.items() if labels_of(mask) or number in boxes}
    if not masks:
        raise InputError(f"--mask {path}: it has no object in any frame")
    first = annotations.first
    hidden = {
        label: [range(span.start + first, span.stop + first) for span in spans]
        for label, spans in annotations.hidden.items()
    }
    return _Annotated(masks, boxes, hidden)


def _scaled(box: Box, scale: tuple[float, float]) -> Box:
    """A box in a picture of another size."""
    x, y, width, height = box
    left, top = round(x * scale[0]), round(y * scale[1])
    return left, top, round((x + width) * scale[0]) - left, round((y + height) * scale[1]) - top


def _prompts(options: SegmentOptions) -> Iterator[tuple[str, int, int, Callable[[np.ndarray], np.ndarray]]]:
    """Of boxes and of clicks: argument, number of a frame, number of objects, what makes their mask of the frame."""
    for number, boxes in sorted(options.boxes.items()):
        if boxes:
            yield "--box", number, len(boxes), functools.partial(_boxed, boxes)
    for number, objects in sorted(options.clicks.items()):
        for place, clicks in enumerate(objects):
            # What was clicked as another object is not this one.
            others = [click for other, some in enumerate(objects) if other != place for click in some]
            yield "--click", number, 1, functools.partial(_clicked, clicks, others)


def _boxed(boxes: Sequence[Box], frame: np.ndarray) -> np.ndarray:
    return mask_from_box(frame, *boxes)


def _clicked(clicks: Sequence[Click], others: Sequence[Click], frame: np.ndarray) -> np.ndarray:
    return mask_from_click(frame, *clicks, background=others)


def _absences(
    options: SegmentOptions, given: Mapping[int, np.ndarray], annotated: _Annotated
) -> dict[int, list[range]]:
    """{label: indexes among the selected frames in which it is not tracked}: what was said of its end, or else what
    the annotations say; up to the object's next mask.

    Raises:
        InputError: there is no such object, or it ends where it begins or before.
    """
    places: dict[int, list[int]] = {}
    for index in sorted(given):
        for label in labels_of(given[index]):
            places.setdefault(label, []).append(index)

    def indexes(label: int, numbers: range) -> range:
        start, stop = (-(-(number - options.start) // options.every) for number in (numbers.start, numbers.stop))
        return range(start, min((place for place in places.get(label, ()) if place >= start), default=stop))

    absent = {
        label: [indexes(label, span) for span in spans] for label, spans in annotated.hidden.items() if label in places
    }
    for label, number in options.ends.items():
        if given and label not in places:  # without masks nobody knows yet what is going to be found
            known = ", ".join(map(str, sorted(places)))
            raise InputError(f"--until {label}:{number}: expected one of the objects {known}")
        absent[label] = [indexes(label, range(number, sys.maxsize))]
        if -(-(number - options.start) // options.every) <= places.get(label, [0])[0]:
            raise InputError(f"--until {label}:{number}: expected a frame behind the first one of object {label}")
    return {label: [span for span in spans if span] for label, spans in absent.items() if any(spans)}


def _detected(options: SegmentOptions, source: FrameSource) -> np.ndarray:
    """The objects that a detector has found in the first frame: uint8 [H, W], 1 is the one with the best score."""
    number = source.number(0)
    size = source.size
    found = _read_detections(options, source)(number)
    mask = np.zeros(size, np.uint8)
    # The best one is painted last, over the others.
    for label, instance in reversed(list(enumerate(found[:254], start=1))):
        mask[instance.mask] = label
    if not mask.any():
        raise InputError(
            f"detections: {options.detections} has nothing in frame {number} with a score of {options.min_score:g} or"
            " more"
        )
    return mask

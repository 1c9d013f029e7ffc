"""What LiteRT files of a network cost and give: J on a data set, agreement with Keras, size, time."""

from __future__ import annotations

import dataclasses
import itertools
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from osmn_tf.benchmarks.timing import in_turns
from osmn_tf.benchmarks.videos import ScoredVideo
from osmn_tf.errors import InputError
from osmn_tf.evaluation.protocols import PROTOCOLS, Protocol, find_sequences
from osmn_tf.evaluation.protocols import Sequence as Video
from osmn_tf.export import QUANTIZATIONS
from osmn_tf.export.litert import CALIBRATION_STEPS, export_litert
from osmn_tf.inference.segmenter import VideoSegmenter

if TYPE_CHECKING:
    from osmn_tf.models.osmn import OSMN

Array = NDArray[Any]
Progress = Callable[[str], None]

KERAS = "keras"
CALIBRATION_CLIPS = 12
TIMED_FRAMES = 10  # in a row, of one form; then it is the next form's turn


@dataclasses.dataclass(frozen=True)
class Form:
    """One form of a network.

    Attributes:
        name: "keras", or how the files are quantised.
        j: mean J of every sequence (over objects and scored frames), in the order of the sequences.
        iou: mean IoU with the masks of the Keras segmenter, of every sequence, without the frames with given masks.
        bytes: of all files; None for Keras.
        seconds: per frame of one object: in the shortest turn, and in the median turn.
        cpu_seconds: of all threads, per frame of one object: the least of all turns (see `Timing`).
    """

    name: str
    j: tuple[float, ...]
    iou: tuple[float, ...]
    bytes: int | None
    seconds: tuple[float, float]
    cpu_seconds: float


def measure(
    model: OSMN,
    root: str | os.PathLike[str],
    *,
    year: int = 2016,
    split: str = "val",
    sequences: Iterable[str] | None = None,
    calibration_split: str = "train",
    size: tuple[int, int] | None = None,
    forms: Sequence[str] = QUANTIZATIONS,
    threads: int = 2,
    repeat: int = 10,
    out: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> tuple[list[str], list[Form]]:
    """Exports a network in several forms, segments a data set with each, and times them in turns.

    Args:
        model: the network.
        root, year, split, sequences: the data set (`protocols.find_sequences`).
        calibration_split: from which clips for int8 are taken: twelve sequences, evenly spread, but none of those that
            are scored.
        size: (h, w) of the network; default: the model's.
        forms: values of `export_litert`'s `quantize`.
        threads: of LiteRT. TensorFlow uses as many as it likes.
        repeat: turns of ten frames for every form.
        out: where exports are kept, a folder each; default: nowhere.
        progress: told what is done.

    Returns:
        Names of the sequences, and the forms, Keras first.

    Raises:
        InputError: an argument is wrong, or the data set is incomplete.
    """
    if repeat < 1:
        raise InputError(f"--repeat: expected at least 1, received {repeat}")
    say = progress or (lambda text: None)
    protocol = PROTOCOLS[f"davis-{year}"]
    videos = find_sequences(root, protocol, split=split, sequences=sequences)
    clips = []
    if "int8" in forms:
        scored = {video.name for video in videos}
        others = find_sequences(root, protocol, split=calibration_split)
        clips = calibration_clips([video for video in others if video.name not in scored], protocol)
    keras_segmenter = VideoSegmenter(model, size)
    segmenters: dict[str, VideoSegmenter] = {KERAS: keras_segmenter}
    sizes: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for form in forms:
            say(f"exporting: {form}")
            folder = Path(out or temporary) / form
            export_litert(model, folder, size=keras_segmenter.network_size, quantize=form, calibration=clips)
            sizes[form] = sum(path.stat().st_size for path in folder.glob("*.tflite"))
            segmenters[form] = VideoSegmenter(folder, threads=threads)
    scores: dict[str, list[float]] = {name: [] for name in segmenters}
    agreement: dict[str, list[float]] = {name: [] for name in segmenters}
    for video in videos:
        say(f"segmenting: {video.name}")
        frames = ScoredVideo(video, protocol)
        reference: list[Array] = []
        for name, segmenter in segmenters.items():
            masks = [mask for _, mask in segmenter.track(frames, frames.given)]
            reference = reference or masks
            scores[name].append(frames.score(masks))
            agreement[name].append(frames.agreement(masks, reference))
    say("timing")
    times = _time_in_turns(segmenters, ScoredVideo(videos[0], protocol), repeat)
    return [video.name for video in videos], [
        Form(name, tuple(scores[name]), tuple(agreement[name]), sizes.get(name), *times[name]) for name in segmenters
    ]


def calibration_clips(videos: Sequence[Video], protocol: Protocol) -> list[tuple[Iterable[Array], Array]]:
    """Beginnings of up to twelve sequences, evenly spread over `videos`, each with its first mask.

    Raises:
        InputError: there is no sequence.
    """
    if not videos:
        raise InputError("--calibration-split: expected sequences beside those that are scored, received none")
    count = min(CALIBRATION_CLIPS, len(videos))
    clips: list[tuple[Iterable[Array], Array]] = []
    for number in range(count):
        frames = ScoredVideo(videos[number * len(videos) // count], protocol)
        start, mask = min(frames.given.items())
        clips.append((list(itertools.islice(frames, start, start + CALIBRATION_STEPS // count)), mask))
    return clips


def _time_in_turns(
    segmenters: dict[str, VideoSegmenter], video: ScoredVideo, repeat: int
) -> dict[str, tuple[tuple[float, float], float]]:
    """`Form.seconds` and `Form.cpu_seconds`; a turn is `TIMED_FRAMES` frames."""
    start, mask = min(video.given.items())
    frames = list(itertools.islice(video, start, start + TIMED_FRAMES + 1))
    one = (mask == mask[mask > 0].min()).astype(np.uint8)
    for segmenter in segmenters.values():
        segmenter.start(frames[0], one)

    def program(segmenter: VideoSegmenter) -> Callable[[], object]:
        return lambda: list(map(segmenter.step, frames[1:]))

    times = in_turns({name: program(segmenter) for name, segmenter in segmenters.items()}, repeat, warm_up=0)
    count = len(frames) - 1
    return {
        name: ((min(timing.seconds) / count, timing.median / count), min(timing.cpu_seconds) / count)
        for name, timing in times.items()
    }


def format_table(names: Sequence[str], forms: Sequence[Form]) -> str:
    """A table with a row for every form of a network; J and IoU in percent, the mean and every sequence."""
    keras_j = sum(forms[0].j) / len(names)
    lines = [
        f"{'form':<9}{'J':>7}{'lost':>7}{'IoU':>7}{'MB':>7}{'ms, min':>9}{'median':>8}{'CPU ms':>8}"
        + "".join(f"  {name:>4}" for name in names)
    ]
    for form in forms:
        j, iou = sum(form.j) / len(names), sum(form.iou) / len(names)
        megabytes = "-" if form.bytes is None else f"{form.bytes / 1e6:.1f}"
        shortest, median = form.seconds
        lines.append(
            f"{form.name:<9}{100 * j:7.2f}{100 * (keras_j - j):7.2f}{100 * iou:7.2f}{megabytes:>7}"
            f"{1e3 * shortest:9.1f}{1e3 * median:8.1f}{1e3 * form.cpu_seconds:8.1f}"
            + "".join(f"  {100 * value:>{max(4, len(name))}.1f}" for name, value in zip(names, form.j))
        )
    return "\n".join(lines)

"""`osmn segment` from the video to its files, beside the network alone on frames in memory."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from osmn_tf.benchmarks.timing import in_turns
from osmn_tf.errors import InputError
from osmn_tf.evaluation.metrics import jaccard
from osmn_tf.inference.predictor import PredictorOptions, find_network
from osmn_tf.jobs.options import SegmentOptions
from osmn_tf.jobs.segment import default_segmenter, segment
from osmn_tf.masks.files import read_mask
from osmn_tf.masks.labels import labels_of
from osmn_tf.video.source import open_source

if TYPE_CHECKING:
    from osmn_tf.inference.segmenter import VideoSegmenter


@dataclasses.dataclass(frozen=True)
class VideoTimes:
    """Medians in seconds per frame.

    Attributes:
        network, precision: what was timed; an exported network has no precision to choose.
        network_alone: `VideoSegmenter.step` on decoded frames.
        whole: decoding, network, mask files, overlay video and contact sheet.
        iou: mean IoU with the masks of the first row, over frames and objects, without the given frame.
    """

    network: str
    precision: str | None
    network_alone: float
    whole: float
    iou: float


def measure(
    video: str,
    mask: str,
    *,
    presets: Sequence[str],
    precisions: Sequence[str] = ("float32",),
    network_size: tuple[int, int] | None = None,
    frames: int = 60,
    repeat: int = 5,
    open_segmenter: Callable[[SegmentOptions], VideoSegmenter] = default_segmenter,
) -> Iterator[VideoTimes]:
    """Times presets and exported networks on one video.

    Args:
        video, mask: as `osmn segment` takes them; the mask is of the first frame.
        presets: as `osmn segment --preset`.
        precisions: Keras's dtype policies; presets run in each, exported networks as they are.
        network_size: (H, W); default: each network's own.
        frames: the first so many frames of the video.
        repeat: turns of which the median counts; network alone and whole command take turns.
        open_segmenter: as `osmn_tf.jobs.segment.segment`.

    Raises:
        InputError: as `osmn segment`, or a number is out of its range.
    """
    if repeat < 1 or frames < 2:
        raise InputError(f"repeat, frames: expected at least 1 and 2, received {repeat} and {frames}")
    source = open_source(video, end=frames)
    given = read_mask(mask, size=(source.info.height, source.info.width))
    pictures = list(source)
    if len(pictures) < 2:
        raise InputError(f"{video}: expected at least 2 frames, received {len(pictures)}")
    first: list[np.ndarray] | None = None
    for preset in presets:
        network = find_network(preset)
        on_keras = network.needs_backend or network.litert is not None
        for precision in precisions if on_keras else (None,):
            engine = "keras" if on_keras else "auto"
            options = PredictorOptions(network_size, precision=precision, engine=engine)
            segmenter = open_segmenter(SegmentOptions(video, preset=preset, network=options))
            masks = [found for _, found in segmenter.track(pictures, given)][1:]
            first = first or masks
            times = in_turns(
                {
                    "alone": lambda: list(map(segmenter.step, pictures[1:])),  # noqa: B023 (called in here only)
                    "whole": lambda: _whole_command(segmenter, video, mask, preset, frames),  # noqa: B023
                },
                repeat,
                warm_up=0,
            )
            alone, whole = times["alone"].median / (len(pictures) - 1), times["whole"].median / len(pictures)
            yield VideoTimes(preset, precision, alone, whole, _iou(masks, first))


def _whole_command(segmenter: VideoSegmenter, video: str, mask: str, preset: str, frames: int) -> None:
    """The job behind `osmn segment`, its files written to a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        options = SegmentOptions(video, {0: mask}, end=frames, preset=preset, out=folder)
        outcome = segment(options, open_segmenter=lambda _: segmenter)
        if outcome.problem is not None:
            raise InputError(f"{video}: cannot be segmented ({outcome.problem})")


def _iou(masks: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> float:
    labels = sorted({label for mask in reference for label in labels_of(mask)})
    values = [jaccard(mask == label, other == label) for mask, other in zip(masks, reference) for label in labels]
    return float(np.mean(values)) if values else 1.0

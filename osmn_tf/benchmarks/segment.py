"""`osmn segment` from the video to its files, beside the network alone on frames in memory."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.evaluation.metrics import jaccard
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
) -> Iterator[VideoTimes]:
    """Times presets and exported networks on one video.

    Args:
        video, mask: as `osmn segment` takes them; the mask is of the first frame.
        presets: as `osmn segment --preset`.
        precisions: Keras's dtype policies; presets run in each, exported networks as they are.
        network_size: (H, W); default: each network's own.
        frames: the first so many frames of the video.
        repeat: turns of which the median counts; network alone and whole command take turns.

    Raises:
        InputError: as `osmn segment`, or a number is out of its range.
    """
    from osmn_tf.cli.quiet import captured_stderr
    from osmn_tf.inference.predictor import find_network
    from osmn_tf.inference.segmenter import VideoSegmenter

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
        for precision in precisions if network.needs_backend else (None,):
            with captured_stderr():  # LiteRT reports that it has found its kernels
                segmenter = VideoSegmenter(preset, network_size, precision=precision)
            masks = _masks(segmenter, pictures, given)
            first = first or masks
            alone, whole = [], []
            for _ in range(repeat):
                began = time.perf_counter()
                for frame in pictures[1:]:
                    segmenter.step(frame)
                alone.append((time.perf_counter() - began) / (len(pictures) - 1))
                segmenter.reset()
                whole.append(_whole_command(segmenter, video, mask, preset, frames) / len(pictures))
            yield VideoTimes(preset, precision, statistics.median(alone), statistics.median(whole), _iou(masks, first))


def _masks(segmenter: VideoSegmenter, frames: Sequence[np.ndarray], mask: np.ndarray) -> list[np.ndarray]:
    return [found for _, found in segmenter.track(frames, mask)][1:]


def _whole_command(segmenter: VideoSegmenter, video: str, mask: str, preset: str, frames: int) -> float:
    """Seconds of the job behind `osmn segment`, its files written to a temporary folder."""
    from osmn_tf.cli.main import EXIT_OK, build_parser
    from osmn_tf.jobs.segment import SegmentationJob

    with tempfile.TemporaryDirectory() as folder:
        words = ["segment", video, "--mask", mask, "--preset", preset, "--end", str(frames), "--out", folder, "--quiet"]
        arguments = build_parser("segment").parse_args(words)
        arguments.finetune = 0
        began = time.perf_counter()
        source = open_source(video, end=frames)
        given = read_mask(mask, size=(source.info.height, source.info.width))
        job = SegmentationJob(arguments, source, {0: given})
        job.prepare(boxes_given=False)
        with contextlib.redirect_stdout(io.StringIO()):
            code = job.execute(segmenter)
        if code != EXIT_OK:
            raise InputError(f"{video}: cannot be segmented")
        return time.perf_counter() - began


def _iou(masks: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> float:
    labels = sorted({label for mask in reference for label in labels_of(mask)})
    values = [jaccard(mask == label, other == label) for mask, other in zip(masks, reference) for label in labels]
    return float(np.mean(values)) if values else 1.0

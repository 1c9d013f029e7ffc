"""How fast a client gets its masks: requests per second, latencies, and bytes on the way."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Sequence

import numpy as np

from osmn_tf.client.predictor import RemotePredictor
from osmn_tf.errors import InputError
from osmn_tf.inference.segmenter import VideoSegmenter


@dataclasses.dataclass(frozen=True)
class Speed:
    """Of the steps of one video.

    Attributes:
        name: what was measured.
        seconds: of every step, encoding and decoding of frame and mask included.
        cpu_seconds: of this process for a step, on average: the whole work without a server, the client's share with
            one. Other processes on the machine change it little.
        sent, received: bytes of a step's request and of its answer.
    """

    name: str
    seconds: tuple[float, ...]
    cpu_seconds: float
    sent: float
    received: float

    @property
    def per_second(self) -> float:
        """Steps per second, one after the other."""
        return len(self.seconds) / sum(self.seconds)

    def percentile(self, share: float) -> float:
        """Seconds within which `share` percent of the steps were done."""
        return float(np.percentile(self.seconds, share))


def measure(
    name: str, predictor: RemotePredictor, frames: Sequence[np.ndarray], mask: np.ndarray, steps: int, warm_up: int = 5
) -> Speed:
    """Times `steps` steps over `frames`, which are repeated as often as needed, after `warm_up` others.

    Args:
        frames: uint8 [H, W, 3] in memory.
        mask: uint8 [H, W] of the first.

    Raises:
        InputError: there are no frames, or fewer than one step is asked for.
        ServerError: the server refuses, or is away.
    """
    if not frames or steps < 1:
        raise InputError(f"steps: expected at least one frame and one step, received {len(frames)} and {steps}")
    segmenter = VideoSegmenter(predictor)
    segmenter.start(frames[0], mask)
    source = itertools.cycle(frames)
    for frame in itertools.islice(source, warm_up):
        segmenter.step(frame)
    sent, received = predictor.transport.sent_bytes, predictor.transport.received_bytes
    seconds = []
    cpu_began = time.process_time()
    for frame in itertools.islice(source, steps):
        began = time.perf_counter()
        segmenter.step(frame)
        seconds.append(time.perf_counter() - began)
    return Speed(
        name,
        tuple(seconds),
        (time.process_time() - cpu_began) / steps,
        (predictor.transport.sent_bytes - sent) / steps,
        (predictor.transport.received_bytes - received) / steps,
    )


def format_table(speeds: Sequence[Speed]) -> str:
    """A line for every measurement."""
    width = max(len("path"), *(len(speed.name) for speed in speeds))
    header = f"{'path':<{width}}  per second  p50 ms  p90 ms  p99 ms  CPU ms   kB sent  kB received"
    lines = [header]
    for speed in speeds:
        p50, p90, p99 = (1e3 * speed.percentile(share) for share in (50, 90, 99))
        lines.append(
            f"{speed.name:<{width}}  {speed.per_second:10.1f}  {p50:6.1f}  {p90:6.1f}  {p99:6.1f}"
            f"  {1e3 * speed.cpu_seconds:6.1f}  {speed.sent / 1e3:8.1f}  {speed.received / 1e3:11.1f}"
        )
    return "\n".join(lines)

"""A network of NumPy alone, whose masks depend on everything that it has seen, and ways to stop a job that runs it.

`python -m tests.jobs.drift FRAMES OUT PHASE` runs the job and kills it in a phase.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from osmn_tf import files
from osmn_tf.inference.predictor import AdaptOptions, NetworkSource, Prediction, Predictor, Progress
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.jobs import outputs, resume
from osmn_tf.jobs import segment as segment_job
from osmn_tf.jobs.options import SegmentOptions
from osmn_tf.jobs.segment import Outcome, segment

SIZE = (32, 48)
LENGTH = 10
PHASES = ("fine-tuning", "backward", "forward", "finishing")


class Drift(Predictor):
    """An object moves by a distance that adds up over the frames, and by more the longer it was trained."""

    can_adapt = True

    def __init__(self) -> None:
        self.release()
        self.forget()

    @property
    def network_size(self) -> None:
        return None

    @property
    def objects(self) -> int:
        return len(self.masks)

    def forget(self) -> None:
        self.masks, self.state = np.zeros((0, *SIZE), np.uint8), np.zeros(0, np.int64)

    def begin(self, frame: np.ndarray, masks: np.ndarray | None) -> None:
        assert masks is not None
        self.masks = np.concatenate([self.masks, masks])
        self.state = np.concatenate([self.state, np.full(len(masks), int(frame.sum()) % 7)])

    def keep(self, indices: Sequence[int]) -> None:
        self.masks, self.state = self.masks[list(indices)], self.state[list(indices)]

    def advance(self, frame: np.ndarray) -> Prediction:
        self.state = (3 * self.state + int(frame.sum()) + self.trained) % 5
        self.masks = np.stack([np.roll(mask, move - 1, 1) for mask, move in zip(self.masks, self.state)])
        found = self.masks.any(axis=0)
        winners = np.where(found, self.masks.argmax(axis=0) + 1, 0).astype(np.uint8)
        logits = np.where(self.masks > 0, 0.5 + self.state[:, None, None], -4).astype(np.float32)
        return Prediction(winners, lambda: logits)

    def snapshot(self) -> dict[str, np.ndarray]:
        return {"masks": self.masks, "state": self.state}

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> None:
        self.masks, self.state = snapshot["masks"], snapshot["state"]

    def adapt(
        self,
        frames_and_masks: Sequence[tuple[np.ndarray, np.ndarray]],
        options: AdaptOptions,
        progress: Progress | None = None,
    ) -> None:
        for step in range(options.steps):
            if progress is not None:
                progress(step + 1, options.steps, 1.0)
        self.trained, self.is_adapted = options.steps, True

    def adapted_weights(self) -> dict[str, np.ndarray]:
        return {"trained": np.array(self.trained)}

    def load_adapted(self, weights: Mapping[str, np.ndarray], details: Any = None) -> None:
        self.trained, self.is_adapted = int(weights["trained"]), True

    def release(self) -> None:
        self.trained, self.is_adapted = 0, False


def options_for(frames: Path, out: Path, **changes: Any) -> SegmentOptions:
    """Two objects that are given in different frames, fine-tuned, both ways, every kind of result."""
    first, second = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    first[4:10, 5:15], second[20:28, 20:40] = 2, 7
    kinds = dict.fromkeys(("overlay", "sheet", "coco", "cutouts"))
    settings = {"both_ways": True, "finetune": 3, "out": out, "outputs": kinds, "masks": {0: first, 6: second}}
    return SegmentOptions(frames, **{**settings, **changes})


def run(options: SegmentOptions, progress: segment_job.Progress | None = None) -> Outcome:
    """The job with this network, which is found whatever the preset is called, and a snapshot every three frames."""
    source = NetworkSource("a network", None, False, True, lambda _: Drift())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment_job, "find_network", lambda *_, **__: source)
        patch.setattr(segment_job, "SNAPSHOT_INTERVAL", 3)
        return segment(options, progress=progress, open_segmenter=lambda _: VideoSegmenter(Drift()))


def run_until(options: SegmentOptions, phase: str, action: Callable[[], None]) -> Outcome:
    """The job, with `action` called in a phase: between two files or, with a phase in capitals, before one is whole."""
    moments = {"fine-tuning": ("fine-tuning", 2), "backward": ("backward", 3), "forward": ("frames", 8)}

    def progress(what: str, done: int, total: int | None, note: str) -> None:
        if moments.get(phase) == (what, done):
            action()

    def before(owner: Any, name: str, calls: int = 1, word: str = "") -> None:
        """Before a call of the function; those count that have `word` in their arguments."""
        original, count = getattr(owner, name), iter(range(1, 1000))

        def stopping(*arguments: Any, **keywords: Any) -> Any:
            if word in str(arguments) and next(count) == calls:
                action()
            return original(*arguments, **keywords)

        patch.setattr(owner, name, stopping)

    with pytest.MonkeyPatch.context() as patch:
        if phase == "finishing":
            before(outputs.Sheet, "close")
        elif phase == "FINE-TUNING":
            before(resume.np, "savez", 1)
        elif phase == "BACKWARD":
            before(resume.np, "savez", 2)
        elif phase == "FORWARD":
            before(outputs, "write_mask", 8)
        elif phase == "FINISHING":
            before(files.os, "replace", word="frames_sheet.png")
        return run(options, progress)


if __name__ == "__main__":
    frames, out, phase = sys.argv[1:]
    run_until(options_for(Path(frames), Path(out)), phase, lambda: os.kill(os.getpid(), signal.SIGKILL))

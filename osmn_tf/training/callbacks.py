"""What happens at the end of every interval of a training run (an epoch of `fit`): validation, log, checkpoint."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from osmn_tf.data.sampling import Samples
from osmn_tf.datasets.index import VideoDataset, VideoSequence
from osmn_tf.evaluation.metrics import jaccard_and_boundary_f
from osmn_tf.files import write_text
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.masks.drawing import draw_overlay
from osmn_tf.masks.labels import VOID
from osmn_tf.models.presets import save_preset
from osmn_tf.training import optimization
from osmn_tf.training.checkpoint import Checkpoint
from osmn_tf.training.config import TrainConfig, ValidationConfig
from osmn_tf.training.event_file import EventWriter

LOG_FILE = "log.csv"
LOG_FOLDER = "tensorboard"
_LAST_COLUMNS = ("samples_per_second", "val_j_mean", "val_f_mean")


def track_sequence(
    segmenter: VideoSegmenter, sequence: VideoSequence, max_frames: int | None = None
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray | None]]:
    """Segments a sequence from the mask of each object's first frame.

    Yields:
        (frame's number, frame, predicted mask, annotated mask or None) for every frame from the first given mask on.
    """
    length = min(len(sequence), max_frames or len(sequence))
    given: dict[int, np.ndarray] = {}
    for label, first in sorted(sequence.first_frames.items()):
        mask = sequence.load_mask(first) if first < length else None
        if mask is not None and (mask == label).any():
            given.setdefault(first, np.zeros_like(mask))[mask == label] = label
    if not given:
        return
    start = min(given)
    frames = (sequence.load_frame(i) for i in range(start, length))
    masks = {index - start: mask for index, mask in given.items()}
    for i, (frame, predicted) in enumerate(segmenter.track(frames, masks), start=start):
        yield i, frame, predicted, sequence.load_mask(i)


class Validation(keras.callbacks.Callback):
    """Tracks objects through whole videos, with the averaged weights; keeps the best as a preset, and stops early.

    Adds "val_j_mean" and "val_f_mean" to the logs.

    Args:
        model: the network that is trained.
        videos: to track in.
        config: see `ValidationConfig`.
        train: length and intervals of the run.
        folder: of the run; the preset goes to `best/` in it.
        metadata: for the preset, from the step.
    """

    def __init__(
        self,
        model: keras.Model,
        videos: VideoDataset,
        config: ValidationConfig,
        train: TrainConfig,
        folder: Path,
        metadata: Callable[[int], dict[str, Any]],
    ) -> None:
        super().__init__()
        self.network, self.videos, self.config, self.train = model, videos, config, train
        self.folder, self.metadata = folder, metadata
        self.segmenter = VideoSegmenter(model, config.network_size)
        self.best: dict[str, Any] | None = None
        self.misses = 0
        self.overlays: list[np.ndarray] = []

    def state(self) -> dict[str, Any]:
        """What must survive an interruption, as JSON data."""
        return {"best": self.best, "misses": self.misses}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores a `state`; an empty one is the beginning."""
        self.best, self.misses = state.get("best"), int(state.get("misses", 0))

    def evaluate(self) -> tuple[float, float]:
        """Mean J and F over the objects, each in 0..1, with the weights as they are."""
        scores = []
        self.overlays = []
        for sequence in self.videos.sequences:
            scores += self._evaluate_sequence(sequence)
        j_mean, f_mean = np.mean(scores, axis=0) if scores else (0.0, 0.0)
        return float(j_mean), float(f_mean)

    def _evaluate_sequence(self, sequence: VideoSequence) -> list[tuple[float, float]]:
        """(J, F) of every object, without its first and the sequence's last frame, as DAVIS does."""
        values: dict[int, list[tuple[float, float]]] = {label: [] for label in sequence.first_frames}
        last = max(sequence.annotated)
        picture = None
        for index, frame, predicted, annotated in track_sequence(self.segmenter, sequence, self.config.max_frames):
            if annotated is None or index == last:
                continue
            void = annotated == VOID
            for label, first in sequence.first_frames.items():
                if index > first:
                    values[label].append(jaccard_and_boundary_f(annotated == label, predicted == label, void))
            picture = frame, predicted
        if picture is not None and len(self.overlays) < self.config.overlays:
            self.overlays.append(draw_overlay(*picture))
        return [tuple(np.mean(rows, axis=0)) for rows in values.values() if rows]

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        step = (epoch + 1) * self.train.interval
        if step % self.config.every and step != self.train.steps:
            return
        with optimization.averaged_weights(self.model):
            j_mean, f_mean = self.evaluate()
            if self.best is None or j_mean > self.best["j_mean"]:
                self.best = {"step": step, "j_mean": j_mean, "f_mean": f_mean}
                self.misses = 0
                facts = {**self.metadata(step), "validation": self.best}
                save_preset(self.network, self.folder / "best", facts)
            else:
                self.misses += 1
        if self.config.patience is not None and self.misses >= self.config.patience:
            self.model.stop_training = True
        if logs is not None:
            logs.update(val_j_mean=j_mean, val_f_mean=f_mean)


class EndOnFailure(keras.callbacks.Callback):
    """Ends the training with the error that ended the supply of samples. The first of the callbacks.

    Args:
        samples: see `osmn_tf.data.pipeline.tf_dataset` for its `defer_errors`.
    """

    def __init__(self, samples: Samples) -> None:
        super().__init__()
        self.samples = samples

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.samples.failure is not None:
            raise self.samples.failure


class RunLog(keras.callbacks.Callback):
    """A line of `log.csv` for every interval, and the same with pictures for TensorBoard.

    Args:
        folder: of the run.
        train: length and intervals of the run.
        step: where the training continues: later lines are of an interrupted interval and are dropped.
        validation: whose overlays are shown.
    """

    def __init__(self, folder: Path, train: TrainConfig, step: int, validation: Validation | None = None) -> None:
        super().__init__()
        self.folder, self.train, self.validation = folder, train, validation
        self.path = folder / LOG_FILE
        self.rows = [row for row in _read_log(self.path) if int(row["step"]) <= step]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.writer = EventWriter(self.folder / LOG_FOLDER)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.ended = time.perf_counter()  # validation is not training

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        values: dict[str, Any] = {"step": (epoch + 1) * self.train.interval}
        values.update({name: float(value) for name, value in (logs or {}).items()})
        values.update(optimization.learning_rates(self.model.optimizer))
        samples = self.train.interval * self.train.batch_size
        values["samples_per_second"] = samples / (self.ended - self.began)
        self.rows.append({name: f"{value:.6g}" if name != "step" else str(value) for name, value in values.items()})
        found = [name for name in dict.fromkeys(name for row in self.rows for name in row) if name not in _LAST_COLUMNS]
        text = io.StringIO()
        table = csv.DictWriter(text, [*found, *_LAST_COLUMNS], restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        write_text(self.path, text.getvalue())
        step = values.pop("step")
        self.writer.scalars(values, step)
        if self.validation is not None and "val_j_mean" in values:
            for number, picture in enumerate(self.validation.overlays):
                self.writer.image(f"validation/{number}", picture, step)


def _read_log(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Checkpointing(keras.callbacks.Callback):
    """Writes the checkpoint. The last of the callbacks: what it does not cover is done again after an interruption.

    Args:
        checkpoint: where to.
        interval: steps per epoch of `fit`.
        samples: whose damaged files belong to the run's state.
        validation: whose state belongs to it too.
    """

    def __init__(
        self, checkpoint: Checkpoint, interval: int, samples: Samples, validation: Validation | None = None
    ) -> None:
        super().__init__()
        self.checkpoint, self.interval, self.samples, self.validation = checkpoint, interval, samples, validation

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        state: dict[str, Any] = {
            "step": (epoch + 1) * self.interval,
            "stopped": bool(self.model.stop_training),
            "damaged": self.samples.damaged,
        }
        if self.validation is not None:
            state["validation"] = self.validation.state()
        self.checkpoint.save(state)


class ProgressBar(keras.callbacks.Callback):
    """One bar over all steps of the run, with the latest loss, IoU and J.

    Args:
        train: length and intervals of the run.
        step: where the training continues.
    """

    def __init__(self, train: TrainConfig, step: int) -> None:
        super().__init__()
        self.train, self.step = train, step
        self.shown: dict[str, str] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.bar = tqdm(total=self.train.steps, initial=self.step, unit="step", dynamic_ncols=True)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.bar.update()
        if self.bar.n % 10 == 0:
            self._show(loss=(logs or {}).get("loss"), iou=(logs or {}).get("mean_iou"))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._show(j=(logs or {}).get("val_j_mean"))

    def _show(self, **values: Any) -> None:
        self.shown.update({name: f"{float(value):.3f}" for name, value in values.items() if value is not None})
        self.bar.set_postfix(self.shown, refresh=False)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.bar.close()

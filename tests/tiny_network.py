"""A whole network in one file outside of the package: the network, its training task, and what runs it on a video.

It marks where the object was in the frame before, by colours. It builds, trains and runs in no time, so that tests of
what surrounds a network need no other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from osmn_tf import augment
from osmn_tf.data.pipeline import Batch, Batches
from osmn_tf.data.targets import OneObject, Target
from osmn_tf.inference.merging import merge_logits
from osmn_tf.inference.predictor import Prediction, Predictor, PredictorOptions, register_predictor
from osmn_tf.models.network import Network
from osmn_tf.models.registry import register_network
from osmn_tf.training.config import Config
from osmn_tf.training.tasks import Task, register_task


@register_network("TinyNet")
class TinyNet(Network):
    """Inputs: "frame" uint8 [B, H, W, 3], "previous" float32 [B, H, W, 1] of 0 and 1. Output: logits [B, H, W, 1]."""

    task_name = "tiny"

    def __init__(
        self,
        channels: int = 4,
        statistics: bool = False,
        dropout: float = 0.0,
        network_size: tuple[int, int] = (48, 64),
        **kwargs: Any,
    ) -> None:
        inputs = {
            "frame": keras.Input((None, None, 3), dtype="uint8", name="frame"),
            "previous": keras.Input((None, None, 1), name="previous"),
        }
        x = keras.layers.Rescaling(1 / 127.5, -1.0, name="normalization")(inputs["frame"])
        x = keras.layers.Concatenate(name="merge")([x, inputs["previous"]])
        x = keras.layers.Conv2D(channels, 3, padding="same", activation="relu", name="body")(x)
        if statistics:
            x = keras.layers.BatchNormalization(momentum=0.9, name="body_bn")(x)
        if dropout:
            x = keras.layers.Dropout(dropout, name="body_dropout")(x)
        super().__init__(inputs=inputs, outputs=keras.layers.Conv2D(1, 1, name="head")(x), **kwargs)
        self.channels, self.statistics, self.dropout = channels, statistics, dropout
        self.network_size = (int(network_size[0]), int(network_size[1]))

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "trainable": self.trainable,
            "channels": self.channels,
            "statistics": self.statistics,
            "dropout": self.dropout,
            "network_size": list(self.network_size),
        }


@dataclasses.dataclass(frozen=True)
class TinyBatches(Batches):
    """Single frames with the mask of the frame before."""

    options: augment.AugmentOptions

    def prepare(self, raw: Mapping[str, Any]) -> Batch:
        frames, masks = augment.augment_clips(raw["frames"], raw["masks"], raw["seeds"], self.options, raw["motion"])
        previous = ops.cast(ops.equal(masks[:, 0], 1), "float32")[..., None]
        return {"frame": ops.cast(frames[:, 0], "uint8"), "previous": previous}, masks[:, 1, ..., None]


@register_task("tiny")
@dataclasses.dataclass(frozen=True)
class TinyTask(Task):
    """What TinyNet is trained for."""

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {"head": ("head",)}

    def target(self, config: Config) -> Target:
        return OneObject()

    def batches(self, config: Config, model: keras.Model) -> TinyBatches:
        return TinyBatches(config.data.augment)


@register_predictor("TinyNet")
class TinyPredictor(Predictor):
    """Runs TinyNet at the frames' own size. Kept of the video: where each object is."""

    def __init__(self, network: keras.Model, options: PredictorOptions) -> None:
        options.refuse("TinyNet has no such choice", "exclusive", "recover")
        self.network, self.merge = network, options.merge
        self.forget()

    @property
    def network_size(self) -> None:
        return None

    @property
    def objects(self) -> int:
        return len(self.masks)

    def forget(self) -> None:
        self.masks = np.zeros((0, 1, 1), np.float32)

    def begin(self, frame: np.ndarray, masks: np.ndarray | None) -> None:
        assert masks is not None
        given = (masks != 0).astype(np.float32)
        self.masks = np.concatenate([self.masks, given]) if self.objects else given

    def keep(self, indices: Sequence[int]) -> None:
        self.masks = self.masks[list(indices)]

    def advance(self, frame: np.ndarray) -> Prediction:
        inputs = {"frame": np.repeat(frame[None], self.objects, 0), "previous": self.masks[..., None]}
        tensors = {name: ops.convert_to_tensor(value) for name, value in inputs.items()}
        logits = ops.convert_to_numpy(self.network(tensors, training=False))[..., 0]
        self.masks = (logits > 0).astype(np.float32)
        return Prediction(merge_logits(logits, self.merge), lambda: logits)

    def snapshot(self) -> dict[str, np.ndarray]:
        return {"masks": self.masks}

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> None:
        self.masks = snapshot["masks"]


CONFIG = """
model: {network: TinyNet}
data:
  sources:
    davis: {kind: davis, path: davis, year: 2017, split: train}
  size: [48, 64]
loss: {cross_entropy: 1.0, lovasz: 0.5, l2: 1.0e-3}
optimizer: {learning_rate: 1.0e-3, group_rates: {head: 1.0e-2}}
train: {steps: 4, batch_size: 4, checkpoint_every: 2}
validation:
  source: {kind: davis, path: davis, year: 2017, split: val}
  every: 2
  max_frames: 3
"""
"""A configuration that trains it, on the data of `tests/training/conftest.py`."""

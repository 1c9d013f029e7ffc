"""Training of RVOS: clips with all their objects, in a sequence (Ventura et al., CVPR 2019)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import keras
from keras import ops

from osmn_tf.data.slots import SlotBatches
from osmn_tf.data.targets import AllObjects
from osmn_tf.errors import InputError
from osmn_tf.evaluation.keras_metrics import MeanIoU
from osmn_tf.training.assignment import SlotAssignment
from osmn_tf.training.config import Config
from osmn_tf.training.optimization import SegmentationLoss
from osmn_tf.training.tasks import Task, register_task

Tensor = Any


@register_task("rvos")
@dataclasses.dataclass(frozen=True)
class RVOSTask(Task):
    """All objects of a clip at once, through the states of objects and frames. `data.own_guide` is the probability that
    a previous mask is the network's own (no gradient flows through it): 0 and then 1 are the paper's two phases.

    Attributes:
        slots: objects that a clip may have, each with a decoder's pass, present or not.
        find: how often a clip comes without masks to a network that takes them, so that it learns to find objects too.
            Predictions are matched to the objects of the first frame then. A network without masks always finds.
        empty: weight of predictions that no object is left for, against nothing; 0: they are free (the paper).
    """

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {"decoder": ("seg_skip*", "seg_lstm*", "seg_score*")}

    slots: int = 10
    find: float = 0.0
    empty: float = 0.0

    def __post_init__(self) -> None:
        AllObjects(self.slots)
        if not 0 <= self.find <= 1:
            raise InputError(f"find: expected a probability, received {self.find}")
        if self.empty < 0:
            raise InputError(f"empty: expected 0 or more, received {self.empty}")

    def check(self, config: Config) -> None:
        if config.validation is not None and not self._takes_masks(config):
            raise InputError("validation: tracks from given masks, which this network does not take, expected null")
        if self.find and not self._takes_masks(config):
            raise InputError("task.find: expected 0, since a network without masks (one_shot: false) always finds")
        if self.find and self.slots > 1 and config.model.arguments.get("independent"):
            raise InputError("task.slots: expected 1 with task.find, since independent objects would all find the same")

    def training_model(self, config: Config, model: keras.Model) -> keras.Model:
        network: Any = model
        (height, width), slots = config.data.size, self.slots
        clip = network.clip_model(config.data.length, slots, height, width)
        if not self._finds(config):
            return clip
        first = keras.Input((slots, height, width), dtype="uint8", name="first_masks")
        given = keras.Input((), name="given")
        logits = SlotAssignment(name="assignment")(clip(clip.input), first, given)
        return keras.Model({**clip.input, "first_masks": first, "given": given}, logits, name=clip.name)

    def target(self, config: Config) -> AllObjects:
        return AllObjects(self.slots, before=0)

    def batches(self, config: Config, model: keras.Model) -> SlotBatches:
        return SlotBatches(
            slots=self.slots,
            augment=config.data.augment,
            find=self.find,
            masks=self._takes_masks(config),
            own_mask=lambda number: config.data.own_guide.at(number / config.train.steps),
        )

    def losses(self, config: Config) -> SlotLoss:
        terms = dataclasses.asdict(config.loss)
        del terms["l2"]
        return SlotLoss(self.empty, **terms)

    def metrics(self, config: Config) -> list[Any]:
        return [SlotIoU()]

    def _takes_masks(self, config: Config) -> bool:
        return bool(config.model.arguments.get("one_shot", True))

    def _finds(self, config: Config) -> bool:
        return self.find > 0 or not self._takes_masks(config)


def _kinds(y_true: Tensor) -> tuple[Tensor, Tensor]:
    """Of labels [B, T, K, H, W, 1]: which slots hold an object, and which are labelled at all; float32 [B, 1, K]."""
    axes = (1, 3, 4, 5)
    object_there = ops.cast(ops.any(ops.equal(y_true, 1), axis=axes), "float32")
    labelled = ops.cast(ops.any(ops.less(y_true, 2), axis=axes), "float32")
    return object_there[:, None], labelled[:, None]


@keras.saving.register_keras_serializable(package="osmn_tf")
class SlotLoss(SegmentationLoss):
    """`SegmentationLoss` of every object in every frame, averaged over the objects: one value per frame.

    `y_true` is uint8 [B, T, K, H, W, 1] with 0, 1 and 255 (unlabelled), `y_pred` are logits of that size. Slots that
    are wholly unlabelled do not count.

    Args:
        empty: weight of slots without an object, against nothing.
        kwargs: as `SegmentationLoss`.
    """

    def __init__(self, empty: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**{"name": "slot_loss", **kwargs})
        self.empty = empty

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """float32 [B * T]."""
        values = ops.reshape(super().call(y_true, y_pred), ops.shape(y_pred)[:3])
        there, labelled = _kinds(y_true)
        weights = there + self.empty * (1.0 - there) * labelled
        total = ops.sum(values * weights, axis=2) / ops.maximum(ops.sum(there, axis=2), 1.0)
        return ops.reshape(total, (-1,))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "empty": self.empty}


@keras.saving.register_keras_serializable(package="osmn_tf")
class SlotIoU(MeanIoU):
    """`MeanIoU` of the slots that hold an object; [B, T, K, H, W, 1]."""

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        there, _ = _kinds(y_true)
        super().update_state(y_true, y_pred, ops.broadcast_to(there, ops.shape(y_pred)[:3]))

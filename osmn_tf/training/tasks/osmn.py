"""Training of OSMN: single frames with the guides of one object (Yang et al., CVPR 2018); clips where it matches."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from osmn_tf.data.guided import GuidedBatches
from osmn_tf.data.targets import OneObject, Target
from osmn_tf.errors import InputError
from osmn_tf.training.config import Config
from osmn_tf.training.tasks import Task, register_task

if TYPE_CHECKING:
    import keras


@register_task("osmn")
@dataclasses.dataclass(frozen=True)
class OSMNTask(Task):
    """A network with a visual and a spatial guide, on frames one by one; with `matching` on clips.

    Attributes:
        mask_errors: see `osmn_tf.data.guided.GuidedBatches`.
        prompts: likewise.
    """

    # An OSVOS has no modulation, and scores of its side outputs.
    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "recurrent": ("*_lstm", "*_lstm_in", "*_lstm_out", "modulator_recurrent"),
        "modulation": ("modulator_*", "Conv2d_out_*"),
        "side_scores": ("seg_score_dsn_*",),
    }

    mask_errors: float = 0.8
    prompts: float = 0.0

    def __post_init__(self) -> None:
        for name in ("mask_errors", "prompts"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}: expected a probability, received {getattr(self, name)}")

    def clips(self, config: Config) -> bool:
        """Whether the network is trained on clips."""
        return _matches(config)

    def check(self, config: Config) -> None:
        if not self.clips(config) and config.data.length != 1:
            raise InputError(
                f"data.length: {config.model.network} trains on single frames, expected 1, received "
                f"{config.data.length}"
            )
        if _matches(config) and config.data.length < 2:
            raise InputError(f"data.length: matching needs clips of at least 2 frames, received {config.data.length}")
        if self.prompts and not _matches(config):
            raise InputError("task.prompts: only a network with matching learns from boxes and clicks")
        own = config.data.own_guide
        if config.data.length == 1 and (own.start or own.end):
            raise InputError("data.own_guide: the first frame of a clip has no own prediction, set data.length above 1")

    def training_model(self, config: Config, model: keras.Model) -> keras.Model:
        network: Any = model
        return network.clip_model(config.data.length, *config.data.size) if self.clips(config) else model

    def target(self, config: Config) -> Target:
        return OneObject()

    def batches(self, config: Config, model: keras.Model) -> GuidedBatches:
        data = config.data
        network: Any = model
        return GuidedBatches(
            clips=self.clips(config),
            guide_size=network.guide_size,
            guide_background=network.guide_background,
            augment=data.augment,
            guide_jitter=data.guide_jitter,
            guide_colour=data.guide_colour,
            guide_dropout=data.guide_dropout,
            guide=network.guide,
            mask_errors=self.mask_errors,
            prompts=self.prompts,
            matching=network.matching is not None,
            own_guide=lambda number: data.own_guide.at(number / config.train.steps),
        )


def _matches(config: Config) -> bool:
    return config.model.arguments.get("matching") is not None

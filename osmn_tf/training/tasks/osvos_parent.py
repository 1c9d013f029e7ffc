"""Training of an OSVOS parent: foreground against background, frame by frame (Caelles et al., CVPR 2017)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from osmn_tf.data.frames import FrameBatches
from osmn_tf.data.targets import Foreground, Target
from osmn_tf.errors import InputError
from osmn_tf.training.config import Config
from osmn_tf.training.tasks import Task, register_task
from osmn_tf.training.tasks.osmn import OSMNTask

if TYPE_CHECKING:
    import keras

LOGITS = "logits"


@register_task("osvos_parent")
@dataclasses.dataclass(frozen=True)
class OSVOSParentTask(Task):
    """The loss acts on the fused output, and with `side_weight` on every side output too (deep supervision).

    The release trains in three phases, with side losses of weight 1, 0.5 and 0: a configuration for each.

    Attributes:
        side_weight: weight of each side output's loss, beside 1 for the fused output's. Needs the hypercolumn decoder.
    """

    # Those of the release: other rates for biases, for the sides' own scores, and for the last convolution.
    # An OSMN or a ReConvNet has modulation, and perhaps recurrence, which are left out.
    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "recurrent": OSMNTask.groups["recurrent"],
        "modulation": ("modulator_*", "Conv2d_out_*"),
        "side_score_biases": ("seg_score_dsn_*/bias",),
        "side_scores": ("seg_score_dsn_*",),
        "fusion_biases": ("seg_upscore_fuse/bias", "seg_score/bias"),
        "fusion": ("seg_upscore_fuse", "seg_score"),
        "biases": ("bias",),
    }

    side_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.side_weight < 0:
            raise InputError(f"side_weight: expected 0 or more, received {self.side_weight}")

    def check(self, config: Config) -> None:
        if config.data.length != 1:
            raise InputError(f"data.length: OSVOS trains on single frames, expected 1, received {config.data.length}")
        if self.side_weight and config.model.arguments.get("decoder", "hypercolumn") != "hypercolumn":
            raise InputError("task.side_weight: only the hypercolumn decoder has side outputs, expected 0")

    def training_model(self, config: Config, model: keras.Model) -> keras.Model:
        import keras

        outputs: Any = model.output
        return keras.Model(model.input, {name: outputs[name] for name in self._trained(model)}, name="parent")

    def _trained(self, model: keras.Model) -> tuple[str, ...]:
        """The outputs that have a loss."""
        outputs: Any = model.output
        sides = [name for name in outputs if name.startswith("side")]
        return (LOGITS, *sides) if self.side_weight else (LOGITS,)

    def target(self, config: Config) -> Target:
        return Foreground()

    def batches(self, config: Config, model: keras.Model) -> FrameBatches:
        return FrameBatches(config.data.augment, self._trained(model))

    def losses(self, config: Config) -> Any:
        from osmn_tf.models.osvos import LEVELS
        from osmn_tf.training.optimization import make_loss

        losses = {LOGITS: make_loss(config.loss)}
        if self.side_weight:
            losses |= {f"side{level}": make_loss(config.loss, self.side_weight) for level in LEVELS}
        return losses

    def metrics(self, config: Config) -> Any:
        from osmn_tf.evaluation.keras_metrics import MeanIoU

        return {LOGITS: [MeanIoU()]}

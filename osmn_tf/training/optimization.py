"""Loss, optimizer and weight penalties of a configuration, as Keras objects for `model.compile`."""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from osmn_tf import losses
from osmn_tf.errors import InputError
from osmn_tf.training.config import LossConfig, OptimizerConfig
from osmn_tf.training.tasks import group_of

Tensor = Any

_RATE = "learning_rate"  # what an optimizer is called, and its rate in the log


@keras.saving.register_keras_serializable(package="osmn_tf")
class SegmentationLoss(keras.losses.Loss):
    """Weighted sum of the losses in `osmn_tf.losses`, one value per frame.

    `y_true` is uint8 [B, H, W, 1] or [B, T, H, W, 1] with 0, 1 and 255 (unlabelled), `y_pred` are logits of that size.

    Args:
        class_balanced, per_pixel, cross_entropy, lovasz, lovasz_stride, soft_iou: see `LossConfig`.
    """

    def __init__(
        self,
        class_balanced: float = 0.0,
        per_pixel: bool = False,
        cross_entropy: float = 0.0,
        lovasz: float = 0.0,
        lovasz_stride: int = 1,
        soft_iou: float = 0.0,
        name: str = "segmentation_loss",
        reduction: str = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, reduction=reduction, **kwargs)
        self.class_balanced = class_balanced
        self.per_pixel = per_pixel
        self.cross_entropy = cross_entropy
        self.lovasz = lovasz
        self.lovasz_stride = lovasz_stride
        self.soft_iou = soft_iou

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """float32 [B] or [B * T]."""
        height, width = ops.shape(y_pred)[-3], ops.shape(y_pred)[-2]
        y_true = ops.reshape(y_true, (-1, height, width, 1))
        y_pred = ops.reshape(y_pred, (-1, height, width, 1))
        total: Tensor = 0.0
        if self.class_balanced:
            total += self.class_balanced * losses.class_balanced_cross_entropy(y_true, y_pred, self.per_pixel)
        if self.cross_entropy:
            total += self.cross_entropy * losses.binary_cross_entropy(y_true, y_pred)
        if self.lovasz:
            k = self.lovasz_stride
            total += self.lovasz * losses.lovasz_hinge(y_true[:, ::k, ::k], y_pred[:, ::k, ::k])
        if self.soft_iou:
            total += self.soft_iou * losses.soft_iou(y_true, y_pred)
        return total

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "class_balanced": self.class_balanced,
            "per_pixel": self.per_pixel,
            "cross_entropy": self.cross_entropy,
            "lovasz": self.lovasz,
            "lovasz_stride": self.lovasz_stride,
            "soft_iou": self.soft_iou,
        }


def make_loss(config: LossConfig, weight: float = 1.0) -> SegmentationLoss:
    """The loss for `model.compile`, times `weight`."""
    return SegmentationLoss(
        weight * config.class_balanced,
        config.per_pixel,
        weight * config.cross_entropy,
        weight * config.lovasz,
        config.lovasz_stride,
        weight * config.soft_iou,
    )


def penalise_kernels(model: keras.Model, l2: float) -> None:
    """Adds l2 / 2 * sum(w^2) of every trainable convolution kernel to what `fit` minimises."""
    if l2:
        penalty = keras.regularizers.L2(l2 / 2)
        for weight in model.trainable_weights:
            if weight.path.endswith("kernel"):
                weight.regularizer = penalty


def freeze_layers(model: keras.Model, patterns: tuple[str, ...]) -> None:
    """Makes the layers untrainable whose names match.

    Raises:
        InputError: a pattern matches no layer, or nothing is left to train.
    """
    layers = list(model._flatten_layers(include_self=False, recursive=True))
    for pattern in patterns:
        matching = [layer for layer in layers if fnmatch.fnmatchcase(layer.name, pattern)]
        if not matching:
            raise InputError(f"model.freeze: no layer is called {pattern!r}")
        for layer in matching:
            layer.trainable = False
    if not model.trainable_weights:
        raise InputError("model.freeze: nothing is left to train")


class _WholeBatch(keras.optimizers.Optimizer):
    """Clips the gradient of the whole batch where Keras 3.15 clips that of every replica's share.

    On TensorFlow Keras evaluates the schedule, with the branch in it, for the decay of every weight anew: for the
    hundreds of weights of a network, half the time that it takes to build the training step. Here that is done once.
    """

    def _clip_gradients(self, grads: list[Tensor]) -> list[Tensor]:
        if not self.global_clipnorm or keras.backend.backend() != "tensorflow":
            return super()._clip_gradients(grads)
        from osmn_tf.training import distribution

        return distribution.on_whole_batch(super()._clip_gradients, grads)

    def _apply_weight_decay(self, variables: list[Any]) -> None:
        if keras.backend.backend() != "tensorflow":
            super()._apply_weight_decay(variables)

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        decays = self.weight_decay is not None and self._use_weight_decay(variable)
        if decays and keras.backend.backend() == "tensorflow":
            rate = ops.cast(learning_rate, variable.dtype)
            self.assign_sub(variable, variable * ops.cast(self.weight_decay, variable.dtype) * rate)
        super().update_step(gradient, variable, learning_rate)


@keras.saving.register_keras_serializable(package="osmn_tf")
class WholeBatchAdam(_WholeBatch, keras.optimizers.Adam):
    """Adam, with the gradient of the whole batch."""


@keras.saving.register_keras_serializable(package="osmn_tf")
class WholeBatchSGD(_WholeBatch, keras.optimizers.SGD):
    """Stochastic gradient descent with momentum, with the gradient of the whole batch."""


def make_optimizer(
    config: OptimizerConfig, steps: int, weights: Sequence[Any], groups: Mapping[str, tuple[str, ...]] | None = None
) -> keras.optimizers.Optimizer:
    """The optimizer of a run of `steps` batches: `MultiOptimizer` where there are several learning rates.

    Args:
        config: see `OptimizerConfig`.
        steps: length of the schedule.
        weights: the trainable weights, to find those of a group by their names.
        groups: see `osmn_tf.training.tasks.Task.groups`; for `config.group_rates`.
    """

    def with_rate(rate: float, name: str) -> keras.optimizers.Optimizer:
        kind: Any = WholeBatchAdam
        if config.kind == "sgd":
            kind = functools.partial(WholeBatchSGD, momentum=config.momentum)
        return kind(
            _schedule(config, rate, steps),
            weight_decay=config.weight_decay or None,
            global_clipnorm=config.clip_norm,
            use_ema=config.ema is not None,
            ema_momentum=config.ema or 0.99,
            gradient_accumulation_steps=config.accumulate if config.accumulate > 1 else None,
            name=name,
        )

    default = with_rate(config.learning_rate, _RATE)
    if not config.group_rates:
        return default
    others = {name: with_rate(rate, f"{name}_{_RATE}") for name, rate in config.group_rates.items()}
    chosen = ((weight.path, group_of(weight.path, groups or {})) for weight in weights)
    special = {path: others[group] for path, group in chosen if group in others}
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(default, special))


def _schedule(config: OptimizerConfig, rate: float, steps: int) -> Any:
    schedules = keras.optimizers.schedules
    if config.schedule == "cosine":
        if config.warmup_steps:
            return schedules.CosineDecay(
                0.0, steps - config.warmup_steps, alpha=0.01, warmup_target=rate, warmup_steps=config.warmup_steps
            )
        return schedules.CosineDecay(rate, steps, alpha=0.01)
    if config.schedule == "steps":
        rates = [rate * math.pow(config.drop_factor, k) for k in range(len(config.drop_at) + 1)]
        return schedules.PiecewiseConstantDecay(list(config.drop_at), rates)
    return rate


def learning_rates(optimizer: keras.optimizers.Optimizer) -> dict[str, float]:
    """The present rates: "learning_rate", and "GROUP_learning_rate" of every group that has its own."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # loss scaling in mixed_float16
    several = inner.optimizers if isinstance(inner, keras.optimizers.MultiOptimizer) else [inner]
    return {each.name: float(ops.convert_to_numpy(each.learning_rate)) for each in several}


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Inside, a compiled `model` has the moving average of its weights, if its optimizer keeps one."""
    raw = [ops.convert_to_numpy(weight) for weight in model.trainable_weights]
    model.optimizer.finalize_variable_values(model.trainable_weights)
    try:
        yield
    finally:
        for weight, value in zip(model.trainable_weights, raw):
            weight.assign(value)

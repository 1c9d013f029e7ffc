"""Learns one object from the frames in which it is annotated: what OSVOS does online (Caelles et al., CVPR 2017).

The paper trains all layers from the parent on, on the fused loss alone, for 500 iterations and more, with SGD at 1e-8
on the class-balanced loss summed over the pixels. The defaults here are for a few seconds on a processor: Adam, the
loss per pixel, and random transformations of the annotated frames.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from osmn_tf.augment import AugmentOptions, augment_clips
from osmn_tf.errors import InputError
from osmn_tf.inference.adaptation.training import Budget, Training
from osmn_tf.inference.compilation import compile_function
from osmn_tf.inference.predictor import Progress
from osmn_tf.losses import binary_cross_entropy, lovasz_hinge
from osmn_tf.resampling import resize_frame, resize_mask

if TYPE_CHECKING:
    from osmn_tf.models.osvos import OSVOS

Tensor = Any
Array = np.ndarray


@dataclasses.dataclass(frozen=True)
class ObjectTuneOptions:
    """How an object is learnt, beside steps and learning rate.

    Attributes:
        batch: random transformations a step.
        augmentation: the random transformations of the annotated frames.
        lovasz: weight of the Lovasz hinge beside the cross-entropy.

    Raises:
        InputError: `batch` is below 1.
    """

    batch: int = 3
    augmentation: AugmentOptions = dataclasses.field(default_factory=lambda: AugmentOptions(scale=(0.7, 1.8)))
    lovasz: float = 0.5

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InputError(f"batch: expected 1 or more, received {self.batch}")


class _StoredStatistics(keras.Model):
    """A network's fused output, as in inference: with BatchNorm's stored statistics."""

    def __init__(self, network: keras.Model) -> None:
        super().__init__(dtype="float32", name="object_training")
        self.network = network

    def build(self, input_shape: Any) -> None:
        self.built = True  # the network is

    def call(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.network(inputs, training=False)["logits"]


class ObjectTuner:
    """Trains a copy of a network on the annotated frames of one object after the other.

    Every call with the same seed and the same number of steps gives the same weights on the same machine.

    Args:
        network: an `OSVOS`, which stays as it is.
        network_size: (H, W) at which it is trained.
        options: see `ObjectTuneOptions`.
    """

    def __init__(self, network: OSVOS, network_size: tuple[int, int], options: ObjectTuneOptions) -> None:
        self._network, self._copy = network, keras.models.clone_model(network)
        self.network_size, self.options = network_size, options
        self._training = Training(_StoredStatistics(self._copy), self._loss, network.compute_dtype)
        self._compiled_prepare = compile_function(self._prepare, [])

    def _prepare(self, frames: Tensor, masks: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Random transformations of uint8 [B, H, W, 3] with masks [B, H, W] by seeds int32 [B, 2]."""
        clips, labels = augment_clips(frames[:, None], masks[:, None], seeds, self.options.augmentation)
        return ops.cast(ops.round(clips[:, 0]), "uint8"), labels[:, 0, ..., None]

    def _loss(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        # Every fourth pixel is enough for the Lovasz hinge, which sorts them.
        hinge = lovasz_hinge(y_true[:, ::2, ::2], y_pred[:, ::2, ::2])
        return binary_cross_entropy(y_true, y_pred) + self.options.lovasz * hinge

    def learn(
        self,
        annotated: Sequence[tuple[Array, Array]],
        budget: Budget,
        learning_rate: float | None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> list[Array]:
        """The weights for an object, from the network's own on.

        Args:
            annotated: (frame uint8 [H, W, 3], mask uint8 [H, W], non-zero where the object is), one or more.
            budget: how long.
            learning_rate: of Adam.
            seed: of the order of the samples and of their transformations.
            progress: see `Progress`.

        Returns:
            The values of the network's variables, in their order.

        Raises:
            InputError: as `Training.run`.
        """
        for copy, variable in zip(self._copy.variables, self._network.variables, strict=True):
            # JAX would share the buffer, and training the copy frees the buffers that it began with.
            copy.assign(ops.copy(variable))
        frames = [resize_frame(frame, self.network_size) for frame, _ in annotated]
        masks = [resize_mask((mask != 0).astype(np.uint8), self.network_size) for _, mask in annotated]
        batches = self._batches(np.stack(frames), np.stack(masks), np.random.default_rng(seed))
        self._training.run(batches, budget, learning_rate, progress)
        return [ops.convert_to_numpy(variable) for variable in self._copy.variables]

    def _batches(
        self, frames: Array, masks: Array, generator: np.random.Generator
    ) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        order: list[int] = []
        while True:
            while len(order) < self.options.batch:
                order += generator.permutation(len(frames)).tolist()
            chosen, order = order[: self.options.batch], order[self.options.batch :]
            seeds = generator.integers(-(2**31), 2**31, (self.options.batch, 2)).astype(np.int32)
            inputs, labels = self._compiled_prepare(frames[chosen], masks[chosen], seeds)
            yield {"frame": inputs}, labels

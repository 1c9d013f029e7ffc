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

from osmn_tf.augment import AugmentOptions, augment_clips, spoil_masks, uniform
from osmn_tf.errors import InputError
from osmn_tf.inference.adaptation.training import Budget, Training
from osmn_tf.inference.compilation import compile_function
from osmn_tf.inference.predictor import Progress
from osmn_tf.layers.conditional_classifier import ConditionalClassifier
from osmn_tf.losses import VOID, binary_cross_entropy, lovasz_hinge
from osmn_tf.resampling import resize_frame, resize_mask

if TYPE_CHECKING:
    from osmn_tf.models.osvos import OSVOS

Tensor = Any
Array = np.ndarray

_LOST = 102  # stream of random numbers (see `osmn_tf.augment`)


@dataclasses.dataclass(frozen=True)
class ObjectTuneOptions:
    """How an object is learnt, beside steps and learning rate.

    Attributes:
        batch: random transformations a step.
        augmentation: the random transformations of the annotated frames.
        lovasz: weight of the Lovasz hinge beside the cross-entropy.
        lost: with conditional heads, how often an example has no instances at all: the head for the outside learns to
            do without.
        sigma: with conditional heads, of the filter that softens the instances' border; pixels at network size.

    Raises:
        InputError: `batch` is below 1, or another number is out of its range.
    """

    batch: int = 3
    augmentation: AugmentOptions = dataclasses.field(default_factory=lambda: AugmentOptions(scale=(0.7, 1.8)))
    lovasz: float = 0.5
    lost: float = 0.2
    sigma: float = 3.0

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InputError(f"batch: expected 1 or more, received {self.batch}")
        if not 0 <= self.lost <= 1:
            raise InputError(f"lost: expected a probability, received {self.lost}")
        if not self.sigma > 0:
            raise InputError(f"sigma: expected a positive number, received {self.sigma}")


@dataclasses.dataclass(frozen=True)
class Example:
    """A frame in which an object is annotated.

    Attributes:
        frame: uint8 [H, W, 3].
        mask: [H, W], non-zero where the object is.
        instances: [H, W], non-zero in the instances that were selected for it; for conditional heads.
    """

    frame: Array
    mask: Array
    instances: Array | None = None


class _StoredStatistics(keras.Model):
    """A network's fused output, as in inference: with BatchNorm's stored statistics. Behind it, with conditional heads,
    what the conditional classifier makes of them: [B, H, W, 1 or 2]."""

    def __init__(self, network: keras.Model, conditional: bool) -> None:
        super().__init__(dtype="float32", name="object_training")
        self.network = network
        self.classifier = ConditionalClassifier(dtype="float32") if conditional else None

    def build(self, input_shape: Any) -> None:
        self.built = True  # the network is

    def call(self, inputs: dict[str, Tensor]) -> Tensor:
        outputs = self.network({"frame": inputs["frame"]}, training=False)
        if self.classifier is None:
            return outputs["logits"]
        both = self.classifier(outputs["inside"], outputs["outside"], inputs["weight"])
        return ops.concatenate([outputs["logits"], both], axis=-1)


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
        model = _StoredStatistics(self._copy, network.conditional)
        self._training = Training(model, self._loss, network.compute_dtype)
        self._compiled_prepare = compile_function(self._prepare, [])

    def _prepare(self, frames: Tensor, masks: Tensor, seeds: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Random transformations of examples.

        Args:
            frames: uint8 [B, H, W, 3].
            masks: uint8 [B, H, W], 1 where the object is, and 2 more where its instances are.
            seeds: int32 [B, 2].

        Returns:
            What the network that is trained takes, and uint8 [B, H, W, 1]: 0, 1, or 255 where the picture has no
            content.
        """
        clips, labels = augment_clips(frames[:, None], masks[:, None], seeds, self.options.augmentation)
        values = labels[:, 0]
        unlabelled = ops.equal(values, VOID)
        inputs = {"frame": ops.cast(ops.round(clips[:, 0]), "uint8")}
        if self._network.conditional:
            instances = ops.logical_and(ops.greater_equal(values, 2), ops.logical_not(unlabelled))
            # A detector's instances in later frames are not as good as those in the first.
            spoiled = spoil_masks(instances, seeds)
            kept = uniform(seeds, 1, _LOST)[:, 0] >= self.options.lost
            weight = ops.cast(spoiled, "float32") * ops.cast(kept, "float32")[:, None, None]
            inputs["weight"] = soften(weight[..., None], self.options.sigma)
        return inputs, ops.where(unlabelled, values, values % 2)[..., None]

    def _loss(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        total: Tensor = 0.0
        for head in range(y_pred.shape[-1]):
            scores = y_pred[..., head : head + 1]
            # Every fourth pixel is enough for the Lovasz hinge, which sorts them.
            hinge = lovasz_hinge(y_true[:, ::2, ::2], scores[:, ::2, ::2])
            total += binary_cross_entropy(y_true, scores) + self.options.lovasz * hinge
        return total

    def learn(
        self,
        examples: Sequence[Example],
        budget: Budget,
        learning_rate: float | None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> list[Array]:
        """The weights for an object, from the network's own on.

        Args:
            examples: of one object, one or more.
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
        frames = [resize_frame(example.frame, self.network_size) for example in examples]
        masks = [self._resized(example.mask) for example in examples]
        for mask, example in zip(masks, examples):
            if example.instances is not None and example.instances.any():
                mask += 2 * self._resized(example.instances)
        batches = self._batches(np.stack(frames), np.stack(masks), np.random.default_rng(seed))
        self._training.run(batches, budget, learning_rate, progress)
        return [ops.convert_to_numpy(variable) for variable in self._copy.variables]

    def _resized(self, mask: Array) -> Array:
        return np.array(resize_mask((mask != 0).astype(np.uint8), self.network_size))

    def _batches(
        self, frames: Array, masks: Array, generator: np.random.Generator
    ) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        order: list[int] = []
        while True:
            while len(order) < self.options.batch:
                order += generator.permutation(len(frames)).tolist()
            chosen, order = order[: self.options.batch], order[self.options.batch :]
            seeds = generator.integers(-(2**31), 2**31, (self.options.batch, 2)).astype(np.int32)
            yield self._compiled_prepare(frames[chosen], masks[chosen], seeds)


def soften(weight: Tensor, sigma: float) -> Tensor:
    """A Gaussian filter of [B, H, W, 1], which sees beyond the border what is at the border's other side."""
    reach = max(1, round(3 * sigma))
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = (bell / bell.sum()).astype(np.float32)
    padded = ops.pad(weight, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    rows = ops.conv(padded, kernel.reshape(-1, 1, 1, 1), padding="valid", data_format="channels_last")
    return ops.conv(rows, kernel.reshape(1, -1, 1, 1), padding="valid", data_format="channels_last")

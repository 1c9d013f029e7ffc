"""Online fine-tuning: adapts a network to one video by training it on the frames whose masks are known.

Source: OSMN (Yang et al., CVPR 2018: 100 iterations per object, learning rate 1e-5) and ReConvNet (Lattari et al.,
2018: 300 iterations on random transformations of the first frame, learning rate 1e-6 for all parts). The defaults here
differ: they were chosen by measurement (`osmn_tf.inference.adaptation.quality`). The papers' values are arguments. That
the weights end half-way is of Wortsman et al., "Robust fine-tuning of zero-shot models" (CVPR 2022).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from osmn_tf.augment import (
    AugmentOptions,
    augment_clips,
    jitter_visual_guide,
    spatial_guide_jitter,
    spoil_masks,
    uniform,
)
from osmn_tf.errors import InputError
from osmn_tf.guides import SpatialGuide, full_guide, spatial_guide, visual_guide
from osmn_tf.inference.adaptation.quality import INTERPOLATION
from osmn_tf.inference.adaptation.training import Budget, Training
from osmn_tf.inference.compilation import compile_function
from osmn_tf.inference.predictor import Progress
from osmn_tf.losses import binary_cross_entropy, lovasz_hinge
from osmn_tf.models.clips import encode_clip, unroll_clip
from osmn_tf.models.modulated import MODULATED
from osmn_tf.resampling import resize_frame, resize_mask

if TYPE_CHECKING:
    from osmn_tf.models.osmn import OSMN

Tensor = Any
Array = np.ndarray

_MOTION = 8  # stream of random numbers (see `osmn_tf.augment`)


@dataclasses.dataclass(frozen=True)
class FineTuneOptions:
    """How a network is fine-tuned, beside steps and learning rate.

    Attributes:
        train_frame_encoder: train the layers before the first modulation too. A shared trunk is never trained: its
            features are computed once a step, and everything behind them is small.
        train_visual_modulator: train the visual modulator too, on jittered visual guides.
        batch: random transformations a step.
        length: frames of the clip that every transformation becomes. 1: single frames with a zero state, as the first
            frame of a video is seen. More, for recurrent networks: the picture moves on smoothly, and the frames after
            the first are guided by the network's own masks.
        augmentation: the random transformations of the annotated frames. They magnify more than those of training: an
            object that is far away in the annotated frame may come near.
        motion: how far the picture moves within a clip, and away from the mask that its first spatial guide is made of,
            at most; in units of the ranges of `augmentation`.
        lovasz: weight of the Lovasz hinge beside the cross-entropy.
        interpolation: where the weights end between the network's own (0) and the trained ones (1). Half-way keeps most
            of what was gained, and of what one frame does not show: how alike objects are told apart. None: half-way
            for a network that matches, and all the way for others.

    Raises:
        InputError: `batch` or `length` is below 1, or `interpolation` is not from 0 to 1.
    """

    train_frame_encoder: bool = True
    train_visual_modulator: bool = False
    batch: int = 3
    length: int = 1
    augmentation: AugmentOptions = dataclasses.field(default_factory=lambda: AugmentOptions(scale=(0.7, 2.5)))
    motion: float = 0.3
    lovasz: float = 0.5
    interpolation: float | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "length"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected 1 or more, received {getattr(self, name)}")
        if self.interpolation is not None and not 0 <= self.interpolation <= 1:
            raise InputError(f"interpolation: expected a number from 0 to 1, received {self.interpolation}")


class NetworkCopy:
    """A network whose trained parts are copies: a predictor runs it, and the network itself never changes.

    Args:
        network: an `OSMN` or `ReConvNet`. Parts that are not trained are its own.
        options: which parts are trained.
    """

    def __init__(self, network: OSMN, options: FineTuneOptions) -> None:
        self.guide_size = network.guide_size
        self.guide_background = network.guide_background
        self.compute_dtype = network.compute_dtype
        self.initial_state = network.initial_state
        self.begun_state = network.begun_state
        self.guide = network.guide
        self.matching = network.matching is not None
        self.trains_encoder = options.train_frame_encoder and network.trunk == MODULATED
        self._trained: list[tuple[keras.Model, keras.Model]] = []
        self.visual_modulator = self._part(network.visual_modulator, options.train_visual_modulator)
        self.frame_encoder = self._part(network.frame_encoder, self.trains_encoder)
        self.object_network = self._part(network.object_network, True)
        self.copy_weights()

    def _part(self, part: keras.Model, trained: bool) -> keras.Model:
        if not trained:
            return part
        copy = keras.models.clone_model(part)
        self._trained.append((copy, part))
        return copy

    def copy_weights(self) -> None:
        """Takes the network's weights."""
        for copy, part in self._trained:
            for variable, value in zip(copy.variables, part.variables, strict=True):
                # JAX would share the buffer, and training the copy frees the buffers that it began with.
                variable.assign(ops.copy(value))

    def interpolate(self, share: float) -> None:
        """Moves the weights back: this share of the way from the network's to the present ones is left."""
        for copy, part in self._trained:
            for variable, value in zip(copy.variables, part.variables, strict=True):
                variable.assign(value + share * (variable - value))


class _ClipNetwork(keras.Model):
    """The trained parts of a network, unrolled over short clips, always as in inference: stored BatchNorm statistics.

    Only what is trained belongs to this model, so that `trainable_variables` are the right ones; the parts that stay as
    they are have done their work before (`OnlineFineTuner._prepare`). No flag of the network is touched.
    """

    def __init__(self, network: NetworkCopy, options: FineTuneOptions) -> None:
        super().__init__(dtype="float32", name="clip_network")
        self.initial_state = network.initial_state
        self.spatial_guide = SpatialGuide(network.guide)
        self.object_network = network.object_network
        self.frame_encoder = network.frame_encoder if network.trains_encoder else None
        self.visual_modulator = network.visual_modulator if options.train_visual_modulator else None

    def build(self, input_shape: Any) -> None:
        self.built = True  # the parts are

    def call(self, inputs: dict[str, Tensor]) -> Tensor:
        features = {name.removeprefix("feature/"): x for name, x in inputs.items() if name.startswith("feature/")}
        if self.frame_encoder is not None:
            features = encode_clip(self.frame_encoder, inputs["frames"], training=False)
        if self.visual_modulator is not None:
            modulation = self.visual_modulator(inputs["visual_guide"], training=False)
        else:
            modulation = inputs["modulation"]
        first = inputs["spatial_guide"]

        def guide(t: int, before: Tensor | None) -> Tensor:
            return first if before is None else self.spatial_guide(before[..., 0] > 0)

        state = {name.removeprefix("state/"): x for name, x in inputs.items() if name.startswith("state/")}
        state = state or self.initial_state(*first.shape[:3])
        return unroll_clip(self.object_network, features, modulation, state, guide, training=False)


class OnlineFineTuner:
    """Trains a copy of a network on the annotated frames of one video.

    All objects share one set of weights, trained on all of them: every sample is a transformed frame with one of its
    objects, taken in turn, and the other objects are background in it. So the objects' likeness is learnt as a
    difference, tracking stays one batch of objects through one network, and a step costs the same for one object as for
    ten. (A set of weights for each object, as in the papers, takes the time and the memory once per object, and
    tracking them together is no longer one call.)

    The segmentation network is trained as it is used: with the modulation of the given masks and with a spatial guide
    that is jittered as in training, and moved off by `motion` as from one frame to the next. Every call with the same
    seed gives the same weights on the same machine.

    Args:
        network: an `OSMN` or `ReConvNet`, which stays as it is.
        network_size: (H, W) at which it is trained.
        options: see `FineTuneOptions`.

    Attributes:
        network: the copy that is trained, for a predictor to run.
    """

    def __init__(self, network: OSMN, network_size: tuple[int, int], options: FineTuneOptions) -> None:
        self.network = NetworkCopy(network, options)
        self.network_size = network_size
        self.options = options
        self._clip_network = _ClipNetwork(self.network, options)
        self._training = Training(self._clip_network, self._loss, network.compute_dtype)
        self._compiled_describe = compile_function(self._describe, [self.network.visual_modulator])
        self._compiled_key = compile_function(self._key, [self.network.frame_encoder])
        self._compiled_prepare = compile_function(self._prepare, [self.network.frame_encoder])

    # What is compiled -------------------------------------------------------------------------------------------

    def _describe(self, frame: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Visual guides and modulations of the objects in an annotated frame.

        Args:
            frame: uint8 [H, W, 3].
            masks: uint8 [N, H, W], 1 where the object is.
        """
        guides = visual_guide(frame[None], masks, self.network.guide_size, self.network.guide_background)
        return guides, self.network.visual_modulator(guides, training=False)

    def _key(self, frame: Tensor) -> Tensor:
        """What later frames are matched with, of an annotated frame uint8 [H, W, 3] of the network's size."""
        return self.network.frame_encoder({"frame": frame[None]}, training=False)["key"][0]

    def _prepare(
        self, frames: Tensor, masks: Tensor, keys: Tensor, guides: Tensor, modulation: Tensor, seeds: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Random transformations of annotated frames as inputs of the network, and its targets.

        Args:
            frames: uint8 [B, H, W, 3].
            masks: uint8 [B, H, W], 1 where the object is.
            keys: [B, h, w, K] of the frames, for a network with matching; [B, 0] for others.
            guides: float32 [B, S, S, 3], visual guides.
            modulation: [B, M].
            seeds: int32 [B, 2].

        Returns:
            Inputs of `_ClipNetwork` and uint8 [B, length, H, W, 1]: 0, 1, or 255 where the picture has no content.
        """
        options, network = self.options, self.network
        # The mask before the clip's first frame makes its spatial guide; matching needs the frame of that mask too.
        before = int(network.matching)
        clips, labels = augment_clips(
            ops.repeat(frames[:, None], options.length + before, axis=1),
            ops.repeat(masks[:, None], options.length + 1, axis=1),
            seeds,
            options.augmentation,
            motion=options.motion * uniform(seeds, 1, _MOTION)[:, 0],
        )
        clips = ops.cast(ops.round(clips), "uint8")
        known = labels[:, 0] == 1
        if network.guide == "gaussian":
            shift, growth = spatial_guide_jitter(seeds)
            inputs = {"spatial_guide": spatial_guide(known, shift[:, 0], growth[:, 0])}
        else:
            inputs = {"spatial_guide": full_guide(spoil_masks(known, seeds), network.guide)}
        if options.train_visual_modulator:
            inputs["visual_guide"] = jitter_visual_guide(guides, seeds, background=network.guide_background)
        else:
            inputs["modulation"] = modulation
        if network.trains_encoder:
            inputs["frames"] = clips
        else:
            encoded = encode_clip(network.frame_encoder, clips, training=False)
            if before:
                state = {**network.begun_state(keys, masks), "previous_key": encoded["key"][:, 0]}
                inputs.update({f"state/{name}": x for name, x in state.items()})
            inputs.update({f"feature/{name}": x[:, before:] for name, x in encoded.items()})
        return inputs, labels[:, 1:, ..., None]

    def _loss(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Per frame of the batch, float32 [B * length]."""
        shape = (-1, *y_pred.shape[2:])
        y_true, y_pred = ops.reshape(y_true, shape), ops.reshape(y_pred, shape)
        # Every fourth pixel is enough for the Lovasz hinge, which sorts them.
        hinge = lovasz_hinge(y_true[:, ::2, ::2], y_pred[:, ::2, ::2])
        return binary_cross_entropy(y_true, y_pred) + self.options.lovasz * hinge

    # The weights ------------------------------------------------------------------------------------------------

    def fit(
        self,
        annotated: Sequence[tuple[Array, Array]],
        budget: Budget,
        learning_rate: float | None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        """Trains the copy, from the network's weights on, whatever it was fine-tuned to before.

        Args:
            annotated: (frame uint8 [H, W, 3], mask uint8 [H, W] with labels) of one or more frames. A label is the same
                object in all of them.
            budget: how long.
            learning_rate: of Adam.
            seed: of the order of the samples and of their transformations.
            progress: see `Progress`.

        Raises:
            InputError: as `Training.run`.
        """
        self.network.copy_weights()
        samples = self._samples(annotated, np.random.default_rng(seed))
        batches = (self._compiled_prepare(*arguments) for arguments in samples)
        self._training.run(batches, budget, learning_rate, progress)
        share = self.options.interpolation
        self.network.interpolate((INTERPOLATION if self.network.matching else 1.0) if share is None else share)

    def _samples(
        self, annotated: Sequence[tuple[Array, Array]], generator: np.random.Generator
    ) -> Iterator[tuple[Array, ...]]:
        """The arguments of `_prepare` for every step."""
        frames: list[Array] = []
        masks: list[Array] = []
        keys: list[Array] = []
        guides: list[Array] = []
        modulations: list[Array] = []
        owners: list[tuple[int, int]] = []  # (number of the frame, label) of every mask
        for index, (frame, mask) in enumerate(annotated):
            labels = [int(label) for label in np.unique(mask) if label]
            stacked = np.stack([mask == label for label in labels]).astype(np.uint8)
            described = [ops.convert_to_numpy(x) for x in self._compiled_describe(frame, stacked)]
            frames.append(resize_frame(frame, self.network_size))
            matches = self.network.matching
            keys.append(ops.convert_to_numpy(self._compiled_key(frames[-1])) if matches else np.zeros(0, np.float32))
            masks += [resize_mask(mask, self.network_size) for mask in stacked]
            for store, values in zip((guides, modulations), described):
                store.extend(values)
            owners += [(index, label) for label in labels]
        # Guides of the same object in any frame: its looks in one annotated frame help to find it in another.
        same = [[other for other, owner in enumerate(owners) if owner[1] == label] for _, label in owners]
        order: list[int] = []
        while True:
            while len(order) < self.options.batch:
                order += generator.permutation(len(owners)).tolist()
            chosen, order = order[: self.options.batch], order[self.options.batch :]
            looks = [same[sample][generator.integers(len(same[sample]))] for sample in chosen]
            yield (
                np.stack([frames[owners[sample][0]] for sample in chosen]),
                np.stack([masks[sample] for sample in chosen]),
                np.stack([keys[owners[sample][0]] for sample in chosen]),
                np.stack([guides[look] for look in looks]),
                np.stack([modulations[look] for look in looks]),
                generator.integers(-(2**31), 2**31, (self.options.batch, 2)).astype(np.int32),
            )

    def weights(self) -> dict[str, Array]:
        """The trained weights, by path, for `load`."""
        return {variable.path: ops.convert_to_numpy(variable) for variable in self._training.variables}

    def load(self, weights: Mapping[str, Array]) -> None:
        """Gives the copy the weights that `weights` returned after an earlier `fit`.

        Raises:
            InputError: they are of another network or of other parts of it.
        """
        expected = {variable.path: tuple(variable.shape) for variable in self._training.variables}
        if {path: tuple(value.shape) for path, value in weights.items()} != expected:
            raise InputError("weights: expected those of this network's trained parts, received others")
        self.network.copy_weights()
        for variable in self._training.variables:
            variable.assign(weights[variable.path])

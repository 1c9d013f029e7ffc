"""Runs OSVOS: one set of weights for every object, learnt from the frames in which it is given."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import layers, ops

from osmn_tf.errors import InputError
from osmn_tf.inference.adaptation.object_tuner import Example, ObjectTuneOptions, ObjectTuner
from osmn_tf.inference.adaptation.pool import TunerPool
from osmn_tf.inference.adaptation.quality import OBJECT_LEARNING_RATE, OBJECT_STEPS, PLAIN_OBJECT_LEARNING_RATE
from osmn_tf.inference.adaptation.training import Budget
from osmn_tf.inference.compilation import CompiledGraphs, compile_function
from osmn_tf.inference.folding import FoldedNetwork
from osmn_tf.inference.merging import merge_logits
from osmn_tf.inference.predictor import (
    GUIDE_OPTIONS,
    AdaptOptions,
    Prediction,
    Predictor,
    PredictorOptions,
    Progress,
    register_predictor,
)
from osmn_tf.models.osvos import CONDITIONAL
from osmn_tf.resampling import resize_frame

if TYPE_CHECKING:
    from osmn_tf.models.osvos import OSVOS

Tensor = Any
Array = np.ndarray


@dataclasses.dataclass(frozen=True)
class OSVOSStep:
    """What is computed of a network, for the formats that export it: the object that its own weights know.

    Attributes:
        network: it.
        network_size: (H, W) of its frames.
    """

    network: OSVOS
    network_size: tuple[int, int]

    def merged(self, logits: Tensor) -> Tensor:
        """uint8 [H, W] of logits [1, H, W]: 1 where the object is."""
        return ops.cast(logits[0] > 0, "uint8")


_DIGEST = 16  # bytes by which a mask is known again


class _Shared:
    """What all predictors of a network share: what was compiled for it, and fine-tuners that nobody uses."""

    def __init__(self, network: OSVOS) -> None:
        self.network = network
        self._folded = FoldedNetwork(network)
        self.tuners: TunerPool[ObjectTuner] = TunerPool(
            lambda size, options: ObjectTuner(network, size, options), most_idle=1
        )
        self._conditional: OSVOS | None = None
        self.graphs = CompiledGraphs()
        # Weights are arguments, so that one graph runs the objects of all predictors.
        self.scores: Callable[..., Tensor] = compile_function(self._scores, [], self.graphs)

    _lock = threading.Lock()

    @classmethod
    def of(cls, network: Any) -> _Shared:
        """The one of this network."""
        with cls._lock:
            # Kept with the network, so that it goes with it; not as an attribute, since Keras would follow it.
            if "_osmn_tf_shared" not in vars(network):
                vars(network)["_osmn_tf_shared"] = cls(network)
            shared: _Shared = vars(network)["_osmn_tf_shared"]
            return shared

    def conditional(self) -> OSVOS:
        """The network with conditional heads: itself, or one copy for all predictors."""
        if self.network.conditional:
            return self.network
        with self._lock:
            if self._conditional is None:
                self._conditional = self.network.with_conditional_heads()
            return self._conditional

    def _scores(self, small: Tensor, weights: Sequence[Tensor], *, size: tuple[int, int]) -> Tensor:
        """Logits float32 [H, W, 1] of the object that `weights` know; [H, W, 3] with conditional heads.

        Args:
            small: uint8 [h, w, 3], the frame at network size.
            weights: of all variables, in their order.
            size: (H, W) of the frame itself.
        """
        mapping = list(zip(self.network.variables, weights, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            outputs = self._folded({"frame": small[None]})
        heads = ("logits", *CONDITIONAL) if self.network.conditional else ("logits",)
        logits = ops.concatenate([outputs[head] for head in heads], axis=-1)
        if tuple(logits.shape[1:3]) != size:
            logits = ops.image.resize(logits, size, interpolation="bilinear", data_format="channels_last")
        return logits[0]


@register_predictor("OSVOS")
class OSVOSPredictor(Predictor):
    """Runs an `OSVOS`. Objects are learnt when they are taken up, each for itself; then every frame is on its own.

    With `adapt` they are learnt before, from all annotated frames: `begin` knows an object again by its mask.

    Attributes:
        instances_of: of (frame, mask of an object), what a detector has found of it there, [H, W]; for conditional
            heads.

    Args:
        network: the network; it never changes from here.
        options: see `PredictorOptions`.

    Raises:
        InputError: the network size is too small, or an option is not applicable.
    """

    can_adapt = True
    adapts_itself = True
    adaptation = AdaptOptions(OBJECT_STEPS, OBJECT_LEARNING_RATE)

    def __init__(self, network: OSVOS, options: PredictorOptions | None = None) -> None:
        options = options or PredictorOptions()
        options.refuse("every frame is segmented on its own, without guides", *GUIDE_OPTIONS)
        options.refuse_scale()
        self.network, self.merge = network, options.merge
        if not any(isinstance(layer, layers.BatchNormalization) for layer in network.layers):
            self.adaptation = dataclasses.replace(self.adaptation, learning_rate=PLAIN_OBJECT_LEARNING_RATE)
        self._size = options.size_of(network.network_size)
        self._shared = _Shared.of(network)
        self.instances_of: Callable[[Array, Array], Array] | None = None
        self._learnt: list[tuple[frozenset[bytes], list[Tensor]]] = []  # by `adapt`: masks of an object, its weights
        self.forget()

    @property
    def network_size(self) -> tuple[int, int]:
        return self._size

    @property
    def objects(self) -> int:
        return len(self._weights)

    @property
    def step(self) -> OSVOSStep:
        """What an export takes: the network as it is."""
        return OSVOSStep(self.network, self._size)

    def learnt_networks(self) -> list[OSVOS]:
        if not self._learnt:
            raise InputError("learnt_networks: call adapt first")
        copies = []
        for _, weights in self._learnt:
            copy = type(self.network)(**self.network.get_config())
            for variable, value in zip(copy.variables, weights, strict=True):
                # JAX would share the buffer.
                variable.assign(ops.copy(value))
            copies.append(copy)
        return copies

    def forget(self) -> None:
        self._weights: list[list[Tensor]] = []

    def begin(self, frame: Array, masks: Array | None) -> None:
        given = np.asarray(masks)
        self._weights = self._weights + [self._weights_for(frame, mask) for mask in given]

    def _weights_for(self, frame: Array, mask: Array) -> list[Tensor]:
        digest = _digest(mask)
        for known, weights in self._learnt:
            if digest in known:
                return weights
        return self._learn([[(frame, mask)]], self.adaptation, None)[0]

    def keep(self, indices: Sequence[int]) -> None:
        self._weights = [self._weights[index] for index in indices]

    def for_instances(self, instances_of: Callable[[Array, Array], Array]) -> OSVOSPredictor:
        other = OSVOSPredictor(self._shared.conditional(), PredictorOptions(self._size, self.merge))
        other.instances_of = instances_of
        return other

    def conditional_logits(self, frame: Array) -> tuple[Array, Array, Array] | None:
        if not self.network.conditional:
            return None
        first, inside, outside = np.moveaxis(self.heads(frame), -1, 0)
        return first, inside, outside

    def heads(self, frame: Array) -> Array:
        """The logits of all heads, float32 [N, H, W, heads]: the first one alone, or with "inside" and "outside"."""
        size = (int(frame.shape[0]), int(frame.shape[1]))
        small = resize_frame(frame, self._size)
        scores = [self._shared.scores(small, weights, size=size) for weights in self._weights]
        return np.stack([ops.convert_to_numpy(score) for score in scores])

    def advance(self, frame: Array) -> Prediction:
        logits = self.heads(frame)[..., 0]
        return Prediction(merge_logits(logits, self.merge), lambda: logits)

    # Interruption -----------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Array]:
        return {
            f"object{index}/{variable.path}": ops.convert_to_numpy(value)
            for index, weights in enumerate(self._weights)
            for variable, value in zip(self.network.variables, weights, strict=True)
        }

    def restore(self, snapshot: Mapping[str, Array]) -> None:
        self._weights = self._weights_in(snapshot, "snapshot")

    def _weights_in(self, values: Mapping[str, Array], what: str) -> list[list[Tensor]]:
        """The weights of the objects in a `snapshot` or in `adapted_weights`."""
        paths = {variable.path: tuple(variable.shape) for variable in self.network.variables}
        count = len({name.partition("/")[0] for name in values if name.startswith("object")})
        found: list[list[Tensor]] = []
        for index in range(count):
            own = {path: values.get(f"object{index}/{path}") for path in paths}
            if any(value is None or value.shape != paths[path] for path, value in own.items()):
                raise InputError(f"{what}: its weights are not of this network")
            found.append([ops.convert_to_tensor(value) for value in own.values()])
        if not found:
            raise InputError(f"{what}: it has no weights of objects, as this network needs them")
        return found

    # Learning objects -------------------------------------------------------------------------------------------

    @property
    def is_adapted(self) -> bool:  # type: ignore[override]
        return bool(self._learnt)

    def adapt(
        self, frames_and_masks: Sequence[tuple[Array, Array]], options: AdaptOptions, progress: Progress | None = None
    ) -> None:
        """Learns every object from all frames in which it is annotated; the others are background there."""
        self.release()
        labels = sorted({int(label) for _, mask in frames_and_masks for label in np.unique(mask) if label})
        annotated = [
            [(frame, (mask == label).astype(np.uint8)) for frame, mask in frames_and_masks if (mask == label).any()]
            for label in labels
        ]
        learnt = self._learn(annotated, options, progress)
        self._learnt = [
            (frozenset(_digest(mask) for _, mask in pairs), weights) for pairs, weights in zip(annotated, learnt)
        ]

    def _learn(
        self, annotated: Sequence[Sequence[tuple[Array, Array]]], options: AdaptOptions, progress: Progress | None
    ) -> list[list[Tensor]]:
        """Weights for each object, given its annotated frames."""
        options = options.over(self.adaptation)
        settings = (self._size, options.details or ObjectTuneOptions())
        budget = Budget(options.steps, options.seconds)
        if budget.steps == 0:
            return [[ops.copy(variable.value) for variable in self.network.variables]] * len(annotated)
        tuner = self._shared.tuners.borrow(*settings)
        found: list[list[Tensor]] = []
        made = 0

        def show(done: int, total: int, loss: float) -> None:
            if progress is not None:
                progress(made + done, made + total * (len(annotated) - len(found)), loss)

        for pairs in annotated:
            examples = [
                Example(frame, mask, None if self.instances_of is None else self.instances_of(frame, mask))
                for frame, mask in pairs
            ]
            weights = tuner.learn(examples, budget, options.learning_rate, options.seed + len(found), show)
            made += budget.made
            found.append([ops.convert_to_tensor(value) for value in weights])
        self._shared.tuners.give_back(tuner, *settings)
        return found

    def adapted_weights(self) -> dict[str, Array]:
        if not self._learnt:
            raise InputError("adapted_weights: call adapt first")
        values: dict[str, Array] = {}
        for index, (masks, weights) in enumerate(self._learnt):
            values[f"object{index}/masks"] = np.stack([np.frombuffer(digest, np.uint8) for digest in sorted(masks)])
            for variable, value in zip(self.network.variables, weights, strict=True):
                values[f"object{index}/{variable.path}"] = ops.convert_to_numpy(value)
        return values

    def load_adapted(self, weights: Mapping[str, Array], details: Any = None) -> None:
        self.release()
        found = self._weights_in(weights, "weights")
        masks = [weights.get(f"object{index}/masks") for index in range(len(found))]
        if any(digests is None or digests.dtype != np.uint8 for digests in masks):
            raise InputError("weights: expected what adapted_weights has given, received something else")
        self._learnt = [
            (frozenset(row.tobytes() for row in digests), own)
            for digests, own in zip(masks, found)
            if digests is not None
        ]

    def release(self) -> None:
        self._learnt = []


def _digest(mask: Array) -> bytes:
    """By which a mask of one object, [H, W], is known again."""
    packed = np.packbits(mask != 0).tobytes()
    return hashlib.blake2b(repr(mask.shape).encode() + packed, digest_size=_DIGEST).digest()

"""Runs the networks of the modulated family, OSMN and ReConvNet: what is computed, and the state of a video."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from osmn_tf.errors import InputError
from osmn_tf.guides import full_guide, search_near, visual_guide
from osmn_tf.inference.adaptation.pool import TunerPool
from osmn_tf.inference.adaptation.quality import UNMATCHED_LEARNING_RATE
from osmn_tf.inference.adaptation.training import Budget
from osmn_tf.inference.compilation import CompiledGraphs, compile_function
from osmn_tf.inference.folding import FoldedNetwork
from osmn_tf.inference.merging_tensors import merge_tensors
from osmn_tf.inference.predictor import (
    AdaptOptions,
    GuidedPredictor,
    Prediction,
    PredictorOptions,
    Progress,
    register_predictor,
)
from osmn_tf.resampling import fitted_size, resize_frame, resize_mask

if TYPE_CHECKING:
    from osmn_tf.inference.adaptation.online import FineTuneOptions, OnlineFineTuner
    from osmn_tf.models.osmn import OSMN

Tensor = Any
Array = np.ndarray

# What is computed ---------------------------------------------------------------------------------------------------


class ModulatedStep:
    """What is computed of a network in one setting: functions of tensors, for `compile_function` and for the exports.

    Every object has its own modulation (computed once) and recurrent state; its spatial guide comes from its
    prediction of the frame before. The layers before the first modulation run once a frame for all objects.

    Args:
        network: an `OSMN` or `ReConvNet`.
        folded: its frame encoder and its object network, for inference.
        network_size, merge, exclusive, recover, search_window: see `PredictorOptions`.
    """

    def __init__(
        self,
        network: OSMN,
        folded: tuple[FoldedNetwork, FoldedNetwork],
        network_size: tuple[int, int],
        merge: str,
        exclusive: bool,
        recover: bool,
        search_window: bool,
    ) -> None:
        self.network = network
        self.network_size = network_size
        self.merge = merge
        self.exclusive = exclusive
        self.recover = recover
        self.search_window = search_window
        self._frame_encoder, self._object_network = folded

    def modulate(self, frame: Tensor, masks: Tensor) -> Tensor:
        """Modulation [N, M] of objects given as uint8 [N, H, W] in a frame uint8 [H, W, 3]."""
        guides = visual_guide(frame[None], masks, self.network.guide_size, self.network.guide_background)
        return self.network.visual_modulator(guides, training=False)

    def step(
        self,
        small: Tensor,
        guide_masks: Tensor,
        modulation: Tensor,
        state: dict[str, Tensor],
        *,
        size: tuple[int, int],
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor]:
        """One frame for all objects.

        Args:
            small: uint8 [h, w, 3], the frame at network size (`osmn_tf.resampling.resize_frame`).
            guide_masks, modulation, state: see `network_step`.
            size: (H, W) of the frame itself.

        Returns:
            Index map uint8 [H, W], next guide masks, new state, logits [N, H, W].
        """
        logits, own, state = self.network_step(small[None], guide_masks, modulation, state)
        if tuple(logits.shape[1:3]) != size:
            logits = ops.image.resize(logits, size, interpolation="bilinear", data_format="channels_last")
        full = logits[..., 0]
        return self.merged(full), own, state, full

    def network_step(
        self, small: Tensor, guide_masks: Tensor, modulation: Tensor, state: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """`step` without the enlarging.

        Args:
            small: uint8 [1, h, w, 3], the frame at network size.
            guide_masks: uint8 [N, h, w], what the spatial guides are made of.
            modulation: [N, M].
            state: the recurrent state.

        Returns:
            Logits float32 [N, h, w, 1], the next guide masks, the new state.
        """
        features = self._frame_encoder({"frame": small})
        guide = full_guide(guide_masks, self.network.guide)
        outputs = self._object_network({**features, "spatial_guide": guide, "modulation": modulation, **state})
        logits = outputs.pop("logits")[..., 0]
        if self.search_window:
            logits = search_near(logits, guide_masks)
        won = logits > 0
        if self.exclusive:
            won = ops.logical_and(won, logits >= ops.max(logits, axis=0, keepdims=True))
        own = ops.cast(won, "uint8")
        if self.recover:
            found = ops.any(own > 0, axis=(1, 2), keepdims=True)
            own = ops.where(found, own, guide_masks)
        return logits[..., None], own, outputs

    def merged(self, logits: Tensor) -> Tensor:
        """`osmn_tf.inference.merging.merge_logits` of tensors: float32 [N, H, W] -> uint8 [H, W]."""
        return merge_tensors(logits, self.merge)


# What all predictors of a network share -----------------------------------------------------------------------------


class _Shared:
    """What was compiled for a network, and the fine-tuners of its copies that no predictor uses at the moment."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.graphs = CompiledGraphs()
        self.tuners: TunerPool[OnlineFineTuner] = TunerPool(self._make_tuner)
        self._folded = FoldedNetwork(network.frame_encoder), FoldedNetwork(network.object_network)
        self._functions: dict[Any, tuple[ModulatedStep, Callable[..., Any], Callable[..., Any]]] = {}
        self._lock = threading.Lock()

    @classmethod
    def of(cls, network: Any) -> _Shared:
        """The one of this network."""
        # Kept with the network, so that it goes with it; not as an attribute, since Keras would follow it.
        if "_osmn_tf_shared" not in vars(network):
            vars(network).setdefault("_osmn_tf_shared", cls(network))
        shared: _Shared = vars(network)["_osmn_tf_shared"]
        return shared

    def functions(self, settings: tuple[Any, ...]) -> tuple[ModulatedStep, Callable[..., Any], Callable[..., Any]]:
        """The step in a setting, and its `modulate` and `step` compiled."""
        with self._lock:
            if settings not in self._functions:
                step = ModulatedStep(self.network, self._folded, *settings)
                models = [self.network.visual_modulator, self.network.frame_encoder, self.network.object_network]
                if len(self._functions) == self.graphs.limit:
                    self._functions.pop(next(iter(self._functions)))
                self._functions[settings] = (
                    step,
                    compile_function(step.modulate, models, self.graphs),
                    compile_function(step.step, models, self.graphs),
                )
            return self._functions[settings]

    def _make_tuner(self, network_size: tuple[int, int], options: FineTuneOptions) -> OnlineFineTuner:
        from osmn_tf.inference.adaptation.online import OnlineFineTuner

        return OnlineFineTuner(self.network, network_size, options)


# The predictor ------------------------------------------------------------------------------------------------------


@register_predictor("OSMN")
class ModulatedPredictor(GuidedPredictor):
    """Runs an `OSMN` or `ReConvNet`. A whole step (guides, network, enlarging, merge) is one compiled call.

    Args:
        network: the network; its weights may change meanwhile, and are never changed from here.
        options: see `PredictorOptions`.

    Raises:
        InputError: the network size is too small.
    """

    can_adapt = True

    def __init__(self, network: OSMN, options: PredictorOptions | None = None) -> None:
        options = options or PredictorOptions()
        self.network = network
        matches = network.matching is not None
        window = matches if options.search_window is None else options.search_window
        if not matches:
            options.refuse_scale()
        self._own_size = options.size_of(network.network_size)
        self._fits = matches and options.network_size is None
        self._settings = (self._own_size, options.merge, options.exclusive, options.recover, window)
        self._shared = _Shared.of(network)
        self._tuner: OnlineFineTuner | None = None
        if not matches:
            self.adaptation = dataclasses.replace(self.adaptation, learning_rate=UNMATCHED_LEARNING_RATE)
        self._run(network)
        self.forget()

    def _run(self, network: Any) -> None:
        """Runs this network from now on: the shared one, or a copy with weights of its own."""
        self.step, self._modulate, self._step = _Shared.of(network).functions(self._settings)

    @property
    def network_size(self) -> tuple[int, int]:
        return self._settings[0]

    def _fit(self, frame: Array) -> None:
        """Chooses the network size for a video, if there may be another than the network's own."""
        if self._fits and not self.objects:
            self._resize(fitted_size(self._own_size, frame.shape[:2]))

    def _resize(self, size: tuple[int, int]) -> None:
        if size != self.network_size:
            self._settings = (size, *self._settings[1:])
            self._run(self.step.network)

    @property
    def objects(self) -> int:
        return 0 if self._modulation is None else int(self._modulation.shape[0])

    def forget(self) -> None:
        self._modulation: Tensor = None  # [N, M]
        self._guide_masks: Tensor = None  # uint8 [N, h, w], what the next spatial guides are made of
        self._state: dict[str, Tensor] = {}

    @property
    def carried(self) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """What `step.step` takes behind the frame: guide masks, modulation, state."""
        return self._guide_masks, self._modulation, self._state

    def _advance(self, frame: Array, *carried: Any) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor]:
        size = (int(frame.shape[0]), int(frame.shape[1]))
        outputs: tuple[Tensor, Tensor, dict[str, Tensor], Tensor] = self._step(
            resize_frame(frame, self.network_size), *carried, size=size
        )
        return outputs

    def begin(self, frame: Array, masks: Array | None) -> None:
        self._fit(frame)
        modulation = self._modulate(frame, masks)
        guide_masks = ops.convert_to_tensor(
            np.stack([resize_mask(mask, self.network_size) for mask in np.asarray(masks)])
        )
        state = self.network.initial_state(int(modulation.shape[0]), *self.network_size)
        if state:
            # The first frame, with the guide of the given mask, starts the state.
            _, _, state, _ = self._advance(frame, guide_masks, modulation, state)
        if self.objects:
            modulation = ops.concatenate([self._modulation, modulation])
            guide_masks = ops.concatenate([self._guide_masks, guide_masks])
            state = {name: ops.concatenate([self._state[name], state[name]]) for name in state}
        self._modulation, self._guide_masks, self._state = modulation, guide_masks, state

    def keep(self, indices: Sequence[int]) -> None:
        self._modulation = ops.take(self._modulation, indices, axis=0)
        self._guide_masks = ops.take(self._guide_masks, indices, axis=0)
        self._state = {name: ops.take(value, indices, axis=0) for name, value in self._state.items()}

    def advance(self, frame: Array) -> Prediction:
        winners, self._guide_masks, self._state, logits = self._advance(frame, *self.carried)
        return Prediction(ops.convert_to_numpy(winners), lambda: ops.convert_to_numpy(logits))

    def correct(self, index: int, mask: Array) -> None:
        masks = np.array(ops.convert_to_numpy(self._guide_masks))
        masks[index] = resize_mask(mask, self.network_size)
        self._guide_masks = ops.convert_to_tensor(masks)

    def probe(self, frame: Array, masks: Array) -> Array:
        settings = self._settings
        # Of an object that is only roughly where it is said to be, the window would cut off a part.
        self._settings = (*settings[:-1], False)
        try:
            self._run(self.step.network)
            return super().probe(frame, masks)
        finally:
            self._settings = settings
            self._run(self.step.network)

    # Interruption -----------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Array]:
        def exact(value: Tensor) -> Array:
            # float32 holds every half-precision value; NumPy's files have no bfloat16.
            return ops.convert_to_numpy(ops.cast(value, "float32"))

        return {
            "modulation": exact(self._modulation),
            "guide_masks": ops.convert_to_numpy(self._guide_masks),
            **{f"state/{name}": exact(value) for name, value in self._state.items()},
        }

    def restore(self, snapshot: Mapping[str, Array]) -> None:
        count = len(snapshot.get("modulation", ()))
        if self._fits and len(shape := np.shape(snapshot.get("guide_masks", ()))) == 3:
            self._resize(fitted_size(self._own_size, shape[1:]))  # the masks are of the size chosen for the video
        state = self.network.initial_state(count, *self.network_size)
        expected = {
            "modulation": (count, int(self.network.visual_modulator.output_shape[-1])),
            "guide_masks": (count, *self.network_size),
            **{f"state/{name}": tuple(value.shape) for name, value in state.items()},
        }
        own = {name: value for name, value in snapshot.items() if name in expected or name.startswith("state/")}
        if {name: tuple(value.shape) for name, value in own.items()} != expected:
            raise InputError("snapshot: its state is not of this network and network size")
        self._modulation = ops.cast(ops.convert_to_tensor(own["modulation"]), self._modulation_dtype)
        self._guide_masks = ops.convert_to_tensor(own["guide_masks"])
        self._state = {
            name: ops.cast(ops.convert_to_tensor(own[f"state/{name}"]), value.dtype) for name, value in state.items()
        }

    @property
    def _modulation_dtype(self) -> str:
        return str(self.network.visual_modulator.output.dtype)

    # Online fine-tuning -----------------------------------------------------------------------------------------

    @property
    def is_adapted(self) -> bool:  # type: ignore[override]
        return self._tuner is not None

    def adapt(
        self, frames_and_masks: Sequence[tuple[Array, Array]], options: AdaptOptions, progress: Progress | None = None
    ) -> None:
        self._fit(frames_and_masks[0][0])
        options = options.over(self.adaptation)
        labels = {int(label) for _, mask in frames_and_masks for label in np.unique(mask) if label}
        budget = Budget(options.steps, None if options.seconds is None else options.seconds * len(labels))
        tuner = self._borrow(options.details)
        try:
            tuner.fit(frames_and_masks, budget, options.learning_rate, options.seed, progress)
        except BaseException:
            self.release()
            raise

    def adapted_weights(self) -> dict[str, Array]:
        if self._tuner is None:
            raise InputError("adapted_weights: call adapt first")
        return self._tuner.weights()

    def load_adapted(self, weights: Mapping[str, Array], details: Any = None) -> None:
        tuner = self._borrow(details)
        try:
            tuner.load(weights)
        except BaseException:
            self.release()
            raise

    def _borrow(self, details: FineTuneOptions | None) -> OnlineFineTuner:
        from osmn_tf.inference.adaptation.online import FineTuneOptions

        self.release()
        self._tuner = self._shared.tuners.borrow(self.network_size, details or FineTuneOptions())
        self._run(self._tuner.network)
        return self._tuner

    def release(self) -> None:
        if self._tuner is not None:
            tuner, self._tuner = self._tuner, None
            self._run(self.network)
            self._shared.tuners.give_back(tuner, tuner.network_size, tuner.options)

"""Runs RVOS: all objects of a video in one sequence, from masks or, where the network finds them, from none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from osmn_tf.inference.compilation import CompiledGraphs, compile_function
from osmn_tf.inference.folding import FoldedNetwork
from osmn_tf.inference.merging_tensors import merge_tensors
from osmn_tf.inference.predictor import Prediction, PredictorOptions, register_predictor
from osmn_tf.inference.sequence import Kept, SequencePredictor
from osmn_tf.resampling import resize_frame

if TYPE_CHECKING:
    from osmn_tf.models.rvos import RVOS

Tensor = Any
Array = np.ndarray


class RVOSStep:
    """What is computed of an RVOS in one setting: functions of tensors, for `compile_function` and for the exports.

    Args:
        network: an `RVOS`.
        network_size: (H, W) inside the network.
        merge: see `PredictorOptions`.
    """

    def __init__(self, network: RVOS, network_size: tuple[int, int], merge: str) -> None:
        self.network, self.network_size, self.merge = network, network_size, merge
        self._frame_encoder = FoldedNetwork(network.frame_encoder)

    def encode(self, small: Tensor) -> dict[str, Tensor]:
        """What depends on no object: the gates' share of a frame uint8 [1, h, w, 3]."""
        return self._frame_encoder({"frame": small})

    def step(
        self, small: Tensor, masks: Tensor, ranks: Tensor, state: dict[str, Tensor], *, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor]:
        """One frame with all objects; the encoder runs once.

        Args:
            small: uint8 [h, w, 3], the frame at network size.
            masks: float32 [N, h, w], the previous mask of every object, 0..1.
            ranks: float32 [N], for the merge "painted": what ranks higher is painted over what ranks lower.
            state: of every object, [N, ...].
            size: (H, W) of the frame itself.

        Returns:
            Index map uint8 [H, W], next masks, new state, logits [N, H, W].
        """
        logits, own, state = self.network_step(small[None], masks, state)
        if tuple(logits.shape[1:3]) != size:
            logits = ops.image.resize(logits, size, interpolation="bilinear", data_format="channels_last")
        full = logits[..., 0]
        return merge_tensors(full, self.merge, ranks), own, state, full

    def network_step(
        self, small: Tensor, masks: Tensor, state: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """`step` without the enlarging.

        Args:
            small: uint8 [1, h, w, 3].
            masks, state: as `step`.

        Returns:
            Logits float32 [N, h, w, 1], the next masks float32 [N, h, w], the new state.
        """
        each = range(masks.shape[0])
        given = [masks[k : k + 1, ..., None] for k in each] if self.network.one_shot else None
        states = [{name: value[k : k + 1] for name, value in state.items()} for k in each]
        gates = self.encode(small)
        found, states, _ = self.network.decode_objects(gates, small, given, states, training=False)
        logits = ops.concatenate(found)
        new = {name: ops.concatenate([each[name] for each in states]) for name in state}
        return logits, self.network.own_masks(logits[..., 0]), new


class _Shared:
    """What was compiled for a network; all its predictors use it."""

    def __init__(self, network: RVOS) -> None:
        self.network = network
        self.graphs = CompiledGraphs()
        self._steps: dict[Any, tuple[RVOSStep, Callable[..., Any]]] = {}
        self._lock = threading.Lock()

    @classmethod
    def of(cls, network: Any) -> _Shared:
        """The one of this network."""
        # Kept with the network, so that it goes with it; not as an attribute, since Keras would follow it.
        shared: _Shared = vars(network).setdefault("_osmn_tf_shared", cls(network))
        return shared

    def step(self, settings: tuple[Any, ...]) -> tuple[RVOSStep, Callable[..., Any]]:
        """The step in a setting, and the same compiled."""
        with self._lock:
            if settings not in self._steps:
                step = RVOSStep(self.network, *settings)
                models = [self.network.frame_encoder, self.network.object_network]
                self._steps[settings] = step, compile_function(step.step, models, self.graphs)
            return self._steps[settings]


@register_predictor("RVOS")
class RVOSPredictor(SequencePredictor):
    """Runs an `RVOS`. A whole step with all objects (network, enlarging, merge) is one compiled call.

    Args:
        network: the network; its weights may change meanwhile, and are never changed from here.
        options: see `PredictorOptions`. RVOS carries soft masks, as released: it has no choice in `exclusive`,
            `recover` and `search_window`.

    Raises:
        InputError: the network size is too small, or an option does not apply.
    """

    def __init__(self, network: RVOS, options: PredictorOptions | None = None) -> None:
        options = options or PredictorOptions()
        options.refuse_scale()
        self.network = network
        super().__init__(options.size_of(network.network_size), network.one_shot, network.slots, options)
        self.step, self._compiled = _Shared.of(network).step((self.network_size, options.merge))

    def _step(self, frame: Array, kept: Kept) -> tuple[Prediction, Tensor, dict[str, Tensor]]:
        size = (int(frame.shape[0]), int(frame.shape[1]))
        winners, masks, state, logits = self._compiled(resize_frame(frame, self.network_size), *kept, size=size)
        return Prediction(ops.convert_to_numpy(winners), lambda: ops.convert_to_numpy(logits)), masks, state

    def _initial_state(self, objects: int) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.network.initial_state(objects, *self.network_size)
        return state

    def _tensor(self, array: Array) -> Tensor:
        return ops.convert_to_tensor(array)

    def _array(self, tensor: Tensor) -> Array:
        # float32 holds every half-precision value; NumPy's files have no bfloat16.
        return ops.convert_to_numpy(ops.cast(tensor, "float32"))

    def _joined(self, tensors: Sequence[Tensor]) -> Tensor:
        return ops.concatenate([ops.cast(tensor, tensors[-1].dtype) for tensor in tensors])

    def _chosen(self, tensor: Tensor, indices: Sequence[int]) -> Tensor:
        return ops.take(tensor, list(indices), axis=0)

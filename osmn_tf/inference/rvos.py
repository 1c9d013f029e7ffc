"""Runs RVOS: all objects of a video in one sequence, from masks or, where the network finds them, from none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from osmn_tf.errors import InputError
from osmn_tf.inference.compilation import CompiledGraphs, compile_function
from osmn_tf.inference.folding import FoldedNetwork
from osmn_tf.inference.merging_tensors import merge_tensors
from osmn_tf.inference.predictor import Prediction, Predictor, PredictorOptions, register_predictor
from osmn_tf.resampling import resize_frame, resize_mask

if TYPE_CHECKING:
    from osmn_tf.models.rvos import RVOS

Tensor = Any
Array = np.ndarray

MIN_AREA = 0.002
"""Of the picture: what covers less of the first frame is no object that was found."""


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
        gates = self._frame_encoder({"frame": small})
        found, states = self.network.decode_objects(gates, small, given, states, training=False)
        logits = ops.concatenate(found)
        new = {name: ops.concatenate([each[name] for each in states]) for name in state}
        return logits, ops.sigmoid(logits[..., 0]), new


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
class RVOSPredictor(Predictor):
    """Runs an `RVOS`. A whole step with all objects (network, enlarging, merge) is one compiled call.

    Objects are decoded in the order in which they were taken up. Kept of each are its soft mask and its hidden states;
    the mask that was given is its mask of that frame. Objects that are found are those with something of their own in
    the first frame: what the slots before them leave, at least `MIN_AREA` of the picture.

    Args:
        network: the network; its weights may change meanwhile, and are never changed from here.
        options: see `PredictorOptions`. RVOS carries soft masks, as released: it has no choice in `exclusive` and
            `recover`.

    Raises:
        InputError: the network size is too small, or an option does not apply.
    """

    def __init__(self, network: RVOS, options: PredictorOptions | None = None) -> None:
        options = options or PredictorOptions()
        options.refuse("RVOS carries its soft masks on, and has no such choice", "exclusive", "recover")
        height, width = options.network_size or network.network_size
        if height < 32 or width < 32:
            raise InputError(f"network_size: expected at least 32 x 32 pixels, received {height} x {width}")
        self.network = network
        self.zero_shot = network.slots is not None
        self.takes_masks = network.one_shot
        self.slots = options.objects
        self._size = (int(height), int(width))
        self.step, self._step = _Shared.of(network).step((self._size, options.merge))
        self.forget()

    @property
    def network_size(self) -> tuple[int, int]:
        return self._size

    @property
    def objects(self) -> int:
        return 0 if self._ranks is None else int(self._ranks.shape[0])

    def forget(self) -> None:
        self._masks: Tensor = None  # float32 [N, h, w]
        self._ranks: Tensor = None  # float32 [N], IoU of the first prediction with the given mask (see RVOSStep)
        self._state: dict[str, Tensor] = {}
        self._before: tuple[Tensor, Tensor, dict[str, Tensor]] | None = None  # the same, before the latest frame
        self._found: Prediction | None = None  # of the first frame, where nothing was given

    def _run(self, frame: Array, masks: Tensor, ranks: Tensor, state: dict[str, Tensor]) -> Any:
        size = (int(frame.shape[0]), int(frame.shape[1]))
        return self._step(resize_frame(frame, self._size), masks, ranks, state, size=size)

    def begin(self, frame: Array, masks: Array | None) -> None:
        if masks is None:
            self._find(frame)
            return
        if not self.takes_masks:
            raise InputError(
                "mask: this network takes none, it finds the objects by itself: leave the mask out, or take a network "
                "that takes masks"
            )
        count, old = len(masks), self.objects
        if self.slots is not None and old + count > self.slots:
            raise InputError(f"objects: there is room for {self.slots}, received masks of {old + count}; raise it")
        given = np.stack([resize_mask(mask, self._size) for mask in np.asarray(masks)]).astype(np.float32)
        new = ops.convert_to_tensor(given), ops.zeros(count), self.network.initial_state(count, *self._size)
        # Those that are there already have made their step of this frame. It is made again from where it began, so that
        # the new ones come behind them in the sequence.
        inputs = new if self._before is None else _join(self._before, new)
        _, own, state, _ = self._run(frame, *inputs)
        first = (ops.convert_to_numpy(own)[-count:] > 0.5).astype(np.float32)
        union = np.maximum(first, given).sum((1, 2))
        ranks = (first * given).sum((1, 2)) / np.maximum(union, 1)
        begun = (
            new[0],
            ops.convert_to_tensor(ranks.astype(np.float32)),
            {name: value[-count:] for name, value in state.items()},
        )
        self._masks, self._ranks, self._state = _join((self._masks, self._ranks, self._state), begun) if old else begun
        self._before = inputs

    def _find(self, frame: Array) -> None:
        count = self.slots or self.network.slots
        if count is None:
            raise InputError("mask: this network finds no objects by itself, expected a mask of them, received None")
        masks = ops.zeros((count, *self._size))
        inputs = masks, ops.zeros(count), self.network.initial_state(count, *self._size)
        _, own, state, logits = self._run(frame, *inputs)
        scores = ops.convert_to_numpy(logits)
        winners = np.where(scores.max(0) > 0, scores.argmax(0) + 1, 0)
        areas = np.bincount(winners.ravel(), minlength=count + 1)[1:]
        kept = [k for k in range(count) if areas[k] >= MIN_AREA * winners.size]
        if not kept:
            return
        # How sure the network is of what it has found.
        ranks = np.array([1 / (1 + np.exp(-scores[k][winners == k + 1].mean())) for k in kept], np.float32)
        self._masks, self._ranks = ops.take(own, kept, axis=0), ops.convert_to_tensor(ranks)
        self._state = {name: ops.take(value, kept, axis=0) for name, value in state.items()}
        self._before = None
        shown = scores[kept]
        merged = merge_tensors(ops.convert_to_tensor(shown), self.step.merge, self._ranks)
        self._found = Prediction(ops.convert_to_numpy(merged), lambda: shown)

    def keep(self, indices: Sequence[int]) -> None:
        def chosen(x: Tensor) -> Tensor:
            return ops.take(x, indices, axis=0)

        def of(kept: tuple[Tensor, Tensor, dict[str, Tensor]]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
            masks, ranks, state = kept
            return chosen(masks), chosen(ranks), {name: chosen(value) for name, value in state.items()}

        if self._before is not None:
            self._before = of(self._before)
        self._masks, self._ranks, self._state = of((self._masks, self._ranks, self._state))
        self._found = None

    def advance(self, frame: Array) -> Prediction:
        if self._found is not None:  # the frame that the objects were found in
            found, self._found = self._found, None
            return found
        self._before = self._masks, self._ranks, self._state
        winners, self._masks, self._state, logits = self._run(frame, *self._before)
        return Prediction(ops.convert_to_numpy(winners), lambda: ops.convert_to_numpy(logits))

    # Interruption -----------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Array]:
        def exact(value: Tensor) -> Array:
            # float32 holds every half-precision value; NumPy's files have no bfloat16.
            return ops.convert_to_numpy(ops.cast(value, "float32"))

        return {
            "masks": exact(self._masks),
            "ranks": exact(self._ranks),
            **{f"state/{name}": exact(value) for name, value in self._state.items()},
        }

    def restore(self, snapshot: Mapping[str, Array]) -> None:
        count = len(snapshot.get("ranks", ()))
        state = self.network.initial_state(count, *self._size)
        expected = {
            "masks": (count, *self._size),
            "ranks": (count,),
            **{f"state/{name}": tuple(value.shape) for name, value in state.items()},
        }
        own = {name: value for name, value in snapshot.items() if name in expected or name.startswith("state/")}
        if not count or {name: tuple(value.shape) for name, value in own.items()} != expected:
            raise InputError("snapshot: its state is not of this network and network size")
        self.forget()
        self._masks, self._ranks = (ops.convert_to_tensor(own[name]) for name in ("masks", "ranks"))
        self._state = {
            name: ops.cast(ops.convert_to_tensor(own[f"state/{name}"]), value.dtype) for name, value in state.items()
        }


def _join(
    first: tuple[Tensor, Tensor, dict[str, Tensor]], second: tuple[Tensor, Tensor, dict[str, Tensor]]
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Objects behind objects."""
    masks, ranks, state = (first[0], second[0]), (first[1], second[1]), (first[2], second[2])
    return (
        ops.concatenate(masks),
        ops.concatenate(ranks),
        {name: ops.concatenate([each[name] for each in state]) for name in first[2]},
    )

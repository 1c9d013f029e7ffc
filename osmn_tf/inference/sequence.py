"""What is kept of a video whose objects are decoded one after the other (RVOS), wherever that is computed."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.inference.merging import merge_logits, to_scores
from osmn_tf.inference.predictor import GUIDE_OPTIONS, Prediction, Predictor, PredictorOptions
from osmn_tf.resampling import resize_mask

Array = np.ndarray
Tensor = Any

MIN_AREA = 0.002
"""Of the picture: what covers less of the first frame is no object that was found."""


class SequencePredictor(Predictor):
    """Runs a network that decodes objects in the order in which they were taken up.

    Kept of each are its soft mask (of independent objects only where no other is surer), its hidden states, and how
    well its first prediction fits ("rank", of the merge "painted"): the IoU with the given mask, or where it was found
    the mean score of its pixels. The mask that was given is an object's mask of that frame. Objects that are found are
    those that win at least `MIN_AREA` of the first frame.

    A subclass computes, with arrays of its own kind.

    Args:
        size: (h, w) inside the network.
        takes_masks: whether it takes previous masks.
        slots: how many objects it looks for unless it is told otherwise; None: it finds none.
        options: how it is used.

    Raises:
        InputError: an option does not apply.
    """

    def __init__(self, size: tuple[int, int], takes_masks: bool, slots: int | None, options: PredictorOptions) -> None:
        options.refuse("RVOS carries its soft masks on, and has no such choice", *GUIDE_OPTIONS)
        self.takes_masks, self.zero_shot = takes_masks, slots is not None
        self.merge, self.limit = options.merge, options.objects
        self._size, self._slots = size, slots
        self.forget()

    # What is computed -------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def _step(self, frame: Array, kept: Kept) -> tuple[Prediction, Tensor, dict[str, Tensor]]:
        """A frame uint8 [H, W, 3] with all objects: the prediction, next masks and next state."""

    @abc.abstractmethod
    def _initial_state(self, objects: int) -> dict[str, Tensor]:
        """State of objects that begin, [N, ...] by name."""

    def _tensor(self, array: Array) -> Tensor:
        """An array as this kind of tensor."""
        return array

    def _array(self, tensor: Tensor) -> Array:
        """The reverse, as float32."""
        return np.asarray(tensor, np.float32)

    def _joined(self, tensors: Sequence[Tensor]) -> Tensor:
        return np.concatenate(tensors)

    def _chosen(self, tensor: Tensor, indices: Sequence[int]) -> Tensor:
        return tensor[list(indices)]

    # What is kept -----------------------------------------------------------------------------------------------

    @property
    def network_size(self) -> tuple[int, int]:
        return self._size

    @property
    def objects(self) -> int:
        return 0 if self._kept is None else len(self._kept[1])

    @property
    def carried(self) -> Kept:
        """Soft masks float32 [N, h, w], ranks float32 [N] and state of the objects; there is at least one."""
        if self._kept is None:
            raise InputError("carried: no object is tracked")
        return self._kept

    def forget(self) -> None:
        self._kept: Kept | None = None
        self._before: Kept | None = None  # the same, before the latest frame
        self._found: Prediction | None = None  # of the first frame, where nothing was given

    def _join(self, first: Kept, second: Kept) -> Kept:
        """Objects behind objects."""
        state = {name: self._joined([first[2][name], second[2][name]]) for name in second[2]}
        return self._joined([first[0], second[0]]), np.concatenate([first[1], second[1]]), state

    def _choose(self, kept: Kept, indices: Sequence[int]) -> Kept:
        masks, ranks, state = kept
        return (
            self._chosen(masks, indices),
            ranks[list(indices)],
            {name: self._chosen(value, indices) for name, value in state.items()},
        )

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
        given = np.stack([resize_mask(mask, self._size) for mask in np.asarray(masks)]).astype(np.float32)
        new: Kept = self._tensor(given), np.zeros(count, np.float32), self._initial_state(count)
        # Those that are there already have made their step of this frame. It is made again from where it began, so that
        # the new ones come behind them in the sequence.
        before = new if self._before is None else self._join(self._before, new)
        _, own, state = self._step(frame, before)
        begun = range(old, old + count)
        first = self._array(self._chosen(own, begun)) > 0.5
        ranks = (first * given).sum((1, 2)) / np.maximum(np.maximum(first, given).sum((1, 2)), 1)
        started = new[0], ranks.astype(np.float32), self._choose((own, before[1], state), begun)[2]
        self._kept = started if self._kept is None else self._join(self._kept, started)
        self._before = before

    def _find(self, frame: Array) -> None:
        count = self.limit or self._slots
        if self._slots is None or count is None:
            raise InputError("mask: this network finds no objects by itself, expected a mask of them, received None")
        masks = self._tensor(np.zeros((count, *self._size), np.float32))
        prediction, own, state = self._step(frame, (masks, np.zeros(count, np.float32), self._initial_state(count)))
        logits = prediction.logits() if prediction.logits is not None else np.zeros((count, 1, 1), np.float32)
        winners = merge_logits(logits, "argmax")
        areas = np.bincount(winners.ravel(), minlength=count + 1)[1:]
        slots = [k for k in range(count) if areas[k] >= MIN_AREA * winners.size]
        if not slots:
            return
        ranks = np.array([to_scores(logits[k][winners == k + 1]).mean() for k in slots], np.float32)
        masks, _, state = self._choose((own, np.zeros(count, np.float32), state), slots)
        self._kept, self._before = (masks, ranks, state), None
        shown = logits[slots]
        self._found = Prediction(merge_logits(shown, self.merge, ranks), lambda: shown)

    def keep(self, indices: Sequence[int]) -> None:
        self._kept = self._choose(self.carried, indices)
        if self._before is not None:
            self._before = self._choose(self._before, indices)
        self._found = None

    def advance(self, frame: Array) -> Prediction:
        if self._found is not None:  # the frame that the objects were found in
            found, self._found = self._found, None
            return found
        self._before = masks, ranks, state = self.carried
        prediction, masks, state = self._step(frame, self._before)
        self._kept = masks, ranks, state
        return prediction

    # Interruption -----------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Array]:
        masks, ranks, state = self.carried
        return {
            "masks": self._array(masks),
            "ranks": ranks,
            **{f"state/{name}": self._array(value) for name, value in state.items()},
        }

    def restore(self, snapshot: Mapping[str, Array]) -> None:
        count = len(snapshot.get("ranks", ()))
        state = self._initial_state(count)
        expected = {
            "masks": (count, *self._size),
            "ranks": (count,),
            **{f"state/{name}": tuple(value.shape) for name, value in state.items()},
        }
        own = {name: value for name, value in snapshot.items() if name in expected or name.startswith("state/")}
        if not count or {name: tuple(value.shape) for name, value in own.items()} != expected:
            raise InputError("snapshot: its state is not of this network and network size")
        self.forget()
        kept = {name: self._tensor(own[f"state/{name}"].astype(np.float32)) for name in state}
        self._kept = self._tensor(own["masks"].astype(np.float32)), own["ranks"].astype(np.float32), kept


Kept = tuple[Tensor, Array, dict[str, Tensor]]
"""Of all objects: soft masks [N, h, w], ranks float32 [N], state [N, ...] by name."""

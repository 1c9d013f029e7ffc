"""A network that sees videos that are not wide as squares, behind the signatures of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from osmn_tf.export.graph import SegmenterModule
from osmn_tf.export.signatures import SignatureModule, check
from osmn_tf.resampling import narrowest

Tensor = Any
Carried = tuple[Tensor, Tensor, Tensor, Mapping[str, Tensor]]
"""Labels, modulation, guide masks and state."""


class TwoSizes(SignatureModule):
    """Takes what fits the first frame; afterwards, what the session comes from.

    Args:
        wide: the network at its own size.
        square: the same network, for videos that are not wide.
    """

    def __init__(self, wide: SegmenterModule, square: SegmenterModule) -> None:
        states = {name: (None,) * (len(shape) - 1) + shape[-1:] for name, shape in wide.record.state.items()}
        super().__init__(wide.record, (None, None), states)
        self._wide, self._square = wide, square

    def begin(self, frame: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        sides = tf.cast(tf.shape(frame)[:2], tf.float64)
        narrow = sides[1] / sides[0] < narrowest(self._wide.record.network_size)
        return tf.cond(narrow, lambda: self._square.begin(frame, mask), lambda: self._wide.begin(frame, mask))

    def advance(
        self, frame: Tensor, labels: Tensor, modulation: Tensor, guide_masks: Tensor, state: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor]:
        carried = (labels, modulation, guide_masks, state)
        return self._by_size(carried, lambda module, its: module.advance(frame, *its))

    def pack(self, labels: Tensor, modulation: Tensor, guide_masks: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        carried = (labels, modulation, guide_masks, state)
        return self._by_size(carried, lambda module, its: module.pack(*its))

    def unpack(self, session: Tensor) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        square = tf.reduce_any(tf.strings.length(session) == self._square.record.length)
        return tf.cond(square, lambda: self._square.unpack(session), lambda: self._wide.unpack(session))

    def _by_size(self, carried: Carried, compute: Callable[[SegmenterModule, Carried], Any]) -> Any:
        """What one of the two computes of what it has given itself."""
        size = tf.shape(carried[2])[1:]
        is_square = tf.reduce_all(size == self._square.record.network_size)
        known = tf.logical_or(is_square, tf.reduce_all(size == self._wide.record.network_size))
        with check(known, "guide_masks: not of this model, received height and width:", size):
            is_square = tf.identity(is_square)

        def by(module: SegmenterModule) -> Callable[[], Any]:
            return lambda: compute(module, _of(module, carried))

        return tf.cond(is_square, by(self._square), by(self._wide))


def _of(module: SegmenterModule, carried: Carried) -> Carried:
    """With the shapes that a module's own have; fails where it has others."""
    labels, modulation, guide_masks, state = carried
    record = module.record
    return (
        labels,
        modulation,
        tf.ensure_shape(guide_masks, [None, *record.network_size]),
        {name: tf.ensure_shape(state[name], [None, *shape]) for name, shape in record.state.items()},
    )

"""RVOS as TensorFlow functions in which the frame's size and the number of objects are open.

What a client carries has the names of the other networks: `modulation` [N, 1] is an object's rank (how well its first
prediction fits its given mask), and `guide_masks` uint8 [N, h, w] are the soft previous masks in 255ths. Objects are
decoded in a loop, in the order of their labels at the beginning; those that are begun later are begun as if they were
the first of their frame.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from osmn_tf.errors import InputError
from osmn_tf.export.graph import SegmenterModule
from osmn_tf.export.session_record import SessionRecord
from osmn_tf.inference.merging_tensors import merge_tensors
from osmn_tf.inference.rvos import RVOSStep

Tensor = Any


class RVOSModule(SegmenterModule):
    """See `SegmenterModule`."""

    mask_bits = 8

    @staticmethod
    def modulation_size(step: RVOSStep) -> int:
        return 1

    def __init__(self, step: RVOSStep, record: SessionRecord) -> None:
        if not step.network.one_shot:
            raise InputError("model: a SavedModel is given masks, expected a network that takes them (one_shot)")
        super().__init__(step, record)

    def _start(self, frame: Tensor, masks: Tensor, guide_masks: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        count = tf.shape(masks)[0]
        given = guide_masks * tf.constant(255, tf.uint8)
        _, own, state = self._network(
            self._shrink(frame), given, tf.zeros((count, 1)), self._initial_state(tf.shape(masks)[0])
        )
        first, truth = tf.cast(own > 127, tf.float32), tf.cast(guide_masks, tf.float32)
        union = tf.reduce_sum(tf.maximum(first, truth), axis=(1, 2))
        ranks = tf.reduce_sum(first * truth, axis=(1, 2)) / tf.maximum(union, 1.0)
        return ranks[:, None], given, state

    def _network_step(
        self, small: Tensor, guide_masks: Tensor, modulation: Tensor, state: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        network, names = self._step.network, list(state)
        height, width = self._size
        gates = self._step.encode(small[None])
        masks = tf.cast(guide_masks, tf.float32)[..., None] / 255.0
        count = tf.shape(masks)[0]
        before = {
            spec.name: tf.zeros_like(gates[f"gates{spec.stride}"][..., : spec.channels])
            for spec in network.spatial_specs
        }
        logits = tf.TensorArray(tf.float32, count, element_shape=(height, width))
        states = [
            tf.TensorArray(value.dtype, count, element_shape=value.shape[1:]) for value in (state[n] for n in names)
        ]

        def body(k: Tensor, logits: Any, states: list[Any], carry: list[Tensor]) -> tuple[Any, ...]:
            own = {name: state[name][k][None] for name in names}
            found, (after,), last = network.decode_objects(
                gates, small[None], [masks[k][None]], [own], training=False, before=dict(zip(before, carry))
            )
            written = [array.write(k, after[name][0]) for name, array in zip(names, states)]
            return k + 1, logits.write(k, found[0][0, ..., 0]), written, [last[name] for name in before]

        _, logits, states, _ = tf.while_loop(
            lambda k, *_: k < count,
            body,
            (tf.constant(0), logits, states, list(before.values())),
            parallel_iterations=1,
        )
        stacked = logits.stack()
        own = tf.cast(tf.round(255.0 * network.own_masks(stacked)), tf.uint8)
        return stacked, own, {name: array.stack() for name, array in zip(names, states)}

    def _merged(self, full: Tensor, modulation: Tensor) -> Tensor:
        return merge_tensors(full, self._step.merge, modulation[:, 0])

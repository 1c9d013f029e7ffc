"""The segmenter as TensorFlow functions in which the frame's size and the number of objects are open.

What happens between two resizes is the predictor's own code (`ModulatedStep`), traced at the network's size. The
resizes are here, because Keras 3.15 cannot resize images of unknown size, and frames and masks come in by
`osmn_tf.resampling`'s rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from osmn_tf.export.session_record import SessionRecord
from osmn_tf.export.signatures import SignatureModule, check
from osmn_tf.guides import visual_guide
from osmn_tf.masks.labels import VOID

Tensor = Any


class SegmenterModule(SignatureModule):
    """What the signatures are made of, at one network size, holding the network's variables but no Keras object.

    Args:
        step: the network and how it is used.
        record: layout of the sessions.

    Attributes:
        mask_bits: of a pixel of the guide masks in a session's record.
    """

    mask_bits = 1

    @staticmethod
    def modulation_size(step: Any) -> int:
        """Length of what is kept of an object from its beginning on."""
        return int(step.network.visual_modulator.output_shape[-1])

    def __init__(self, step: Any, record: SessionRecord) -> None:
        super().__init__(record, step.network_size, record.state)
        model = step.network
        self._step = step
        self._size = step.network_size
        self._compute_dtype = model.compute_dtype
        self.weights = [variable.value for variable in model.variables]
        height, width = self._size
        # Both networks are traced once, however many signatures call them.
        network = tf.function(
            self._network_step,
            input_signature=[
                tf.TensorSpec((height, width, 3), tf.uint8),
                tf.TensorSpec((None, height, width), tf.uint8),
                tf.TensorSpec((None, record.modulation), tf.float32),
                {name: tf.TensorSpec((None, *shape), self._compute_dtype) for name, shape in record.state.items()},
            ],
            autograph=False,
        )
        # Of a function with a signature that it finds, `tf.saved_model.save` would trace and write another form.
        self._network = lambda *inputs: network(*inputs)
        self._modulator = tf.function(
            lambda guides: tf.cast(model.visual_modulator(guides, training=False), tf.float32), autograph=False
        )

    def _network_step(
        self, small: Tensor, guide_masks: Tensor, modulation: Tensor, state: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        logits, own, state = self._step.network_step(
            small[None], guide_masks, tf.cast(modulation, self._compute_dtype), state
        )
        return logits[..., 0], own, state

    def _shrink(self, frame: Tensor) -> Tensor:
        return tf.cast(tf.round(self._resize(tf.cast(frame, tf.float32)[None])), tf.uint8)[0]

    def _resize(self, images: Tensor) -> Tensor:
        """`osmn_tf.resampling` as TensorFlow operations: float32 [N, H, W, C] to network size."""
        smaller = tf.reduce_all(tf.shape(images)[1:3] >= tf.constant(self._size))
        return tf.cond(
            smaller,
            lambda: tf.image.resize(images, self._size, method="area"),
            lambda: tf.image.resize(images, self._size),
        )

    def begin(self, frame: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Labels int32 [N], modulation [N, M], guide masks and state of the objects in a label mask."""
        frame_size, mask_size = tf.shape(frame)[:2], tf.shape(mask)
        with check(
            tf.reduce_all(frame_size == mask_size),
            "mask: expected height and width of the frame, then received:",
            frame_size,
            mask_size,
        ):
            mask = tf.identity(mask)
        counts = tf.math.bincount(tf.reshape(tf.cast(mask, tf.int32), [-1]), minlength=256, maxlength=256)
        labels = tf.cast(tf.where(counts[1:VOID] > 0)[:, 0], tf.int32) + 1
        with check(tf.size(labels) > 0, "mask: no object in it (all pixels are background or unlabelled)"):
            labels = tf.identity(labels)
        masks = tf.cast(mask[None] == tf.cast(labels, tf.uint8)[:, None, None], tf.uint8)

        share = self._resize(tf.cast(masks, tf.float32)[..., None])[..., 0]
        # An object that covers no pixel by half would be lost before it is begun.
        found = tf.reduce_any(share >= 0.5, axis=(1, 2), keepdims=True)
        guide_masks = tf.cast(tf.where(found, share >= 0.5, share > 0), tf.uint8)
        return labels, *self._start(frame, masks, guide_masks)

    def _initial_state(self, count: Tensor) -> dict[str, Tensor]:
        return {name: tf.zeros((count, *shape), self._compute_dtype) for name, shape in self.record.state.items()}

    def _start(self, frame: Tensor, masks: Tensor, guide_masks: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Modulation, guide masks and state of objects, from their masks uint8 [N, H, W] and [N, h, w]."""
        model = self._step.network
        modulation = self._modulator(visual_guide(frame[None], masks, model.guide_size, model.guide_background))
        state = self._initial_state(tf.shape(masks)[0])
        if state:
            # The first frame, with the guide of the given mask, starts the state.
            _, _, state = self._network(self._shrink(frame), guide_masks, modulation, state)
        return modulation, guide_masks, state

    def _merged(self, full: Tensor, modulation: Tensor) -> Tensor:
        """The index map of logits [N, H, W]."""
        return self._step.merged(full)

    def advance(
        self, frame: Tensor, labels: Tensor, modulation: Tensor, guide_masks: Tensor, state: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor]:
        """The next frame: label mask uint8 [H, W], guide masks, state, and logits float32 [N, H, W]."""
        counts = [tf.shape(x)[0] for x in (labels, modulation, guide_masks, *state.values())]
        with check(
            tf.reduce_all(tf.stack(counts) == counts[0]),
            "labels, modulation, guide_masks and state: expected the same number of objects in all, received:",
            tf.stack(counts),
        ):
            labels = tf.identity(labels)
        carried = {name: tf.cast(value, self._compute_dtype) for name, value in state.items()}
        logits, guide_masks, carried = self._network(self._shrink(frame), guide_masks, modulation, carried)
        full = tf.image.resize(logits[..., None], tf.shape(frame)[:2])[..., 0]
        winners = tf.cast(self._merged(full, modulation), tf.int32)
        lookup = tf.cast(tf.concat([[0], labels], axis=0), tf.uint8)
        return tf.gather(lookup, winners), guide_masks, carried, full

    def pack(self, labels: Tensor, modulation: Tensor, guide_masks: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        return self.record.pack(labels, modulation, guide_masks, state)

    def unpack(self, session: Tensor) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        return self.record.unpack(session)

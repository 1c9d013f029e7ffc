"""The segmenter as TensorFlow functions in which the frame's size and the number of objects are open.

What happens between two resizes is the predictor's own code (`ModulatedStep`), traced at the network's size. The
resizes are here, because Keras 3.15 cannot resize images of unknown size, and frames and masks come in by
`osmn_tf.resampling`'s rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from osmn_tf.export.session_record import SessionRecord
from osmn_tf.guides import visual_guide
from osmn_tf.masks.labels import VOID

Tensor = Any


def _check(condition: Tensor, message: str, *values: Tensor) -> Any:
    return tf.control_dependencies([tf.debugging.Assert(condition, [message, *values])])


def _refuse_other_shapes(x: Tensor, spec: tf.TensorSpec) -> Tensor:
    """Fails where `x` has not the declared shape: TensorFlow Serving feeds whatever it is sent.

    The placeholder forgets the static shape, since a check that a graph's optimizer can decide is dropped from it.
    """
    unknown = tf.compat.v1.placeholder_with_default(x, shape=None, name=spec.name)
    return tf.ensure_shape(unknown, spec.shape)


def decode_frame(data: Tensor) -> Tensor:
    """JPEG or PNG -> RGB uint8 [H, W, 3], as OpenCV and libjpeg decode it (TensorFlow's default DCT is coarser)."""
    return tf.ensure_shape(tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"), [None, None, 3])


def decode_mask(data: Tensor) -> Tensor:
    """PNG -> labels uint8 [H, W]: the values of a greyscale PNG, or the indices of a palette PNG of DAVIS.

    TensorFlow gives a palette's colours only; in DAVIS's palette every colour says its index. A greyscale PNG of
    nothing but 0 and 255 is one object with label 1.
    """
    image = tf.io.decode_png(data, channels=0)
    channels = tf.shape(image)[2]

    def from_grey() -> Tensor:
        grey = image[:, :, 0]
        other = tf.reduce_any(tf.logical_and(grey > 0, grey < VOID))
        return tf.where(other, grey, tf.cast(grey > 0, tf.uint8))

    def from_colours() -> Tensor:
        index = tf.zeros_like(image[:, :, 0])
        for bit in range(8):
            # Bits of the index are dealt to red, green and blue in turn, from the highest bit down.
            value = tf.bitwise.right_shift(image[:, :, bit % 3], tf.constant(7 - bit // 3, tf.uint8)) & 1
            index = index | tf.bitwise.left_shift(value, tf.constant(bit, tf.uint8))
        return index

    return tf.ensure_shape(tf.cond(channels < 3, from_grey, from_colours), [None, None])


def encode_mask(mask: Tensor) -> Tensor:
    """Labels uint8 [H, W] -> greyscale PNG."""
    return tf.io.encode_png(mask[:, :, None])


class SegmenterModule(tf.Module):
    """The functions behind the signatures, holding the network's variables but no Keras object.

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
        super().__init__(name="segmenter")
        model = step.network
        self._step = step
        self.record = record
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

    # What all signatures are made of ----------------------------------------------------------------------------

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
        with _check(
            tf.reduce_all(frame_size == mask_size),
            "mask: expected height and width of the frame, then received:",
            frame_size,
            mask_size,
        ):
            mask = tf.identity(mask)
        counts = tf.math.bincount(tf.reshape(tf.cast(mask, tf.int32), [-1]), minlength=256, maxlength=256)
        labels = tf.cast(tf.where(counts[1:VOID] > 0)[:, 0], tf.int32) + 1
        with _check(tf.size(labels) > 0, "mask: no object in it (all pixels are background or unlabelled)"):
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
        with _check(
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

    def _outputs(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tf.cast(value, self.record.state_dtype) for name, value in state.items()}

    def _clip(
        self, count: Tensor, frame_at: Callable[[Tensor], Tensor], mask: Tensor, write: Any, dtype: Any
    ) -> Tensor:
        """Segments `count` frames; `write` turns a label mask into an item of the result."""
        with _check(count > 0, "frames: expected at least one"):
            first = frame_at(tf.constant(0))
        labels, modulation, guide_masks, state = self.begin(first, mask)
        names = list(state)
        item = tf.TensorShape([] if dtype == tf.string else [None, None])
        masks = tf.TensorArray(dtype, count, element_shape=item)
        masks = masks.write(0, write(tf.where(mask == VOID, tf.zeros_like(mask), mask)))
        size = tf.shape(first)

        def body(t: Tensor, masks: Any, guide_masks: Tensor, *values: Tensor) -> tuple[Any, ...]:
            frame = frame_at(t)
            with _check(tf.reduce_all(tf.shape(frame) == size), "frames: one has another size than the first"):
                frame = tf.identity(frame)
            found, guide_masks, state, _ = self.advance(
                frame, labels, modulation, guide_masks, dict(zip(names, values))
            )
            return (t + 1, masks.write(t, write(found)), guide_masks, *(state[name] for name in names))

        values = [state[name] for name in names]
        result = tf.while_loop(
            lambda t, *_: t < count, body, [tf.constant(1), masks, guide_masks, *values], parallel_iterations=1
        )
        return result[1].stack()

    # The signatures ---------------------------------------------------------------------------------------------

    def signatures(self) -> dict[str, Any]:
        """Name -> concrete function, with named inputs and outputs."""
        height, width = self._size
        frame = tf.TensorSpec((None, None, 3), tf.uint8, name="frame")
        mask = tf.TensorSpec((None, None), tf.uint8, name="mask")
        carried = {
            "labels": tf.TensorSpec((None,), tf.int32, name="labels"),
            "modulation": tf.TensorSpec((None, self.record.modulation), tf.float32, name="modulation"),
            "guide_masks": tf.TensorSpec((None, height, width), tf.uint8, name="guide_masks"),
        }
        state = {
            name: tf.TensorSpec((None, *shape), self.record.state_dtype, name=name)
            for name, shape in self.record.state.items()
        }
        frame_bytes = tf.TensorSpec((), tf.string, name="frame_bytes")
        mask_bytes = tf.TensorSpec((), tf.string, name="mask_bytes")
        session_bytes = tf.TensorSpec((None,), tf.string, name="session_bytes")

        def modulate(*, frame: Tensor, mask: Tensor) -> dict[str, Tensor]:
            labels, modulation, guide_masks, state = self.begin(frame, mask)
            return {"labels": labels, "modulation": modulation, "guide_masks": guide_masks, **self._outputs(state)}

        def step(*, frame: Tensor, labels: Tensor, modulation: Tensor, guide_masks: Tensor, **state: Tensor) -> Any:
            found, guide_masks, state, _ = self.advance(frame, labels, modulation, guide_masks, state)
            return {"mask": found, "guide_masks": guide_masks, **self._outputs(state)}

        def step_scores(
            *, frame: Tensor, labels: Tensor, modulation: Tensor, guide_masks: Tensor, **state: Tensor
        ) -> Any:
            found, guide_masks, state, logits = self.advance(frame, labels, modulation, guide_masks, state)
            return {"mask": found, "scores": tf.sigmoid(logits), "guide_masks": guide_masks, **self._outputs(state)}

        def segment_clip(*, frames: Tensor, mask: Tensor) -> dict[str, Tensor]:
            return {"masks": self._clip(tf.shape(frames)[0], lambda t: frames[t], mask, tf.identity, tf.uint8)}

        def modulate_encoded(*, frame_bytes: Tensor, mask_bytes: Tensor) -> dict[str, Tensor]:
            begun = self.begin(decode_frame(frame_bytes), decode_mask(mask_bytes))
            return {"session_bytes": self.record.pack(*begun)}

        def step_encoded(*, frame_bytes: Tensor, session_bytes: Tensor) -> dict[str, Tensor]:
            labels, modulation, guide_masks, state = self.record.unpack(session_bytes)
            found, guide_masks, state, _ = self.advance(
                decode_frame(frame_bytes), labels, modulation, guide_masks, state
            )
            packed = self.record.pack(labels, modulation, guide_masks, state)
            return {"mask_bytes": encode_mask(found), "session_bytes": packed}

        def segment_clip_encoded(*, frames_bytes: Tensor, mask_bytes: Tensor) -> dict[str, Tensor]:
            masks = self._clip(
                tf.size(frames_bytes),
                lambda t: decode_frame(frames_bytes[t]),
                decode_mask(mask_bytes),
                encode_mask,
                tf.string,
            )
            return {"masks_bytes": masks}

        def traced(function: Callable[..., Any], **specs: Any) -> Any:
            def checked(**inputs: Tensor) -> Any:
                return function(**{key: _refuse_other_shapes(x, specs[key]) for key, x in inputs.items()})

            return tf.function(checked, autograph=False).get_concrete_function(**specs)

        frames = tf.TensorSpec((None, None, None, 3), tf.uint8, name="frames")
        frames_bytes = tf.TensorSpec((None,), tf.string, name="frames_bytes")
        return {
            "modulate": traced(modulate, frame=frame, mask=mask),
            "step": traced(step, frame=frame, **carried, **state),
            "step_scores": traced(step_scores, frame=frame, **carried, **state),
            "segment_clip": traced(segment_clip, frames=frames, mask=mask),
            "modulate_encoded": traced(modulate_encoded, frame_bytes=frame_bytes, mask_bytes=mask_bytes),
            "step_encoded": traced(step_encoded, frame_bytes=frame_bytes, session_bytes=session_bytes),
            "segment_clip_encoded": traced(segment_clip_encoded, frames_bytes=frames_bytes, mask_bytes=mask_bytes),
        }

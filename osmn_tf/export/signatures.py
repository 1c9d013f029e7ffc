"""The signatures of a SavedModel, made of what a segmenter does with a frame."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from osmn_tf.export.session_record import SessionRecord
from osmn_tf.masks.labels import VOID

Tensor = Any


def check(condition: Tensor, message: str, *values: Tensor) -> Any:
    """A context: what is computed in it fails where the condition does not hold."""
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


class SignatureModule(tf.Module, abc.ABC):
    """Makes the signatures of `begin`, `advance`, `pack` and `unpack`.

    Args:
        record: layout of the sessions.
        guide_size: (h, w) of guide masks; None where they have several sizes.
        state_shapes: of the state's tensors, without the object axis; None where they have several sizes.
    """

    def __init__(
        self,
        record: SessionRecord,
        guide_size: tuple[int | None, int | None],
        state_shapes: Mapping[str, tuple[int | None, ...]],
    ) -> None:
        super().__init__(name="segmenter")
        self.record = record
        self._guide_size = tuple(guide_size)
        self._state_shapes = {name: tuple(shape) for name, shape in state_shapes.items()}

    @abc.abstractmethod
    def begin(self, frame: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Labels int32 [N], modulation [N, M], guide masks and state of the objects in a label mask."""

    @abc.abstractmethod
    def advance(
        self, frame: Tensor, labels: Tensor, modulation: Tensor, guide_masks: Tensor, state: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor]:
        """The next frame: label mask uint8 [H, W], guide masks, state, and logits float32 [N, H, W]."""

    @abc.abstractmethod
    def pack(self, labels: Tensor, modulation: Tensor, guide_masks: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """See `SessionRecord.pack`."""

    @abc.abstractmethod
    def unpack(self, session: Tensor) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """See `SessionRecord.unpack`."""

    def signatures(self) -> dict[str, Any]:
        """Name -> concrete function, with named inputs and outputs."""
        frame = tf.TensorSpec((None, None, 3), tf.uint8, name="frame")
        mask = tf.TensorSpec((None, None), tf.uint8, name="mask")
        carried = {
            "labels": tf.TensorSpec((None,), tf.int32, name="labels"),
            "modulation": tf.TensorSpec((None, self.record.modulation), tf.float32, name="modulation"),
            "guide_masks": tf.TensorSpec((None, *self._guide_size), tf.uint8, name="guide_masks"),
        }
        state = {
            name: tf.TensorSpec((None, *shape), self.record.state_dtype, name=name)
            for name, shape in self._state_shapes.items()
        }
        frame_bytes = tf.TensorSpec((), tf.string, name="frame_bytes")
        mask_bytes = tf.TensorSpec((), tf.string, name="mask_bytes")
        session_bytes = tf.TensorSpec((None,), tf.string, name="session_bytes")

        # Each is in several signatures: as a function it is traced, written and loaded once. Attributes of the module
        # would be written in another form as well.
        begin = tf.function(self.begin, autograph=False)
        advance = tf.function(self.advance, autograph=False)
        clip = functools.partial(self._clip, begin, advance)

        def modulate(*, frame: Tensor, mask: Tensor) -> dict[str, Tensor]:
            labels, modulation, guide_masks, state = begin(frame, mask)
            return {"labels": labels, "modulation": modulation, "guide_masks": guide_masks, **self._outputs(state)}

        def step(*, frame: Tensor, labels: Tensor, modulation: Tensor, guide_masks: Tensor, **state: Tensor) -> Any:
            found, guide_masks, state, _ = advance(frame, labels, modulation, guide_masks, state)
            return {"mask": found, "guide_masks": guide_masks, **self._outputs(state)}

        def step_scores(
            *, frame: Tensor, labels: Tensor, modulation: Tensor, guide_masks: Tensor, **state: Tensor
        ) -> Any:
            found, guide_masks, state, logits = advance(frame, labels, modulation, guide_masks, state)
            return {"mask": found, "scores": tf.sigmoid(logits), "guide_masks": guide_masks, **self._outputs(state)}

        def segment_clip(*, frames: Tensor, mask: Tensor) -> dict[str, Tensor]:
            return {"masks": clip(tf.shape(frames)[0], lambda t: frames[t], mask, tf.identity, tf.uint8)}

        def modulate_encoded(*, frame_bytes: Tensor, mask_bytes: Tensor) -> dict[str, Tensor]:
            begun = begin(decode_frame(frame_bytes), decode_mask(mask_bytes))
            return {"session_bytes": self.pack(*begun)}

        def step_encoded(*, frame_bytes: Tensor, session_bytes: Tensor) -> dict[str, Tensor]:
            labels, modulation, guide_masks, state = self.unpack(session_bytes)
            found, guide_masks, state, _ = advance(decode_frame(frame_bytes), labels, modulation, guide_masks, state)
            packed = self.pack(labels, modulation, guide_masks, state)
            return {"mask_bytes": encode_mask(found), "session_bytes": packed}

        def segment_clip_encoded(*, frames_bytes: Tensor, mask_bytes: Tensor) -> dict[str, Tensor]:
            masks = clip(
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

    def _clip(
        self,
        begin: Callable[..., Any],
        advance: Callable[..., Any],
        count: Tensor,
        frame_at: Callable[[Tensor], Tensor],
        mask: Tensor,
        write: Any,
        dtype: Any,
    ) -> Tensor:
        """Segments `count` frames; `write` turns a label mask into an item of the result."""
        with check(count > 0, "frames: expected at least one"):
            first = frame_at(tf.constant(0))
        labels, modulation, guide_masks, state = begin(first, mask)
        names = list(state)
        item = tf.TensorShape([] if dtype == tf.string else [None, None])
        masks = tf.TensorArray(dtype, count, element_shape=item)
        masks = masks.write(0, write(tf.where(mask == VOID, tf.zeros_like(mask), mask)))
        size = tf.shape(first)

        def body(t: Tensor, masks: Any, guide_masks: Tensor, *values: Tensor) -> tuple[Any, ...]:
            frame = frame_at(t)
            with check(tf.reduce_all(tf.shape(frame) == size), "frames: one has another size than the first"):
                frame = tf.identity(frame)
            found, guide_masks, state, _ = advance(frame, labels, modulation, guide_masks, dict(zip(names, values)))
            return (t + 1, masks.write(t, write(found)), guide_masks, *(state[name] for name in names))

        values = [state[name] for name in names]
        result = tf.while_loop(
            lambda t, *_: t < count, body, [tf.constant(1), masks, guide_masks, *values], parallel_iterations=1
        )
        return result[1].stack()

    def _outputs(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tf.cast(value, self.record.state_dtype) for name, value in state.items()}

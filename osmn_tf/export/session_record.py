"""An object's session as one string of bytes, written and read inside a TensorFlow graph.

What a client carries from frame to frame for one object is a record of fixed length:

    8 bytes          which exported network it belongs to
    1 byte           label
    4 M bytes        modulation, float32
    ceil(h w / 8)    the mask of which the next spatial guide is made, 1 bit a pixel, the first in the highest bit
                     (an RVOS has the soft mask there, in h w bytes)
    then             the recurrent state, tensor by tensor in the order of their names, in the state's dtype

all little-endian. A video's session is one record an object, so that objects are added and removed as list items.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

Tensor = Any

DIGEST_BYTES = 8
_BITS = tuple(1 << bit for bit in range(7, -1, -1))


def _bytes_of(x: Tensor) -> Tensor:
    """[N, ...] of any dtype -> its bytes, uint8 [N, B]."""
    if x.dtype != tf.uint8:
        x = tf.bitcast(x, tf.uint8)
    return tf.reshape(x, [tf.shape(x)[0], math.prod(x.shape[1:])])


def _pack_bits(masks: Tensor) -> Tensor:
    """uint8 [N, h, w] of 0 and 1 -> uint8 [N, ceil(h w / 8)]."""
    length = masks.shape[1] * masks.shape[2]
    flat = tf.pad(tf.reshape(masks, [-1, length]), [[0, 0], [0, -length % 8]])
    octets = tf.reshape(flat, [-1, -(-length // 8), 8])
    return tf.reduce_sum(octets * tf.constant(_BITS, tf.uint8), axis=2)


def _unpack_bits(packed: Tensor, size: tuple[int, int]) -> Tensor:
    octets = tf.cast(tf.bitwise.bitwise_and(packed[:, :, None], tf.constant(_BITS, tf.uint8)) > 0, tf.uint8)
    length = size[0] * size[1]
    flat = tf.reshape(octets, [-1, 8 * packed.shape[1]])
    return tf.reshape(flat[:, :length], [-1, *size])


@dataclasses.dataclass(frozen=True)
class SessionRecord:
    """Layout of a record.

    Attributes:
        digest: 8 bytes that only sessions of this exported network begin with.
        modulation: number M of scales.
        network_size: (h, w) of the guides' masks.
        state: name -> shape without the object axis.
        state_dtype: of the recurrent state in the record.
        mask_bits: of a pixel of the guides' masks, 1 or 8.
    """

    digest: bytes
    modulation: int
    network_size: tuple[int, int]
    state: Mapping[str, tuple[int, ...]]
    state_dtype: str
    mask_bits: int = 1

    @property
    def state_bytes(self) -> int:
        """Bytes of the recurrent state of one object."""
        return sum(math.prod(shape) for shape in self.state.values()) * tf.as_dtype(self.state_dtype).size

    @property
    def guide_bytes(self) -> int:
        """Bytes of one packed guide mask."""
        return -(-self.network_size[0] * self.network_size[1] * self.mask_bits // 8)

    @property
    def length(self) -> int:
        """Bytes of a record."""
        return DIGEST_BYTES + 1 + 4 * self.modulation + self.guide_bytes + self.state_bytes

    def pack(self, labels: Tensor, modulation: Tensor, guide_masks: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """string [N] from int32 [N], float32 [N, M], uint8 [N, h, w] and the state's tensors [N, ...]."""
        digest = tf.constant(list(self.digest), tf.uint8)[None]
        parts = [
            tf.tile(digest, [tf.shape(labels)[0], 1]),
            tf.cast(labels, tf.uint8)[:, None],
            _bytes_of(modulation),
            _pack_bits(guide_masks) if self.mask_bits == 1 else _bytes_of(guide_masks),
            *(_bytes_of(tf.cast(state[name], self.state_dtype)) for name in self.state),
        ]
        rows = tf.ensure_shape(tf.concat(parts, axis=1), [None, self.length])

        def as_string(row: Tensor) -> Tensor:
            # TensorFlow has no operation for this; a serialised tensor ends with its bytes.
            return tf.strings.substr(tf.io.serialize_tensor(row), -self.length, self.length)

        return tf.map_fn(as_string, rows, fn_output_signature=tf.TensorSpec([], tf.string))

    def unpack(self, session: Tensor) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """The reverse of `pack`. Fails where a record is not of this network."""
        lengths = tf.strings.length(session)
        foreign = "session_bytes: not of this model and version (a record has another length)"
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(lengths == self.length), [foreign])]):
            rows = tf.io.decode_raw(session, tf.uint8)
        rows = tf.reshape(rows, [-1, self.length])
        digest = tf.constant(list(self.digest), tf.uint8)[None]
        foreign = "session_bytes: not of this model and version (a record has another digest)"
        same = tf.reduce_all(rows[:, :DIGEST_BYTES] == digest)
        with tf.control_dependencies([tf.debugging.Assert(same, [foreign])]):
            rows = tf.identity(rows)
        position = DIGEST_BYTES + 1

        def take(count: int) -> Tensor:
            nonlocal position
            position += count
            return rows[:, position - count : position]

        def numbers(shape: tuple[int, ...], dtype: str) -> Tensor:
            size = tf.as_dtype(dtype).size
            return tf.bitcast(tf.reshape(take(math.prod(shape) * size), [-1, *shape, size]), dtype)

        labels = tf.cast(rows[:, DIGEST_BYTES], tf.int32)
        modulation = numbers((self.modulation,), "float32")
        packed = take(self.guide_bytes)
        guide_masks = (
            _unpack_bits(packed, self.network_size)
            if self.mask_bits == 1
            else tf.reshape(packed, [-1, *self.network_size])
        )
        return labels, modulation, guide_masks, {n: numbers(shape, self.state_dtype) for n, shape in self.state.items()}

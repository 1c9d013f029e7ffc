"""Dense matching: where a frame looks like the object of earlier frames, and where like what was beside it.

Sources: nearest neighbours of normalised features with the first frame's object and background (VideoMatch, Hu et al.,
ECCV 2018; FEELVOS, Voigtlaender et al., CVPR 2019) and a soft read-out of the earlier mask (STM, Oh et al., ICCV 2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

Tensor = Any
Shape = tuple[int | None, ...]

NEIGHBOURS = 4
CUES = 5  # channels that one earlier frame gives
_EXCLUDED = 2.0  # taken from the similarity of what does not count: the range of a cosine
_LEAST_SHARE = 0.05  # of a cell: an object that covers less of every cell is as good as absent


@keras.saving.register_keras_serializable(package="osmn_tf")
class Matching(keras.layers.Layer):
    """Compares a frame with one earlier frame, whose mask is known, cell by cell.

    A cell's similarity with a cell of the earlier frame is the product of their keys (a cosine, since keys have the
    length 1), less `distance` times the square of how far they are apart in cells, if `local`.

    Call arguments:
        key: [1 or N, h, w, K], of the frame.
        memory: [N, h, w, K], of the earlier frame.
        coverage: [N, h, w, 1], 0..1: how much of each cell of the earlier frame was the object's.

    Output: [N, h, w, 5]: the best similarity with the object, the mean of its four best, both for the background, and
    the mask read out: its mean, weighted by the softmax of `temperature` times the similarity. Cells that are partly
    the object's count less on both sides. Where the object was absent, its similarities are below -1.

    Args:
        local: prefer cells nearby; how much is learned, as is the temperature.
    """

    def __init__(self, local: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.local = local

    def build(self, key_shape: Shape, memory_shape: Shape, coverage_shape: Shape) -> None:
        def scalar(name: str, value: float) -> Tensor:
            return self.add_weight(name=name, shape=(), initializer=keras.initializers.Constant(math.log(value)))

        self.log_temperature = scalar("log_temperature", 20.0)
        self.log_distance = scalar("log_distance", 0.01) if self.local else None

    def call(self, key: Tensor, memory: Tensor, coverage: Tensor) -> Tensor:
        _, height, width, channels = ops.shape(memory)
        cells = height * width
        temperature = ops.exp(self.log_temperature)
        # Times the temperature from here on: one pass less over what is large.
        similarity = ops.matmul(
            ops.reshape(temperature * key, (-1, cells, channels)),
            ops.transpose(ops.reshape(memory, (-1, cells, channels)), (0, 2, 1)),
        )
        if self.log_distance is not None:
            distances = _squared_distances(height, width, similarity.dtype)
            similarity = similarity - temperature * ops.exp(self.log_distance) * distances[None]
        share = ops.reshape(coverage, (-1, 1, cells))
        relative = share / ops.maximum(ops.max(share, axis=-1, keepdims=True), _LEAST_SHARE)
        columns = []
        for excluded in (1.0 - relative, share):
            best = _largest(similarity - temperature * _EXCLUDED * excluded, height, width) / temperature
            columns += [best[..., :1], ops.mean(best, axis=-1, keepdims=True)]
        columns.append(ops.matmul(ops.softmax(similarity, axis=-1), ops.reshape(coverage, (-1, cells, 1))))
        return ops.reshape(ops.concatenate(columns, axis=-1), (-1, height, width, CUES))

    def compute_output_shape(self, key_shape: Shape, memory_shape: Shape, coverage_shape: Shape) -> Shape:
        return (*memory_shape[:3], CUES)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "local": self.local}


def _largest(scores: Tensor, height: Any, width: Any) -> Tensor:
    """The `NEIGHBOURS` largest of the last axis, [N, cells, h * w] -> [N, cells, NEIGHBOURS], largest first.

    They are in the `NEIGHBOURS` rows of the grid whose best cells are the best. To look for these first takes half of
    the time, since most of the work is a maximum then, which processors do many at a time.
    """
    if not isinstance(height, int) or height < NEIGHBOURS:
        return ops.top_k(scores, NEIGHBOURS)[0]
    rows = ops.reshape(scores, (-1, height, width))
    best = ops.top_k(ops.max(rows, axis=-1), NEIGHBOURS)[1]
    first = ops.arange(ops.shape(rows)[0], dtype="int32")[:, None] * height
    found = ops.take(ops.reshape(scores, (-1, width)), ops.cast(best, "int32") + first, axis=0)
    largest = ops.top_k(ops.reshape(found, (-1, NEIGHBOURS * width)), NEIGHBOURS)[0]
    return ops.reshape(largest, (-1, height * width, NEIGHBOURS))


def _squared_distances(height: Any, width: Any, dtype: str) -> Tensor:
    """[h * w, h * w]: between all cells of a grid, row by row."""

    def along(length: Any) -> Tensor:
        position = ops.arange(length, dtype=dtype)
        return ops.square(position[:, None] - position[None])

    rows, columns = along(height), along(width)
    both = rows[:, None, :, None] + columns[None, :, None, :]
    return ops.reshape(both, (height * width, height * width))


@keras.saving.register_keras_serializable(package="osmn_tf")
class FirstFrameMemory(keras.layers.Layer):
    """Keeps what is handed in while the memory is still empty: [kept key, kept mask, key, mask] -> [key, mask].

    Input: kept key [N, h, w, K] and kept mask [N, h, w, 1], all zero before the first frame; the frame's key
    [1 or N, h, w, K] and the object's mask in it [N, h, w, 1]. Output: the kept ones of the objects that have any,
    else the frame's.
    """

    def call(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        kept_key, kept_mask, key, mask = inputs
        # As a product rather than a selection: LiteRT selects between tensors of one shape only.
        known = ops.cast(ops.max(kept_mask, axis=(1, 2, 3), keepdims=True) > 0, kept_mask.dtype)
        return [known * kept_key + (1.0 - known) * key, known * kept_mask + (1.0 - known) * mask]

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> list[Shape]:
        return [input_shape[0], input_shape[1]]

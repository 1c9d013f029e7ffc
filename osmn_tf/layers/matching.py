"""Dense matching: where a frame looks like the object of earlier frames, and where like what was beside it.

Sources: neighbours of normalised features in the first frame's object and background (VideoMatch, Hu et al., ECCV 2018;
FEELVOS, Voigtlaender et al., CVPR 2019), a soft read-out of the earlier mask and a memory of more than two frames (STM,
Oh et al., ICCV 2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

Tensor = Any
Shape = tuple[int | None, ...]

CUES = 3  # channels that a matching gives
RECENT_EVERY = 5  # frames
_DOUBT = 0.15  # taken from the similarity with a frame whose mask is the network's own
_EXCLUDED = 2.0  # taken from the similarity of what does not count: the range of a cosine
_LEAST_SHARE = 0.05  # of a cell: an object that covers less of every cell is as good as absent
_LOG_MOST = math.log(64.0)  # of a temperature: exponentials of so much, and of so little, are numbers of float32
_NOTHING = 1e-30  # beside a sum of exponentials


@keras.saving.register_keras_serializable(package="osmn_tf")
class Matching(keras.layers.Layer):
    """Compares a frame with earlier frames, whose masks are known, cell by cell.

    A cell's similarity with a cell of an earlier frame is the product of their keys (a cosine, since keys have the
    length 1), less `distance` times the square of how far they are apart in cells, if `local`. The earlier frames but
    the first count a little less: the masks of these are the network's own, the first one's was given.

    Input: a list of key [1 or N, h, w, K], of the frame, and then for every earlier frame its key [N, h, w, K] and
    coverage [N, h, w, 1], 0..1: how much of each cell was the object's.

    Output: [N, h, w, 3]: the similarity with the object and with the background, and the mask read out: its mean,
    weighted by the exponentials of `temperature` times the similarities. The similarity with many cells is a soft
    maximum, log(sum(exp(temperature * similarities))) / temperature. Cells that are partly the object's count less on
    both sides. Where the object was absent, the similarity with it is below -0.5 (at the temperature that training
    begins with).

    Args:
        local: prefer cells nearby; how much is learned, as is the temperature.
    """

    def __init__(self, local: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.local = local

    def build(self, input_shape: Sequence[Shape]) -> None:
        def scalar(name: str, value: float) -> Tensor:
            return self.add_weight(name=name, shape=(), initializer=keras.initializers.Constant(math.log(value)))

        self.log_temperature = scalar("log_temperature", 20.0)
        self.log_distance = scalar("log_distance", 0.01) if self.local else None

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        return self._cues(inputs, _sums)

    def call_at_once(self, inputs: Sequence[Tensor]) -> Tensor:
        """What `call` gives, for the objects of one video: an earlier frame that is the same for all of them is
        compared once. The previous one always is, the first one where they were given together.
        """
        return self._cues(inputs, _sums_at_once)

    def _cues(self, inputs: Sequence[Tensor], sums_with: Callable[..., Tensor]) -> Tensor:
        key, *earlier = inputs
        _, height, width, channels = ops.shape(key)
        temperature = ops.cast(ops.exp(ops.minimum(self.log_temperature, _LOG_MOST)), "float32")
        # Distances are numbers too large for half precision.
        dtype = "float32" if self.local else key.dtype

        def flat(x: Tensor) -> Tensor:
            return ops.reshape(ops.cast(x, dtype), (-1, height * width, channels))

        query, places = ops.cast(temperature, dtype) * flat(key), None
        if self.log_distance is not None:
            distance = temperature * ops.cast(ops.exp(self.log_distance), "float32")
            own, places = _places(height, width)
            query = _beside(query, distance * own)
        sums: Tensor = None
        for number, (memory, coverage) in enumerate(zip(earlier[::2], earlier[1::2], strict=True)):
            known = flat(memory) if places is None else _beside(flat(memory), places)
            found = sums_with(query, known, ops.reshape(coverage, (-1, height * width, 1)), temperature)
            sums = found if number == 0 else sums + ops.exp(-_DOUBT * temperature) * found
        similarity = ops.log(sums[..., :2] + _NOTHING) / temperature
        mask = sums[..., 2:3] / (sums[..., 3:] + _NOTHING)
        cues = ops.concatenate([similarity, mask], axis=-1)
        return ops.cast(ops.reshape(cues, (-1, height, width, CUES)), self.compute_dtype)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        return (*input_shape[1][:3], CUES)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "local": self.local}


def _sums(query: Tensor, memory: Tensor, coverage: Tensor, temperature: Tensor) -> Tensor:
    """float32 [N, cells, 4]: exponentials of the similarities, summed over the cells of an earlier frame: those of the
    object, of the background, all of them weighted by the coverage, and all of them.

    Args:
        query: [1 or N, cells, K], times the temperature.
        memory: [N, cells, K].
        coverage: [N, cells, 1].
        temperature: float32.
    """
    return ops.matmul(_weights(query, memory), _counts(coverage, temperature))


def _sums_at_once(query: Tensor, memory: Tensor, coverage: Tensor, temperature: Tensor) -> Tensor:
    """As `_sums`; where the earlier frame is the same for all objects, the exponentials are computed once."""
    if memory.shape[0] == 1 or query.shape[0] != 1:
        return _sums(query, memory, coverage, temperature)

    def of_one() -> Tensor:
        counts = ops.transpose(_counts(coverage, temperature), (1, 0, 2))
        cells, objects, columns = ops.shape(counts)
        weights = _weights(query, memory[:1])[0]
        found = ops.matmul(weights, ops.reshape(counts, (cells, objects * columns)))
        return ops.transpose(ops.reshape(found, (cells, objects, columns)), (1, 0, 2))

    same = ops.all(ops.equal(memory, memory[:1]))
    return ops.cond(same, of_one, lambda: _sums(query, memory, coverage, temperature))


def _weights(query: Tensor, memory: Tensor) -> Tensor:
    """float32 [N, cells, cells]: exponentials of the similarities with the cells of an earlier frame."""
    return ops.exp(ops.cast(ops.matmul(query, ops.transpose(memory, (0, 2, 1))), "float32"))


def _counts(coverage: Tensor, temperature: Tensor) -> Tensor:
    """float32 [N, cells, 4]: how much the cells of an earlier frame count in each of the four sums."""
    share = ops.cast(coverage, "float32")
    relative = share / ops.maximum(ops.max(share, axis=1, keepdims=True), _LEAST_SHARE)
    excluded = ops.concatenate([1.0 - relative, share], axis=-1)
    counts = ops.exp(-_EXCLUDED * temperature * excluded)
    return ops.concatenate([counts, share, ops.ones_like(share)], axis=-1)


def _places(height: Any, width: Any) -> tuple[Tensor, Tensor]:
    """float32 [h * w, 4] and [h * w, 4]: numbers of the cells of a grid, whose products are the squares of the
    distances between them, negative: -|p - q|^2 = 2 p q - |p|^2 - |q|^2.

    As part of the keys they cost next to nothing. A table of the distances would be a pass over a number for every pair
    of cells more, and a part of every exported graph.
    """
    rows = ops.repeat(ops.arange(height, dtype="float32") - (height - 1) / 2, width)
    columns = ops.tile(ops.arange(width, dtype="float32") - (width - 1) / 2, height)
    ones, square = ops.ones_like(rows), ops.square(rows) + ops.square(columns)
    return (
        ops.stack([2.0 * rows, 2.0 * columns, -square, -ones], axis=-1),
        ops.stack([rows, columns, ones, square], axis=-1),
    )


def _beside(keys: Tensor, places: Tensor) -> Tensor:
    """Keys [N, cells, K] with the numbers of their places, [N, cells, K + 4]."""
    return ops.concatenate([keys, ops.zeros_like(keys[..., :1]) + places], axis=-1)


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


@keras.saving.register_keras_serializable(package="osmn_tf")
class RecentFrameMemory(keras.layers.Layer):
    """Keeps a frame of not long ago: every `RECENT_EVERY` frames the previous one, if the object was found in it.

    Input, a list: kept key [N, h, w, K], kept mask and age [N, h, w, 1], all zero before the first frame; of the
    previous frame the key [N, h, w, K], the score and the mask [N, h, w, 1] (a mask is carried on where nothing is
    found, a score above 0 says that the object is there); key and mask of the first frame. Output: kept key, kept mask,
    and the age, which is the number of frames since, the same in every cell. They are the first frame's at first.
    """

    def call(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        kept_key, kept_mask, age, previous_key, score, mask, first_key, first_mask = inputs

        def anywhere(x: Tensor) -> Tensor:
            return ops.cast(ops.max(x, axis=(1, 2, 3), keepdims=True) > 0, x.dtype)

        # As products rather than selections: LiteRT selects between tensors of one shape only.
        started = anywhere(age)
        kept_key = started * kept_key + (1.0 - started) * first_key
        kept_mask = started * kept_mask + (1.0 - started) * first_mask
        due = ops.cast(age >= RECENT_EVERY, age.dtype) * anywhere(ops.relu(score) * mask)
        change = ops.max(due, axis=(1, 2, 3), keepdims=True)
        return [
            change * previous_key + (1.0 - change) * kept_key,
            change * mask + (1.0 - change) * kept_mask,
            (1.0 - due) * age + 1.0,
        ]

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> list[Shape]:
        return list(input_shape[:3])

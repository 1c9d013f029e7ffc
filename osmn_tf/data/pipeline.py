"""From raw samples to the batches that the networks train on: augmentation, guides, batching, `tf.data`.

`prepare` is batched `keras.ops`: it runs inside `tf.data` (TensorFlow backend), eagerly or compiled on any backend, or
inside a training step on the accelerator. `tf_dataset` and `BatchSequence` feed the same batches; the second needs no
TensorFlow.

A batch is (inputs, labels) for `model.fit`:

    clips    inputs: frames uint8 [B, T, H, W, 3], visual_guide float32 [B, S, S, 3],
                     spatial_guides float32 [B, T, H, W, 1], own_guide float32 [B, T]
             labels: uint8 [B, T, H, W, 1]: 0, 1, or 255 (unlabelled)
    frames   (clips of length 1 for a network without state)
             inputs: frame uint8 [B, H, W, 3], visual_guide float32 [B, S, S, 3], spatial_guide float32 [B, H, W, 1]
             labels: uint8 [B, H, W, 1]
"""

from __future__ import annotations

import atexit
import dataclasses
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from osmn_tf import augment
from osmn_tf.augment import AugmentOptions
from osmn_tf.data.sampling import RawSample, Samples
from osmn_tf.errors import InputError, MissingDependencyError
from osmn_tf.guides import GUIDE_MARGIN, VGG_MEAN_RGB, spatial_guide, visual_guide

if TYPE_CHECKING:
    import tensorflow as tf

Tensor = Any
Batch = tuple[dict[str, Tensor], Tensor]

_DROPOUT, _OWN = 100, 101  # streams of random numbers, beside those of `augment`


@dataclasses.dataclass(frozen=True)
class BatchOptions:
    """What `prepare` makes of raw samples.

    Attributes:
        clips: batches of clips; False: of frames (length 1).
        guide_size: side of the visual guide in pixels.
        guide_background: RGB colour around the object in the visual guide (the mean that the network subtracts).
        augment: transformations of the frames and masks.
        guide_jitter: the OSMN release's jitter of both guides; False: as at test time.
        guide_colour: strength of the visual guide's own change of colour, relative to that of the frames.
        guide_dropout: probability that a frame gets an empty spatial guide (an object that was lost).
        own_guide: probability that a frame's spatial guide is made from the network's own prediction: a number, or a
            function of the batch's number since the beginning of the training (a curriculum). Only in clips.
    """

    clips: bool = True
    guide_size: int = 224
    guide_background: tuple[float, float, float] = VGG_MEAN_RGB
    augment: AugmentOptions = dataclasses.field(default_factory=AugmentOptions)
    guide_jitter: bool = True
    guide_colour: float = 0.4
    guide_dropout: float = 0.0
    own_guide: float | Callable[[int], float] = 0.0

    def own_guide_at(self, number: int) -> float:
        """The probability in batch `number`."""
        return float(self.own_guide(number) if callable(self.own_guide) else self.own_guide)


def prepare(raw: Mapping[str, Tensor], options: BatchOptions) -> Batch:
    """Augments a batch of raw samples and makes the guides.

    Args:
        raw: the fields of `osmn_tf.data.sampling` with a batch axis, and "own_guide", float32 [B]: the probability.
        options: see `BatchOptions`.

    Returns:
        (inputs, labels), see the module.
    """
    seeds = ops.cast(raw["seeds"], "int32")
    frames, masks = augment.augment_clips(raw["frames"], raw["masks"], seeds, options.augment, raw["motion"])
    count, length = ops.shape(masks)[0], frames.shape[1]
    height, width = masks.shape[2], masks.shape[3]

    known = ops.cast(ops.equal(masks[:, :-1], 1), "uint8")
    previous = ops.reshape(known, (-1, height, width))
    if options.guide_jitter:
        shift, scale = augment.spatial_guide_jitter(seeds, length)
        guides = spatial_guide(previous, ops.reshape(shift, (-1, 2)), ops.reshape(scale, (-1, 2)))
    else:
        guides = spatial_guide(previous)
    guides = ops.reshape(guides, (count, length, height, width, 1))
    if options.guide_dropout:
        kept = augment.uniform(seeds, length, _DROPOUT) >= options.guide_dropout
        guides = guides * ops.cast(kept, "float32")[:, :, None, None, None]

    guide_frames = ops.cast(raw["guide_frame"], "float32")
    if options.augment.colours:
        guide_frames = augment.jitter_guide_colour(guide_frames, seeds, options.augment, options.guide_colour)
    margins = augment.visual_guide_margins(seeds) if options.guide_jitter else ops.full((count, 4), GUIDE_MARGIN)
    appearance = visual_guide(guide_frames, raw["guide_mask"], options.guide_size, options.guide_background, margins)
    if options.guide_jitter:
        appearance = augment.jitter_visual_guide(appearance, seeds, background=options.guide_background)

    frames = ops.cast(ops.round(frames), "uint8")
    labels = masks[:, 1:, ..., None]
    if not options.clips:
        return {"frame": frames[:, 0], "visual_guide": appearance, "spatial_guide": guides[:, 0]}, labels[:, 0]
    own = ops.cast(augment.uniform(seeds, length, _OWN) < ops.cast(raw["own_guide"], "float32")[:, None], "float32")
    return {"frames": frames, "visual_guide": appearance, "spatial_guides": guides, "own_guide": own}, labels


class _Loading:
    """Lets the interpreter exit while TensorFlow's threads are still loading samples.

    A thread that comes back to Python after the interpreter is gone aborts the process. So at exit, the loads under way
    are waited for, and further ones end the data set at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._closing = False
        self._registered = False
        self._last = -math.inf

    def __enter__(self) -> None:
        with self._lock:
            self._last = time.monotonic()
            if self._closing:
                raise StopIteration  # tf.numpy_function makes it the end of the data
            if not self._registered:
                atexit.register(self.close)
                self._registered = True
            self._running += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._last = time.monotonic()
            self._running -= 1

    def close(self, quiet: float = 1.5, timeout: float = 60.0) -> None:
        """Ends the loading, and waits until there was none for `quiet` seconds: TensorFlow's own threads need a moment
        to take the results over, and to notice the end."""
        begin = time.monotonic()
        while time.monotonic() < begin + timeout:
            with self._lock:
                self._closing = True
                if not self._running and time.monotonic() > self._last + quiet:
                    return
            time.sleep(0.02)


_loading = _Loading()


class _Schedule:
    """Which samples make up which batch, counted from the beginning of the training."""

    def __init__(self, samples: Samples, batch_size: int, options: BatchOptions) -> None:
        if not 1 <= batch_size <= samples.epoch_size:
            raise InputError(f"batch_size: expected 1..{samples.epoch_size} (the epoch), received {batch_size}")
        if not options.clips and samples.length != 1:
            raise InputError(f"clips: batches of frames need samples of length 1, received length {samples.length}")
        self.samples, self.batch_size, self.options = samples, batch_size, options
        self.steps_per_epoch = samples.epoch_size // batch_size

    def raw_sample(self, number: int) -> RawSample:
        """Sample `number` of the training: the last, incomplete batch of an epoch is left out."""
        epoch, index = divmod(number, self.steps_per_epoch * self.batch_size)
        own = np.array(self.options.own_guide_at(number // self.batch_size), np.float32)
        return {**self.samples.sample(epoch, index), "own_guide": own}

    def raw_batch(self, number: int) -> RawSample:
        """Batch `number` of the training."""
        first = number * self.batch_size
        chosen = [self.raw_sample(sample) for sample in range(first, first + self.batch_size)]
        return {name: np.stack([sample[name] for sample in chosen]) for name in chosen[0]}


def _signature(samples: Samples) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of the fields of a raw sample."""
    (height, width), length = samples.size, samples.length
    return {
        "frames": ("uint8", (length, height, width, 3)),
        "masks": ("uint8", (length + 1, height, width)),
        "guide_frame": ("uint8", (height, width, 3)),
        "guide_mask": ("uint8", (height, width)),
        "seeds": ("int32", (2,)),
        "motion": ("float32", ()),
        "own_guide": ("float32", ()),
    }


def tf_dataset(
    samples: Samples,
    batch_size: int,
    options: BatchOptions | None = None,
    *,
    epoch: int = 0,
    step: int = 0,
    epochs: int | None = None,
    workers: int | None = None,
    prepared: bool = True,
    shard: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """The batches of a training run as a `tf.data.Dataset`, endless by default (give `fit` `steps_per_epoch`).

    Batch k is the same whatever the number of workers and wherever the run was resumed.

    Args:
        samples: see `Samples`.
        batch_size: samples per batch; `len(samples) // batch_size` batches make an epoch.
        options: see `BatchOptions`.
        epoch: where to start.
        step: where to start within the epoch (to resume).
        epochs: stop at the end of this epoch's predecessor; None: never.
        workers: threads that load samples; by default one per CPU.
        prepared: apply `prepare`; False gives raw batches, to apply it inside the training step (on the accelerator, or
            on a backend other than TensorFlow).
        shard: (k, n) gives the k-th n-th of every batch, for the k-th of n processes that train together.

    Raises:
        InputError: arguments that do not fit; MissingDependencyError: no TensorFlow.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise MissingDependencyError("tensorflow", "tf", "tf_dataset") from error
    options = BatchOptions() if options is None else options
    if prepared and keras.backend.backend() != "tensorflow":
        raise InputError(
            f"prepared: tf.data runs Keras operations of the TensorFlow backend only, and this is "
            f"{keras.backend.backend()}; use BatchSequence, or prepared=False with `prepare` in the training step"
        )
    schedule = _Schedule(samples, batch_size, options)
    fields = _signature(samples)
    part, parts = shard
    if batch_size % parts or not 0 <= part < parts:
        raise InputError(f"shard: {part} of {parts} is no equal share of batches of {batch_size}")
    share = batch_size // parts

    def load(number: np.ndarray) -> list[np.ndarray]:
        batch, place = divmod(int(number), share)
        sample = schedule.raw_sample(batch * batch_size + part * share + place)
        return [sample[name] for name in fields]

    def load_in_graph(number: Any) -> dict[str, Any]:
        values = tf.numpy_function(load, [number], [dtype for dtype, _ in fields.values()], stateful=False)
        return {name: tf.ensure_shape(value, shape) for value, (name, (_, shape)) in zip(values, fields.items())}

    def prepare_in_graph(raw: dict[str, Any]) -> Batch:
        return prepare(raw, options)

    first = epoch * schedule.steps_per_epoch + step
    last = np.iinfo(np.int64).max // share if epochs is None else epochs * schedule.steps_per_epoch
    dataset = tf.data.Dataset.range(first * share, last * share)
    # AutoGraph would read and rewrite the source of all that is called, for seconds, and there is nothing to rewrite.
    plain = tf.autograph.experimental.do_not_convert
    threads = workers or os.cpu_count() or 1
    dataset = dataset.map(plain(load_in_graph), num_parallel_calls=threads, deterministic=True)
    dataset = dataset.batch(share, drop_remainder=True)
    if prepared:
        dataset = dataset.map(plain(prepare_in_graph), num_parallel_calls=1, deterministic=True)
    return dataset.prefetch(2)


def _compiled(function: Callable[[dict[str, Tensor]], Batch]) -> Callable[[dict[str, Tensor]], Batch]:
    """`function` compiled by the backend, where there is a way that keeps its results."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False)
    if backend == "jax":
        import jax

        return jax.jit(function)
    return function


class BatchSequence(keras.utils.PyDataset):
    """The batches of `tf_dataset` for `model.fit` on any backend, without TensorFlow.

    It is endless: `fit(sequence, steps_per_epoch=sequence.steps_per_epoch, shuffle=False)`. (Keras calls
    `on_epoch_end` at other times too, so that a sequence cannot count epochs by it: batches are counted from the
    beginning instead.)

    Args:
        samples, batch_size, options: see `tf_dataset`.
        epoch: where to start.
        step: where to start within the epoch (to resume).
        workers: threads that make batches ahead of time.

    Raises:
        InputError: arguments that do not fit.
    """

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        options: BatchOptions | None = None,
        *,
        epoch: int = 0,
        step: int = 0,
        workers: int = 1,
    ) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        options = BatchOptions() if options is None else options
        self._schedule = _Schedule(samples, batch_size, options)
        self._prepare = _compiled(lambda raw: prepare(raw, options))
        self._first = epoch * self.steps_per_epoch + step
        self._pool = ThreadPoolExecutor(max(workers, 1), thread_name_prefix="batches")
        self._ahead: dict[int, Future[Batch]] = {}
        self._look_ahead = max(workers, 1) + 1

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch; the last, incomplete one is left out."""
        return self._schedule.steps_per_epoch

    @property
    def num_batches(self) -> None:
        """None: endless."""
        return None

    def __getitem__(self, index: int) -> Batch:
        """Batch `index`, counted from where this sequence starts, as NumPy arrays."""
        wanted = self._ahead.pop(index, None) or self._pool.submit(self._make, self._first + index)
        following = range(index + 1, index + 1 + self._look_ahead)
        for number in set(self._ahead) - set(following):
            self._ahead.pop(number).cancel()
        for number in following:
            if number not in self._ahead:
                self._ahead[number] = self._pool.submit(self._make, self._first + number)
        return wanted.result()

    def _make(self, number: int) -> Batch:
        raw = self._schedule.raw_batch(number)
        inputs, labels = self._prepare({name: ops.convert_to_tensor(value) for name, value in raw.items()})
        return {name: ops.convert_to_numpy(value) for name, value in inputs.items()}, ops.convert_to_numpy(labels)

"""From raw samples to the batches that a network trains on: batching, `tf.data`, and the same without TensorFlow.

What a batch holds is the network's affair: a `Batches` makes it, in batched `keras.ops` that run inside `tf.data`
(TensorFlow backend), eagerly or compiled on any backend, or inside a training step on the accelerator. `tf_dataset` and
`BatchSequence` feed the same batches; the second needs no TensorFlow.
"""

from __future__ import annotations

import abc
import atexit
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

from osmn_tf.data.sampling import Samples
from osmn_tf.data.targets import Fields, RawSample
from osmn_tf.errors import InputError, import_extra

if TYPE_CHECKING:
    import tensorflow as tf

Tensor = Any
Batch = tuple[Any, Any]


class Batches(abc.ABC):
    """What makes the batches of one family of networks, (inputs, labels) for `model.fit`, out of raw samples."""

    def check(self, samples: Samples) -> None:  # noqa: B027 (as a rule any samples do)
        """Raises `InputError` where batches cannot be made of these samples."""

    def values(self, number: int) -> RawSample:
        """What the samples of batch `number`, counted from the beginning of the training, have beside their own fields:
        a curriculum. Always the same names, types and shapes."""
        return {}

    @abc.abstractmethod
    def prepare(self, raw: Mapping[str, Tensor]) -> Batch:
        """The batch, (inputs, labels), of stacked raw samples with their `values`. Pure `keras.ops`."""


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

    def __init__(self, samples: Samples, batch_size: int, batches: Batches) -> None:
        if not 1 <= batch_size <= samples.epoch_size:
            raise InputError(f"batch_size: expected 1..{samples.epoch_size} (the epoch), received {batch_size}")
        batches.check(samples)
        self.samples, self.batch_size, self.batches = samples, batch_size, batches
        self.steps_per_epoch = samples.epoch_size // batch_size

    def raw_sample(self, number: int) -> RawSample:
        """Sample `number` of the training: the last, incomplete batch of an epoch is left out."""
        epoch, index = divmod(number, self.steps_per_epoch * self.batch_size)
        return {**self.samples.sample(epoch, index), **self.batches.values(number // self.batch_size)}

    def raw_batch(self, number: int) -> RawSample:
        """Batch `number` of the training."""
        first = number * self.batch_size
        chosen = [self.raw_sample(sample) for sample in range(first, first + self.batch_size)]
        return {name: np.stack([sample[name] for sample in chosen]) for name in chosen[0]}

    @property
    def fields(self) -> Fields:
        """Type and shape of the fields of a raw sample."""
        values = {name: (value.dtype.name, value.shape) for name, value in self.batches.values(0).items()}
        return {**self.samples.fields, **values}


def tf_dataset(
    samples: Samples,
    batch_size: int,
    batches: Batches,
    *,
    epoch: int = 0,
    step: int = 0,
    epochs: int | None = None,
    workers: int | None = None,
    prepared: bool = True,
    shard: tuple[int, int] = (0, 1),
    defer_errors: bool = False,
) -> tf.data.Dataset:
    """The batches of a training run as a `tf.data.Dataset`, endless by default (give `fit` `steps_per_epoch`).

    Batch k is the same whatever the number of workers and wherever the run was resumed.

    Args:
        samples: see `Samples`.
        batch_size: samples per batch; `len(samples) // batch_size` batches make an epoch.
        batches: makes them.
        epoch: where to start.
        step: where to start within the epoch (to resume).
        epochs: stop at the end of this epoch's predecessor; None: never.
        workers: threads that load samples; by default one per CPU.
        prepared: apply `batches.prepare`; False gives raw batches, to apply it inside the training step (on the
            accelerator, or on a backend other than TensorFlow).
        shard: (k, n) gives the k-th n-th of every batch, for the k-th of n processes that train together.
        defer_errors: where the samples fail, keep the error in `samples.failure` and go on with zeros, for a training
            that looks there after every batch. (TensorFlow makes pages of log of an error.)

    Raises:
        InputError: arguments that do not fit; MissingDependencyError: no TensorFlow.
    """
    tf = import_extra("tensorflow", "tensorflow", "tf", "tf_dataset")
    if prepared and keras.backend.backend() != "tensorflow":
        raise InputError(
            f"prepared: tf.data runs Keras operations of the TensorFlow backend only, and this is "
            f"{keras.backend.backend()}; use BatchSequence, or prepared=False with its `prepare` in the training step"
        )
    schedule = _Schedule(samples, batch_size, batches)
    fields = schedule.fields
    part, parts = shard
    if batch_size % parts or not 0 <= part < parts:
        raise InputError(f"shard: {part} of {parts} is no equal share of batches of {batch_size}")
    share = batch_size // parts

    def load(number: np.ndarray) -> list[np.ndarray]:
        batch, place = divmod(int(number), share)
        with _loading:
            try:
                sample = schedule.raw_sample(batch * batch_size + part * share + place)
            except InputError:
                if not defer_errors:
                    raise
                sample = {name: np.zeros(shape, dtype) for name, (dtype, shape) in fields.items()}
        return [sample[name] for name in fields]

    def load_in_graph(number: Any) -> dict[str, Any]:
        values = tf.numpy_function(load, [number], [dtype for dtype, _ in fields.values()], stateful=False)
        return {name: tf.ensure_shape(value, shape) for value, (name, (_, shape)) in zip(values, fields.items())}

    first = epoch * schedule.steps_per_epoch + step
    last = np.iinfo(np.int64).max // share if epochs is None else epochs * schedule.steps_per_epoch
    dataset = tf.data.Dataset.range(first * share, last * share)
    # AutoGraph would read and rewrite the source of all that is called, for seconds, and there is nothing to rewrite.
    plain = tf.autograph.experimental.do_not_convert
    threads = workers or os.cpu_count() or 1
    dataset = dataset.map(plain(load_in_graph), num_parallel_calls=threads, deterministic=True)
    dataset = dataset.batch(share, drop_remainder=True)
    if prepared:
        dataset = dataset.map(plain(batches.prepare), num_parallel_calls=1, deterministic=True)
    return dataset.prefetch(2)


def _compiled(function: Callable[[Mapping[str, Tensor]], Batch]) -> Callable[[Mapping[str, Tensor]], Batch]:
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
        samples, batch_size, batches: see `tf_dataset`.
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
        batches: Batches,
        *,
        epoch: int = 0,
        step: int = 0,
        workers: int = 1,
    ) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        self._schedule = _Schedule(samples, batch_size, batches)
        self._prepare = _compiled(batches.prepare)
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
        batch = self._prepare({name: ops.convert_to_tensor(value) for name, value in raw.items()})
        return keras.tree.map_structure(ops.convert_to_numpy, batch)

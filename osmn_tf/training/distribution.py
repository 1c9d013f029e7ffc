"""Training on several devices and machines with TensorFlow.

`MirroredStrategy` goes through `model.fit`. `MultiWorkerMirroredStrategy` does not (Keras 3.15 fails to build the model
from a batch per replica): `fit_workers` is the same loop written out, with the same callbacks.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras

from osmn_tf.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

Tensor = Any


def on_whole_batch(function: Callable[[list[Tensor]], list[Tensor]], gradients: list[Tensor]) -> list[Tensor]:
    """Applies `function` to the gradient of the whole batch, inside a replica that holds its share of it.

    Returns what, summed over the replicas, is the result.
    """
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    replicas = 1 if context is None else context.num_replicas_in_sync
    if replicas == 1:
        return function(gradients)
    total = function(context.all_reduce(tf.distribute.ReduceOp.SUM, gradients))
    return [None if gradient is None else gradient / replicas for gradient in total]


def choose_strategy(devices: Sequence[str] | None, batch_size: int) -> tf.distribute.Strategy | None:
    """The strategy for `train.devices`; None for the one device that TensorFlow takes by itself.

    With `TF_CONFIG` in the environment, one of several workers; else all GPUs of this machine, or those named.

    Raises:
        InputError: a device does not exist, or the batch cannot be shared out evenly.
    """
    if keras.backend.backend() != "tensorflow":
        if devices is not None and len(devices) > 1:
            raise InputError(f"train.devices: several devices need TensorFlow, this is {keras.backend.backend()}")
        return None
    import tensorflow as tf

    if os.environ.get("TF_CONFIG"):
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    else:
        if devices is None:
            devices = [f"GPU:{k}" for k in range(len(tf.config.list_physical_devices("GPU")))]
            if len(devices) < 2:
                return None
        strategy = _mirrored(devices)
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise InputError(f"train.batch_size: {batch_size} cannot be shared evenly by {replicas} devices")
    return strategy


def _mirrored(devices: Sequence[str]) -> tf.distribute.Strategy:
    import tensorflow as tf

    cpus = [device for device in devices if device.startswith("CPU")]
    try:
        if len(cpus) > 1:
            # Several logical devices on one processor: to try distributed training out without GPUs.
            tf.config.set_logical_device_configuration(
                tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * len(cpus)
            )
        known = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]
    except RuntimeError as error:
        raise InputError(f"train.devices: cannot be set once TensorFlow runs ({error})") from error
    unknown = [device for device in devices if device not in known]
    if unknown:
        raise InputError(f"train.devices: there is no {unknown[0]}; this machine has {', '.join(known)}")
    return tf.distribute.MirroredStrategy(list(devices))


def scope(strategy: tf.distribute.Strategy | None) -> contextlib.AbstractContextManager[Any]:
    """Where model and optimizer must be made."""
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def is_multi_worker(strategy: tf.distribute.Strategy | None) -> bool:
    """Whether several processes train together."""
    return strategy is not None and strategy.cluster_resolver is not None and bool(strategy.cluster_resolver.task_type)


def is_chief(strategy: tf.distribute.Strategy | None) -> bool:
    """Whether this process writes the results."""
    if strategy is None or not is_multi_worker(strategy):
        return True
    resolver = strategy.cluster_resolver
    return resolver.task_type == "chief" or (resolver.task_id == 0 and "chief" not in resolver.cluster_spec().as_dict())


def fit_workers(
    model: keras.Model,
    strategy: tf.distribute.Strategy,
    dataset: Callable[[int, int], tf.data.Dataset],
    *,
    batch_size: int,
    epochs: int,
    initial_epoch: int,
    steps_per_epoch: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> int:
    """`model.fit` for several workers. Every worker calls it. Returns the number of epochs since the first.

    Args:
        model: compiled in the strategy's scope, without metrics.
        strategy: a `MultiWorkerMirroredStrategy`.
        dataset: (worker, workers) -> batches of this worker's share of every batch.
        batch_size: samples per batch, of all workers together.
        epochs, initial_epoch, steps_per_epoch: as of `fit`.
        callbacks: as of `fit`; those that write belong to the chief only. `model.stop_training` of any worker ends
            the training of all.
    """
    import tensorflow as tf

    replicas = strategy.num_replicas_in_sync

    def replica_step(batch: tuple[dict[str, Tensor], Tensor]) -> Tensor:
        inputs, labels = batch
        with tf.GradientTape() as tape:
            logits = model(inputs, training=True)
            # Keras divides by the number of replicas, so that the sum over them is the mean over the batch.
            loss = model.compute_loss(inputs, labels, logits)
            scaled = model.optimizer.scale_loss(loss)
        weights = model.trainable_weights
        model.optimizer.apply_gradients(zip(tape.gradient(scaled, weights), weights))
        return loss

    @tf.function(autograph=False)
    def train_step(batch: Any) -> Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(replica_step, args=(batch,)), axis=None)

    @tf.function(autograph=False)
    def any_worker(flag: Tensor) -> Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(lambda: tf.identity(flag)), axis=None) > 0

    def share(context: tf.distribute.InputContext) -> tf.data.Dataset:
        own = dataset(context.input_pipeline_id, context.num_input_pipelines)
        return own.rebatch(batch_size // replicas)

    batches = iter(strategy.distribute_datasets_from_function(share))
    runner = keras.callbacks.CallbackList(
        list(callbacks), add_history=True, model=model, epochs=epochs, steps=steps_per_epoch
    )
    model.stop_training = False
    runner.on_train_begin()
    epoch = initial_epoch
    for epoch in range(initial_epoch, epochs):
        runner.on_epoch_begin(epoch)
        total = 0.0
        for step in range(steps_per_epoch):
            runner.on_train_batch_begin(step)
            loss = float(train_step(next(batches)))
            total += loss
            runner.on_train_batch_end(step, {"loss": loss})
        runner.on_epoch_end(epoch, {"loss": total / steps_per_epoch})
        if bool(any_worker(tf.constant(float(model.stop_training)))):
            break
    model.optimizer.finalize_variable_values(model.trainable_weights)
    runner.on_train_end({})
    return epoch + 1

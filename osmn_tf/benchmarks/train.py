"""Throughput of a training configuration on this machine: the pipeline alone, the step alone, and both together."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from osmn_tf.benchmarks.flop import forward_flop
from osmn_tf.precision import computing_in
from osmn_tf.training import config as cfg
from osmn_tf.training import stages


@dataclasses.dataclass(frozen=True)
class Throughput:
    """Seconds per batch.

    Attributes:
        batch_size: samples per batch.
        pipeline: making a batch while nothing else runs.
        step: a training step on a batch that is there.
        together: training on the pipeline's batches.
        waiting: the part of `together` that is spent waiting for the next batch.
        forward_flop: floating-point operations of the network's forward pass on a batch; None where unknown.
    """

    batch_size: int
    pipeline: float
    step: float
    together: float
    waiting: float
    forward_flop: float | None

    @property
    def flop_per_second(self) -> float | None:
        """Of the step alone; a training step counts as three forward passes."""
        return None if self.forward_flop is None else 3 * self.forward_flop / self.step


def measure(config: cfg.Config, steps: int = 20, warm_up: int = 3) -> Throughput:
    """Measures a configuration on one device; its weights are thrown away.

    Args:
        config: see `osmn_tf.training.config`; `train.devices` is not used.
        steps: batches to time in each of the three measurements.
        warm_up: batches before, which compile the step and fill the queues.

    Raises:
        InputError: the data are missing or do not fit.
    """
    task = config.task
    samples = stages.open_samples(config.data, config.train.seed, task.target(config))
    with computing_in(config.train.precision):
        model = task.build(config)
        network = stages.compile_network(config, model)
    batches = iter(stages.open_batches(config, samples, task.batches(config, model)))

    def repeat(action: Callable[[], Any]) -> float:
        for _ in range(warm_up):
            action()
        began = time.perf_counter()
        for _ in range(steps):
            action()
        return (time.perf_counter() - began) / steps

    pipeline = repeat(lambda: next(batches))
    inputs, labels = next(batches)
    step = repeat(lambda: network.train_on_batch(inputs, labels))
    waits: list[float] = []

    def train_on_next() -> None:
        began = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - began)
        network.train_on_batch(*batch)

    together = repeat(train_on_next)
    waiting = sum(waits[warm_up:]) / steps
    flop = forward_flop(network, inputs)
    return Throughput(config.train.batch_size, pipeline, step, together, waiting, flop)

"""Times the pipeline alone, the training step alone, and both together, on one device."""

from __future__ import annotations

import argparse

from osmn_tf.cli.quiet import start_backend
from osmn_tf.errors import InputError

SUMMARY = "samples per second of a training configuration, and how long a step waits for its data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="name of a configuration, or a YAML file")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="batches per measurement (default 20)")
    parser.add_argument("--peak", type=float, metavar="TFLOPS", help="the device's peak: say how much of it is used")


def run(arguments: argparse.Namespace) -> int:
    if arguments.steps < 1:
        raise InputError(f"--steps: expected at least 1, received {arguments.steps}")

    start_backend()
    from osmn_tf.benchmarks import train as benchmark
    from osmn_tf.training.config import load

    result = benchmark.measure(load(arguments.config, arguments.settings), arguments.steps)
    rows = (("pipeline alone", result.pipeline), ("step alone", result.step), ("together", result.together))
    for name, seconds in rows:
        print(f"{name:<16}{1e3 * seconds:10.1f} ms per batch{result.batch_size / seconds:10.2f} samples per second")
    print(f"waiting for data: {result.waiting / result.together:.1%} of a step")
    if result.flop_per_second is not None:
        share = f", {result.flop_per_second / arguments.peak / 1e12:.1%} of the peak" if arguments.peak else ""
        print(f"step alone: {result.flop_per_second / 1e12:.3f} TFLOP/s (three forward passes){share}")
    return 0

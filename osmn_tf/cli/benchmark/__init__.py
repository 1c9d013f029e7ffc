"""Measures the speed of a part on this machine, beside a straightforward implementation in the same run.

examples:
  osmn benchmark evaluate DAVIS --split train
  osmn benchmark evaluate DAVIS --sequences bear bus
  osmn benchmark train reconvnet_lite_clips --set data.root=/data
  osmn benchmark recurrence --set task.slots=3 --set data.root=/data --run-dir runs/ablation
  osmn benchmark finetune DAVIS --preset reconvnet_lite --split val --rates 1e-4 1e-5
  osmn benchmark prompts DAVIS --split dev --every 20
  osmn benchmark litert DAVIS --split dev --network-size 256x448
  osmn benchmark serving clip.mp4 --mask first.png --server localhost:8500 --folder models/reconvnet_lite/1
  osmn benchmark segment dog.mp4 --mask dog.png --presets reconvnet_lite exported/ --precisions float32 mixed_bfloat16
  osmn benchmark many --davis DAVIS --engine keras
  osmn benchmark infer --networks osmn_vgg16 --network-size 480x854 --precisions float32 mixed_bfloat16
"""

from __future__ import annotations

import abc
import argparse
import os
from typing import ClassVar

from osmn_tf.registry import Registry


class Benchmark(abc.ABC):
    """A part whose speed is measured. Its docstring is its description, and its modules import no backend.

    Attributes:
        summary: one line for the list of all.
    """

    summary: ClassVar[str]

    @staticmethod
    @abc.abstractmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Declares its arguments."""

    @staticmethod
    @abc.abstractmethod
    def run(arguments: argparse.Namespace) -> int:
        """Measures, prints, and returns the exit code."""


benchmarks: Registry[type[Benchmark]] = Registry("benchmark", "osmn_tf.cli.benchmark")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `osmn benchmark`."""
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    for name in benchmarks.names():
        benchmark = benchmarks.get(name)
        part = parts.add_parser(name, help=benchmark.summary, description=benchmark.__doc__)
        benchmark.add_arguments(part)


def run(arguments: argparse.Namespace) -> int:
    """Runs `osmn benchmark` and returns the exit code."""
    return benchmarks.get(arguments.part).run(arguments)


def add_data_set(parser: argparse.ArgumentParser) -> None:
    """The arguments that choose sequences of DAVIS."""
    parser.add_argument("root", metavar="DAVIS_ROOT")
    parser.add_argument("--year", type=int, choices=(2016, 2017), default=2016, help="DAVIS edition (default 2016)")
    parser.add_argument("--split", default="val", help="list in ImageSets/YEAR (default val)")
    parser.add_argument("--sequences", nargs="+", metavar="NAME", help="use these sequences only")


def load_average() -> str:
    """The machine's load over one, five and fifteen minutes: what else it had to do."""
    return ", ".join(f"{value:.1f}" for value in os.getloadavg())

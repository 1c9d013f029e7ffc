"""Measures the speed of a part on this machine, beside a straightforward implementation in the same run.

examples:
  osmn benchmark evaluate DAVIS --split train
  osmn benchmark evaluate DAVIS --sequences bear bus
  osmn benchmark train osmn_match_clips --set data.root=/data
  osmn benchmark recurrence --set task.slots=3 --set data.root=/data --run-dir runs/ablation
  osmn benchmark finetune DAVIS --split val --rates 1e-4 1e-5
  osmn benchmark prompts DAVIS --split dev --every 20
  osmn benchmark litert DAVIS --split dev --network-size 256x448
  osmn benchmark serving clip.mp4 --mask first.png --server localhost:8500 --folder models/osmn_match_lite/1
  osmn benchmark segment dog.mp4 --mask dog.png --presets osmn_match_lite exported/ --precisions float32 mixed_bfloat16
  osmn benchmark many --davis DAVIS --engine keras
  osmn benchmark infer --networks osmn_vgg16 --network-size 480x854 --precisions float32 mixed_bfloat16
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `osmn benchmark`.

    A part is a module of this package, which imports no backend: its docstring is its description, `SUMMARY` a line for
    the list of all, and it has `add_arguments(parser)` and `run(arguments)`, which returns the exit code.
    """
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    for found in sorted(pkgutil.iter_modules(__path__)):
        module = importlib.import_module(f"{__name__}.{found.name}")
        part = parts.add_parser(found.name, help=module.SUMMARY, description=module.__doc__)
        module.add_arguments(part)
        part.set_defaults(run_part=module.run)


def run(arguments: argparse.Namespace) -> int:
    """Runs `osmn benchmark` and returns the exit code."""
    return arguments.run_part(arguments)


def add_data_set(parser: argparse.ArgumentParser) -> None:
    """The arguments that choose sequences of DAVIS."""
    parser.add_argument("root", metavar="DAVIS_ROOT")
    parser.add_argument("--year", type=int, choices=(2016, 2017), default=2016, help="DAVIS edition (default 2016)")
    parser.add_argument("--split", default="val", help="list in ImageSets/YEAR (default val)")
    parser.add_argument("--sequences", nargs="+", metavar="NAME", help="use these sequences only")


def data_set(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was given for `add_data_set`, as benchmarks take it."""
    return {name: getattr(arguments, name) for name in ("root", "year", "split", "sequences")}


def load_average() -> str:
    """The machine's load over one, five and fifteen minutes: what else it had to do."""
    return ", ".join(f"{value:.1f}" for value in os.getloadavg())

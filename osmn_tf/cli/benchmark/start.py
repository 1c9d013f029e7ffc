"""Runs 'osmn segment' on the shipped example (60 frames, three objects) in processes of their own, and waits for
the first mask and for the end."""

from __future__ import annotations

import argparse
import os

from osmn_tf.cli.benchmark import load_average

SUMMARY = "seconds from the start of 'osmn segment' to the first mask, and to the end"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engines", nargs="+", choices=("litert", "keras"), default=["litert", "keras"], metavar="ENGINE"
    )
    parser.add_argument("--frames", type=int, default=60, metavar="N", help="of the example (%(default)s)")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="turns, whose median counts (%(default)s)")


def run(arguments: argparse.Namespace) -> int:
    from osmn_tf.benchmarks.start import measure

    columns = ("first mask, s", "done, s", "CPU s", "MiB")
    print(f"{'':<14}" + "".join(f"{column:>15}" for column in columns))
    for row in measure(arguments.engines, arguments.repeat, ["--end", str(arguments.frames)]):
        first = "" if row.first is None else f"{row.first:.2f}"
        print(f"{row.name:<14}{first:>15}{row.done:15.2f}{row.cpu_seconds:15.2f}{row.mebibytes:15.0f}", flush=True)
    print(f"{os.cpu_count()} cores, load average {load_average()}")
    return 0

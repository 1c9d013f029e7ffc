"""Reads every annotation of a DAVIS folder and compares it with that of the frame before, as 'osmn evaluate'
compares results with annotations, and says how much processor time each part takes."""

from __future__ import annotations

import argparse

from osmn_tf.cli.benchmark import add_data_set, data_set

SUMMARY = "what reading masks, J and F, and T take"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_set(parser)
    parser.add_argument(
        "--repeat", type=int, default=3, metavar="N", help="runs, of which the least counts (default 3)"
    )


def run(arguments: argparse.Namespace) -> int:
    from osmn_tf.benchmarks import evaluate as speed

    rows = speed.measure(
        **data_set(arguments),
        repeat=arguments.repeat,
    )
    width = max(len("sequence"), *(len(row.sequence) for row in rows))
    print(f"{'sequence':<{width}}  frames  reading  J and F       T")
    for row in rows:
        parts = (1e3 * seconds / row.frames for seconds in (row.reading, row.j_and_f, row.stability))
        print(f"{row.sequence:<{width}}  {row.frames:6d}" + "".join(f"{part:9.3f}" for part in parts))
    print(f"ms of processor time per frame, least of {arguments.repeat} runs")
    return 0

"""Exports a preset to LiteRT in several forms, segments a DAVIS split with each and with Keras, and times them in
turns: one object, frames of the data set's size, from the frame to its mask."""

from __future__ import annotations

import argparse
import os
import sys

from osmn_tf.cli.benchmark import add_data_set, data_set, load_average
from osmn_tf.cli.quiet import start_backend
from osmn_tf.export import QUANTIZATIONS
from osmn_tf.inference.predictor import parse_size
from osmn_tf.models.presets import DEFAULT_PRESET

SUMMARY = "J, agreement with Keras, size and time of a preset's LiteRT files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_set(parser)
    parser.add_argument("--preset", default=DEFAULT_PRESET, help="name, folder or .keras file (%(default)s)")
    parser.add_argument("--network-size", metavar="HxW", help="inside the network (default: the preset's)")
    parser.add_argument(
        "--quantize",
        nargs="+",
        choices=QUANTIZATIONS,
        default=list(QUANTIZATIONS),
        metavar="FORM",
        help="(%(default)s)",
    )
    parser.add_argument("--calibration-split", default="train", metavar="NAME", help="clips for int8 (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of LiteRT (default 2)")
    parser.add_argument("--repeat", type=int, default=10, metavar="N", help="turns of ten frames (default 10)")
    parser.add_argument("--out", metavar="DIR", help="keep the exports here, a folder each")


def run(arguments: argparse.Namespace) -> int:
    size = parse_size(arguments.network_size) if arguments.network_size else None
    start_backend()
    from osmn_tf.benchmarks.litert import format_table, measure
    from osmn_tf.models.presets import load

    names, forms = measure(
        load(arguments.preset),
        **data_set(arguments),
        calibration_split=arguments.calibration_split,
        size=size,
        forms=arguments.quantize,
        threads=arguments.threads,
        repeat=arguments.repeat,
        out=arguments.out,
        progress=lambda text: print(text, file=sys.stderr),
    )
    print(format_table(names, forms))
    print(f"{os.cpu_count()} cores, load average {load_average()}; LiteRT with {arguments.threads} threads")
    return 0

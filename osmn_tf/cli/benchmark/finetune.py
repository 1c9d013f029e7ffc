"""Fine-tunes a preset on the first frame of every sequence and segments the sequence after each of the given
numbers of steps: mean J in percent, and the seconds that the steps take."""

from __future__ import annotations

import argparse
import sys

from osmn_tf.cli.benchmark import add_data_set, data_set
from osmn_tf.cli.quiet import start_backend
from osmn_tf.inference.adaptation.quality import LEARNING_RATE, STEPS, check_rate
from osmn_tf.inference.predictor import parse_size
from osmn_tf.models.presets import DEFAULT_PRESET

SUMMARY = "J after different numbers of steps of online fine-tuning, and their time"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_set(parser)
    parser.add_argument("--preset", default=DEFAULT_PRESET, help="name, folder or .keras file (%(default)s)")
    parser.add_argument("--network-size", metavar="HxW", help="frame size inside it (default: the preset's)")
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        metavar="X",
        help="of the network's own size instead (of --quality best: 1.5)",
    )
    parser.add_argument("--steps", type=int, nargs="+", default=[0, STEPS, 2 * STEPS], metavar="N")
    parser.add_argument("--rates", type=float, nargs="+", default=[LEARNING_RATE], metavar="RATE")


def run(arguments: argparse.Namespace) -> int:
    for rate in arguments.rates:
        check_rate(rate)
    size = parse_size(arguments.network_size) if arguments.network_size else None

    start_backend()
    from osmn_tf.benchmarks.finetune import format_table, measure_curves
    from osmn_tf.inference.segmenter import VideoSegmenter
    from osmn_tf.models.presets import load

    points = []
    for point in measure_curves(
        VideoSegmenter(load(arguments.preset), network_size=size, scale=arguments.scale),
        **data_set(arguments),
        steps=arguments.steps,
        learning_rates=arguments.rates,
    ):
        points.append(point)
        print(
            f"{point.sequence}: rate {point.learning_rate:g}, {point.steps} steps in {point.seconds:.1f} s,"
            f" J {100 * point.j:.1f}, tracked in {point.tracking_seconds:.1f} s",
            file=sys.stderr,
        )
    print(format_table(points))
    return 0

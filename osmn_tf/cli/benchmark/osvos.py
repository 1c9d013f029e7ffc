"""What each part of OSVOS is worth: ImageNet's weights, trained on the given frame, from a parent, with a
detector's instances (the annotations, 30% of them dropped, shifted by 10%, with decoys), and how J&F grows with the
steps; with --snap, what snapping makes of the masks too. J, F, T, the gain of every part with the lower end of its
bootstrap interval over the sequences, and seconds a frame, beside the paper's."""

from __future__ import annotations

import argparse
import sys

from osmn_tf.cli.benchmark import add_data_set, data_set, load_average
from osmn_tf.cli.quiet import start_backend
from osmn_tf.errors import InputError, first_line

SUMMARY = "what the parts of OSVOS are worth, and its dial: quality against time"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_set(parser)
    parser.add_argument("--preset", default="osvos_lite", help="an OSVOS parent (%(default)s)")
    parser.add_argument(
        "--backbone-weights",
        metavar="FILE",
        help='of keras.applications, or "imagenet": for the rows without a parent (default: they are left out)',
    )
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="of learning an object (%(default)s)")
    parser.add_argument("--dial", type=int, nargs="+", default=[], metavar="N", help="other numbers of steps")
    parser.add_argument(
        "--snap", action="store_true", help="measure masks that follow contours too, as in 'osmn segment'"
    )
    parser.add_argument("--contours", metavar="PRESET", help="with it: network that finds them (default: gradients)")
    parser.add_argument("--plot", metavar="PNG", help="draw J&F against time (extra 'report')")
    parser.add_argument("--out", metavar="DIR", help="keep what is measured; the same command goes on from there")


def run(arguments: argparse.Namespace) -> int:
    if arguments.contours is not None and not arguments.snap:
        raise InputError("--contours: expected --snap with it")
    start_backend()
    from osmn_tf.benchmarks.osvos import Plan, draw_dial, format_table, measure
    from osmn_tf.inference.contours import open_contours
    from osmn_tf.inference.predictor import open_predictor
    from osmn_tf.models.presets import load

    contours = open_contours(arguments.contours) if arguments.snap else None
    parent = load(arguments.preset)
    if not open_predictor(parent).adapts_itself:
        raise InputError(f"--preset: expected an OSVOS, received a {type(parent).__name__}")
    untrained = None
    if arguments.backbone_weights is not None:
        untrained = type(parent)(**{**parent.get_config(), "name": "untrained"})
        try:
            untrained.load_backbone_weights(arguments.backbone_weights)
        except (OSError, ValueError) as error:
            raise InputError(f"--backbone-weights: {first_line(error)}") from error
    plan = Plan(parent, untrained, arguments.steps, tuple(arguments.dial), contours=contours)
    measurements = []
    for one in measure(
        plan,
        **data_set(arguments),
        kept=arguments.out,
    ):
        measurements.append(one)
        print(f"{one.sequence}: {one.row}: J {100 * one.j:.1f}, F {100 * one.f:.1f}", file=sys.stderr)
    print(format_table(measurements))
    print(f"load of the machine: {load_average()}")
    if arguments.plot is not None:
        draw_dial(measurements, arguments.plot)
    return 0

"""Trains an RVOS with each recurrence alone, with both, and with both on annotated masks only, and scores all on
synthetic clips that none was trained on: J in percent, and how often another label is on an object than its own."""

from __future__ import annotations

import argparse
import sys

from osmn_tf.cli.quiet import start_backend

SUMMARY = "what RVOS's recurrences are worth, and training with own masks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", default="rvos_lite_masks", help="a stage of RVOS (%(default)s)")
    parser.add_argument("--run-dir", required=True, metavar="DIR", help="folder of the trainings, which go on there")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="some of spatial, temporal, both, annotated")
    parser.add_argument("--clips", type=int, default=40, metavar="N", help="clips that are scored (%(default)s)")
    parser.add_argument("--frames", type=int, default=12, metavar="N", help="of each clip (%(default)s)")
    parser.add_argument("--stills", metavar="FOLDER", help="photographs below data.root to cut objects from")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(arguments: argparse.Namespace) -> int:
    start_backend(initialise=False)
    import numpy as np

    from osmn_tf.benchmarks.recurrence import VARIANTS, format_table, measure
    from osmn_tf.training import config as cfg

    rows = []
    for row in measure(
        cfg.load(arguments.config, arguments.settings),
        arguments.run_dir,
        variants=arguments.variants or tuple(VARIANTS),
        clips=arguments.clips,
        frames=arguments.frames,
        stills=arguments.stills,
        progress=not arguments.quiet,
    ):
        rows.append(row)
        j, switches = (100 * np.mean(values) for values in (row.j, row.switches))
        print(f"{row.variant}: J {j:.1f}, switches {switches:.1f}%", file=sys.stderr)
    print(format_table(rows))
    return 0

"""Measures the speed of a part on this machine, beside a straightforward implementation in the same run.

examples:
  osmn benchmark evaluate DAVIS --split train
  osmn benchmark evaluate DAVIS --sequences bear bus --workers 2
"""

from __future__ import annotations

import argparse

from osmn_tf.evaluation import speed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `osmn benchmark`."""
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    evaluate = parts.add_parser(
        "evaluate",
        help="J and F of masks in memory, against one OpenCV dilation of the whole frame per mask",
        description="J and F of every annotation of a DAVIS folder against the annotation of the frame before, in"
        " memory: once as 'osmn evaluate' computes them, once with OpenCV word for word. The numbers must be equal.",
    )
    evaluate.add_argument("root", metavar="DAVIS_ROOT")
    evaluate.add_argument("--year", type=int, choices=(2016, 2017), default=2016, help="DAVIS edition (default 2016)")
    evaluate.add_argument("--split", default="val", help="list in ImageSets/YEAR (default val)")
    evaluate.add_argument("--sequences", nargs="+", metavar="NAME", help="use these sequences only")
    evaluate.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core)")
    evaluate.add_argument(
        "--repeat", type=int, default=3, metavar="N", help="runs, of which the fastest counts (default 3)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs `osmn benchmark` and returns the exit code: 1 if the two implementations do not agree."""
    rows = speed.compare(
        arguments.root,
        year=arguments.year,
        split=arguments.split,
        sequences=arguments.sequences,
        workers=arguments.workers,
        repeat=arguments.repeat,
    )
    width = max(len("all"), *(len(row.sequence) for row in rows))
    print(f"{'sequence':<{width}}  frames  literal ms  here ms  times faster  identical")
    for row in [*rows, speed.total(rows)]:
        print(
            f"{row.sequence:<{width}}  {row.frames:6d}  {1e3 * row.literal_seconds / row.frames:10.3f}"
            f"  {1e3 * row.seconds / row.frames:7.3f}  {row.literal_seconds / row.seconds:12.1f}"
            f"  {'yes' if row.identical else 'NO':>9}"
        )
    print(
        f"ms per frame of J and F, fastest of {arguments.repeat} runs; literal: OpenCV with its own threads, on the"
        f" whole frame; here: {rows[0].workers} processes"
    )
    return 0 if all(row.identical for row in rows) else 1

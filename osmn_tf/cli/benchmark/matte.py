"""Compares the edges of cut-outs (the hard mask, --feather, --matte) with the truth, on drawn scenes whose alpha is
known: objects with blur of lens and motion. The masks are the best that a network of 256x448 can give."""

from __future__ import annotations

import argparse

from osmn_tf.inference.predictor import parse_size

SUMMARY = "how close the edges of cut-outs are to the truth"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scenes", type=int, default=20, metavar="N", help="how many (default 20)")
    parser.add_argument("--size", default="720x1280", metavar="HxW", help="of the frames (default 720x1280)")
    parser.add_argument("--feathers", type=float, nargs="+", default=[2, 3, 5], metavar="R", help="radii in pixels")


def run(arguments: argparse.Namespace) -> int:
    from osmn_tf.benchmarks import matte

    rows = matte.measure(arguments.scenes, parse_size(arguments.size), tuple(arguments.feathers))
    width = max(len(row.way) for row in rows)
    print(f"{'':<{width}}  error %  square 1e-3  gradient %  colour  CPU ms")
    for row in rows:
        print(
            f"{row.way:<{width}}  {row.absolute:7.2f}  {row.squared:11.2f}  {row.gradient:10.3f}  {row.colour:6.2f}"
            f"  {row.milliseconds:6.1f}"
        )
    print(f"within {matte.BAND:.3f} of the height from the outline; {arguments.scenes} scenes of {arguments.size}")
    return 0

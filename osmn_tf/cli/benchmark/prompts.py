"""Makes masks of the objects in annotated pictures from a box and from one, two and three clicks: mean IoU with the
annotations in percent, beside GrabCut's from the same boxes. The data set is COCO, or videos in DAVIS's layout."""

from __future__ import annotations

import argparse

from osmn_tf.cli.options import Bars
from osmn_tf.errors import InputError

SUMMARY = "IoU of first masks from boxes and clicks, beside GrabCut"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", metavar="DATA")
    parser.add_argument("--split", help="of COCO (default val2017), or a list of DAVIS 2016 (default: all videos)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every Nth annotated frame, or image")
    parser.add_argument(
        "--min-area", type=float, default=0.005, metavar="SHARE", help="of the picture (default %(default)s)"
    )
    parser.add_argument("--preset", help="a network trained with prompts (default: the shipped one)")


def run(arguments: argparse.Namespace) -> int:
    from osmn_tf.benchmarks.prompts import format_table, list_pictures, measure_prompts

    if arguments.every < 1:
        raise InputError(f"--every: expected 1 or more, received {arguments.every}")
    objects = []
    pictures = list_pictures(arguments.root, arguments.split, arguments.every)
    with Bars(quiet=False) as bars:
        for scores in measure_prompts(pictures, arguments.preset, arguments.min_area):
            objects.append(scores)
            bars.show("objects", len(objects), None, scores.name)
    if not objects:
        raise InputError(f"--min-area: no object covers {arguments.min_area:g} of its picture")
    print(format_table(objects))
    return 0

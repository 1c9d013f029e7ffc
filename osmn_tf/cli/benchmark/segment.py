"""Runs presets and exported networks on one video, in turns on frames in memory and as the whole of 'osmn segment'
(decoding, mask files, overlay video, contact sheet). The last column compares the masks with those of the first
row."""

from __future__ import annotations

import argparse
import os

from osmn_tf.cli.segment import open_quietly
from osmn_tf.inference.predictor import parse_size
from osmn_tf.models.presets import DEFAULT_PRESET

SUMMARY = "milliseconds per frame of 'osmn segment', from the video to the files, beside the network alone"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("video", metavar="VIDEO_OR_FOLDER")
    parser.add_argument("--mask", required=True, metavar="PNG", help="of the first frame")
    parser.add_argument(
        "--presets",
        nargs="+",
        default=[DEFAULT_PRESET],
        metavar="NAME",
        help="presets, and folders of 'osmn export --format litert' (%(default)s)",
    )
    parser.add_argument(
        "--precisions",
        nargs="+",
        default=["float32"],
        metavar="POLICY",
        help="of presets (default float32)",
    )
    parser.add_argument("--network-size", metavar="HxW", help="frame size inside the network (default: its own)")
    parser.add_argument("--frames", type=int, default=60, metavar="N", help="of the video (default 60)")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="turns, whose median counts (default 5)")


def run(arguments: argparse.Namespace) -> int:
    size = parse_size(arguments.network_size) if arguments.network_size else None
    from osmn_tf.benchmarks.segment import measure

    columns = ("network ms", "whole ms", "ratio", "frames/s", "IoU")
    print(f"{'network':<22}{'precision':<16}" + "".join(f"{name:>12}" for name in columns))
    for times in measure(
        arguments.video,
        arguments.mask,
        presets=arguments.presets,
        precisions=arguments.precisions,
        network_size=size,
        frames=arguments.frames,
        repeat=arguments.repeat,
        open_segmenter=open_quietly,
    ):
        print(
            f"{os.path.basename(times.network):<22}{times.precision or 'as exported':<16}"
            f"{1e3 * times.network_alone:12.1f}{1e3 * times.whole:12.1f}{times.whole / times.network_alone:12.2f}"
            f"{1 / times.whole:12.1f}{times.iou:12.4f}",
            flush=True,
        )
    return 0

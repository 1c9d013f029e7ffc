"""Cuts short clips out of the shipped example and of DAVIS, breaks some of them, and segments all with
'osmn segment --list', beside a command of its own for each of a few. Each is timed from outside, start-up
included."""

from __future__ import annotations

import argparse
import os
import tempfile

from osmn_tf.cli.benchmark import load_average
from osmn_tf.cli.options import RUNNERS
from osmn_tf.inference.predictor import ENGINES

SUMMARY = "videos per second of a table of clips, beside single commands, and what a row of the table costs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--davis", metavar="DAVIS_ROOT", help="clips of DAVIS 2016 too, not of the example only")
    parser.add_argument("--split", default="train", help="list in ImageSets/2016 (%(default)s)")
    parser.add_argument("--clips", type=int, default=200, metavar="N", help="how many (%(default)s)")
    parser.add_argument("--frames", type=int, default=8, metavar="N", help="of each (%(default)s)")
    parser.add_argument("--broken", type=int, default=10, metavar="N", help="of the clips (%(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], metavar="N", help="to try (1 2)")
    parser.add_argument(
        "--runners",
        choices=RUNNERS,
        nargs="+",
        default=["local"],
        help="where they are, to try: on this machine, or with Ray on it (local)",
    )
    parser.add_argument(
        "--singles", type=int, default=10, metavar="N", help="clips with a command of their own (%(default)s)"
    )
    parser.add_argument("--engine", choices=ENGINES, default="auto", help="what runs the network (%(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="of every process (default: its share of the cores)")
    parser.add_argument("--rows", type=int, metavar="N", help="time a table of so many rows alone, without videos")


def run(arguments: argparse.Namespace) -> int:
    from osmn_tf.benchmarks.many import make_clips, measure, measure_manifest

    if arguments.rows is not None:
        times = measure_manifest(arguments.rows)
        print(f"{times.rows} rows, milliseconds a row")
        for what in ("read", "plan", "record", "resume"):
            print(f"{what:10}{1e3 * getattr(times, what) / times.rows:8.3f}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        table = make_clips(
            folder,
            davis=arguments.davis,
            split=arguments.split,
            count=arguments.clips,
            frames=arguments.frames,
            broken=arguments.broken,
        )
        columns = ("videos", "seconds", "videos/s", "times", "CPU s", "times", "MiB")
        print(f"{'':<16}" + "".join(f"{column:>9}" for column in columns) + "  masks")
        first = None
        words = ["--engine", arguments.engine]
        words += ["--threads", str(arguments.threads)] if arguments.threads is not None else []
        for row in measure(
            table,
            workers=arguments.workers,
            runners=arguments.runners,
            singles=arguments.singles,
            frames=arguments.frames,
            words=words,
        ):
            wall, cpu = row.seconds / row.videos, row.cpu_seconds / row.videos
            first = first or (wall, cpu)
            line = f"{row.name:<16}{row.videos:9d}{row.seconds:9.1f}{1 / wall:9.3f}{first[0] / wall:9.1f}"
            line += f"{row.cpu_seconds:9.1f}{first[1] / cpu:9.1f}{row.mebibytes:9.0f}  {row.right} right"
            if row.recorded is not None:
                line += f", {row.recorded} recorded as failed; {row.equal} equal to single commands'"
            if row.same is not None:
                line += f", {row.same} to the first table's"
            print(line, flush=True)
    print(f"{os.cpu_count()} cores, load average {load_average()}; clips of {arguments.frames} frames")
    return 0

"""`osmn benchmark evaluate`."""

from __future__ import annotations

import argparse

from osmn_tf.cli.benchmark import Benchmark, add_data_set, benchmarks


@benchmarks.register("evaluate")
class Evaluate(Benchmark):
    """J and F of every annotation of a DAVIS folder against the annotation of the frame before, in memory: once as
    'osmn evaluate' computes them, once with OpenCV word for word. The numbers must be equal."""

    summary = "J and F of masks in memory, against one OpenCV dilation of the whole frame per mask"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        add_data_set(parser)
        parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core)")
        parser.add_argument(
            "--repeat", type=int, default=3, metavar="N", help="runs, of which the fastest counts (default 3)"
        )

    @staticmethod
    def run(arguments: argparse.Namespace) -> int:
        from osmn_tf.benchmarks import evaluate as speed

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

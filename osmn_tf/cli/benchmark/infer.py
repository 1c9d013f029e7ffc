"""Times one step of the segmenter (resize, guides, network, merge) for different numbers of objects, in turns with
the same step's bare convolutions, the machine's limit, and with the whole network run for every object by itself:
compiled, and by Model.predict."""

from __future__ import annotations

import argparse
import os

from osmn_tf.cli.quiet import start_backend
from osmn_tf.inference.predictor import parse_size
from osmn_tf.models.presets import DEFAULT_PRESET

SUMMARY = "milliseconds per frame, beside the bare convolutions and beside simpler programs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--networks",
        nargs="+",
        default=[DEFAULT_PRESET, "osmn_vgg16", "reconvnet_vgg16"],
        metavar="NAME",
        help="presets; osmn_vgg16, reconvnet_vgg16 and rvos_resnet101 are the papers' networks with random weights"
        " (%(default)s)",
    )
    parser.add_argument("--network-size", metavar="HxW", help="of frames and network (default: each network's own)")
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 3, 5], metavar="N")
    parser.add_argument(
        "--precisions",
        nargs="+",
        default=["float32"],
        metavar="POLICY",
        help="Keras's policies (float32)",
    )
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="turns, whose median counts (default 5)")
    parser.add_argument("--no-peers", action="store_true", help="leave the simpler programs out")
    parser.add_argument("--peak", type=float, metavar="TFLOPS", help="the device's peak: say how much of it is used")


def run(arguments: argparse.Namespace) -> int:
    size = parse_size(arguments.network_size) if arguments.network_size else None
    start_backend()
    from osmn_tf.benchmarks.infer import measure

    columns = ("ms", "convolutions", "ratio", "GFLOP", "unshared", "predict", "frames/s")
    print(f"{'network':<18}{'precision':<16}{'objects':>7}" + "".join(f"{name:>13}" for name in columns))
    for name in arguments.networks:
        for precision in arguments.precisions:
            for times in measure(
                name,
                precision=precision,
                size=size,
                objects=arguments.objects,
                repeat=arguments.repeat,
                peers=not arguments.no_peers,
            ):
                ratio = None if times.convolutions is None else times.step / times.convolutions
                cells = [
                    *(None if x is None else f"{1e3 * x:.1f}" for x in (times.step, times.convolutions)),
                    None if ratio is None else f"{ratio:.2f}",
                    None if times.operations is None else f"{times.operations / 1e9:.2f}",
                    *(None if x is None else f"{1e3 * x:.1f}" for x in (times.unshared, times.predict)),
                    f"{1 / times.step:.1f}",
                ]
                line = f"{os.path.basename(name):<18}{precision:<16}{times.objects:7d}"
                line += "".join(f"{cell or '-':>13}" for cell in cells)
                if arguments.peak and times.operations:
                    line += f"  {times.operations / times.step / 1e12 / arguments.peak:.1%} of the peak"
                print(line, flush=True)
    return 0

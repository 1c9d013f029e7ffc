"""Measures the speed of a part on this machine, beside a straightforward implementation in the same run.

examples:
  osmn benchmark evaluate DAVIS --split train
  osmn benchmark evaluate DAVIS --sequences bear bus --workers 2
  osmn benchmark train reconvnet_lite_clips --set data.root=/data
  osmn benchmark finetune DAVIS --preset reconvnet_lite --split val --rates 1e-4 1e-5
  osmn benchmark litert DAVIS --split dev --network-size 256x448
  osmn benchmark serving clip.mp4 --mask first.png --server localhost:8500 --folder models/reconvnet_lite/1
  osmn benchmark segment dog.mp4 --mask dog.png --presets reconvnet_lite exported/ --precisions float32 mixed_bfloat16
  osmn benchmark infer --networks osmn_vgg16 --network-size 480x854 --precisions float32 mixed_bfloat16
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from osmn_tf.benchmarks import evaluate as speed
from osmn_tf.errors import InputError
from osmn_tf.export import QUANTIZATIONS
from osmn_tf.inference.adaptation.quality import LEARNING_RATE, check_rate

if TYPE_CHECKING:
    from osmn_tf.benchmarks.finetune import CurvePoint
    from osmn_tf.benchmarks.litert import Form


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `osmn benchmark`."""
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    evaluate = parts.add_parser(
        "evaluate",
        help="J and F of masks in memory, against one OpenCV dilation of the whole frame per mask",
        description="J and F of every annotation of a DAVIS folder against the annotation of the frame before, in"
        " memory: once as 'osmn evaluate' computes them, once with OpenCV word for word. The numbers must be equal.",
    )
    _add_data_set(evaluate)
    evaluate.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core)")
    evaluate.add_argument(
        "--repeat", type=int, default=3, metavar="N", help="runs, of which the fastest counts (default 3)"
    )
    evaluate.set_defaults(run_part=_run_evaluate)
    finetune = parts.add_parser(
        "finetune",
        help="J after different numbers of steps of online fine-tuning, and their time",
        description="Fine-tunes a preset on the first frame of every sequence and segments the sequence after each of"
        " the given numbers of steps: mean J in percent, and the seconds that the steps take.",
    )
    _add_data_set(finetune)
    finetune.add_argument("--preset", default="reconvnet_lite", help="name, folder or .keras file (%(default)s)")
    finetune.add_argument("--steps", type=int, nargs="+", default=[0, 25, 50, 100, 200, 300], metavar="N")
    finetune.add_argument("--rates", type=float, nargs="+", default=[LEARNING_RATE], metavar="RATE")
    finetune.set_defaults(run_part=_run_finetune)
    infer = parts.add_parser(
        "infer",
        help="milliseconds per frame, beside the bare convolutions and beside simpler programs",
        description="Times one step of the segmenter (resize, guides, network, merge) for different numbers of"
        " objects, in turns with the same step's bare convolutions, the machine's limit, and with the whole network run"
        " for every object by itself: compiled, and by Model.predict.",
    )
    infer.add_argument(
        "--networks",
        nargs="+",
        default=["reconvnet_lite", "osmn_vgg16", "reconvnet_vgg16"],
        metavar="NAME",
        help="presets; osmn_vgg16 and reconvnet_vgg16 are the papers' networks with random weights (%(default)s)",
    )
    infer.add_argument("--network-size", metavar="HxW", help="size of frames and network (default: each network's own)")
    infer.add_argument("--objects", type=int, nargs="+", default=[1, 3, 5], metavar="N")
    infer.add_argument(
        "--precisions", nargs="+", default=["float32"], metavar="POLICY", help="float32, mixed_bfloat16, mixed_float16"
    )
    infer.add_argument("--repeat", type=int, default=5, metavar="N", help="turns, whose median counts (default 5)")
    infer.add_argument("--no-peers", action="store_true", help="leave the simpler programs out")
    infer.add_argument("--peak", type=float, metavar="TFLOPS", help="the device's peak, to say how much of it is used")
    infer.set_defaults(run_part=_run_infer)
    segment = parts.add_parser(
        "segment",
        help="milliseconds per frame of 'osmn segment', from the video to the files, beside the network alone",
        description="Runs presets and exported networks on one video, in turns on frames in memory and as the whole of"
        " 'osmn segment' (decoding, mask files, overlay video, contact sheet). The last column compares the masks with"
        " those of the first row.",
    )
    segment.add_argument("video", metavar="VIDEO_OR_FOLDER")
    segment.add_argument("--mask", required=True, metavar="PNG", help="of the first frame")
    segment.add_argument(
        "--presets",
        nargs="+",
        default=["reconvnet_lite"],
        metavar="NAME",
        help="presets, and folders of 'osmn export --format litert' (%(default)s)",
    )
    segment.add_argument(
        "--precisions",
        nargs="+",
        default=["float32"],
        metavar="POLICY",
        help="of presets (default float32)",
    )
    segment.add_argument("--network-size", metavar="HxW", help="frame size inside the network (default: its own)")
    segment.add_argument("--frames", type=int, default=60, metavar="N", help="of the video (default 60)")
    segment.add_argument("--repeat", type=int, default=5, metavar="N", help="turns, whose median counts (default 5)")
    segment.set_defaults(run_part=_run_segment)
    litert = parts.add_parser(
        "litert",
        help="J, agreement with Keras, size and time of a preset's LiteRT files",
        description="Exports a preset to LiteRT in several forms, segments a DAVIS split with each and with Keras, and"
        " times them in turns: one object, frames of the data set's size, from the frame to its mask.",
    )
    _add_data_set(litert)
    litert.add_argument("--preset", default="reconvnet_lite", help="name, folder or .keras file (%(default)s)")
    litert.add_argument("--network-size", metavar="HxW", help="frame size inside the network (default: the preset's)")
    litert.add_argument(
        "--quantize",
        nargs="+",
        choices=QUANTIZATIONS,
        default=list(QUANTIZATIONS),
        metavar="FORM",
        help="(%(default)s)",
    )
    litert.add_argument("--calibration-split", default="train", metavar="NAME", help="clips for int8 (%(default)s)")
    litert.add_argument("--threads", type=int, default=2, metavar="N", help="of LiteRT (default 2)")
    litert.add_argument("--repeat", type=int, default=10, metavar="N", help="turns of ten frames (default 10)")
    litert.add_argument("--out", metavar="DIR", help="keep the exports here, a folder each")
    litert.set_defaults(run_part=_run_litert)
    serving = parts.add_parser(
        "serving",
        help="masks per second, latencies and bytes a frame of a server, over gRPC and REST",
        description="Times the steps of a video on a server with a model of 'osmn export', one after the other, from"
        " the frame to its mask, in every form in which frames are sent; with --folder also without a server.",
    )
    serving.add_argument("video", metavar="VIDEO_OR_FOLDER", help="its first 30 frames are used")
    serving.add_argument("--mask", required=True, metavar="PNG", help="of the first frame")
    serving.add_argument("--server", default="localhost:8500", metavar="HOST:PORT", help="gRPC (default: %(default)s)")
    serving.add_argument("--rest", metavar="http://HOST:PORT", help="measure REST too")
    serving.add_argument("--model", default="reconvnet_lite", help="name on the server (default: %(default)s)")
    serving.add_argument("--folder", metavar="NAME/1", help="measure this exported folder in this process too")
    serving.add_argument("--steps", type=int, default=50, metavar="N", help="of each measurement (default: 50)")
    serving.set_defaults(run_part=_run_serving)
    train = parts.add_parser(
        "train",
        help="samples per second of a training configuration, and how long a step waits for its data",
        description="Times the pipeline alone, the training step alone, and both together, on one device.",
    )
    train.add_argument("config", metavar="CONFIG", help="name of a configuration, or a YAML file")
    train.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    train.add_argument("--steps", type=int, default=20, metavar="N", help="batches per measurement (default 20)")
    train.add_argument("--peak", type=float, metavar="TFLOPS", help="the device's peak, to say how much of it is used")
    train.set_defaults(run_part=_run_train)


def _add_data_set(parser: argparse.ArgumentParser) -> None:
    """The arguments that choose sequences of DAVIS."""
    parser.add_argument("root", metavar="DAVIS_ROOT")
    parser.add_argument("--year", type=int, choices=(2016, 2017), default=2016, help="DAVIS edition (default 2016)")
    parser.add_argument("--split", default="val", help="list in ImageSets/YEAR (default val)")
    parser.add_argument("--sequences", nargs="+", metavar="NAME", help="use these sequences only")


def run(arguments: argparse.Namespace) -> int:
    """Runs `osmn benchmark` and returns the exit code."""
    code: int = arguments.run_part(arguments)
    return code


def _run_infer(arguments: argparse.Namespace) -> int:
    from osmn_tf.cli.options import parse_size
    from osmn_tf.cli.quiet import start_backend

    size = parse_size(arguments.network_size) if arguments.network_size else None
    start_backend()
    from osmn_tf.benchmarks.infer import measure

    columns = ("ms", "convolutions", "ratio", "unshared", "predict", "frames/s")
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
                    *(None if x is None else f"{1e3 * x:.1f}" for x in (times.unshared, times.predict)),
                    f"{1 / times.step:.1f}",
                ]
                line = f"{os.path.basename(name):<18}{precision:<16}{times.objects:7d}"
                line += "".join(f"{cell or '-':>13}" for cell in cells)
                if arguments.peak and times.operations:
                    line += f"  {times.operations / times.step / 1e12 / arguments.peak:.1%} of the peak"
                print(line, flush=True)
    return 0


def _run_segment(arguments: argparse.Namespace) -> int:
    from osmn_tf.cli.options import parse_size
    from osmn_tf.cli.quiet import start_backend

    size = parse_size(arguments.network_size) if arguments.network_size else None
    start_backend()
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
    ):
        print(
            f"{os.path.basename(times.network):<22}{times.precision or 'as exported':<16}"
            f"{1e3 * times.network_alone:12.1f}{1e3 * times.whole:12.1f}{times.whole / times.network_alone:12.2f}"
            f"{1 / times.whole:12.1f}{times.iou:12.4f}",
            flush=True,
        )
    return 0


def _run_litert(arguments: argparse.Namespace) -> int:
    from osmn_tf.cli.options import parse_size
    from osmn_tf.cli.quiet import start_backend

    size = parse_size(arguments.network_size) if arguments.network_size else None
    start_backend()
    from osmn_tf.benchmarks.litert import measure
    from osmn_tf.models.presets import load

    names, forms = measure(
        load(arguments.preset),
        arguments.root,
        year=arguments.year,
        split=arguments.split,
        sequences=arguments.sequences,
        calibration_split=arguments.calibration_split,
        size=size,
        forms=arguments.quantize,
        threads=arguments.threads,
        repeat=arguments.repeat,
        out=arguments.out,
        progress=lambda text: print(text, file=sys.stderr),
    )
    print(format_forms(names, forms))
    load_average = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{os.cpu_count()} cores, load average {load_average}; LiteRT with {arguments.threads} threads")
    return 0


def format_forms(names: Sequence[str], forms: Sequence[Form]) -> str:
    """A table with a row for every form of a network; J and IoU in percent, the mean and every sequence."""
    keras_j = sum(forms[0].j) / len(names)
    lines = [
        f"{'form':<9}{'J':>7}{'lost':>7}{'IoU':>7}{'MB':>7}{'ms, min':>9}{'median':>8}{'CPU ms':>8}"
        + "".join(f"  {name:>4}" for name in names)
    ]
    for form in forms:
        j, iou = sum(form.j) / len(names), sum(form.iou) / len(names)
        megabytes = "-" if form.bytes is None else f"{form.bytes / 1e6:.1f}"
        shortest, median = form.seconds
        lines.append(
            f"{form.name:<9}{100 * j:7.2f}{100 * (keras_j - j):7.2f}{100 * iou:7.2f}{megabytes:>7}"
            f"{1e3 * shortest:9.1f}{1e3 * median:8.1f}{1e3 * form.cpu_seconds:8.1f}"
            + "".join(f"  {100 * value:>{max(4, len(name))}.1f}" for name, value in zip(names, form.j))
        )
    return "\n".join(lines)


def _run_serving(arguments: argparse.Namespace) -> int:
    from osmn_tf.benchmarks.client import format_table, measure
    from osmn_tf.client import GrpcPredictor, RemotePredictor, RestPredictor, SavedModelPredictor
    from osmn_tf.masks.files import read_mask
    from osmn_tf.video.source import open_source

    source = open_source(arguments.video, end=30)
    mask = read_mask(arguments.mask, size=(source.info.height, source.info.width))
    frames = list(source)
    address, model = arguments.server, arguments.model
    clients: dict[str, RemotePredictor] = {}
    if arguments.folder:
        clients["no server"] = SavedModelPredictor(arguments.folder)
    for encoding in ("raw", "png", "jpeg"):
        clients[f"gRPC, {encoding}"] = GrpcPredictor(address, model, encoding=encoding)
    if arguments.rest:
        for encoding in ("png", "jpeg"):
            clients[f"REST, {encoding}"] = RestPredictor(arguments.rest, model, encoding=encoding)
    speeds = []
    for name, client in clients.items():
        with contextlib.closing(client):
            speeds.append(measure(name, client, frames, mask, arguments.steps))
    print(format_table(speeds))
    load_average = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    objects = len(set(mask[mask > 0].tolist()))
    print(f"{source.info.width} x {source.info.height} pixels, {objects} objects; load average {load_average}")
    return 0


def _run_train(arguments: argparse.Namespace) -> int:
    if arguments.steps < 1:
        raise InputError(f"--steps: expected at least 1, received {arguments.steps}")
    from osmn_tf.cli.quiet import start_backend

    start_backend()
    from osmn_tf.benchmarks import train as benchmark
    from osmn_tf.training.config import load

    result = benchmark.measure(load(arguments.config, arguments.settings), arguments.steps)
    rows = (("pipeline alone", result.pipeline), ("step alone", result.step), ("together", result.together))
    for name, seconds in rows:
        print(f"{name:<16}{1e3 * seconds:10.1f} ms per batch{result.batch_size / seconds:10.2f} samples per second")
    print(f"waiting for data: {result.waiting / result.together:.1%} of a step")
    if result.flop_per_second is not None:
        share = f", {result.flop_per_second / arguments.peak / 1e12:.1%} of the peak" if arguments.peak else ""
        print(f"step alone: {result.flop_per_second / 1e12:.3f} TFLOP/s (three forward passes){share}")
    return 0


def _run_finetune(arguments: argparse.Namespace) -> int:
    for rate in arguments.rates:
        check_rate(rate)
    from osmn_tf.cli.quiet import start_backend

    start_backend()
    from osmn_tf.benchmarks.finetune import measure_curves
    from osmn_tf.inference.segmenter import VideoSegmenter
    from osmn_tf.models.presets import load

    points = []
    for point in measure_curves(
        VideoSegmenter(load(arguments.preset)),
        arguments.root,
        year=arguments.year,
        split=arguments.split,
        sequences=arguments.sequences,
        steps=arguments.steps,
        learning_rates=arguments.rates,
    ):
        points.append(point)
        print(
            f"{point.sequence}: rate {point.learning_rate:g}, {point.steps} steps in {point.seconds:.1f} s,"
            f" J {100 * point.j:.1f}, tracked in {point.tracking_seconds:.1f} s",
            file=sys.stderr,
        )
    print(format_curves(points))
    return 0


def format_curves(points: Sequence[CurvePoint]) -> str:
    """A table of J in percent, a row per learning rate and sequence and a column per number of steps."""
    names = list(dict.fromkeys(point.sequence for point in points))
    steps = sorted({point.steps for point in points})
    width = max(len("seconds, mean"), *map(len, names))
    lines = []
    for rate in dict.fromkeys(point.learning_rate for point in points):
        by_key = {(point.sequence, point.steps): point for point in points if point.learning_rate == rate}
        lines.append(f"learning rate {rate:g}")
        lines.append(f"{'steps':<{width}}" + "".join(f"{count:8d}" for count in steps))
        for name in names:
            lines.append(f"{name:<{width}}" + "".join(f"{100 * by_key[name, count].j:8.1f}" for count in steps))
        for title, factor, value in (("mean", 100, "j"), ("seconds, mean", 1, "seconds")):
            means = [sum(getattr(by_key[name, count], value) for name in names) / len(names) for count in steps]
            lines.append(f"{title:<{width}}" + "".join(f"{factor * mean:8.1f}" for mean in means))
    return "\n".join(lines)


def _run_evaluate(arguments: argparse.Namespace) -> int:
    """Returns 1 if the two implementations do not agree."""
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

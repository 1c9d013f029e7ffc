"""Times the steps of a video on a server with a model of 'osmn export', one after the other, from the frame to its
mask, in every form in which frames are sent; with --folder also without a server."""

from __future__ import annotations

import argparse
import contextlib

from osmn_tf.cli.benchmark import load_average
from osmn_tf.models.presets import DEFAULT_PRESET

SUMMARY = "masks per second, latencies and bytes a frame of a server, over gRPC and REST"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("video", metavar="VIDEO_OR_FOLDER", help="its first 30 frames are used")
    parser.add_argument("--mask", required=True, metavar="PNG", help="of the first frame")
    parser.add_argument("--server", default="localhost:8500", metavar="HOST:PORT", help="gRPC (default: %(default)s)")
    parser.add_argument("--rest", metavar="http://HOST:PORT", help="measure REST too")
    parser.add_argument("--model", default=DEFAULT_PRESET, help="name on the server (default: %(default)s)")
    parser.add_argument("--folder", metavar="NAME/1", help="measure this exported folder in this process too")
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="of each measurement (default: 50)")


def run(arguments: argparse.Namespace) -> int:
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
    objects = len(set(mask[mask > 0].tolist()))
    print(f"{source.info.width} x {source.info.height} pixels, {objects} objects; load average {load_average()}")
    return 0

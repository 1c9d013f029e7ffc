"""Follows one or more objects through a video, from a mask of them in one frame.

The video is a file (mp4, mov, avi, mkv, webm, gif) or a folder of images. The mask is a PNG of the video's size: a
palette or grey image in which 0 is background and the value k is object k, or a black and white image (one object).
Without a mask, draw one or more boxes with --box; the masks inside them are made by GrabCut.

Written below --out, for a video called NAME:
    NAME/00000.png, ...     a palette PNG for every frame (the format of DAVIS)
    NAME_overlay.mp4        the video with the objects coloured in
    NAME_sheet.png          a contact sheet
An interrupted run keeps what is done; the same command continues it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from osmn_tf.cli.options import parse_size
from osmn_tf.errors import InputError
from osmn_tf.inference.adaptation.quality import LEARNING_RATE, QUALITIES, SCORES, check_rate, finetune_steps
from osmn_tf.precision import PRECISIONS

if TYPE_CHECKING:
    from osmn_tf.inference.predictor import NetworkSource
    from osmn_tf.inference.segmenter import VideoSegmenter
    from osmn_tf.video.source import FrameSource

EXAMPLES = """examples:
  osmn segment dog.mp4 --mask dog.png --out results
  osmn segment dog.mp4 --box 120,80,300,240 --out results          no mask at hand
  osmn segment frames/ --mask 40:frame40.png --both-ways           the mask is of frame 40
  osmn segment dog.mp4 --mask 0:dog.png --mask 90:cat.png          a second object comes later
  osmn segment dog.mp4 --mask dog.png --cutouts --coco dog.json    cut-outs and COCO run-length masks too
  osmn segment dog.mp4 --mask dog.png --quality good               slower and better: fine-tuned on the given masks
  osmn segment dog.mp4 --mask dog.png --preset exported/           a network of 'osmn export'
  osmn segment dog.mp4 --mask dog.png --preset grpc://localhost:8500/reconvnet_lite
"""

QUALITY_HELP = "\n".join(
    [
        "Online fine-tuning trains the network on the given masks before it segments the video.",
        "Mean J on six held-out videos, and the time on two CPU cores:",
        *(
            f"  {name:5} {steps:4} steps: J {SCORES[name][0]}, {SCORES[name][1]:3} s"
            for name, steps in QUALITIES.items()
        ),
    ]
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `osmn segment`."""
    parser.epilog = EXAMPLES
    parser.add_argument("video", metavar="VIDEO_OR_FOLDER", help="video file or folder of images")
    what = parser.add_argument_group("the objects")
    what.add_argument(
        "--mask",
        action="append",
        metavar="[N:]PNG",
        help="mask of the first frame, or of frame N of the video (from 0); repeatable",
    )
    what.add_argument("--box", action="append", metavar="X,Y,W,H", help="box around an object, pixels; repeatable")
    what.add_argument("--resize-mask", action="store_true", help="accept masks of another size than the video's")
    what.add_argument("--both-ways", action="store_true", help="also go backward, to the frames before the mask")
    frames = parser.add_argument_group("the frames")
    frames.add_argument("--start", type=int, default=0, metavar="N", help="first frame (default: 0)")
    frames.add_argument("--end", type=int, metavar="N", help="frame to stop before (default: all)")
    frames.add_argument("--every", type=int, default=1, metavar="N", help="take every N-th frame")
    network = parser.add_argument_group("the network")
    network.add_argument(
        "--preset",
        default="reconvnet_lite",
        help="name, folder, .keras, .tflite file, or grpc://HOST:PORT/NAME (%(default)s)",
    )
    network.add_argument("--network-size", metavar="HxW", help="frame size inside the network (default: the preset's)")
    network.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="what it computes in: mixed_bfloat16 is faster where the processor has it (%(default)s)",
    )
    network.add_argument("--merge", choices=("argmax", "soft"), default="argmax", help="how overlaps are decided")
    network.add_argument("--own-guides", action="store_true", help="as released: guides from pixels lost to others too")
    network.add_argument("--no-recover", action="store_true", help="do not look for a lost object where it was last")
    quality = parser.add_argument_group("quality", QUALITY_HELP)
    quality.add_argument("--quality", choices=tuple(QUALITIES), help="how much of it (default: fast)")
    quality.add_argument("--finetune", type=int, metavar="N", help="this number of steps instead")
    quality.add_argument(
        "--finetune-rate",
        type=float,
        default=LEARNING_RATE,
        metavar="RATE",
        help="learning rate of the steps (default: %(default)s; OSMN: 1e-5, ReConvNet: 1e-6)",
    )
    output = parser.add_argument_group("the results")
    output.add_argument("--out", default="osmn_output", metavar="DIR", help="folder (default: %(default)s)")
    output.add_argument("--overlay", metavar="FILE", help="overlay video, .mp4 or .webm (default: NAME_overlay.mp4)")
    output.add_argument("--no-overlay", action="store_true", help="write no overlay video")
    output.add_argument("--no-sheet", action="store_true", help="write no contact sheet")
    output.add_argument("--coco", metavar="FILE", help="write COCO run-length masks, a track an object (YouTube-VIS)")
    output.add_argument("--cutouts", action="store_true", help="write NAME_cutouts/LABEL/00000.png with alpha")
    output.add_argument("--force", action="store_true", help="overwrite existing results")
    output.add_argument("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> int:
    """Runs `osmn segment` and returns its exit code."""
    from osmn_tf.video.source import open_source

    network_size = parse_size(arguments.network_size) if arguments.network_size else None
    arguments.finetune = finetune_steps(arguments.quality, arguments.finetune)
    check_rate(arguments.finetune_rate)
    source = open_source(arguments.video, start=arguments.start, end=arguments.end, every=arguments.every)
    boxes = _parse_boxes(arguments)
    given = {} if boxes else read_masks(arguments.mask, source, arguments.resize_mask)
    if boxes:
        from osmn_tf.masks.prompts import mask_from_boxes

        given = {0: mask_from_boxes(source[0], boxes)}
    from osmn_tf.inference.predictor import find_network
    from osmn_tf.jobs.segment import SegmentationJob

    network = find_network(arguments.preset)  # a wrong name is found before anything is written
    if network.can_adapt is False and arguments.finetune:
        raise InputError("--finetune: an exported network cannot be trained; take the preset that it was made of")
    if not network.needs_backend and arguments.precision != "float32":
        raise InputError("--precision: an exported network computes in what it was exported in")
    job = SegmentationJob(arguments, source, given)
    if job.is_complete():
        print(f"{job.name} is done already; --force does it again.")
        job.print_results()
        return 0

    segmenter = _make_segmenter(arguments, network, network_size)
    job.prepare(boxes_given=bool(boxes))
    return job.execute(segmenter)


def _make_segmenter(
    arguments: argparse.Namespace, network: NetworkSource, size: tuple[int, int] | None
) -> VideoSegmenter:
    """The network, ready to run. An exported one needs neither Keras nor its backend."""
    from osmn_tf.cli.quiet import captured_stderr, start_backend
    from osmn_tf.inference.segmenter import VideoSegmenter

    if network.needs_backend:
        start_backend()
    with captured_stderr():  # LiteRT reports that it has found its kernels
        return VideoSegmenter(
            arguments.preset,
            size,
            merge=arguments.merge,
            exclusive=not arguments.own_guides,
            recover=not arguments.no_recover,
            precision=arguments.precision if network.needs_backend else None,
        )


def _parse_boxes(arguments: argparse.Namespace) -> list[tuple[int, int, int, int]]:
    if bool(arguments.mask) == bool(arguments.box):
        raise InputError("give the objects either as --mask PNG or as --box X,Y,W,H")
    if not arguments.box:
        return []
    from osmn_tf.masks.prompts import parse_box

    return [parse_box(text) for text in arguments.box]


def read_masks(values: list[str], source: FrameSource, resize: bool) -> dict[int, np.ndarray]:
    """Reads the --mask arguments.

    Returns:
        {index among the selected frames: uint8 [H, W]}.

    Raises:
        InputError: a mask is unreadable, unusable or of a frame that is not selected.
    """
    from osmn_tf.masks.files import read_mask

    given: dict[int, np.ndarray] = {}
    for value in values:
        number, separator, path = value.partition(":")
        index = 0
        if separator and number.isdigit() and not Path(value).exists():
            index, remainder = divmod(int(number) - source.number(0), source.number(1) - source.number(0))
            if index < 0 or remainder:
                raise InputError(f"--mask {value}: frame {number} is not among those chosen by --start and --every")
            if source.info.frames is not None and index >= source.info.frames:
                raise InputError(f"--mask {value}: the selection has {source.info.frames} frames only")
        else:
            path = value
        if index in given:
            raise InputError(f"--mask {value}: frame {source.number(index)} has a mask already")
        given[index] = read_mask(path, size=(source.info.height, source.info.width), resize=resize)
    return given

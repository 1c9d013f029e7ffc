"""Writes a preset for production: a SavedModel for TensorFlow and TensorFlow Serving, or LiteRT files for devices.

What is written needs this package no more. Below --out:
    saved-model    NAME/1/: the signatures modulate, step and segment_clip, with warm-up requests
    litert         modulator and step as .tflite files, for one frame size and number of objects
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.export import QUANTIZATIONS
from osmn_tf.inference.adaptation.quality import LARGER, finetune_steps
from osmn_tf.inference.merging import MERGES
from osmn_tf.inference.predictor import parse_size
from osmn_tf.masks.labels import VOID, labels_of

if TYPE_CHECKING:
    from osmn_tf.video.source import FrameSource

EXAMPLES = """examples:
  osmn export --preset osmn_match_lite --format saved-model --out models
  osmn export --preset osmn_match_lite --format saved-model --out models --model-version 2 --state-dtype float16
  osmn export --preset osmn_match_lite --format litert --out device --quantize dynamic --network-size 256x448
  osmn export --preset osmn_match_lite --format litert --out device --quantize int8 --calibration clip.mp4:first.png
  osmn export --preset osvos_lite --format litert --out my_dog --object dog.mp4:dog.png --time 30
"""
# Options of one format, by their names in the parsed arguments.
FORMATS = {
    "saved-model": (
        "name",
        "model_version",
        "state_dtype",
        "no_warm_up",
        "merge",
        "own_guides",
        "no_recover",
        "search_everywhere",
    ),
    "litert": ("quantize", "objects", "calibration", "scales"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `osmn export`."""
    parser.epilog = EXAMPLES
    parser.add_argument("--preset", required=True, help="name, folder or .keras file")
    parser.add_argument("--format", required=True, choices=FORMATS)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder, created if needed")
    parser.add_argument(
        "--network-size",
        "--size",
        metavar="HxW",
        help="frame size inside the network (default: the preset's, and of one that matches a square too)",
    )
    parser.add_argument(
        "--object",
        metavar="VIDEO:PNG",
        help="of an OSVOS: the object that it is to know, in the first frame of a video or folder of images",
    )
    parser.add_argument("--finetune", type=int, metavar="N", help="with --object: steps of learning it")
    parser.add_argument("--time", type=float, metavar="S", help="with --object: seconds instead")
    parser.add_argument("--force", action="store_true", help="replace what is there")
    # None where an option is not given: an option of the other format is an error, not ignored.
    saved = parser.add_argument_group("saved-model")
    saved.add_argument("--name", metavar="NAME", help="of the served model (default: the model's)")
    saved.add_argument("--model-version", type=int, metavar="N", help="folder of the version (default: 1)")
    saved.add_argument(
        "--state-dtype",
        choices=("float32", "float16", "bfloat16"),
        help="of what is remembered of earlier frames, on its way to the client and back (default: the network's own)",
    )
    saved.add_argument("--no-warm-up", action="store_true", default=None, help="write no warm-up requests")
    saved.add_argument("--merge", choices=MERGES, help="how overlaps are decided (default: argmax)")
    saved.add_argument("--own-guides", action="store_true", default=None, help="as in 'osmn segment'")
    saved.add_argument("--no-recover", action="store_true", default=None, help="as in 'osmn segment'")
    saved.add_argument("--search-everywhere", action="store_true", default=None, help="as in 'osmn segment'")
    litert = parser.add_argument_group("litert")
    litert.add_argument("--quantize", choices=QUANTIZATIONS, help="default: none")
    litert.add_argument("--objects", type=int, metavar="N", help="number of objects of the files (default: 1)")
    litert.add_argument(
        "--scales",
        nargs="+",
        type=float,
        metavar="S",
        help=f"of a network that matches: further frame sizes, S times its own; --quality good has {LARGER:g}",
    )
    litert.add_argument(
        "--calibration",
        nargs="+",
        metavar="VIDEO:PNG",
        help="clips (files or folders of images), each with the mask of its first frame, for --quantize int8",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs `osmn export` and returns its exit code."""
    for name, options in FORMATS.items():
        given = [f"--{option.replace('_', '-')}" for option in options if getattr(arguments, option) is not None]
        if given and name != arguments.format:
            raise InputError(f"{given[0]}: is not an option of --format {arguments.format}")
    size = parse_size(arguments.network_size) if arguments.network_size else None
    calibration = [_read_clip("--calibration", text) for text in arguments.calibration or ()]
    learnt = None if arguments.object is None else _read_clip("--object", arguments.object)
    finetune_steps(None, arguments.finetune, arguments.time)
    if learnt is None and (arguments.finetune is not None or arguments.time is not None):
        raise InputError("--finetune and --time: expected --object VIDEO:PNG with them")
    from osmn_tf.inference.predictor import find_network
    from osmn_tf.models.presets import load, read_metadata

    source = find_network(arguments.preset)
    if not source.needs_backend and source.litert is None:
        raise InputError(f"--preset: expected the network that was exported, received {source.kind}")
    preset_metadata = read_metadata(arguments.preset)
    folder = _litert_folder(arguments) if arguments.format == "litert" else None  # before what takes long

    from osmn_tf.cli.quiet import start_backend

    start_backend()
    model = load(arguments.preset)
    if learnt is not None:
        model, facts = _learnt(arguments, model, size, *learnt)
        preset_metadata = {**preset_metadata, "learnt_object": facts}
        # The weights are not those of the preset any more.
        preset_metadata.pop("sha256", None)
    if folder is None:
        return _run_saved_model(arguments, model, size, preset_metadata)
    return _run_litert(arguments, folder, model, size, preset_metadata, calibration)


def _litert_folder(arguments: argparse.Namespace) -> Path:
    """--out, for the files of a LiteRT export."""
    from osmn_tf.files import ensure_directory

    folder = ensure_directory(arguments.out, "--out")
    if any(folder.iterdir()) and not arguments.force:
        raise InputError(f"--out: {folder} is not empty; give another folder, or --force to replace its files")
    return folder


def _learnt(
    arguments: argparse.Namespace, model: Any, size: tuple[int, int] | None, source: FrameSource, mask: np.ndarray
) -> tuple[Any, dict[str, Any]]:
    """An OSVOS that has learnt an object, and what should be known of that."""
    from osmn_tf.cli.options import Bars
    from osmn_tf.inference.predictor import AdaptOptions, PredictorOptions, open_predictor

    predictor = open_predictor(model, PredictorOptions(size))
    if not predictor.adapts_itself:
        raise InputError(f"--object: only an OSVOS learns one for an export, received a {type(model).__name__}")
    pixels = np.where(mask == VOID, 0, mask)
    if len(labels := labels_of(pixels)) != 1:
        raise InputError(f"--object: expected a mask with one object, received {len(labels)}")
    options = AdaptOptions(arguments.finetune, seconds=arguments.time)
    with Bars(False) as bars:
        predictor.adapt(
            [(source[0], pixels)], options, lambda done, total, loss: bars.show("learning", done, total, "")
        )
    facts = {"video": source.name, "steps": arguments.finetune, "seconds": arguments.time}
    if arguments.finetune is None and arguments.time is None:
        facts["steps"] = predictor.adaptation.steps
    return predictor.learnt_networks()[0], facts


def _run_saved_model(
    arguments: argparse.Namespace, model: Any, size: tuple[int, int] | None, preset_metadata: dict[str, Any]
) -> int:
    from osmn_tf.export.saved_model import export_saved_model
    from osmn_tf.runtime.saved_model import read_metadata

    folder = export_saved_model(
        model,
        arguments.out,
        name=arguments.name,
        version=1 if arguments.model_version is None else arguments.model_version,
        network_size=size,
        merge=arguments.merge or "argmax",
        exclusive=not arguments.own_guides,
        recover=not arguments.no_recover,
        search_window=False if arguments.search_everywhere else None,
        state_dtype=arguments.state_dtype,
        warm_up=not arguments.no_warm_up,
        metadata=preset_metadata,
        force=arguments.force,
    )
    document = read_metadata(folder, check_files=False)
    size_on_disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    session, state_dtype = document["session"], document["settings"]["state_dtype"]
    print(f"{folder}: {size_on_disk / 1e6:.1f} MB, signatures {', '.join(document['signatures'])}")
    print(
        f"a session has {session['bytes_per_object']:,} bytes per object,"
        f" {session['state_bytes_per_object']:,} of them the state of earlier frames ({state_dtype})"
    )
    return 0


def _run_litert(
    arguments: argparse.Namespace,
    folder: Path,
    model: Any,
    size: tuple[int, int] | None,
    preset_metadata: dict[str, Any],
    calibration: list[tuple[FrameSource, np.ndarray]],
) -> int:
    from osmn_tf.export.litert import export_litert

    export_litert(
        model,
        folder,
        size=size,
        objects=1 if arguments.objects is None else arguments.objects,
        quantize=arguments.quantize or "none",
        calibration=calibration or None,
        scales=arguments.scales or (),
        source={"preset": str(arguments.preset), **preset_metadata},
    )
    for path in sorted(folder.glob("*.tflite")):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _read_clip(option: str, text: str) -> tuple[FrameSource, np.ndarray]:
    """A value of --calibration or --object: frames, and the mask of the first one."""
    from osmn_tf.masks.files import read_mask
    from osmn_tf.video.source import open_source

    video, _, mask = text.rpartition(":")
    if not video:
        raise InputError(f"{option}: expected VIDEO:PNG, received {text!r}")
    source = open_source(video)
    return source, read_mask(mask, size=(source.info.height, source.info.width))

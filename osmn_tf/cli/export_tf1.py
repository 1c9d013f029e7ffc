"""Writes an OSMN or an OSVOS as a TensorFlow 1 checkpoint with the original release's names, for the original code.

The preset must be of one of the releases' forms (VGG-16, or an OSMN on MobileNet with the release's decoder).
"""

from __future__ import annotations

import argparse

from osmn_tf.errors import InputError

EXAMPLES = """example:
  osmn export-tf1 --preset presets/osmn --out exported/osmn.ckpt
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `osmn export-tf1`."""
    parser.epilog = EXAMPLES
    parser.add_argument("--preset", required=True, help="name, folder or .keras file")
    parser.add_argument("--out", required=True, metavar="CHECKPOINT", help="without the endings of the files")
    parser.add_argument("--step", type=int, metavar="N", help="stored as global_step (default: the preset's, or 0)")
    parser.add_argument("--force", action="store_true", help="replace an existing checkpoint")


def run(arguments: argparse.Namespace) -> int:
    """Runs `osmn export-tf1` and returns its exit code."""
    if arguments.step is not None and arguments.step < 0:
        raise InputError(f"--step: expected 0 or more, received {arguments.step}")
    from osmn_tf.models.presets import load, read_metadata

    step = arguments.step
    recorded = read_metadata(arguments.preset).get("step")
    if step is None and isinstance(recorded, int):
        step = recorded

    from osmn_tf.cli.quiet import start_backend

    start_backend()
    from osmn_tf.convert.tf1_checkpoint import export_checkpoint

    names = export_checkpoint(load(arguments.preset), arguments.out, step or 0, arguments.force)
    print(f"{len(names)} tensors written to {arguments.out}")
    return 0

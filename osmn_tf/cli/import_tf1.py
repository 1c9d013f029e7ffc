"""Turns a checkpoint of an original release into a preset that gives the original's outputs.

CHECKPOINT is the checkpoint as TensorFlow 1 names it (osmn.ckpt-300000, without the endings of its files). Known are:
    OSMN on VGG-16, with and without modulation of the early layers; OSMN lite (MobileNet)
    OSVOS parents, and networks that OSVOS has learnt an object with (VGG-16)
    vgg_16.ckpt of TF-Slim, keras.applications' VGG16 as .h5 or as the word "imagenet": these have no modulators and
    initialise an OSMN for training, as an OSVOS parent does with --network OSMN
Every tensor of the checkpoint is used, or skipped for a reason that is printed; anything missing, unexpected or of
another shape ends the import. The preset appears only after a step of it has run.
"""

from __future__ import annotations

import argparse

from osmn_tf.errors import InputError
from osmn_tf.models.presets import STORED_DTYPES

EXAMPLES = """examples:
  osmn import-tf1 osmn.ckpt-300000 --out presets/osmn
  osmn import-tf1 --check osmn.ckpt-300000                   what is it?
  osmn segment dog.mp4 --mask dog.png --preset presets/osmn  then use it
  osmn import-tf1 vgg_16.ckpt --out presets/vgg16            start of a training
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `osmn import-tf1`."""
    parser.epilog = EXAMPLES
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="checkpoint or weight file")
    parser.add_argument("--out", metavar="PRESET_DIR", help="folder of the new preset")
    parser.add_argument("--check", action="store_true", help="say what the checkpoint is, and convert nothing")
    parser.add_argument(
        "--network", choices=("OSMN", "OSVOS"), help="what an OSVOS parent becomes (default: the network that it is)"
    )
    parser.add_argument(
        "--modulator-weights",
        metavar="FILE",
        help="with --network OSMN: VGG-16 classifier with which its visual modulator begins (default: random)",
    )
    parser.add_argument(
        "--dtype", choices=STORED_DTYPES, default="float32", help="what the stored weights are rounded to (float32)"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing preset")
    parser.add_argument("--quiet", action="store_true", help="do not list the tensors")


def run(arguments: argparse.Namespace) -> int:
    """Runs `osmn import-tf1` and returns its exit code."""
    if arguments.check == bool(arguments.out):
        raise InputError("expected either --out PRESET_DIR or --check")
    from osmn_tf.cli.quiet import start_backend

    start_backend()
    from osmn_tf.convert.tf1_checkpoint import import_checkpoint, inspect

    if arguments.check:
        inspection = inspect(arguments.checkpoint, arguments.network)
    else:
        report = import_checkpoint(
            arguments.checkpoint,
            arguments.out,
            modulator_weights=arguments.modulator_weights,
            force=arguments.force,
            dtype=arguments.dtype,
            network=arguments.network,
        )
        inspection = report.inspection
    if not arguments.quiet:
        for name, targets in inspection.used.items():
            print(f"used     {name} -> {', '.join(targets)}")
        for name, reason in inspection.skipped.items():
            print(f"skipped  {name}: {reason}")
    step = "" if inspection.step is None else f", step {inspection.step}"
    print(f"{inspection.source}: {inspection.title}{step}, {inspection.parameters:,} parameters")
    print(f"    {len(inspection.used)} tensors used, {len(inspection.skipped)} skipped")
    if not inspection.complete:
        print("    it has no trained modulators: it initialises an OSMN for training")
    if not arguments.check:
        print(f"    verified: two frames segmented, the second in {report.verification_seconds:.1f} s")
        print(f"preset: {report.preset}")
    return 0

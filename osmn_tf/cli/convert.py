"""Masks of a video from one annotation format to another: what annotation tools export, and what they import.

examples:
  osmn convert results/dog dog.xml                      what 'osmn segment' has written, for CVAT ('CVAT for video 1.1')
  osmn convert results/dog dog.xml --format cvat-images ... as 'CVAT for images 1.1': CVAT keeps the objects, as groups
  osmn convert results/dog dog.json                     ... as COCO, an annotation an object and frame
  osmn convert results/dog dog.zip --name 1=dog --name 2=cat     ... as MOTS PNG
  osmn convert annotations.zip masks                    an export of CVAT, as palette PNGs

Formats are known by their names: .xml is CVAT 1.1 (masks and polygons), .json is COCO (YouTube-VIS is read
too), .zip is MOTS PNG (an export of CVAT is read whichever of these is in it), and everything else a folder of PNGs.
'osmn segment --mask' takes the files as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from osmn_tf.cli.options import EXIT_OK
from osmn_tf.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `osmn convert`."""
    from osmn_tf.datasets.annotations import FORMATS

    parser.add_argument("source", metavar="FROM", help="file or folder of annotations")
    parser.add_argument("target", metavar="TO", help="file or folder to be written")
    parser.add_argument("--format", choices=FORMATS, help="of TO (default: by its name)")
    parser.add_argument(
        "--name", action="append", default=[], metavar="LABEL=NAME", help="what an object is (object); repeatable"
    )
    parser.add_argument("--frames", type=int, metavar="N", help="of the video (default: to the last annotated one)")
    parser.add_argument("--force", action="store_true", help="replace the file TO")


def run(arguments: argparse.Namespace) -> int:
    """Runs `osmn convert` and returns its exit code."""
    import dataclasses

    from osmn_tf.datasets.annotations import read_annotations, write_annotations

    names = dict(parse_name(text) for text in arguments.name)
    if Path(arguments.target).is_file() and not arguments.force:
        raise InputError(f"{arguments.target} exists already; use --force to overwrite it")
    if not Path(arguments.target).resolve().parent.is_dir():
        raise InputError(f"{arguments.target}: there is no folder {Path(arguments.target).resolve().parent}")
    found = read_annotations(arguments.source)
    length = max(found.length, (arguments.frames or 0) - found.first)
    found = dataclasses.replace(found, names={**found.names, **names}, length=length)
    write_annotations(found, arguments.target, arguments.format)
    objects = ", ".join(f"{label} ({found.name(label)})" for label in found.labels)
    print(f"{arguments.target}: {len(found.masks)} of {found.length} frames, objects {objects or 'none'}")
    return EXIT_OK


def parse_name(text: str) -> tuple[int, str]:
    """'2=cat' -> (2, 'cat').

    Raises:
        InputError: it is something else.
    """
    label, separator, name = text.partition("=")
    if not separator or not label.isdecimal() or not name.strip():
        raise InputError(f"--name: expected LABEL=NAME such as 1=dog, received {text!r}")
    return int(label), name.strip()

"""Segments a video on a TensorFlow Serving server and writes a palette PNG for every frame.

python tools/serving/segment.py dog.mp4 --mask dog.png --out answer
python tools/serving/segment.py dog.mp4 --mask dog.png --out answer --server http://localhost:8501
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import osmn_tf as osmn
from osmn_tf.client import GrpcPredictor, RestPredictor
from osmn_tf.errors import InputError
from osmn_tf.files import ensure_directory
from osmn_tf.masks.files import read_mask, write_mask
from osmn_tf.video.source import open_source


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", metavar="VIDEO_OR_FOLDER")
    parser.add_argument("--mask", required=True, metavar="PNG", help="mask of the first frame")
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument(
        "--server",
        default="localhost:8500",
        metavar="ADDRESS",
        help="HOST:PORT for gRPC, http://HOST:PORT for REST (default: %(default)s)",
    )
    parser.add_argument("--model", default="osmn_match_lite", help="name on the server (default: %(default)s)")
    parser.add_argument("--encoding", default="png", choices=("png", "jpeg"), help="of frames (default: %(default)s)")
    arguments = parser.parse_args(argv)
    try:
        source = open_source(arguments.video)
        mask = read_mask(arguments.mask, size=(source.info.height, source.info.width))
        folder = ensure_directory(arguments.out, "--out")
        predictor = RestPredictor if "://" in arguments.server else GrpcPredictor
        count = 0
        network = predictor(arguments.server, arguments.model, encoding=arguments.encoding)
        with osmn.VideoSegmenter(network) as segmenter:
            for _, found in segmenter.track(source, mask):
                write_mask(folder / f"{count:05d}.png", found)
                count += 1
    except InputError as error:
        print(f"segment.py: error: {error}", file=sys.stderr)
        return 2
    print(f"{count} masks written to {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Turns a checkpoint of the original OSMN release into a preset: `osmn import-tf1` as a script.

python tools/convert_weights.py osmn.ckpt-300000 --out presets/osmn
"""

from __future__ import annotations

import sys

from osmn_tf.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["import-tf1", *sys.argv[1:]]))

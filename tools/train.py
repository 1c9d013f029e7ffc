"""Trains a network: `osmn train` as a script.

python tools/train.py --config reconvnet_davis --run-dir runs/reconvnet --set data.root=/data
"""

from __future__ import annotations

import sys

from osmn_tf.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))

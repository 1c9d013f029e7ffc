"""Writes a preset for production: `osmn export` as a script.

python tools/export.py --preset osmn_match_lite --format saved-model --out models
"""

from __future__ import annotations

import sys

from osmn_tf.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))

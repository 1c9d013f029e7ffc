"""Segmenters that processes of `osmn_tf.jobs.many` are made to open: they are found by their names there."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.jobs.options import SegmentOptions
from osmn_tf.jobs.segment import default_segmenter


def deadly(options: SegmentOptions) -> VideoSegmenter:
    """Kills its process for the video 'deadly', always, and for 'unlucky' the first time."""
    name = Path(options.video).stem
    mark = Path(options.video).with_suffix(".mark")
    if name == "deadly" or (name == "unlucky" and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return default_segmenter(options)


def waiting(options: SegmentOptions) -> VideoSegmenter:
    """Waits, with 'NAME.here' beside the video, until there is 'NAME.go'."""
    path = Path(options.video)
    path.with_suffix(".here").touch()
    while not path.with_suffix(".go").exists():
        time.sleep(0.01)
    return default_segmenter(options)

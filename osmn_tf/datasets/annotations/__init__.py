"""The masks of one video in the files of annotation tools, both ways: CVAT 1.1 for video and for images (XML), COCO,
MOTS PNG, and the palette PNGs of DAVIS.

Every format is read into `Annotations` and written from it. Archives (.zip, as CVAT exports them) are read without
being unpacked.
"""

from __future__ import annotations

from osmn_tf.datasets.annotations.content import Annotations
from osmn_tf.datasets.annotations.files import (
    FORMATS,
    SUFFIXES,
    is_annotation_file,
    read_annotations,
    write_annotations,
)

__all__ = ["FORMATS", "SUFFIXES", "Annotations", "is_annotation_file", "read_annotations", "write_annotations"]

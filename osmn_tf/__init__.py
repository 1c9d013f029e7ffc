"""One-shot video object segmentation by network modulation, in Keras 3.

    >>> import osmn_tf as osmn
    >>> from osmn_tf.datasets.examples import example_path
    >>> video = osmn.read_video(example_path() / "meadow.mp4")
    >>> first_mask = osmn.read_mask(example_path() / "first_mask.png")
    >>> for frame, mask in osmn.VideoSegmenter("osmn_match_lite").track(video, first_mask):
    ...     overlay = osmn.draw_overlay(frame, mask)
    ...     break

The names below are imported on first use: `import osmn_tf` stays fast and loads neither Keras nor its backend.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from osmn_tf.errors import InputError, check_backend
from osmn_tf.version import __version__

if TYPE_CHECKING:
    from osmn_tf.evaluation import metrics as metrics
    from osmn_tf.inference.finding import find_objects as find_objects
    from osmn_tf.inference.prompting import mask_from_box as mask_from_box
    from osmn_tf.inference.prompting import mask_from_click as mask_from_click
    from osmn_tf.inference.segmenter import VideoSegmenter as VideoSegmenter
    from osmn_tf.layers.conv_lstm import ModulatedConvLSTM2D as ModulatedConvLSTM2D
    from osmn_tf.masks.detections import from_detections as from_detections
    from osmn_tf.masks.detections import to_detections as to_detections
    from osmn_tf.masks.drawing import draw_overlay as draw_overlay
    from osmn_tf.masks.files import read_mask as read_mask
    from osmn_tf.masks.files import write_mask as write_mask
    from osmn_tf.models.hub import pack_preset as pack_preset
    from osmn_tf.models.hub import upload_preset as upload_preset
    from osmn_tf.models.osmn import OSMN as OSMN
    from osmn_tf.models.presets import list_presets as list_presets
    from osmn_tf.models.presets import load as load
    from osmn_tf.models.reconvnet import ReConvNet as ReConvNet
    from osmn_tf.video.source import open_source as open_source
    from osmn_tf.video.source import read_video as read_video
    from osmn_tf.video.writer import write_video as write_video

_LAZY = {
    "OSMN": "osmn_tf.models.osmn",
    "ReConvNet": "osmn_tf.models.reconvnet",
    "ModulatedConvLSTM2D": "osmn_tf.layers.conv_lstm",
    "VideoSegmenter": "osmn_tf.inference.segmenter",
    "draw_overlay": "osmn_tf.masks.drawing",
    "find_objects": "osmn_tf.inference.finding",
    "from_detections": "osmn_tf.masks.detections",
    "list_presets": "osmn_tf.models.presets",
    "load": "osmn_tf.models.presets",
    "mask_from_box": "osmn_tf.inference.prompting",
    "mask_from_click": "osmn_tf.inference.prompting",
    "metrics": "osmn_tf.evaluation.metrics",
    "open_source": "osmn_tf.video.source",
    "pack_preset": "osmn_tf.models.hub",
    "read_mask": "osmn_tf.masks.files",
    "read_video": "osmn_tf.video.source",
    "to_detections": "osmn_tf.masks.detections",
    "upload_preset": "osmn_tf.models.hub",
    "write_mask": "osmn_tf.masks.files",
    "write_video": "osmn_tf.video.writer",
}

__all__ = ["InputError", "__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'osmn_tf' has no attribute {name!r}")
    try:
        module = importlib.import_module(_LAZY[name])
    except ModuleNotFoundError:
        check_backend(f"osmn_tf.{name}")  # if that is what is missing, it says what to install
        raise
    return module if name == "metrics" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)

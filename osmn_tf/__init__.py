"""One-shot video object segmentation by network modulation, in Keras 3.

    import osmn_tf as osmn
    model = osmn.load("osmn_match_lite")
    frames = osmn.read_video("dog.mp4")
    first_mask = osmn.read_mask("dog.png")
    for frame, mask in osmn.VideoSegmenter(model).track(frames, first_mask):
        ...

The names below are imported on first use: `import osmn_tf` stays fast and loads neither Keras nor its backend.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from osmn_tf.errors import InputError
from osmn_tf.version import __version__

if TYPE_CHECKING:
    from osmn_tf.evaluation import metrics as metrics
    from osmn_tf.inference.segmenter import VideoSegmenter as VideoSegmenter
    from osmn_tf.layers.conv_lstm import ModulatedConvLSTM2D as ModulatedConvLSTM2D
    from osmn_tf.masks.files import read_mask as read_mask
    from osmn_tf.masks.files import write_mask as write_mask
    from osmn_tf.models.osmn import OSMN as OSMN
    from osmn_tf.models.presets import list_presets as list_presets
    from osmn_tf.models.presets import load as load
    from osmn_tf.models.reconvnet import ReConvNet as ReConvNet
    from osmn_tf.video.source import read_video as read_video

_LAZY = {
    "OSMN": "osmn_tf.models.osmn",
    "ReConvNet": "osmn_tf.models.reconvnet",
    "ModulatedConvLSTM2D": "osmn_tf.layers.conv_lstm",
    "VideoSegmenter": "osmn_tf.inference.segmenter",
    "list_presets": "osmn_tf.models.presets",
    "load": "osmn_tf.models.presets",
    "metrics": "osmn_tf.evaluation.metrics",
    "read_mask": "osmn_tf.masks.files",
    "read_video": "osmn_tf.video.source",
    "write_mask": "osmn_tf.masks.files",
}

__all__ = ["InputError", "__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'osmn_tf' has no attribute {name!r}")
    module = importlib.import_module(_LAZY[name])
    return module if name == "metrics" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)

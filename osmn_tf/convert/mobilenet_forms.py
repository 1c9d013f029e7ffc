"""Checkpoints of the original OSMN release on MobileNet-v1."""

from __future__ import annotations

from typing import Any

from osmn_tf.backbones.mobilenet import MobileNet
from osmn_tf.convert.forms import FORMS, Form, TensorSpec, convolution_tensors, normalised_tensors
from osmn_tf.convert.vgg16_forms import VGG16_CONFIG
from osmn_tf.models.mobilenet_network import MODULATED

_LITE_CONFIG: dict[str, Any] = {
    **VGG16_CONFIG,
    "backbone": "mobilenet",
    "visual_head": "pooled",
    "visual_hidden": 2048,
    "normalization": "caffe_scaled",
    "network_size": (480, 864),  # the release takes sides that are multiples of 32
}


@FORMS.register("osmn_lite")
def osmn_lite() -> Form:
    """OSMN's small form."""
    tensors: dict[str, TensorSpec] = {}
    for trunk in ("modulator", "seg"):
        tensors |= normalised_tensors(f"osmn/{trunk}/Conv2d_0", (3, 3, 3, 32), f"{trunk}_Conv2d_0")
        width = 32
        for index, channels in enumerate(MobileNet.published_channels, start=1):
            name, layer = f"osmn/{trunk}/Conv2d_{index}", f"{trunk}_Conv2d_{index}"
            depthwise, pointwise = (3, 3, width, 1), (1, 1, width, channels)
            tensors |= normalised_tensors(f"{name}_depthwise", depthwise, f"{layer}_depthwise", "depthwise_weights")
            tensors |= normalised_tensors(f"{name}_pointwise", pointwise, f"{layer}_pointwise")
            width = channels
    tensors |= convolution_tensors("osmn/modulator/Logits/Conv2d_1c_1x1", (1, 1, 1024, 2048), "modulator_Conv2d_1c_1x1")
    for head, index in enumerate(MODULATED, start=1):
        channels = MobileNet.published_channels[index - 1]
        tensors |= convolution_tensors(f"osmn/Conv2d_out_{head}", (1, 1, 2048, channels), f"Conv2d_out_{head}")
        tensors |= normalised_tensors(
            f"osmn/modulator_sp/conv{index}", (1, 1, 1, channels), f"modulator_sp_conv{index}"
        )
        tensors |= convolution_tensors(f"osmn/conv{index}_16", (3, 3, channels, 16), f"seg_conv{index}_16")
    tensors |= convolution_tensors("osmn/score", (1, 1, 64, 1), "seg_score")
    return Form(key="osmn_lite", title="OSMN lite (MobileNet-v1)", config=_LITE_CONFIG, tensors=tensors)

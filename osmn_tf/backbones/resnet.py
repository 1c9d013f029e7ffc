"""ResNet-50 and ResNet-101 (He et al., CVPR 2016), in the form of `keras.applications`."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from keras import layers

from osmn_tf.backbones.registry import BACKBONES, Backbone, find_layer, keras_classifier
from osmn_tf.backbones.vgg16 import CLASSIFIER_MEAN_BGR, shift_mean
from osmn_tf.layers.normalization import BatchNorm

Tensor = Any

EXPANSION = 4  # a stage's output has this many times the channels of its 3x3 convolutions


class ResNet(Backbone):
    """A 7x7 convolution, max pooling and four stages of bottleneck blocks; the stride is in a block's first 1x1.

    `channels` are those of the stages' 3x3 convolutions; the first convolution has as many as the first stage.

    Attributes:
        depths: blocks of each stage.
    """

    published_channels = (64, 128, 256, 512)
    imagenet_normalization = "caffe"
    depths: ClassVar[tuple[int, int, int, int]]
    application: ClassVar[str]

    def features(self, images: Tensor, prefix: str) -> dict[int, Tensor]:
        x = layers.ZeroPadding2D(3, name=f"{prefix}_conv1_pad")(images)
        x = layers.Conv2D(self.channels[0], 7, 2, name=f"{prefix}_conv1_conv")(x)
        x = layers.ReLU(name=f"{prefix}_conv1_relu")(self._normalised(x, f"{prefix}_conv1_bn"))
        maps = {2: x}
        x = layers.ZeroPadding2D(1, name=f"{prefix}_pool1_pad")(x)
        x = layers.MaxPooling2D(3, 2, name=f"{prefix}_pool1_pool")(x)
        for stage, (channels, depth) in enumerate(zip(self.channels, self.depths), start=2):
            for index in range(1, depth + 1):
                stride = 2 if stage > 2 and index == 1 else 1
                x = self._block(x, channels, stride, index == 1, f"{prefix}_conv{stage}_block{index}")
            maps[2**stage] = x
        return maps

    def _block(self, x: Tensor, channels: int, stride: int, projects: bool, name: str) -> Tensor:
        shortcut = x
        if projects:
            shortcut = layers.Conv2D(EXPANSION * channels, 1, stride, name=f"{name}_0_conv")(x)
            shortcut = self._normalised(shortcut, f"{name}_0_bn")
        x = layers.Conv2D(channels, 1, stride, name=f"{name}_1_conv")(x)
        x = layers.ReLU(name=f"{name}_1_relu")(self._normalised(x, f"{name}_1_bn"))
        x = layers.Conv2D(channels, 3, padding="same", name=f"{name}_2_conv")(x)
        x = layers.ReLU(name=f"{name}_2_relu")(self._normalised(x, f"{name}_2_bn"))
        x = layers.Conv2D(EXPANSION * channels, 1, name=f"{name}_3_conv")(x)
        x = layers.Add(name=f"{name}_add")([shortcut, self._normalised(x, f"{name}_3_bn")])
        return layers.ReLU(name=f"{name}_out")(x)

    def _normalised(self, x: Tensor, name: str) -> Tensor:
        return BatchNorm(self.batch_statistics, epsilon=1.001e-5, name=name)(x)

    def load_imagenet_weights(self, model: keras.Model, prefix: str, weights: str = "imagenet") -> None:
        """See `Backbone`; `keras.applications.ResNet50` or `ResNet101`, a file without the classifier's top."""
        source = keras_classifier(getattr(keras.applications, self.application), weights, include_top=False)
        for layer in source.layers:
            if not layer.weights:
                continue
            values = layer.get_weights()
            if layer.name == "conv1_conv":
                values[1] = shift_mean(values[0], values[1], CLASSIFIER_MEAN_BGR)
            find_layer(model, f"{prefix}_{layer.name}").set_weights(values)


@BACKBONES.register("resnet50")
class ResNet50(ResNet):
    """ResNet with 3, 4, 6 and 3 blocks."""

    depths = (3, 4, 6, 3)
    application = "ResNet50"


@BACKBONES.register("resnet101")
class ResNet101(ResNet):
    """ResNet with 3, 4, 23 and 3 blocks."""

    depths = (3, 4, 23, 3)
    application = "ResNet101"

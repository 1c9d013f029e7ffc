"""Backbones by name, and what all of them can do."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import keras

from osmn_tf.errors import first_line
from osmn_tf.registry import Registry

Tensor = Any

BACKBONES: Registry[type[Backbone]] = Registry("backbone", "osmn_tf.backbones")


class Backbone(abc.ABC):
    """The trunk of an image classifier: it makes layers, and loads a classifier's weights into them.

    One file a backbone, with `@BACKBONES.register("NAME")`. What it makes has names that begin with a prefix, so that a
    network may have several trunks.

    Attributes:
        published_channels: of each block.
        imagenet_normalization: which of `osmn_tf.layers.preprocessing.NORMALIZATIONS` its ImageNet weights expect.

    Args:
        channels: of each block; None: as published. Others are for small networks and for tests.
        batch_statistics: see `osmn_tf.layers.normalization.BatchNorm`; of no effect where there is none.

    Raises:
        ValueError: `channels` has another length, or numbers below 1.
    """

    published_channels: ClassVar[tuple[int, ...]]
    imagenet_normalization: ClassVar[str]

    def __init__(self, channels: Sequence[int] | None = None, batch_statistics: bool = True) -> None:
        self.channels = tuple(self.published_channels if channels is None else channels)
        if len(self.channels) != len(self.published_channels) or min(self.channels) < 1:
            raise ValueError(
                f"block_channels: expected {len(self.published_channels)} positive numbers, received {channels}"
            )
        self.batch_statistics = batch_statistics

    @abc.abstractmethod
    def features(self, images: Tensor, prefix: str) -> dict[int, Tensor]:
        """The whole trunk: normalised [B, H, W, 3] -> the last feature map at each stride, [B, H/s, W/s, C] by s."""

    @abc.abstractmethod
    def load_imagenet_weights(self, model: keras.Model, prefix: str, weights: str = "imagenet") -> None:
        """Copies a classifier's trunk into the layers of `model` whose names begin with `prefix`.

        Args:
            weights: "imagenet" (downloaded by Keras, where it has them) or the path of a weight file; each backbone
                says of which kind.

        Raises:
            ValueError: `model` lacks a layer, or the weights are of another shape.
            OSError: the file cannot be read or downloaded.
        """


def keras_classifier(build: Callable[..., keras.Model], weights: str, **arguments: Any) -> keras.Model:
    """A classifier of `keras.applications`, with "imagenet" or a file as its weights.

    Raises:
        OSError: the download fails.
    """
    try:
        return build(weights=weights, **arguments)
    except Exception as error:  # Keras raises this very class where a download fails
        if not str(error).startswith("URL fetch failure"):
            raise
        raise OSError(
            f"{first_line(error)}; fetch this file elsewhere and give its path, or give a preset with this trunk "
            f"(of MobileNet: osmn_match_lite)"
        ) from error


def all_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a functional model, and those of the models in it."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from all_layers(layer)


def find_layer(model: keras.Model, name: str) -> keras.layers.Layer:
    """The layer called `name` anywhere inside nested functional models.

    Raises:
        ValueError: there is none.
    """
    for layer in all_layers(model):
        if layer.name == name:
            return layer
    raise ValueError(f"{model.name} has no layer named {name!r}")

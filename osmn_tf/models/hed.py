"""HED: contours of a frame (Holistically-Nested Edge Detection; Xie and Tu, ICCV 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from osmn_tf.backbones.registry import BACKBONES
from osmn_tf.layers.preprocessing import FrameNormalization
from osmn_tf.layers.upsampling import ResizeLike
from osmn_tf.models.network import Network
from osmn_tf.models.registry import register_network

LEVELS = (1, 2, 3, 4, 5)  # of the side outputs: strides 1 to 16


@register_network("HED")
class HED(Network):
    """The contours of a frame: VGG-16 with a score at the end of each block, enlarged by fixed bilinear interpolation
    and fused.

    OSVOS's contour network has this form. The trunk's layers have the names that OSVOS's have, so that weights fit.

    Input: "frame" (a dict), uint8 [B, H, W, 3], raw RGB; any H and W.

    Outputs (a dict): "contours", float32 [B, H, W, 1] in 0..1.

    Args:
        block_channels: channels of the trunk's blocks; None: as published (14,716,171 parameters).
        network_size: (H, W) at which frames are looked at unless told otherwise; the network itself takes any size.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> import numpy as np
        >>> network = HED(block_channels=(2, 2, 2, 2, 2))
        >>> frame = np.zeros((1, 33, 47, 3), np.uint8)
        >>> tuple(network({"frame": frame})["contours"].shape)
        (1, 33, 47, 1)
    """

    def __init__(
        self, block_channels: Sequence[int] | None = None, network_size: tuple[int, int] = (480, 854), **kwargs: Any
    ) -> None:
        if len(network_size) != 2 or min(network_size) < 1:
            raise ValueError(f"network_size: expected a positive height and width, received {network_size}")
        frame = keras.Input((None, None, 3), dtype="uint8", name="frame")
        # The mean that HED's release subtracts is OSVOS's.
        x = FrameNormalization.of_kind("osvos", "seg_normalization")(frame)
        maps = BACKBONES.get("vgg16")(block_channels).features(x, "seg")
        scores = []
        for level in LEVELS:
            score = layers.Conv2D(1, 1, dtype="float32", name=f"seg_score_dsn_{level}")(maps[2 ** (level - 1)])
            scores.append(
                score if level == 1 else ResizeLike(dtype="float32", name=f"seg_score_dsn_{level}_up")(score, frame)
            )
        x = layers.Concatenate(dtype="float32", name="seg_sides")(scores)
        contours = layers.Conv2D(1, 1, activation="sigmoid", dtype="float32", name="seg_fuse")(x)
        super().__init__({"frame": frame}, {"contours": contours}, **kwargs)
        self.block_channels = None if block_channels is None else [int(number) for number in block_channels]
        self.network_size = (int(network_size[0]), int(network_size[1]))

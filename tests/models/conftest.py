"""Networks that several modules of this folder use."""

from __future__ import annotations

import pytest


@pytest.fixture
def narrow_mobilenet(monkeypatch):
    """As `narrow_vgg` for MobileNet: ConvLSTMs of 1024 channels take half a minute to initialise."""
    from osmn_tf.backbones import mobilenet

    strides = [stride for _, stride in mobilenet.BLOCKS]
    channels = [2, 3, 4, 4, 5, 6, 6, 6, 6, 6, 6, 7, 7]
    monkeypatch.setattr(mobilenet, "BLOCKS", tuple(zip(channels, strides)))


@pytest.fixture(scope="module")
def vgg_osmn():
    """OSMN on the whole VGG-16 with the small head and random weights (30 M parameters). Do not change it."""
    from support import randomise

    from osmn_tf.models.osmn import OSMN

    return randomise(OSMN(visual_head="pooled", visual_hidden=8, guide_size=32), seed=3)

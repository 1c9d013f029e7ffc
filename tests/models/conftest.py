"""Networks that several modules of this folder use."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def vgg_osmn():
    """OSMN on the whole VGG-16 with the small head and random weights (30 M parameters). Do not change it."""
    from support import randomise

    from osmn_tf.models.osmn import OSMN

    return randomise(OSMN(visual_head="pooled", visual_hidden=8, guide_size=32), seed=3)

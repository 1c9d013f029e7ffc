"""Fixtures for all tests. Keras is imported where it is used only: many tests do without it."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def tiny_reconvnet():
    """A ReConvNet on MobileNet with random weights. Shared by all tests: do not change its weights."""
    from support import TINY, randomise

    from osmn_tf.models.reconvnet import ReConvNet

    return randomise(ReConvNet(**TINY, decoder="refinement", recurrent_channels=(4, 6, 8)), seed=1)


@pytest.fixture(scope="session")
def tiny_osmn():
    """An OSMN on MobileNet in the release's form, with random weights. Shared by all tests: do not change it."""
    from support import TINY, randomise

    from osmn_tf.models.osmn import OSMN

    return randomise(OSMN(**TINY), seed=2)


@pytest.fixture
def mixed_precision(request):
    """Sets the global dtype policy to the parameter (indirect parametrisation) for one test."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)

"""Fixtures for all tests. Keras is imported where it is used only: many tests do without it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

# With several workers the modules that take minutes begin first, so that no worker is left alone with one of them.
LONG = (
    "training/test_distribution.py",
    "training/test_stages.py",
    "notebooks/test_02_train.py",
    "inference/test_online.py",
    "cli/test_finetune.py",
    "notebooks/test_03_export_and_serve.py",
    "notebooks/test_01_quickstart.py",
    "export/test_saved_model.py",
    "models/test_osmn.py",
    "models/test_reconvnet.py",
    # Whole VGG-16s with the 150 M parameters of fc6 and fc7. TensorFlow never gives the memory back, so they come late.
    "convert/test_vgg16.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the modules into the order above (with pytest-xdist: give `--no-loadscope-reorder`)."""
    root = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        module = item.path.relative_to(root).as_posix()
        return LONG.index(module) if module in LONG else len(LONG)

    items.sort(key=place)


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


@pytest.fixture(scope="module")
def loaded_once() -> Iterator[None]:
    """Commands in this process share a network and what is compiled of it: making both is nearly all of their time.

    Each preset is still loaded by a command, and again wherever a test calls the library or starts a process.
    """
    from osmn_tf.inference import loading

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load", functools.cache(loading.load))
        yield


def _skip_without(precision: str) -> None:
    from osmn_tf.precision import refusal

    if (reason := refusal(precision)) is not None:
        pytest.skip(reason)


@pytest.fixture
def eagerly():
    """TensorFlow runs functions without building graphs: for a few small steps, building is nearly all the time."""
    import keras

    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def bfloat16() -> None:
    """Skips a test where this machine cannot compute in bfloat16."""
    _skip_without("mixed_bfloat16")


@pytest.fixture
def mixed_precision(request):
    """Sets the global dtype policy to the parameter (indirect parametrisation) for one test."""
    import keras

    _skip_without(request.param)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)

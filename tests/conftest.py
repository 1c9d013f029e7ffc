"""Fixtures for all tests. Keras is imported where it is used only: many tests do without it."""

from __future__ import annotations

import functools
import gc
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

# With several workers the modules that take minutes begin first, so that no worker is left alone with one of them.
LONG = (
    "training/test_distribution.py",
    "training/test_stages.py",
    "notebooks/test_03_export_and_serve.py",
    "notebooks/test_02_train.py",
    "inference/test_online.py",
    "export/test_saved_model.py",
    "cli/test_finetune.py",
    "export/test_client.py",
    "benchmarks/test_infer.py",
    "models/test_reconvnet.py",
    "models/test_osmn.py",
    # Two whole VGG-16s, with 150 M parameters in fc6 and fc7. TensorFlow never gives the memory back: they come late.
    "convert/test_vgg16.py",
)


# TensorFlow and Keras make hundreds of thousands of objects that live as long as the process. Python looks through all
# of them again and again, which is a twentieth of the time, and a sixth of that of their import: here less often.
gc.set_threshold(100_000, 20, 20)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the modules into the order above (with pytest-xdist: give `--no-loadscope-reorder`)."""
    root = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        module = item.path.relative_to(root).as_posix()
        return LONG.index(module) if module in LONG else len(LONG)

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """What has been imported by now stays: Python need not look through it at all."""
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """New networks have the same weights in every run and whichever tests ran before: what fails once fails again.

    Keras draws its seeds from Python's generator. (`keras.utils.set_random_seed` seeds TensorFlow's too, which then
    makes every function that it has compiled anew: seconds a test.)
    """
    random.seed(0)
    np.random.seed(0)
    if "keras" in sys.modules:  # a module that is run alone may import it later: then its first test has Keras's draws
        _draw_by_numpy()


@functools.cache
def _draw_by_numpy() -> None:
    """NumPy makes the initial values of networks: several operations a weight are a sixth of the time that a network
    takes to build. XLA compiles them for every shape of a weight, so on JAX they are nine tenths. And they are the same
    everywhere. No test depends on what Keras draws.

    In a graph they stay symbols, of which the import of checkpoints wants the shapes alone.
    """
    import keras
    from keras.src.initializers import constant_initializers, random_initializers

    theirs = random_initializers.random
    if keras.backend.backend() == "tensorflow":
        from tensorflow import executing_eagerly as eagerly
    else:
        eagerly = functools.partial(bool, True)

    def drawn(name: str, draw: Any) -> Any:
        def values(shape: Any, *parameters: float, dtype: Any = None, seed: Any = None, **named: float) -> Any:
            if not eagerly():
                return getattr(theirs, name)(shape, *parameters, dtype=dtype, seed=seed, **named)
            key = seed if isinstance(seed, int) else np.asarray(theirs.draw_seed(seed)).tolist()
            return draw(np.random.default_rng(key), shape, *parameters, **named).astype(dtype or "float32")

        return values

    def uniform(rng: np.random.Generator, shape: Any, minval: float = 0.0, maxval: float = 1.0) -> np.ndarray:
        return rng.random(shape, np.float32) * (maxval - minval) + minval

    def normal(rng: np.random.Generator, shape: Any, mean: float = 0.0, stddev: float = 1.0) -> np.ndarray:
        return rng.standard_normal(shape, np.float32) * stddev + mean

    def filled(name: str) -> Any:
        return lambda *args, **named: getattr(np if eagerly() else keras.ops, name)(*args, **named)

    random_initializers.random = SimpleNamespace(
        **{**vars(theirs), "uniform": drawn("uniform", uniform), "normal": drawn("normal", normal)}
    )
    constant_initializers.ops = SimpleNamespace(
        **{**vars(constant_initializers.ops), "zeros": filled("zeros"), "ones": filled("ones")}
    )


@pytest.fixture(scope="session")
def tiny_reconvnet():
    """A ReConvNet on a short MobileNet with random weights. Shared by all tests: do not change its weights."""
    from support import TINY, randomise

    from osmn_tf.models.reconvnet import ReConvNet

    return randomise(ReConvNet(**TINY, decoder="refinement", recurrent_channels=(4, 6, 8)), seed=1)


@pytest.fixture(scope="session")
def tiny_osmn():
    """An OSMN on a short MobileNet in the release's form, with random weights. Shared: do not change it."""
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
    from support import without_graphs

    with without_graphs():
        yield


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

"""A precision that this machine cannot compute in is refused when it is asked for, not where it fails."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import pytest

from osmn_tf.errors import InputError
from osmn_tf.precision import computing_in, refusal


@pytest.fixture
def untried() -> Iterator[None]:
    """What was found before does not count, nor does what is found here afterwards."""
    refusal.cache_clear()
    yield
    refusal.cache_clear()


@pytest.mark.backend
@pytest.mark.usefixtures("untried")
def test_a_precision_that_fails_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **more: object) -> None:
        raise RuntimeError("could not create a primitive descriptor\nfor the convolution")

    before = keras.config.dtype_policy()
    monkeypatch.setattr(keras.ops, "conv", fail)
    with pytest.raises(InputError, match=r"precision: .* cannot compute in bfloat16 here .*; use float32") as error:
        computing_in("mixed_bfloat16").__enter__()
    assert "\n" not in str(error.value)
    assert keras.config.dtype_policy() == before
    with computing_in("float32"):  # is not tried
        assert keras.config.dtype_policy().name == "float32"


@pytest.mark.backend
@pytest.mark.usefixtures("bfloat16")
def test_inside_new_layers_compute_in_it() -> None:
    with computing_in("mixed_bfloat16"):
        layer = keras.layers.Dense(2)
    assert (layer.compute_dtype, layer.variable_dtype) == ("bfloat16", "float32")
    assert keras.layers.Dense(2).compute_dtype == "float32"

"""The training notebook runs from top to bottom, and its loss falls."""

from __future__ import annotations

import ast

import keras
import pytest

from .running import outputs_of


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the notebook uses tf.data")
def test_runs_and_learns() -> None:
    outputs = outputs_of("02_train")
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    texts = [output["data"]["text/plain"] for output in outputs if "text/plain" in output.get("data", {})]
    (history,) = [ast.literal_eval(text) for text in texts if text.startswith("{'loss'")]
    assert len(history["loss"]) == 4
    assert history["loss"][-1] < 0.8 * history["loss"][0]

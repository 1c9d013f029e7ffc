"""The training notebook runs from top to bottom, and its loss falls."""

from __future__ import annotations

import ast
from pathlib import Path

import keras
import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "02_train.ipynb"


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the notebook uses tf.data")
def test_runs_and_learns() -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    texts = [output["data"]["text/plain"] for output in outputs if "text/plain" in output.get("data", {})]
    (history,) = [ast.literal_eval(text) for text in texts if text.startswith("{'loss'")]
    assert len(history["loss"]) == 4
    assert history["loss"][-1] < 0.8 * history["loss"][0]

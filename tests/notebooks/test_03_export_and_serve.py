"""The notebook on export and serving runs from top to bottom, and what it exports gives the segmenter's masks."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "03_export_and_serve.ipynb"


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="SavedModel and LiteRT files come from TensorFlow")
def test_runs_and_exports_give_the_segmenters_masks() -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ai_edge_litert")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    text = "".join(output.get("text", "") for output in outputs)
    assert "modules of osmn_tf: []" in text
    (differing,) = re.findall(r"pixels that differ from the segmenter's: ([\d.]+)%", text)
    assert float(differing) <= 0.1
    (overlaps,) = re.findall(r"overlap with the segmenter's masks: (.+)", text)
    assert min(float(overlap) for overlap in overlaps.split(", ")) > 0.9

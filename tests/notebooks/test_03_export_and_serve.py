"""The notebook on export and serving runs from top to bottom, and what it exports gives the segmenter's masks.

Its SavedModel runs in a process that has TensorFlow alone.
"""

from __future__ import annotations

import re

import keras
import pytest

from .running import outputs_of, printed


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="SavedModel and LiteRT files come from TensorFlow")
def test_runs_and_exports_give_the_segmenters_masks() -> None:
    pytest.importorskip("ai_edge_litert")
    outputs = outputs_of("03_export_and_serve")
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    text = printed(outputs)
    assert "modules of osmn_tf: []" in text
    (differing,) = re.findall(r"pixels that differ from the segmenter's: ([\d.]+)%", text)
    assert float(differing) <= 0.1
    (after_jpeg,) = re.findall(r"pixels that differ after JPEG: ([\d.]+)%", text)
    assert 0 < float(after_jpeg) < 3
    (overlaps,) = re.findall(r"overlap with the segmenter's masks: (.+)", text)
    assert min(float(overlap) for overlap in overlaps.split(", ")) > 0.9

from __future__ import annotations

import sys

import numpy as np
import pytest

from osmn_tf.errors import InputError, MissingDependencyError
from osmn_tf.masks.detections import from_detections, to_detections

sv = pytest.importorskip("supervision", reason="supervision is not installed: pip install 'osmn-tf[supervision]'")


def label_mask() -> np.ndarray:
    mask = np.zeros((48, 64), np.uint8)
    mask[5:20, 6:30], mask[12:40, 35:60], mask[-1] = 3, 254, 255
    return mask


def test_round_trip_with_scores_of_pixels() -> None:
    mask = label_mask()
    scores = {label: np.where(mask == label, 0.25 + 0.5 * (label > 3), 1).astype(np.float32) for label in (3, 254)}
    detections = to_detections(mask, scores)
    np.testing.assert_array_equal(detections.tracker_id, [3, 254])
    np.testing.assert_allclose(detections.confidence, [0.25, 0.75])
    np.testing.assert_array_equal(detections.area, [15 * 24, 28 * 25])
    np.testing.assert_array_equal(detections.xyxy, [[6, 5, 29, 19], [35, 12, 59, 39]])
    np.testing.assert_array_equal(from_detections(detections), np.where(mask == 255, 0, mask))


def test_supervision_draws_them() -> None:
    """Every object in another colour; nothing outside of it changes."""
    mask, frame = label_mask(), np.full((48, 64, 3), 100, np.uint8)
    annotator = sv.MaskAnnotator(color_lookup=sv.ColorLookup.TRACK, opacity=1.0)
    drawn = annotator.annotate(frame.copy(), to_detections(mask))
    inside = (mask == 3) | (mask == 254)
    np.testing.assert_array_equal(drawn[~inside], frame[~inside])
    colors = [np.unique(drawn[mask == label], axis=0) for label in (3, 254)]
    assert [len(color) for color in colors] == [1, 1]
    assert (colors[0] != colors[1]).any()


def test_detections_of_others() -> None:
    masks = np.zeros((2, 8, 8), bool)
    masks[0, :6], masks[1, 2:] = True, True
    boxes = np.array([[0, 0, 7, 5], [0, 2, 7, 7]], float)
    later = from_detections(sv.Detections(xyxy=boxes, mask=masks))
    assert [int(value) for value in later[:, 0]] == [1, 1, 2, 2, 2, 2, 2, 2]
    surer = from_detections(sv.Detections(xyxy=boxes, mask=masks, confidence=np.array([0.9, 0.2])))
    assert [int(value) for value in surer[:, 0]] == [1, 1, 1, 1, 1, 1, 2, 2]
    assert not from_detections(sv.Detections.empty(), (3, 4)).any()
    assert len(to_detections(np.zeros((3, 4), np.uint8))) == 0
    for wrong, message in (
        (sv.Detections.empty(), "size"),
        (sv.Detections(xyxy=boxes), "received boxes alone"),
        (sv.Detections(xyxy=boxes, mask=masks, tracker_id=np.array([4, 4])), r"\[4, 4\]"),
        (sv.Detections(xyxy=boxes, mask=masks, tracker_id=np.array([0, 4])), r"\[0, 4\]"),
    ):
        with pytest.raises(InputError, match=message):
            from_detections(wrong)
    with pytest.raises(InputError, match="received none of 254"):
        to_detections(label_mask(), {3: 0.5})


def test_without_supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingDependencyError, match=r"osmn-tf\[supervision\]"):
        to_detections(label_mask())

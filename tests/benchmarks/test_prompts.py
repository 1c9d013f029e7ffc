from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from osmn_tf.benchmarks.prompts import format_table, list_pictures, measure_prompts
from osmn_tf.errors import InputError
from osmn_tf.inference.predictor import Prediction
from osmn_tf.masks.files import write_mask
from tests.inference.test_prompting import Fixed


class Threshold(Fixed):
    """Finds what is brighter than grey, for the first object; nothing for the others."""

    def __init__(self) -> None:
        super().__init__(np.zeros((0, 0), np.uint8))

    def advance(self, frame: np.ndarray) -> Prediction:
        return Prediction((frame[..., 0] > 128).astype(np.uint8))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two videos in DAVIS's layout, without lists: a white ellipse and a white corner on black."""
    for video, length in (("ant", 3), ("bee", 1)):
        for number in range(length):
            mask = np.zeros((60, 80), np.uint8)
            if video == "ant":
                cv2.ellipse(mask, (40, 30), (24, 15), 0, 0, 360, 1, -1)
            else:
                mask[:20, :30] = mask[:50, :10] = 3
            for folder in ("JPEGImages", "Annotations"):
                (tmp_path / folder / "480p" / video).mkdir(parents=True, exist_ok=True)
            write_mask(tmp_path / "Annotations" / "480p" / video / f"{number:05d}.png", mask)
            frame = tmp_path / "JPEGImages" / "480p" / video / f"{number:05d}.jpg"
            assert cv2.imwrite(str(frame), 255 * (mask > 0), [cv2.IMWRITE_JPEG_QUALITY, 100])
    return tmp_path


def test_a_network_that_is_right_scores_full(data: Path) -> None:
    results = list(measure_prompts(list_pictures(data, every=2), Threshold()))
    assert [result.name for result in results] == ["ant/00000:1", "ant/00002:1", "bee/00000:3"]
    for result in results:
        assert list(result.scores) == ["the box's ellipse", "box, GrabCut", "box", "1 click", "2 clicks", "3 clicks"]
        assert result.scores["1 click"] == result.scores["3 clicks"] == 1
        assert result.scores["box"] > 0.9  # its sides are moved, and an object ends 5% beyond them
    assert results[0].scores["the box's ellipse"] > 0.85 > results[2].scores["the box's ellipse"]
    table = [line.split() for line in format_table(results).split("\n")]
    assert table[0] == ["3", "objects", "mean", "median"]
    assert table[4] == ["1", "click", "100.0", "100.0"]
    mean = 100 * np.mean([result.scores["the box's ellipse"] for result in results])
    assert table[1][:4] == ["the", "box's", "ellipse", f"{mean:.1f}"]


def test_what_is_not_found_scores_nothing(data: Path) -> None:
    nothing = Fixed(np.zeros((60, 80), np.uint8))
    (result, *_) = measure_prompts(list_pictures(data), nothing)
    assert result.scores["box"] == result.scores["1 click"] == result.scores["3 clicks"] == 0
    assert result.scores["the box's ellipse"] > 0.85


def test_small_objects_are_left_out_and_missing_data_named(data: Path, tmp_path: Path) -> None:
    assert not list(measure_prompts(list_pictures(data), Threshold(), min_area=0.99))
    with pytest.raises(InputError, match="root"):
        list_pictures(tmp_path / "JPEGImages")

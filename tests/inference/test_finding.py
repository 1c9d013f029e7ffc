"""Objects that nobody has marked: what the shipped networks find, and how a segmenter takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import random_frames

import osmn_tf as osmn
from osmn_tf.datasets.examples import example_path
from osmn_tf.errors import InputError, MissingDependencyError
from osmn_tf.inference import finding, segmenter
from osmn_tf.inference.modulated import ModulatedPredictor
from osmn_tf.inference.segmenter import VideoSegmenter

FRAMES = random_frames(4, 60, 90)


def test_the_objects_of_the_example() -> None:
    """The car, the bird and the ball, from the largest on, each nearly as it was drawn."""
    frame = osmn.read_video(example_path() / "meadow.mp4")[0]
    drawn = osmn.read_mask(example_path() / "first_mask.png")
    found = osmn.find_objects(frame)
    assert (found.dtype, found.shape, set(np.unique(found))) == (np.uint8, drawn.shape, {0, 1, 2, 3})
    areas = [np.count_nonzero(found == label) for label in (1, 2, 3)]
    assert areas == sorted(areas, reverse=True)
    for label in (1, 2, 3):
        object_ = found == label
        true = drawn == np.bincount(drawn[object_], minlength=4).argmax()
        assert np.count_nonzero(object_ & true) > 0.8 * np.count_nonzero(object_ | true)


def test_nothing_stands_out_of_one_colour() -> None:
    for value in (0, 128):
        assert not osmn.find_objects(np.full((120, 200, 3), value, np.uint8)).any()


def test_parts_and_what_belongs_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    out = np.zeros((40, 60), bool)
    out[2:12, 2:12] = out[20:26, 30:40] = out[30:33, 2:5] = out[20:26, 44:50] = True  # 100, 60, 9 and 36 pixels
    monkeypatch.setattr(finding, "_open_finder", lambda: None)
    monkeypatch.setattr(finding, "_standing_out", lambda predictor, frame: out)
    frame = np.zeros((40, 60, 3), np.uint8)

    def widened(frame: np.ndarray, part: np.ndarray) -> np.ndarray:
        """The second one reaches over all but two columns of the third."""
        rows = np.zeros_like(part)
        rows[20:26, 30:48] = part[22, 35]
        return part | rows

    monkeypatch.setattr(finding, "_completed", widened)
    found = finding.find_objects(frame)
    assert set(np.unique(found)) == {0, 1, 2}
    assert (found == 1).sum() == 100
    assert (found == 2).sum() == 6 * 18
    monkeypatch.setattr(finding, "_completed", lambda frame, part: part)
    assert [int((finding.find_objects(frame) == label).sum()) for label in (1, 2, 3, 4)] == [100, 60, 36, 0]
    every = finding.find_objects(frame)
    np.testing.assert_array_equal(finding.find_objects(frame, objects=2), np.where(every <= 2, every, 0))


@pytest.mark.parametrize(
    ("frame", "objects", "message"),
    [
        (np.zeros((4, 4), np.uint8), 5, r"frame: expected uint8 \[H, W, 3\], received uint8 \[4, 4\]"),
        (np.zeros((4, 4, 3), np.float32), 5, r"frame: expected uint8"),
        (np.zeros((4, 4, 3), np.uint8), 0, r"objects: expected 1..254, received 0"),
        (np.zeros((4, 4, 3), np.uint8), 255, r"objects: expected 1..254, received 255"),
    ],
)
def test_refusals(frame: np.ndarray, objects: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        osmn.find_objects(frame, objects)


def test_without_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("osmn_tf.errors.is_installed", lambda module: False)
    finding._open_finder.cache_clear()
    with pytest.raises(MissingDependencyError, match=r"finding objects where none is marked .* needs the package"):
        osmn.find_objects(FRAMES[0])


def test_a_segmenter_looks_until_something_stands_out(tiny_osmn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a video begins in black; then the objects are tracked as if their mask had been given."""
    mask = np.zeros(FRAMES[0].shape[:2], np.uint8)
    mask[10:30, 10:40], mask[35:55, 50:80] = 1, 2
    seen: list[int] = []

    def find(frame: np.ndarray, objects: int) -> np.ndarray:
        seen.append(objects)
        return mask if len(seen) == 2 else np.zeros_like(mask)

    monkeypatch.setattr(segmenter, "find_objects", find)
    tracked = VideoSegmenter(ModulatedPredictor(tiny_osmn))
    masks = [each for _, each in tracked.track(FRAMES)]
    assert seen == [segmenter.MOST_OBJECTS] * 2
    assert not masks[0].any()
    expected = [each for _, each in VideoSegmenter(tiny_osmn).track(FRAMES, {1: mask})]
    np.testing.assert_array_equal(masks, expected)
    assert tracked.labels == (1, 2)
    seen.clear()
    VideoSegmenter(tiny_osmn, objects=3).start(FRAMES[0])
    assert seen == [3]
    with pytest.raises(InputError, match="objects: there is room for 1, received masks of 2; raise it"):
        VideoSegmenter(tiny_osmn, objects=1).start(FRAMES[0], mask)

"""First masks from boxes and clicks, by the shipped network."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

import osmn_tf
from osmn_tf.datasets.examples import example_path
from osmn_tf.errors import InputError
from osmn_tf.inference.predictor import Prediction
from osmn_tf.inference.prompting import mask_from_box, mask_from_click
from osmn_tf.masks.files import read_label_png
from tests.jobs.drift import Drift

pytest.importorskip("ai_edge_litert")

CAR, BALL, BIRD = (31, 222, 320, 145), (716, 328, 109, 108), (352, 52, 201, 98)


@pytest.fixture(scope="module")
def meadow() -> tuple[np.ndarray, np.ndarray]:
    """The first frame of the example and its true mask."""
    return osmn_tf.read_video(example_path() / "meadow.mp4")[0], read_label_png(example_path() / "first_mask.png")


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return np.count_nonzero(first & second) / np.count_nonzero(first | second)


def test_boxes(meadow: tuple[np.ndarray, np.ndarray]) -> None:
    frame, truth = meadow
    mask = mask_from_box(frame, BIRD, CAR, BALL)
    assert mask.dtype == np.uint8
    assert mask.shape == truth.shape
    for label, expected in ((1, 3), (2, 1), (3, 2)):
        assert iou(mask == label, truth == expected) > 0.85
    np.testing.assert_array_equal(mask_from_box(frame, BALL) == 1, mask == 3)
    # Nothing far outside of a box, whatever the network says.
    x, y, width, height = BALL
    assert not (mask == 3)[:, : x - width // 10].any()
    assert not (mask == 3)[y + height + height // 10 :].any()


def test_clicks(meadow: tuple[np.ndarray, np.ndarray]) -> None:
    frame, truth = meadow
    for label, (x, y, width, height) in ((1, CAR), (2, BALL)):
        mask = mask_from_click(frame, (x + width // 2, y + height // 2))
        assert set(np.unique(mask)) == {0, 1}
        assert iou(mask == 1, truth == label) > 0.7


def test_a_click_on_what_is_not_the_object_takes_it_away(meadow: tuple[np.ndarray, np.ndarray]) -> None:
    frame, truth = meadow
    centres = [(x + width // 2, y + height // 2) for x, y, width, height in (CAR, BALL)]
    both = mask_from_click(frame, *centres)
    assert both[centres[0][1], centres[0][0]] == both[centres[1][1], centres[1][0]] == 1
    car = mask_from_click(frame, centres[0], background=[centres[1]])
    assert iou(car == 1, truth == 1) > 0.7
    assert car[centres[1][1], centres[1][0]] == 0


class Fixed(Drift):
    """Answers with masks of its own, whatever it is shown: winners uint8 of the size of what it sees."""

    def __init__(self, answer: np.ndarray) -> None:
        super().__init__()
        self.answer = answer

    def begin(self, frame: np.ndarray, masks: np.ndarray | None) -> None:
        assert masks is not None
        assert masks.shape[1:] == frame.shape[:2]
        self.masks = masks

    def advance(self, frame: np.ndarray) -> Prediction:
        height, width = frame.shape[:2]
        return Prediction(self.answer[:height, :width])


class Placed(Fixed):
    """Of a part of `FRAME` it answers with that part of its mask."""

    def advance(self, frame: np.ndarray) -> Prediction:
        (height, width), (top, left) = frame.shape[:2], frame[0, 0, :2].astype(int)
        return Prediction(self.answer[top : top + height, left : left + width])


# Every pixel says where it is, so that a part of the frame does.
FRAME = np.stack([*np.mgrid[:120, :200], np.zeros((120, 200))], axis=-1).astype(np.uint8)


def test_an_object_ends_a_little_beyond_its_box() -> None:
    # The network sees rows 0..95 and columns 0..127 around the box of 60 x 80, 1.6 times its sides.
    everything = Fixed(np.ones((120, 200), np.uint8))
    rows, columns = np.nonzero(mask_from_box(FRAME, (20, 10, 80, 60), network=everything))
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (16, 103, 7, 72)


def test_nothing_in_a_box_or_around_a_click_is_no_mask() -> None:
    nothing = Fixed(np.zeros((120, 200), np.uint8))
    with pytest.raises(InputError, match="box 60,40,50,50: no object stands out from its surroundings; give a mask"):
        mask_from_box(FRAME, (60, 40, 50, 50), network=nothing)
    with pytest.raises(InputError, match="click 60,40: no object stands out there; draw a box around it"):
        mask_from_click(FRAME, (60, 40), network=nothing)


def test_smaller_boxes_are_in_front_and_what_they_cover_is_none() -> None:
    everything = Fixed(np.ones((120, 200), np.uint8))
    for boxes, large, small in (
        (((20, 10, 80, 60), (40, 20, 20, 20)), 1, 2),
        (((40, 20, 20, 20), (20, 10, 80, 60)), 2, 1),
    ):
        mask = mask_from_box(FRAME, *boxes, network=everything)
        assert mask[30, 50] == small
        assert mask[60, 30] == large
        assert mask[110, 190] == 0
    with pytest.raises(InputError, match="box 25,25,70,70: the other boxes' objects cover"):
        mask_from_box(FRAME, (25, 25, 70, 70), (25, 25, 70, 70), network=everything)


def test_parts_that_were_not_clicked_are_not_the_object() -> None:
    two = np.zeros((120, 200), np.uint8)
    two[10:50, 10:50] = two[60:100, 100:150] = 1
    mask = mask_from_click(FRAME, (20, 20), network=Placed(two))
    assert mask[10:50, 10:50].all()
    assert mask.sum() == 1600
    assert mask_from_click(FRAME, (20, 20), (120, 80), network=Placed(two)).sum() == 1600 + 2000
    assert mask_from_click(FRAME, (80, 20), network=Placed(two)).sum() == 1600 + 2000


class InTurn(Placed):
    """Answers with the next mask after each click, which it is shown three times (and parts of the frame besides)."""

    def __init__(self, *answers: np.ndarray) -> None:
        super().__init__(answers[0])
        self.answers, self.shown = answers, 0

    def begin(self, frame: np.ndarray, masks: np.ndarray | None) -> None:
        super().begin(frame, masks)
        if frame.shape == FRAME.shape:
            self.answer = self.answers[self.shown // 3]  # one more would be an IndexError
            self.shown += 1


def test_one_more_click_changes_only_the_part_that_it_is_in() -> None:
    def areas(*chosen: tuple[slice, slice]) -> np.ndarray:
        mask = np.zeros((120, 200), np.uint8)
        for area in chosen:
            mask[area] = 1
        return mask

    head, body, tree = (slice(10, 30), slice(10, 50)), (slice(30, 60), slice(10, 50)), (slice(60, 90), slice(10, 50))
    dog, cat = (slice(80, 100), slice(120, 150)), (slice(10, 30), slice(120, 150))
    # After the second click the tree and a cat come in as well, and the head goes: all but what was clicked stays out.
    more = InTurn(areas(head, body), areas(body, tree, dog, cat))
    np.testing.assert_array_equal(mask_from_click(FRAME, (20, 40), (130, 90), network=more), areas(head, body, dog))
    # A click on the tree, which is not the object: it goes, and what else the network lost and found does not matter.
    less = InTurn(areas(body, tree, dog), areas(body, cat))
    np.testing.assert_array_equal(mask_from_click(FRAME, (20, 40), background=[(20, 70)], network=less), areas(body))
    # It would take away what was clicked, or bring back what was clicked as not the object: nothing changes.
    gone = InTurn(areas(body, tree), areas(dog))
    np.testing.assert_array_equal(
        mask_from_click(FRAME, (20, 40), background=[(20, 70)], network=gone), areas(body, tree)
    )
    # What is right already is not looked at again.
    once = InTurn(areas(body))
    np.testing.assert_array_equal(
        mask_from_click(FRAME, (20, 40), (20, 50), background=[(20, 70)], network=once), areas(body)
    )
    # The network finds nothing any more: the mask is what it was.
    lost = InTurn(areas(body), areas())
    np.testing.assert_array_equal(mask_from_click(FRAME, (20, 40), (130, 90), network=lost), areas(body))


class Coarse(Placed):
    """Sees squares of 4 pixels in the whole frame, and every pixel in a part of it."""

    def begin(self, frame: np.ndarray, masks: np.ndarray | None) -> None:
        super().begin(frame, masks)
        self.whole = frame.shape == FRAME.shape

    def advance(self, frame: np.ndarray) -> Prediction:
        exact = super().advance(frame)
        return Prediction(np.kron(exact.winners[::4, ::4], np.ones((4, 4), np.uint8))) if self.whole else exact


def test_a_small_object_that_was_clicked_is_looked_at_again_from_near() -> None:
    small = np.zeros((120, 200), np.uint8)
    small[23:51, 37:69] = 1
    small[60:62, 190:192] = 1  # lost in the whole frame, and not what was clicked
    expected = small.copy()
    expected[60:62] = 0
    np.testing.assert_array_equal(mask_from_click(FRAME, (50, 40), network=Coarse(small)), expected)
    large = np.zeros((120, 200), np.uint8)
    large[3:118, 7:195] = 1
    found = mask_from_click(FRAME, (50, 40), network=Coarse(large))
    assert (found.sum(), found[4:, 8:196].all()) == (116 * 188, True)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((150, 10, 60, 60), r"box 150,10,60,60: expected a box X,Y,W,H inside the frame of 200x120 pixels"),
        ((-1, 10, 60, 60), "inside the frame"),
        ((10, 100, 60, 60), "inside the frame"),
        ((500, 500, 10, 10), "inside the frame"),
        ((10, 10, 0, 60), "width and height of 1 or more"),
        ((10, 10, 3, 60), "expected at least 4x4 pixels"),
    ],
)
def test_boxes_that_are_wrong(box: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        mask_from_box(np.zeros((120, 200, 3), np.uint8), (25, 25, 70, 70), box)
    assert "\n" not in str(caught.value)


def test_wrong_numbers_and_frames() -> None:
    with pytest.raises(InputError, match="boxes: expected 1 to 254 boxes, received 0"):
        mask_from_box(FRAME)
    for make in (mask_from_box, mask_from_click):
        with pytest.raises(InputError, match=r"frame: expected uint8 \[H, W, 3\], received uint8 \[120, 200\]"):
            make(FRAME[..., 0], (25, 25, 70, 70))
    with pytest.raises(InputError, match="clicks: expected at least one"):
        mask_from_click(FRAME)
    with pytest.raises(InputError, match="click 5,120: expected a point inside"):
        mask_from_click(FRAME, (5, 5), background=[(5, 120)])


@pytest.mark.real_data
def test_frames_of_videos_that_it_was_not_trained_on() -> None:
    root = os.environ.get("OSMN_DATA_ROOT")
    if not root:
        pytest.skip("OSMN_DATA_ROOT is not set")
    boxed, clicked = [], []
    for sequence in ("dog-agility", "hike", "mallard-water", "motocross-bumps", "rollerblade", "train"):
        frame = cv2.imread(f"{root}/davis/JPEGImages/480p/{sequence}/00000.jpg")[:, :, ::-1]
        frame = np.ascontiguousarray(frame)
        truth = read_label_png(Path(root, f"davis/Annotations/480p/{sequence}/00000.png")) > 0
        boxed.append(iou(mask_from_box(frame, cv2.boundingRect(truth.astype(np.uint8))) == 1, truth))
        inside = cv2.distanceTransform(truth.astype(np.uint8), cv2.DIST_L2, 5)
        y, x = np.unravel_index(inside.argmax(), inside.shape)
        clicked.append(iou(mask_from_click(frame, (int(x), int(y))) == 1, truth))
    assert np.mean(boxed) > 0.7
    assert np.mean(clicked) > 0.45

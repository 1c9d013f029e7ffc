"""Boundary snapping: contours, the hierarchy of superpixels, the vote, thin parts, and the predictor around it."""

from __future__ import annotations

import doctest
import sys
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import pytest

pytest.importorskip("skimage", reason="scikit-image is not installed: pip install 'osmn-tf[snapping]'")

from osmn_tf.errors import InputError, MissingDependencyError
from osmn_tf.inference import contours as contour_sources
from osmn_tf.inference import snapping
from osmn_tf.inference.contours import GradientContours
from osmn_tf.inference.predictor import Prediction, Predictor
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.inference.snapping import SnapOptions, SnappingPredictor, contour_hierarchy, snap_mask

HALF = SnapOptions(0.5)


@pytest.mark.parametrize("module", [contour_sources, snapping])
def test_examples(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted > 2
    assert result.failed == 0


def test_joined_boundaries_have_their_mean() -> None:
    """Boundaries 0-1 of 2 pairs of pixels, strength 0.25; 0-2 of 2, 0.5; 1-2 of 6, 0.75: (1 + 4.5) / 8 in the end."""
    neighbours: list[dict[int, tuple[float, int]]] = [
        {1: (0.5, 2), 2: (1.0, 2)},
        {0: (0.5, 2), 2: (4.5, 6)},
        {0: (1.0, 2), 1: (4.5, 6)},
    ]
    copies = [dict(each) for each in neighbours]
    assert [(height, {kept, gone}) for height, kept, gone in snapping._merges(copies, 1.0)] == [
        (0.25, {0, 1}),
        (0.6875, {0, 2}),
    ]
    assert len(snapping._merges(neighbours, 0.68)) == 1


def test_boundaries_are_the_stronger_side_of_every_pair_of_pixels() -> None:
    regions = np.array([[0, 0, 1], [0, 2, 1]], np.int32)
    contours = np.array([[0.0, 0.2, 0.4], [0.1, 0.3, 0.6]], np.float32)
    found = snapping._boundaries(regions, contours)
    expected = {(0, 1): (0.4, 1), (0, 2): (0.6, 2), (1, 2): (0.6, 1)}
    for (one, other), (total, length) in expected.items():
        assert found[one][other] == found[other][one] == (pytest.approx(total), length)


def test_superpixels_are_connected_and_nested() -> None:
    """What is one superpixel at a strength is one at any greater strength: a hierarchy."""
    noise = np.random.default_rng(0).random((60, 80)).astype(np.float32)
    hierarchy = contour_hierarchy(cv2.GaussianBlur(noise, (0, 0), 1.5))
    heights = [height for height, *_ in hierarchy.merges]
    assert heights == sorted(heights)
    assert len(heights) == hierarchy.regions.max() > 30
    finer, counts = hierarchy.superpixels(-1.0), []
    np.testing.assert_array_equal(finer, hierarchy.regions)
    for strength in (0.5, 0.52, 0.55, 0.6, 1.0):
        coarser = hierarchy.superpixels(strength)
        pairs = np.unique(np.stack([finer.ravel(), coarser.ravel()]), axis=1)
        assert len(np.unique(pairs[0])) == pairs.shape[1]
        for number in np.unique(coarser):
            assert cv2.connectedComponents((coarser == number).astype(np.uint8), connectivity=4)[0] == 2
        counts.append(len(np.unique(coarser)))
        finer = coarser
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[1] > counts[-1] == 1


def two_boxes(shape: tuple[int, int] = (60, 90)) -> tuple[np.ndarray, np.ndarray]:
    """A frame with two boxes side by side, and a mask of them."""
    frame = np.full((*shape, 3), 40, np.uint8)
    mask = np.zeros(shape, np.uint8)
    for label, columns, colour in ((3, slice(20, 45), (200, 60, 60)), (9, slice(45, 70), (60, 60, 220))):
        frame[15:45, columns], mask[15:45, columns] = colour, label
    return frame, mask


def test_masks_of_several_objects_get_their_outlines_back() -> None:
    """Shifted by three pixels; the line between the objects is found too."""
    frame, mask = two_boxes()
    contours = GradientContours()(frame)
    assert contours.dtype == np.float32
    assert contours.min() >= 0
    assert contours.max() <= 1
    shifted = np.roll(mask, (2, 3), (0, 1))
    snapped = snap_mask(shifted, contours, SnapOptions(GradientContours.strength))
    assert snapped.dtype == np.uint8
    assert set(np.unique(snapped)) == {0, 3, 9}
    # The ridge of a contour is one or two pixels wide.
    wrong, before = (snapped != mask).sum(), (shifted != mask).sum()
    assert wrong < 0.4 * before
    inner = cv2.erode((mask == 3).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert (snapped[inner] == 3).all()


def test_most_of_a_superpixel_decides() -> None:
    contours = np.zeros((10, 30), np.float32)
    contours[:, [10, 20]] = 1  # three superpixels of about 10 x 10
    mask = np.zeros((10, 30), np.uint8)
    mask[:, 1:9] = 1  # 8 of 10 or 11 columns
    mask[:4, 12:19] = 1  # 28 of 100 or so
    mask[:8, 22:] = 2
    snapped = snap_mask(mask, contours, HALF)
    assert (snapped[:, :10] == 1).all()
    assert (snapped[:, 11:20] == 0).all()
    assert (snapped[:, 21:] == 2).all()


def with_leg(contrast: float) -> tuple[np.ndarray, np.ndarray]:
    """A body whose outline is a contour, and a leg of four columns, along the middle of which there is one."""
    mask, contours = np.zeros((80, 80), np.uint8), np.zeros((80, 80), np.float32)
    mask[10:40, 20:60] = 1
    cv2.rectangle(contours, (20, 10), (59, 39), 1.0)
    mask[40:70, 38:42] = 1
    contours[40:70, 40] = contrast
    return mask, contours


def test_thin_parts_on_contours_come_back() -> None:
    mask, contours = with_leg(1.0)
    snapped = snap_mask(mask, contours, HALF)
    assert (snapped[45:68, 38:42] == 1).all()
    assert (snapped[12:38, 22:58] == 1).all()
    mask, contours = with_leg(0.4)  # weaker than what counts
    assert not snap_mask(mask, contours, HALF)[45:70].any()
    mask, contours = with_leg(1.0)
    assert not snap_mask(mask, contours, SnapOptions(0.5, tolerance=0.5))[45:70].any()
    assert not snap_mask(mask, contours, SnapOptions(0.5, reach=100.0))[45:70].any()


def test_what_lies_along_the_outline_does_not_come_back() -> None:
    mask, contours = with_leg(0.0)
    mask[40:42, 20:60] = 1  # two rows outside of the contour, within the tolerance
    assert not snap_mask(mask, contours, HALF)[41].any()


def test_an_object_never_vanishes() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[10:13, 10:13] = 5
    np.testing.assert_array_equal(snap_mask(mask, np.zeros((40, 40), np.float32), HALF), mask)
    empty = np.zeros((40, 40), np.uint8)
    np.testing.assert_array_equal(snap_mask(empty, np.ones((40, 40), np.float32), HALF), empty)


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="expected the mask's size"):
        snap_mask(np.ones((4, 4), np.uint8), np.zeros((4, 5), np.float32), HALF)
    with pytest.raises(InputError, match="strength: expected 0 to 1, received None"):
        snap_mask(np.ones((4, 4), np.uint8), np.zeros((4, 4), np.float32), SnapOptions())
    with pytest.raises(InputError, match="agreement: expected 0 to 1"):
        SnapOptions(agreement=1.5)
    with pytest.raises(InputError, match="reach: expected 0 or more"):
        SnapOptions(reach=float("nan"))
    with pytest.raises(InputError, match=r"contours: expected \[H, W\]"):
        contour_hierarchy(np.zeros((2, 2, 1), np.float32))
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(MissingDependencyError, match=r"osmn-tf\[snapping\]"):
        SnappingPredictor(Late(), GradientContours())


class Late(Predictor):
    """Two frames behind: what it says of a box is two columns to the left of it."""

    can_adapt = zero_shot = True

    def __init__(self) -> None:
        self.masks = np.zeros((0, 1, 1), np.uint8)

    @property
    def network_size(self) -> tuple[int, int]:
        return 60, 90

    @property
    def objects(self) -> int:
        return len(self.masks)

    def begin(self, frame: np.ndarray, masks: np.ndarray | None) -> None:
        assert masks is not None
        self.masks = np.concatenate([self.masks.reshape(-1, *masks.shape[1:]), masks])

    def keep(self, indices: Sequence[int]) -> None:
        self.masks = self.masks[list(indices)]

    def forget(self) -> None:
        self.masks = self.masks[:0]

    def advance(self, frame: np.ndarray) -> Prediction:
        shifted = np.roll(self.masks, -2, axis=2)
        winners = np.where(shifted.any(axis=0), shifted.argmax(axis=0) + 1, 0).astype(np.uint8)
        return Prediction(winners, lambda: shifted.astype(np.float32) - 0.5)

    def snapshot(self) -> dict[str, np.ndarray]:
        return {"masks": self.masks}

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> None:
        self.masks = snapshot["masks"]


def test_a_predictor_that_snaps() -> None:
    frame, mask = two_boxes()
    base = Late()
    with VideoSegmenter(SnappingPredictor(base, GradientContours()), keep_scores=True) as segmenter:
        np.testing.assert_array_equal(segmenter.start(frame, mask), mask)  # what is given stays
        snapped = segmenter.step(frame)
        late = np.roll(mask, -2, axis=1)
        assert (snapped != mask).sum() < (late != mask).sum()
        np.testing.assert_array_equal(segmenter.scores[9] > 0.5, late == 9)  # scores are the network's
        assert segmenter.predictor.frame_number == base.frame_number == 1
        kept = segmenter.snapshot()
        segmenter.remove(3)
        assert base.objects == 1
        assert set(np.unique(segmenter.step(frame))) == {0, 9}
        with VideoSegmenter(SnappingPredictor(Late(), GradientContours())) as other:
            other.restore(kept)
            np.testing.assert_array_equal(other.step(frame), snapped)
        assert segmenter.predictor.can_adapt
        assert segmenter.predictor.zero_shot
    assert SnappingPredictor(Late(), GradientContours()).options.strength == GradientContours.strength
    assert SnappingPredictor(Late(), GradientContours(), SnapOptions(0.7)).options.strength == 0.7

"""Batches of all objects: which masks are given, and what is labelled."""

from __future__ import annotations

import numpy as np
import pytest
from support import numpy

from osmn_tf.augment import NO_AUGMENTATION
from osmn_tf.data.slots import SlotBatches

# Object 1 from the first frame on, and not in the last; object 2 from the second on; slot 3 is empty; a pixel is void.
MASKS = np.zeros((3, 4, 6), np.uint8)
MASKS[:2, :2, :2] = 1
MASKS[1, 2:, 1:3] = MASKS[2, 2:, 2:4] = 2
MASKS[:, 0, 5] = 255


def batch(count: int = 1, own: float = 0.0, **settings) -> tuple[dict[str, np.ndarray], np.ndarray]:
    batches = SlotBatches(slots=3, augment=NO_AUGMENTATION, own_mask=own, **settings)
    raw = {
        "frames": np.zeros((count, 3, 4, 6, 3), np.uint8),
        "masks": np.repeat(MASKS[None], count, 0),
        "seeds": np.random.default_rng(0).integers(-(1 << 31), 1 << 31, (count, 2)).astype(np.int32),
        "motion": np.zeros(count, np.float32),
        **{name: np.repeat(value[None], count, 0) for name, value in batches.values(0).items()},
    }
    inputs, labels = batches.prepare(raw)
    return {name: numpy(value) for name, value in inputs.items()}, numpy(labels)


@pytest.mark.backend
def test_masks_that_are_given() -> None:
    inputs, labels = batch(own=1.0)
    assert set(inputs) == {"frames", "previous_masks", "own_mask"}
    assert labels.shape == (1, 3, 3, 4, 6, 1)
    one, two = MASKS == 1, MASKS == 2
    np.testing.assert_array_equal(inputs["previous_masks"][0, :, 0, ..., 0], [one[0], one[0], one[1]])
    # The second object begins with its mask of the second frame itself, and not with a mask of the network's.
    np.testing.assert_array_equal(inputs["previous_masks"][0, :, 1, ..., 0], [two[0], two[1], two[1]])
    assert not inputs["previous_masks"][0, :, 2].any()
    np.testing.assert_array_equal(inputs["own_mask"][0], [[0, 0, 0], [1, 0, 0], [1, 1, 0]])
    void = MASKS == 255
    np.testing.assert_array_equal(labels[0, :, 0, ..., 0], np.where(void, 255, one))
    np.testing.assert_array_equal(labels[0, 1:, 1, ..., 0], np.where(void, 255, two)[1:])
    assert (labels[0, 0, 1] == 255).all()  # before it begins
    assert (labels[0, :, 2] == 255).all()
    assert not batch(own=0.0)[0]["own_mask"].any()


@pytest.mark.backend
@pytest.mark.parametrize("masks", [True, False])
def test_objects_that_are_to_be_found(masks: bool) -> None:
    inputs, labels = batch(masks=masks, find=1.0 if masks else 0.0)
    assert set(inputs) == {"frames", "first_masks", "given"} | ({"previous_masks", "own_mask"} if masks else set())
    assert not inputs["given"].any()
    np.testing.assert_array_equal(inputs["first_masks"], labels[:, 0, ..., 0])
    if masks:
        assert not inputs["previous_masks"].any()
        assert inputs["own_mask"].all()
    np.testing.assert_array_equal(labels[0, :, 0, ..., 0] == 1, MASKS == 1)
    assert (labels[0, :, 1] == 255).all()  # not in the first frame: it cannot be found there
    void = MASKS == 255
    np.testing.assert_array_equal(labels[0, :, 2, ..., 0], np.where(void, 255, 0))  # nothing is there


def test_a_share_of_the_clips_is_without_masks() -> None:
    inputs, _ = batch(count=400, find=0.3)
    assert abs(inputs["given"].mean() - 0.7) < 0.1  # four standard deviations
    given = inputs["previous_masks"][:, 0].any((1, 2, 3, 4))
    np.testing.assert_array_equal(given, inputs["given"] > 0)
    halves = batch(count=400, own=0.5)[0]["own_mask"][:, 1, 0]
    assert abs(halves.mean() - 0.5) < 0.1

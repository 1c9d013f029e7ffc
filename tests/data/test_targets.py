from __future__ import annotations

import numpy as np
import pytest

from osmn_tf.data.sampling import Samples, SyntheticSource
from osmn_tf.data.targets import AllObjects, Foreground, LabelledClip, OneObject
from osmn_tf.errors import InputError

# Two frames behind the one before: object 7 is there from the start, object 3 comes in, the corner is unlabelled.
MASKS = np.array(
    [
        [[7, 7, 0, 255], [7, 7, 0, 0]],
        [[7, 7, 3, 255], [7, 7, 0, 0]],
        [[0, 7, 3, 255], [0, 7, 3, 0]],
    ],
    np.uint8,
)


def clip(masks: np.ndarray = MASKS, **facts: object) -> LabelledClip:
    """Frame k has the value k everywhere."""
    return LabelledClip(masks, lambda k: np.full((2, 4, 3), k, np.uint8), motion=0.25, **facts)  # type: ignore[arg-type]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def assert_fields(target: OneObject | AllObjects | Foreground, sample: dict[str, np.ndarray], length: int) -> None:
    found = {name: (value.dtype.name, value.shape) for name, value in sample.items()}
    assert found == target.fields((2, 4), length)
    assert sample["motion"] == 0.25


class TestOneObject:
    def test_a_clip_that_stands_alone_is_guided_by_its_first_frame(self) -> None:
        sample = OneObject().sample(clip(), rng())
        assert sample is not None
        assert_fields(OneObject(), sample, 2)
        assert sample["frames"][:, 0, 0, 0].tolist() == [1, 2]
        assert sample["masks"].tolist() == [
            [[1, 1, 0, 255], [1, 1, 0, 0]],
            [[1, 1, 0, 255], [1, 1, 0, 0]],
            [[0, 1, 0, 255], [0, 1, 0, 0]],
        ]
        assert sample["guide_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 0, 0]]
        assert (sample["guide_frame"] == 0).all()

    def test_a_video_is_guided_by_a_view_that_shows_the_object(self) -> None:
        views = {4: np.zeros((2, 4), np.uint8), 9: np.array([[0, 0, 7, 7], [3, 0, 7, 7]], np.uint8)}
        found = OneObject().sample(
            clip(
                views=(4, 9),
                load_view_mask=views.__getitem__,
                load_view_frame=lambda index: np.full((2, 4, 3), 10 * index, np.uint8),
            ),
            rng(),
        )
        assert found is not None
        assert (found["guide_frame"] == 90).all()
        assert found["guide_mask"].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]

    def test_the_wanted_object_if_it_can_be_had(self) -> None:
        masks = np.repeat(np.array([[[5, 5, 7, 7], [5, 5, 7, 7]]], np.uint8), 2, axis=0)
        for wanted in (5, 7):
            sample = OneObject().sample(clip(masks, wanted=wanted), rng())
            assert sample is not None
            np.testing.assert_array_equal(sample["masks"], masks == wanted)
        chosen = {int(OneObject().sample(clip(masks, wanted=9), rng(seed))["masks"][0, 0, 0]) for seed in range(9)}
        assert chosen == {0, 1}

    def test_none_where_nothing_is_large_enough(self) -> None:
        assert OneObject().sample(clip(np.zeros((3, 2, 4), np.uint8)), rng()) is None


class TestAllObjects:
    def test_slots_in_the_order_of_appearance(self) -> None:
        target = AllObjects(slots=3)
        sample = target.sample(clip(), rng())
        assert sample is not None
        assert_fields(target, sample, 2)
        assert sample["labels"].tolist() == [7, 3, 0]
        assert sample["masks"].tolist() == [
            [[1, 1, 0, 255], [1, 1, 0, 0]],
            [[1, 1, 2, 255], [1, 1, 0, 0]],
            [[0, 1, 2, 255], [0, 1, 2, 0]],
        ]
        assert sample["frames"][:, 0, 0, 0].tolist() == [1, 2]

    def test_those_that_find_no_slot_are_background(self) -> None:
        sample = AllObjects(slots=1).sample(clip(), rng())
        assert sample is not None
        assert sample["labels"].tolist() == [7]
        assert sample["masks"][2].tolist() == [[0, 1, 0, 255], [0, 1, 0, 0]]

    def test_a_random_choice_among_equals(self) -> None:
        masks = np.array([[[1, 2, 3, 4], [1, 2, 3, 4]]] * 2, np.uint8)
        samples = [AllObjects(slots=2).sample(clip(masks), rng(seed)) for seed in range(30)]
        chosen = {tuple(sample["labels"].tolist()) for sample in samples if sample is not None}
        assert chosen == {(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)}
        again = AllObjects(slots=2).sample(clip(masks), rng(7))
        assert again is not None
        assert samples[7] is not None
        np.testing.assert_array_equal(again["masks"], samples[7]["masks"])

    def test_none_without_objects(self) -> None:
        assert AllObjects().sample(clip(np.full((3, 2, 4), 255, np.uint8)), rng()) is None
        with pytest.raises(InputError, match=r"slots: expected 1\.\.254, received 0"):
            AllObjects(0)


class TestForeground:
    def test_objects_are_merged_and_the_rest_is_kept(self) -> None:
        sample = Foreground().sample(clip(MASKS[1:]), rng())
        assert sample is not None
        assert_fields(Foreground(), sample, 2)
        assert sample["masks"].tolist() == [[[1, 1, 1, 255], [1, 1, 0, 0]], [[0, 1, 1, 255], [0, 1, 1, 0]]]
        assert sample["frames"][:, 0, 0, 0].tolist() == [0, 1]
        assert Foreground().sample(clip(np.zeros((2, 2, 4), np.uint8)), rng()) is None


@pytest.mark.parametrize("target", [OneObject(), AllObjects(4), Foreground()], ids=lambda target: type(target).__name__)
def test_samples_of_every_target(target: OneObject | AllObjects | Foreground) -> None:
    source = SyntheticSource(None, (32, 48), 2, before=target.before, samples=4)
    batch = Samples([source], target=target).batch(0, range(2))
    assert {name: (value.dtype.name, value.shape[1:]) for name, value in batch.items()} == {
        **target.fields((32, 48), 2),
        "seeds": ("int32", (2,)),
    }
    with pytest.raises(InputError, match="before: "):
        Samples([SyntheticSource(None, (32, 48), 2, before=1 - target.before)], target=target)

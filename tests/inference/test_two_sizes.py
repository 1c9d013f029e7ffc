"""A network at two sizes: which is believed, what goes on from there, and all that belongs to a video of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from support import MATCHING, TINY, box_mask, random_frames, randomise

from osmn_tf.errors import InputError
from osmn_tf.inference.merging import merge_logits
from osmn_tf.inference.predictor import GuidedPredictor, Prediction, PredictorOptions
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.inference.two_sizes import TwoSizesPredictor
from osmn_tf.resampling import resize_mask

SIZE = (4, 10)
FRAME = np.zeros((*SIZE, 3), np.uint8)


class Scripted(GuidedPredictor):
    """Finds what it is told to: in every frame some of the columns of the picture for every object."""

    def __init__(self, *found: Sequence[range]) -> None:
        self.found, self.done, self.kept = found, 0, 0
        self.corrected: list[tuple[int, list[int]]] = []

    @property
    def network_size(self) -> tuple[int, int]:
        return SIZE

    @property
    def objects(self) -> int:
        return self.kept

    def begin(self, frame: np.ndarray, masks: np.ndarray | None) -> None:
        assert masks is not None
        self.kept += len(masks)

    def keep(self, indices: Sequence[int]) -> None:
        self.kept = len(indices)

    def advance(self, frame: np.ndarray) -> Prediction:
        logits = np.full((self.kept, *SIZE), -1, np.float32)
        for plane, columns in zip(logits, self.found[self.done]):
            plane[:, columns] = 1
        self.done += 1
        return Prediction(merge_logits(logits, "argmax"), lambda: logits)

    def correct(self, index: int, mask: np.ndarray) -> None:
        self.corrected.append((index, np.flatnonzero(mask.all(axis=0)).tolist()))

    def forget(self) -> None:
        self.kept = 0

    def snapshot(self) -> dict[str, np.ndarray]:
        return {"done": np.array(self.done), "kept": np.array(self.kept)}

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> None:
        if "kept" not in snapshot:
            raise InputError("snapshot: damaged")
        self.done, self.kept = int(snapshot["done"]), int(snapshot["kept"])


def both(large: Sequence[Sequence[range]], own: Sequence[Sequence[range]]) -> TwoSizesPredictor:
    predictor = TwoSizesPredictor(Scripted(*large), Scripted(*own), "argmax")
    predictor.begin(FRAME, np.zeros((len(large[0]), *SIZE), np.uint8))
    return predictor


@pytest.mark.parametrize(
    ("large", "own", "expected", "corrected"),
    [
        (range(1, 10), range(2, 10), range(1, 10), []),  # IoU 8/9
        (range(1, 9), range(2, 10), range(2, 10), [(0, [2, 3, 4, 5, 6, 7, 8, 9])]),  # 7/9
        (range(0), range(0), range(0), []),
        (range(0), range(3, 5), range(3, 5), [(0, [3, 4])]),
        (range(3, 5), range(0), range(0), []),  # there is nothing to go on from
    ],
)
def test_the_own_size_is_believed_where_they_differ(large: range, own: range, expected: range, corrected: list) -> None:
    predictor = both([[large]], [[own]])
    prediction = predictor.advance(FRAME)
    assert np.flatnonzero(prediction.winners[0]).tolist() == list(expected)
    assert prediction.winners.dtype == np.uint8
    np.testing.assert_array_equal(prediction.logits()[0] > 0, prediction.winners > 0)
    assert predictor.base.corrected == corrected
    assert predictor.own_size.corrected == []


def test_every_object_is_judged_by_itself() -> None:
    predictor = both([[range(3), range(6, 10)]], [[range(2), range(5, 10)]])  # IoU 2/3 and 4/5, which is not above it
    prediction = predictor.advance(FRAME)
    assert prediction.winners[0].tolist() == [1, 1, 0, 0, 0, 2, 2, 2, 2, 2]
    assert [index for index, _ in predictor.base.corrected] == [0, 1]
    predictor = both([[range(3), range(5, 10)]], [[range(3, 5), range(5, 10)]])
    assert predictor.advance(FRAME).winners[0].tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2, 2]
    assert predictor.base.corrected == [(0, [3, 4])]


def test_what_belongs_to_a_video_is_that_of_both() -> None:
    predictor = both([[range(3)] * 2] * 3, [[range(3)] * 2] * 3)
    predictor.advance(FRAME)
    snapshot = predictor.snapshot()
    again = TwoSizesPredictor(Scripted(), Scripted(), "argmax")
    again.restore(snapshot)
    assert [(x.done, x.kept) for x in (again.base, again.own_size)] == [(1, 2), (1, 2)]
    for lacks in ("kept", "own_size/kept"):
        damaged = {**snapshot, "done": np.array(7), "own_size/done": np.array(7)}
        del damaged[lacks]
        with pytest.raises(InputError, match="damaged"):
            again.restore(damaged)
        assert [(x.done, x.kept) for x in (again.base, again.own_size)] == [(1, 2), (1, 2)]
    again.keep([1])
    assert (again.base.objects, again.own_size.objects) == (1, 1)
    again.forget()
    assert (again.base.objects, again.own_size.objects) == (0, 0)


# A network --------------------------------------------------------------------------------------------------------

FRAMES = [random_frames(72, 108, seed=seed) for seed in range(4)]
MASK = box_mask(72, 108, (10, 50, 8, 50), (20, 60, 60, 100))


@pytest.fixture(scope="module")
def network():
    from osmn_tf.models.osmn import OSMN

    return randomise(OSMN(**TINY, **MATCHING), seed=10)


def test_larger_frames_have_the_own_size_beside_them(network) -> None:
    from osmn_tf.inference.modulated import ModulatedPredictor

    assert not isinstance(VideoSegmenter(network, scale=0.5).predictor, TwoSizesPredictor)
    segmenter = VideoSegmenter(network, scale=1.5)
    predictor = segmenter.predictor
    assert isinstance(predictor, TwoSizesPredictor)
    segmenter.start(FRAMES[0], MASK)
    assert (predictor.base.network_size, predictor.own_size.network_size) == ((96, 144), (64, 96))
    large, own = (ModulatedPredictor(network, PredictorOptions(scale=scale)) for scale in (1.5, 1.0))
    for alone in (large, own):
        alone.begin(FRAMES[0], np.stack([MASK == 1, MASK == 2]).astype(np.uint8))
    fine, coarse = large.advance(FRAMES[1]), own.advance(FRAMES[1])
    logits = fine.logits().copy()
    for index in (0, 1):
        one, other = fine.winners == index + 1, coarse.winners == index + 1
        # A network that knows nothing finds one thing here and another there.
        assert 0 < (one & other).sum() < 0.8 * (one | other).sum()
        logits[index] = coarse.logits()[index]
        large.correct(index, other)
    np.testing.assert_array_equal(segmenter.step(FRAMES[1]), merge_logits(logits, "argmax"))
    np.testing.assert_array_equal(predictor.base.snapshot()["guide_masks"], large.snapshot()["guide_masks"])
    np.testing.assert_array_equal(large.snapshot()["guide_masks"][0], resize_mask(coarse.winners == 1, (96, 144)))
    snapshot = segmenter.snapshot()
    assert {name for name in snapshot if name.endswith("guide_masks")} == {"guide_masks", "own_size/guide_masks"}
    again = VideoSegmenter(network, scale=1.5)
    again.restore(snapshot)
    np.testing.assert_array_equal(again.step(FRAMES[3]), segmenter.step(FRAMES[3]))


def test_the_larger_one_is_fine_tuned(network) -> None:
    segmenter = VideoSegmenter(network, scale=1.5)
    predictor = segmenter.predictor
    assert isinstance(predictor, TwoSizesPredictor)
    with segmenter.finetune([(FRAMES[0], MASK)], steps=1):
        assert (predictor.is_adapted, predictor.base.is_adapted, predictor.own_size.is_adapted) == (True, True, False)
        kept = segmenter.adapted_weights()
    assert not predictor.is_adapted
    with segmenter.load_adapted(kept):
        assert (predictor.base.is_adapted, predictor.own_size.is_adapted) == (True, False)

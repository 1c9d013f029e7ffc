"""OSVOS on a video: a set of weights for every object, learnt when it is taken up or before."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from support import NARROW_VGG, box_mask, call, count_calls, randomise

from osmn_tf.errors import InputError
from osmn_tf.evaluation.metrics import jaccard
from osmn_tf.inference.adaptation.object_tuner import ObjectTuneOptions, ObjectTuner
from osmn_tf.inference.adaptation.pool import TunerPool
from osmn_tf.inference.adaptation.training import Budget
from osmn_tf.inference.osvos import OSVOSPredictor, _Shared
from osmn_tf.inference.predictor import AdaptOptions
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.models.osvos import OSVOS
from osmn_tf.resampling import resize_frame

SIZE = (64, 96)
RATE = 5e-3  # for weights that are random
OPTIONS = ObjectTuneOptions(batch=2)


@pytest.fixture(scope="module")
def network() -> OSVOS:
    """The training step is compiled once. Do not change its weights."""
    arguments = {"network_size": SIZE, "batch_statistics": False}
    return randomise(OSVOS("short", "refinement", **arguments), seed=3)


@pytest.fixture(autouse=True)
def _unchanged(network: OSVOS) -> Iterator[None]:
    before = network.get_weights()
    yield
    for found, expected in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of a batch of two where a predictor learns by itself."""
    monkeypatch.setattr(OSVOSPredictor, "adaptation", AdaptOptions(2, RATE, details=OPTIONS))


def scene(red: int, green: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A frame with a red (label 1) and a green square (label 2), given by their left edges, on dark noise."""
    frame = np.random.default_rng(seed).integers(0, 60, (*SIZE, 3)).astype(np.uint8)
    mask = box_mask(*SIZE, (12, 36, red, red + 24), (30, 54, green, green + 24))
    frame[mask == 1] = (220, 40, 40)
    frame[mask == 2] = (40, 200, 60)
    return frame, mask


def scores(segmenter: VideoSegmenter) -> np.ndarray:
    return np.stack(list(segmenter.scores.values()))


def test_a_trunk_without_batch_norm_learns_slowly(network: OSVOS) -> None:
    plain = OSVOS(block_channels=NARROW_VGG, network_size=SIZE)
    rates = [OSVOSPredictor(each).adaptation.learning_rate for each in (network, plain)]
    assert rates == [2e-4, 5e-6]


def test_learns_each_object_and_finds_it_anywhere(network: OSVOS) -> None:
    """Frames are on their own: an object that has jumped is found."""
    segmenter = VideoSegmenter(network)
    frame, mask = scene(8, 60)
    steps: list[tuple[int, int]] = []
    with segmenter.finetune(
        [(frame, mask)], 40, RATE, options=OPTIONS, progress=lambda done, total, loss: steps.append((done, total))
    ):
        moved, expected = scene(62, 4, seed=1)
        results = [found for _, found in segmenter.track([frame, moved, moved], mask)]
    assert steps == [(number, 80) for number in range(1, 81)]
    np.testing.assert_array_equal(results[0], mask)
    for label in (1, 2):
        assert jaccard(expected == label, results[1] == label) > 0.7
    np.testing.assert_array_equal(results[1], results[2])


def test_learns_by_itself(network: OSVOS, quick: None) -> None:
    """What `start` learns is what `finetune` learns with the same settings, and other objects do not change it."""
    frame, mask = scene(8, 60)
    first, second, alone = (VideoSegmenter(network, keep_scores=True) for _ in range(3))
    first.start(frame, mask)
    first.step(frame)
    with second.finetune([(frame, mask)], 2, RATE, options=OPTIONS):
        second.start(frame, mask)
        second.step(frame)
        tuned = scores(second)
    np.testing.assert_array_equal(scores(first)[0], tuned[0])  # the second object has another seed
    alone.start(frame, (mask == 1).astype(np.uint8))
    alone.step(frame)
    np.testing.assert_array_equal(scores(alone)[0], tuned[0])
    both = scores(first)
    first.remove(1)
    first.step(frame)
    np.testing.assert_array_equal(scores(first), both[1:])


@pytest.mark.backend
def test_no_steps_are_the_parent(network: OSVOS) -> None:
    """Folded and with its weights given from outside, the network gives what it gives by itself."""
    frame, mask = scene(8, 60)
    segmenter = VideoSegmenter(network, keep_scores=True)
    with segmenter.finetune([(frame, mask)], 0):
        segmenter.start(frame, mask)
        segmenter.step(frame)
        found = segmenter.predictor.advance(frame).logits
    assert found is not None
    small = resize_frame(frame, SIZE)[None]
    expected = np.asarray(call(network, {"frame": small})["logits"])[0, ..., 0]
    for logits in found():
        np.testing.assert_allclose(logits, expected, atol=1e-4 * expected.std())


def test_weights_and_state_come_back(network: OSVOS, quick: None) -> None:
    frame, mask = scene(8, 60)
    segmenter, other = VideoSegmenter(network, keep_scores=True), VideoSegmenter(network, keep_scores=True)
    with segmenter.finetune([(frame, mask)], 2, RATE, options=OPTIONS):
        segmenter.start(frame, mask)
        segmenter.step(frame)
        weights, expected = segmenter.adapted_weights(), scores(segmenter)
        other.restore(segmenter.snapshot())
        other.step(frame)
        np.testing.assert_array_equal(scores(other), expected)
        other.reset()
    with other.load_adapted(weights):
        assert other.predictor.is_adapted
        other.start(frame, mask)
        other.step(frame)
        np.testing.assert_array_equal(scores(other), expected)
    assert not other.predictor.is_adapted
    with pytest.raises(InputError, match="weights: its weights are not of this network"):
        other.load_adapted({name: value[..., None] for name, value in weights.items()})
    with pytest.raises(InputError, match="snapshot: it has no weights of objects"):
        other.predictor.restore({"state/lstm": np.zeros(3)})


def test_several_annotated_frames(network: OSVOS) -> None:
    """An object is learnt from all of its frames, and known again by each of its masks."""
    first, second = scene(8, 60), scene(40, 2, seed=1)
    red = np.where(second[1] == 1, 1, 0).astype(np.uint8)
    tuner = ObjectTuner(network, SIZE, OPTIONS)
    masks = np.stack([(mask == 1).astype(np.uint8) for mask in (first[1], red)])
    batches = tuner._batches(np.stack([first[0], second[0]]), masks, np.random.default_rng(0))
    seen = [next(batches) for _ in range(2)]
    assert all((np.asarray(labels) == 1).any() for _, labels in seen)
    segmenter = VideoSegmenter(network, keep_scores=True)
    with segmenter.finetune([first, (second[0], red)], 1, RATE, options=OPTIONS):
        weights = segmenter.adapted_weights()
        assert [len(weights[f"object{index}/masks"]) for index in (0, 1)] == [2, 1]
        both = []
        for frame, mask in (first, (second[0], red)):
            segmenter.start(frame, (mask == 1).astype(np.uint8))
            segmenter.step(first[0])
            both.append(scores(segmenter))
        np.testing.assert_array_equal(*both)


def test_a_second_video_compiles_nothing(network: OSVOS, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = scene(8, 60)
    first = VideoSegmenter(network)
    first.start(*pair)
    first.step(pair[0])
    traced: list[str] = []
    for owner, name in ((_Shared, "_scores"), (ObjectTuner, "_prepare"), (ObjectTuner, "_loss")):
        count_calls(monkeypatch, owner, name, traced)
    second = VideoSegmenter(network)
    second.start(*pair)
    second.step(pair[0])
    assert traced == []


def test_refuses(network: OSVOS) -> None:
    with pytest.raises(InputError, match="recover: every frame is segmented on its own, without guides"):
        VideoSegmenter(network, recover=False)
    with pytest.raises(InputError, match="network_size: expected at least 32 x 32"):
        VideoSegmenter(network, (16, 64))
    segmenter = VideoSegmenter(network)
    with pytest.raises(InputError, match="either a number of steps or of seconds"):
        segmenter.finetune([scene(8, 60)], 3, seconds=2.0)
    with pytest.raises(InputError, match="seconds: expected a positive number, received -1"):
        segmenter.finetune([scene(8, 60)], seconds=-1.0)
    with pytest.raises(InputError, match="learning_rate: expected a positive number"):
        segmenter.finetune([scene(8, 60)], 3, -1.0, options=OPTIONS)
    with pytest.raises(InputError, match="batch: expected 1 or more"):
        ObjectTuneOptions(batch=0)


def test_budget_of_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step is not counted; what is left is estimated from the time of the others."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    budget = Budget(None, 4.0)
    totals = []
    for step in budget:
        now[0] += 50.0 if step == 0 else 1.5
        totals.append(budget.total(step + 1))
    assert totals == [2, 5, 4, 4]
    assert budget.made == 4
    assert list(Budget(0)) == []
    assert Budget(7).total(2) == 7


def test_pool_lends_to_one_at_a_time() -> None:
    made: list[tuple[int, ...]] = []

    def make(*settings: int) -> object:
        made.append(settings)
        return object()

    pool: TunerPool[object] = TunerPool(make, most_idle=1)
    first = pool.borrow(1)
    assert pool.borrow(1) is not first
    pool.give_back(first, 1)
    assert pool.borrow(1) is first
    pool.give_back(first, 1)
    pool.give_back(pool.borrow(2), 2)
    assert len(pool) == 1
    assert pool.borrow(1) is not first
    assert made == [(1,), (1,), (2,), (1,)]

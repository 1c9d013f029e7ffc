"""RVOS on a video: against its own frame model, objects that come and go, and objects that it finds by itself."""

from __future__ import annotations

import numpy as np
import pytest
from support import TINY_RVOS, WHOLE_NETWORK, assert_close, box_mask, call, numpy, random_frames, randomise, tensors

import osmn_tf as osmn
from osmn_tf.errors import InputError
from osmn_tf.inference import sequence
from osmn_tf.inference.merging import merge_logits
from osmn_tf.inference.predictor import PredictorOptions, open_predictor
from osmn_tf.inference.rvos import RVOSPredictor
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.models.rvos import RVOS

SIZE = (64, 96)
FRAMES = list(random_frames(4, *SIZE))
BOXES = [(5, 30, 5, 40), (34, 60, 50, 90), (5, 25, 60, 90), (36, 56, 4, 30)]
MASK = box_mask(*SIZE, *BOXES[:2])


@pytest.fixture(scope="module")
def network() -> RVOS:
    """Takes masks, and finds objects. Shared by all tests: do not change its weights."""
    return randomise(RVOS(**TINY_RVOS, slots=2), seed=5)


@pytest.fixture(scope="module")
def finder() -> RVOS:
    """Takes no masks. Shared by all tests: do not change its weights."""
    return randomise(RVOS(**TINY_RVOS, one_shot=False, slots=3), seed=4)


def reference(
    network: RVOS, objects: int, masks: np.ndarray | None, frames: list[np.ndarray] = FRAMES
) -> list[np.ndarray]:
    """Logits [N, H, W] of every frame but the first of its `frame_model`; in the first the given masks stand."""
    model = network.frame_model(objects)
    state, found = network.initial_state(objects, *SIZE), []
    for t, frame in enumerate(frames):
        inputs = {"frame": frame[None], **state}
        if network.one_shot:
            inputs["previous_masks"] = np.zeros((objects, *SIZE, 1), np.float32) if masks is None else masks[..., None]
        outputs = call(model, tensors(inputs))
        logits = numpy(outputs["logits"])[..., 0]
        found.append(logits)
        state = {spec.name: outputs[spec.name] for spec in network.state_specs}
        if t > 0 or masks is None:
            masks = 1 / (1 + np.exp(-logits))
    return found


@pytest.mark.parametrize("objects", [1, pytest.param(2, marks=pytest.mark.backend)])
def test_a_video_from_given_masks(network: RVOS, objects: int) -> None:
    mask = np.zeros(SIZE, np.uint8)
    for k in range(objects):  # bands
        mask[6 * k : 6 * k + 6, 4 * k : 4 * k + 40] = k + 1
    given = np.stack([mask == k + 1 for k in range(objects)]).astype(np.float32)
    segmenter = VideoSegmenter(network, keep_scores=True)
    expected = reference(network, objects, given)
    for t, (_, found) in enumerate(segmenter.track(FRAMES, mask)):
        if t == 0:
            np.testing.assert_array_equal(found, mask)
            continue
        scores = np.stack(list(segmenter.scores.values()))
        assert_close(scores, 1 / (1 + np.exp(-expected[t])), WHOLE_NETWORK)
        best = np.where(scores.max(0) > 0.5, scores.argmax(0) + 1, 0)
        ranked = np.sort(np.concatenate([scores, np.full((1, *SIZE), 0.5, np.float32)]), axis=0)
        clear = ranked[-1] - ranked[-2] > 1e-5
        np.testing.assert_array_equal(found[clear], best[clear])


def test_an_object_that_comes_later_is_the_next_in_the_sequence(network: RVOS) -> None:
    """Those before it go on as without it; it begins behind them, from its mask and with nothing of its own."""
    alone, together = (VideoSegmenter(network, keep_scores=True) for _ in range(2))
    late = np.where(MASK == 2, 7, 0).astype(np.uint8)
    alone.start(FRAMES[0], np.where(MASK == 1, 1, 0).astype(np.uint8))
    together.start(FRAMES[0], np.where(MASK == 1, 1, 0).astype(np.uint8))
    alone.step(FRAMES[1])
    found = together.add(FRAMES[1], late)
    assert (found[late == 7] == 7).all()
    assert together.labels == (1, 7)
    for frame in FRAMES[2:]:
        alone.step(frame)
        together.step(frame)
        assert_close(together.scores[1], alone.scores[1], WHOLE_NETWORK)
    # The frame of its beginning again, with both in one sequence, by hand.
    before = VideoSegmenter(network)
    before.start(FRAMES[0], np.where(MASK == 1, 1, 0).astype(np.uint8))
    kept = before.predictor.snapshot()
    model = network.frame_model(2)
    inputs = {"frame": FRAMES[1][None]}
    inputs["previous_masks"] = np.stack([kept["masks"][0], (late == 7).astype(np.float32)])[..., None]
    for spec in network.state_specs:
        old = kept[f"state/{spec.name}"]
        inputs[spec.name] = np.concatenate([old, np.zeros_like(old)])
    outputs = model(tensors(inputs))
    fresh = VideoSegmenter(network)
    fresh.start(FRAMES[0], np.where(MASK == 1, 1, 0).astype(np.uint8))
    fresh.add(FRAMES[1], late)
    for spec in network.state_specs:
        assert_close(fresh.predictor.snapshot()[f"state/{spec.name}"], outputs[spec.name], WHOLE_NETWORK)


def test_independent_objects(network: RVOS) -> None:
    """Each has the scores that it has alone, and is carried on where no other is surer."""
    independent = RVOS(**TINY_RVOS, independent=True)
    independent.set_weights(network.get_weights())
    together = VideoSegmenter(independent, keep_scores=True)
    together.start(FRAMES[0], MASK)
    together.step(FRAMES[1])
    for label in (1, 2):
        alone = VideoSegmenter(independent, keep_scores=True)
        alone.start(FRAMES[0], np.where(label == MASK, label, 0).astype(np.uint8))
        alone.step(FRAMES[1])
        assert_close(together.scores[label], alone.scores[label], WHOLE_NETWORK)
    masks, scores = together.snapshot()["masks"], np.stack(list(together.scores.values()))
    np.testing.assert_array_equal((masks > 0).sum(0)[scores[0] != scores[1]], 1)
    assert_close(masks.max(0), scores.max(0), WHOLE_NETWORK)  # frames have the network's own size


def test_objects_end_and_begin_again(network: RVOS) -> None:
    segmenter = VideoSegmenter(network)
    mask = box_mask(*SIZE, *BOXES[:3])
    segmenter.start(FRAMES[0], mask)
    kept = segmenter.predictor.snapshot()
    segmenter.remove(2)
    assert segmenter.labels == (1, 3)
    for name, value in segmenter.predictor.snapshot().items():
        np.testing.assert_array_equal(value, kept[name][[0, 2]])
    again = np.where(mask == 1, 1, 0).astype(np.uint8)
    segmenter.add(FRAMES[1], again)
    assert segmenter.labels == (3, 1)  # it has a new place
    np.testing.assert_array_equal(segmenter.predictor.snapshot()["masks"][1], again)


def test_goes_on_from_a_snapshot(network: RVOS) -> None:
    first, second = VideoSegmenter(network), VideoSegmenter(network)
    expected = [mask for _, mask in first.track(FRAMES, MASK)]
    pairs = first.track(FRAMES, MASK)
    next(pairs)
    next(pairs)
    second.restore(first.snapshot())
    for t in (2, 3):
        np.testing.assert_array_equal(second.step(FRAMES[t]), expected[t])
    with pytest.raises(InputError, match="snapshot: its state is not of this network"):
        VideoSegmenter(network, (64, 64)).restore(first.snapshot())


@pytest.mark.parametrize("form", ["network", "finder"])
def test_finds_objects_and_keeps_them(form: str, request: pytest.FixtureRequest) -> None:
    """What it finds is what the frame model gives without masks, less the slots that are empty."""
    network = request.getfixturevalue(form)
    count = network.slots
    expected = reference(network, count, None)
    winners = merge_logits(expected[0], "argmax")
    kept = [k for k in range(count) if (winners == k + 1).mean() >= sequence.MIN_AREA]
    assert kept  # random weights find something, but perhaps not in every slot
    segmenter = VideoSegmenter(network, keep_scores=True)
    found = [mask for _, mask in segmenter.track(FRAMES)]
    assert segmenter.labels == tuple(range(1, len(kept) + 1))
    for place, k in enumerate(kept):  # pixels of dropped slots may go to others, and a tie to either
        assert (found[0] == place + 1)[winners == k + 1].mean() > 0.999
    if len(kept) == count:  # nothing is missing in the sequence of objects
        for logits, mask in zip(expected, found, strict=True):
            assert (merge_logits(logits, "argmax") == mask).mean() > 0.999


def test_drops_slots_that_are_empty(network: RVOS) -> None:
    biased = randomise(RVOS(**TINY_RVOS, slots=2), seed=3)
    bias = next(weight for weight in biased.weights if weight.path.endswith("seg_score/bias"))
    bias.assign(bias * 0 - 100.0)
    segmenter = VideoSegmenter(biased)
    assert not segmenter.start(FRAMES[0]).any()
    assert segmenter.labels == ()
    bias.assign(bias * 0 + 100.0)  # all slots are sure of all pixels now: the first of equals, or the surest, has them
    assert segmenter.step(FRAMES[1]).all()  # it was still looking
    assert len(segmenter.labels) <= 2


def test_objects_limits_what_is_looked_for(network: RVOS) -> None:
    one = VideoSegmenter(network, objects=1)
    one.start(FRAMES[0])
    assert one.labels in ((), (1,))
    with pytest.raises(InputError, match="objects: there is room for 1, received masks of 2; raise it"):
        one.start(FRAMES[0], MASK)


def test_what_is_painted_over_what(network: RVOS) -> None:
    """As released: what the first prediction fits best is painted last."""
    segmenter = VideoSegmenter(network, merge="painted", keep_scores=True)
    pairs = segmenter.track(FRAMES, MASK)
    next(pairs)
    ranks = segmenter.predictor.snapshot()["ranks"]
    first = reference(network, 2, np.stack([MASK == 1, MASK == 2]).astype(np.float32), FRAMES[:1])[0] > 0
    for k in range(2):
        given = np.where(k + 1 == MASK, True, False)
        iou = (first[k] & given).sum() / (first[k] | given).sum()
        assert ranks[k] == pytest.approx(iou, abs=0.02)
    for _, found in pairs:
        scores = segmenter.scores
        expected = np.zeros(SIZE, np.uint8)
        for k in np.argsort(ranks, kind="stable"):
            expected[scores[int(k) + 1] > 0.5] = k + 1
        np.testing.assert_array_equal(found, expected)


def test_merges_alike_with_and_without_ranks() -> None:
    logits = np.random.default_rng(0).standard_normal((3, 5, 7)).astype(np.float32)
    painted = np.zeros((5, 7), np.uint8)
    for k in (2, 0, 1):
        painted[logits[k] > 0] = k + 1
    np.testing.assert_array_equal(merge_logits(logits, "painted", np.array([0.5, 0.9, 0.1])), painted)
    later = np.zeros((5, 7), np.uint8)
    for k in range(3):
        later[logits[k] > 0] = k + 1
    np.testing.assert_array_equal(merge_logits(logits, "painted"), later)


def test_one_encoder_call_a_frame(network: RVOS, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    predictor = RVOSPredictor(network, PredictorOptions((64, 64)))
    original = predictor.step._frame_encoder
    monkeypatch.setattr(predictor.step, "_frame_encoder", lambda inputs: (calls.append("encoder"), original(inputs))[1])
    given = np.stack([MASK == 1, MASK == 2]).astype(np.float32)[:, :, :64]
    masks = np.tile(given, (2, 1, 1))
    state = network.initial_state(4, 64, 64)
    predictor.step.network_step(tensors({"x": FRAMES[0][None, :, :64]})["x"], tensors({"x": masks})["x"], state)
    assert calls == ["encoder"]


def test_refusals(network: RVOS, finder: RVOS) -> None:
    with pytest.raises(InputError, match="mask: this network takes none, it finds the objects by itself"):
        VideoSegmenter(finder).start(FRAMES[0], MASK)
    needs_masks = RVOS(**TINY_RVOS)
    with pytest.raises(InputError, match="mask: this network finds no objects by itself, expected a mask of them"):
        open_predictor(needs_masks).begin(FRAMES[0], None)
    with pytest.raises(InputError, match="exclusive: RVOS carries its soft masks on"):
        VideoSegmenter(network, exclusive=False)
    with pytest.raises(InputError, match="network_size: expected at least 32 x 32"):
        VideoSegmenter(network, (16, 64))
    with pytest.raises(InputError, match=r"objects: expected 1..254, received 0"):
        VideoSegmenter(network, objects=0)


def test_a_preset_goes_there_and_back(network: RVOS, tmp_path) -> None:
    network.save_to_preset(tmp_path / "rvos")
    predictor = osmn.VideoSegmenter(tmp_path / "rvos").predictor
    assert isinstance(predictor, RVOSPredictor)
    assert predictor.network.get_config() == network.get_config()
    for found, expected in zip(predictor.network.weights, network.weights, strict=True):
        np.testing.assert_array_equal(numpy(found), numpy(expected))

"""Predictors with a detector: selection, propagation, the conditional classifier, and what it is worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from support import box_mask, call, randomise

from osmn_tf.datasets.detections import FunctionDetections, Instance
from osmn_tf.errors import InputError
from osmn_tf.evaluation.metrics import jaccard
from osmn_tf.inference.adaptation.object_tuner import ObjectTuneOptions, soften
from osmn_tf.inference.merging import merge_logits
from osmn_tf.inference.osvos import OSVOSPredictor
from osmn_tf.inference.predictor import AdaptOptions, Prediction, Predictor, PredictorOptions
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.inference.semantic import PICKED, PRIOR, SIGMA, SemanticPredictor
from osmn_tf.inference.semantic_selection import classifier_weight
from osmn_tf.models.osvos import OSVOS

SIZE = (64, 96)
CATEGORY = 3


class Blurred(Predictor):
    """Says of every frame how red it is: a first round that leaks to whatever is red too."""

    def __init__(self) -> None:
        self.count = 0
        self.numbers: list[int] = []

    @property
    def network_size(self) -> None:
        return None

    @property
    def objects(self) -> int:
        return self.count

    def forget(self) -> None:
        self.count = 0

    def begin(self, frame: np.ndarray, masks: np.ndarray | None) -> None:
        assert masks is not None
        self.count += len(masks)

    def keep(self, indices: Sequence[int]) -> None:
        self.count = len(indices)

    def advance(self, frame: np.ndarray) -> Prediction:
        redness = (frame[..., 0].astype(np.float32) - 127.5) / 127.5
        logits = np.repeat(redness[None], self.count, 0)
        return Prediction(merge_logits(logits, "argmax"), lambda: logits)

    def snapshot(self) -> dict[str, np.ndarray]:
        return {"count": np.array(self.count)}

    def restore(self, snapshot: dict[str, np.ndarray]) -> None:  # type: ignore[override]
        self.count = int(snapshot["count"])


def boxes(left: int) -> tuple[np.ndarray, np.ndarray]:
    """The object, and a decoy of the same colour and the same category beside it."""
    return box_mask(*SIZE, (12, 36, left, left + 20)) > 0, box_mask(*SIZE, (40, 60, 70, 90)) > 0


def scene(left: int, red: int = 200) -> np.ndarray:
    frame = np.random.default_rng(left).integers(0, 60, (*SIZE, 3)).astype(np.uint8)
    for mask in boxes(left):
        frame[mask] = (red, 40, 40)
    return frame


LEFTS = [4, 10, 16, 22]
FRAMES = [scene(left) for left in LEFTS]
MASKS = [boxes(left)[0] for left in LEFTS]


def oracle(index: int, frame: np.ndarray) -> list[Instance]:
    return [Instance(CATEGORY, 0.9, mask) for mask in reversed(boxes(LEFTS[index]))]


def segmented(predictor: Predictor) -> np.ndarray:
    return np.stack([mask for _, mask in VideoSegmenter(predictor).track(FRAMES, MASKS[0].astype(np.uint8))])


def score(masks: np.ndarray) -> float:
    return float(np.mean([jaccard(expected, mask > 0) for expected, mask in zip(MASKS[1:], masks[1:])]))


def test_the_instance_that_goes_on_is_kept_and_the_decoy_left() -> None:
    alone, semantic = segmented(Blurred()), SemanticPredictor(Blurred(), oracle, sigma=0.0)
    result = segmented(semantic)
    # The decoy's logits are below PRIOR: outside of the picked instance they fall below 0.
    assert PRIOR > (200 - 127.5) / 127.5
    for mask, expected in zip(result[1:], MASKS[1:]):
        np.testing.assert_array_equal(mask > 0, expected)
    assert score(alone) < 0.6
    assert [len(chosen) for chosen in semantic.picked] == [1]


def test_without_instances_the_first_round_decides() -> None:
    expected = segmented(Blurred())
    np.testing.assert_array_equal(segmented(SemanticPredictor(Blurred(), lambda index, frame: [])), expected)

    def far_away(index: int, frame: np.ndarray) -> list[Instance]:
        return [Instance(CATEGORY, 0.9, box_mask(*SIZE, (0, 6, 60, 66)) > 0)]

    np.testing.assert_array_equal(segmented(SemanticPredictor(Blurred(), far_away)), expected)

    def lost_later(index: int, frame: np.ndarray) -> list[Instance]:
        return oracle(index, frame) if index == 0 else []

    np.testing.assert_array_equal(segmented(SemanticPredictor(Blurred(), lost_later)), expected)


def test_disturbed_instances_beat_the_first_round_and_themselves() -> None:
    """30% of them are dropped, all are shifted by 10%, and there are decoys: better than the head and the detector."""
    rng = np.random.default_rng(5)

    def disturbed(index: int, frame: np.ndarray) -> list[Instance]:
        kept = [one for one in oracle(index, frame) if index == 0 or rng.random() > 0.3]
        return [Instance(one.category, one.score, np.roll(one.mask, 2, axis=1)) for one in kept]

    semantic = SemanticPredictor(Blurred(), disturbed)
    alone, masks, detected = segmented(Blurred()), [], []
    for index, (_, mask) in enumerate(VideoSegmenter(semantic).track(FRAMES, MASKS[0].astype(np.uint8))):
        masks.append(mask)
        chosen = [one.mask for one in semantic.picked[0]] if index else [MASKS[0]]
        detected.append(np.any(chosen, axis=0) if chosen else np.zeros(SIZE, bool))
    assert score(np.stack(masks)) > max(score(alone), score(np.stack(detected)))


def test_frame_numbers_come_from_the_segmenter() -> None:
    """Also frame by frame, when objects come late, both ways, and behind an interruption."""
    asked: list[int] = []

    def detections(index: int, frame: np.ndarray) -> list[Instance]:
        asked.append(index)
        return []

    segmenter = VideoSegmenter(SemanticPredictor(Blurred(), detections))
    mask = MASKS[0].astype(np.uint8)
    list(segmenter.track(FRAMES, {2: mask}))
    assert asked == [2, 3]
    asked.clear()
    segmenter.start(FRAMES[0], mask)
    segmenter.step(FRAMES[1])
    segmenter.add(FRAMES[2], 2 * mask)
    assert asked == [0, 1, 2, 2]
    kept = segmenter.snapshot()
    other = VideoSegmenter(SemanticPredictor(Blurred(), detections))
    other.restore(kept)
    asked.clear()
    other.step(FRAMES[3])
    assert asked == [3]
    asked.clear()
    list(segmenter.track_back(FRAMES, {2: mask}))
    assert asked == [2, 1, 0]
    with pytest.raises(InputError, match="snapshot: it is of a run without detections"):
        other.predictor.restore({"count": np.array(1)})


def test_what_was_selected_is_kept_and_drawn() -> None:
    semantic = SemanticPredictor(Blurred(), oracle)
    segmenter = VideoSegmenter(semantic)
    segmenter.start(FRAMES[0], MASKS[0].astype(np.uint8))
    segmenter.add(FRAMES[1], 2 * MASKS[1].astype(np.uint8))
    assert [[one.category for one in chosen] for chosen in semantic.picked] == [[CATEGORY], [CATEGORY]]
    other = SemanticPredictor(Blurred(), oracle)
    other.restore(segmenter.predictor.snapshot())
    assert other._categories == semantic._categories
    segmenter.remove(1)
    segmenter.step(FRAMES[2])
    drawn = semantic.explain(FRAMES[2])
    taken, left = boxes(LEFTS[2])
    changed = (drawn != FRAMES[2]).any(axis=-1)
    white = (drawn == np.array(PICKED)).all(axis=-1)
    assert (changed & ~white).any()
    assert white[taken].any()
    assert not white[left].any()


def test_networks_that_give_no_scores_are_refused() -> None:
    silent = Blurred()
    silent.gives_scores = False
    with pytest.raises(InputError, match="--detections: this network keeps its scores"):
        SemanticPredictor(silent, oracle)


# OSVOS-S ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network() -> OSVOS:
    arguments = {"network_size": SIZE, "batch_statistics": False}
    return randomise(OSVOS("short", "refinement", **arguments), seed=3)


@pytest.mark.parametrize("decoder", [pytest.param("refinement", marks=pytest.mark.backend), "hypercolumn"])
def test_conditional_heads_begin_as_the_first_one(decoder: str) -> None:
    network = randomise(OSVOS("short", decoder, side_channels=3, network_size=SIZE), seed=1)
    copy = network.with_conditional_heads()
    assert copy.get_config() == {**network.get_config(), "conditional": True, "name": copy.name}
    frame = FRAMES[0][None]
    expected = {name: np.asarray(value) for name, value in call(network, {"frame": frame}).items()}
    outputs = {name: np.asarray(value) for name, value in call(copy, {"frame": frame}).items()}
    assert set(outputs) == {*expected, "inside", "outside"}
    for name, value in outputs.items():
        np.testing.assert_array_equal(value, expected.get(name, expected["logits"]))


def test_three_heads_are_trained_together(network: OSVOS) -> None:
    """They learn what each is for, and the result is the conditional classifier's."""
    semantic = SemanticPredictor(OSVOSPredictor(network), FunctionDetections(lambda frame: oracle(0, frame)))
    assert (semantic.can_adapt, semantic.adapts_itself) == (True, True)
    segmenter = VideoSegmenter(semantic, keep_scores=True)
    mask = MASKS[0].astype(np.uint8)
    options = ObjectTuneOptions(batch=2, lost=0.0)
    with segmenter.finetune([(FRAMES[0], mask)], 40, 5e-3, options=options):
        segmenter.start(FRAMES[0], mask)
        result = segmenter.step(FRAMES[0])
        base = semantic.base
        assert isinstance(base, OSVOSPredictor)
        first, inside, outside = np.moveaxis(base.heads(FRAMES[0])[0], -1, 0)
        found = semantic.advance(FRAMES[0]).logits
    assert jaccard(MASKS[0], result > 0) > 0.8
    weight = classifier_weight([MASKS[0]], SIZE, SIGMA)
    assert found is not None
    np.testing.assert_allclose(found()[0], weight * inside + (1 - weight) * outside, rtol=1e-5, atol=1e-5)
    # The head for the outside has nothing to find: it says no to the decoy, which looks like the object.
    decoy = boxes(LEFTS[0])[1]
    assert outside[decoy].mean() < inside[MASKS[0]].mean()
    assert (first != inside).any()
    assert not semantic.is_adapted


@pytest.mark.backend
def test_softening_is_that_of_the_classifier() -> None:
    """The filter in training and the one in use: the same numbers."""
    mask = MASKS[0]
    expected = classifier_weight([mask], SIZE, 3.0)
    found = np.asarray(soften(mask[None, ..., None].astype(np.float32), 3.0))[0, ..., 0]
    # OpenCV cuts the bell off elsewhere: beyond three sigma lies less than half a percent.
    inner = (slice(10, -10), slice(10, -10))
    np.testing.assert_allclose(found[inner], expected[inner], atol=5e-3)


def test_several_annotated_frames_have_their_own_instances(network: OSVOS) -> None:
    """`adapt` is not told the numbers of its frames: they are those of `annotated`."""
    asked: list[int] = []

    def detections(index: int, frame: np.ndarray) -> list[Instance]:
        asked.append(index)
        return oracle(index, frame)

    semantic = SemanticPredictor(
        OSVOSPredictor(network, PredictorOptions()), detections, annotated={0: FRAMES[0], 3: FRAMES[3]}
    )
    pairs = [(FRAMES[index], MASKS[index].astype(np.uint8)) for index in (0, 3)]
    semantic.adapt(pairs, AdaptOptions(1, 1e-3, details=ObjectTuneOptions(batch=2, lost=0.0)))
    assert asked == [0, 3]
    other = SemanticPredictor(OSVOSPredictor(network), detections)
    other.load_adapted(semantic.adapted_weights())
    semantic.release()
    assert (other.is_adapted, semantic.is_adapted) == (True, False)


def test_wrong_options() -> None:
    with pytest.raises(InputError, match="lost: expected a probability"):
        ObjectTuneOptions(lost=2.0)
    with pytest.raises(InputError, match="sigma: expected a positive number"):
        ObjectTuneOptions(sigma=0.0)

"""Online fine-tuning: it learns the annotated objects, and the network is itself again afterwards."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from support import MATCHING, TINY, TINY_VGG, box_mask, count_calls, numpy, randomise

from osmn_tf.errors import InputError
from osmn_tf.evaluation.metrics import jaccard
from osmn_tf.inference.adaptation.online import FineTuneOptions, OnlineFineTuner
from osmn_tf.inference.adaptation.training import Budget, Training
from osmn_tf.inference.modulated import ModulatedPredictor, ModulatedStep
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.models.osmn import OSMN
from osmn_tf.models.reconvnet import ReConvNet

SIZE = (64, 96)
RATE = 2e-3  # for weights that are random


@pytest.fixture(scope="module")
def segmenter() -> VideoSegmenter:
    """The training step is compiled once."""
    network = ReConvNet(**TINY, decoder="refinement", recurrent_channels=(4, 6, 8))
    return VideoSegmenter(randomise(network, seed=1), SIZE, keep_scores=True)


@pytest.fixture(scope="module")
def tuner(segmenter: VideoSegmenter) -> OnlineFineTuner:
    """For what it does before the training."""
    return OnlineFineTuner(network_of(segmenter), SIZE, FineTuneOptions())


@pytest.fixture(autouse=True)
def _unchanged(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever happens, the network has its own weights, also while a segmenter has others."""
    if "segmenter" not in request.fixturenames:
        yield
        return
    segmenter = request.getfixturevalue("segmenter")
    before = network_of(segmenter).get_weights()
    yield
    assert equal(before, network_of(segmenter).get_weights())
    segmenter.restore_weights()


def network_of(segmenter: VideoSegmenter) -> OSMN:
    predictor = segmenter.predictor
    assert isinstance(predictor, ModulatedPredictor)
    return predictor.network


def equal(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all((a == b).all() for a, b in zip(first, second, strict=True))


def scene(red: int, green: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A frame with a red (label 1) and a green square (label 2), given by their left edges, on dark noise."""
    frame = np.random.default_rng(seed).integers(0, 60, (*SIZE, 3)).astype(np.uint8)
    mask = box_mask(*SIZE, (12, 36, red, red + 24), (30, 54, green, green + 24))
    frame[mask == 1] = (220, 40, 40)
    frame[mask == 2] = (40, 200, 60)
    return frame, mask


def samples_of(
    tuner: OnlineFineTuner, annotated: list[tuple[np.ndarray, np.ndarray]], steps: int
) -> Iterator[tuple[np.ndarray, ...]]:
    """What the first steps are trained on."""
    return itertools.islice(tuner._samples(annotated, np.random.default_rng(0)), steps)


def scores(segmenter: VideoSegmenter, frame: np.ndarray, mask: np.ndarray) -> list[float]:
    """J of every object in a second look at an annotated frame."""
    segmenter.start(frame, mask)
    result = segmenter.step(frame)
    return [jaccard(mask == label, result == label) for label in np.unique(mask) if label]


def raw_scores(segmenter: VideoSegmenter, frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The scores of a second look, float32 [N, H, W]."""
    segmenter.start(frame, mask)
    segmenter.step(frame)
    return np.stack(list(segmenter.scores.values()))


def test_learns_the_objects_of_all_annotated_frames(segmenter: VideoSegmenter, tuner: OnlineFineTuner) -> None:
    """The second object is annotated in the second frame only, and known in the first one too."""
    first, second = scene(8, 60), scene(40, 2, seed=1)
    only_red = np.where(first[1] == 1, 1, 0).astype(np.uint8)
    only_green = np.where(second[1] == 2, 2, 0).astype(np.uint8)
    pairs = [(first[0], only_red), (second[0], only_green)]
    seen = set()
    for frames, masks, *_ in samples_of(tuner, pairs, 2):
        seen |= {(int(frame.sum()), int(mask.sum())) for frame, mask in zip(frames, masks)}
    assert seen == {(int(first[0].sum()), 24 * 24), (int(second[0].sum()), 24 * 24)}
    before = scores(segmenter, *first)
    losses: list[float] = []
    with segmenter.finetune(pairs, 60, RATE, progress=lambda done, total, loss: losses.append(loss)):
        after = scores(segmenter, *first)
        assert scores(segmenter, second[0], only_green)[0] > 0.8
        moved = scores(segmenter, *scene(12, 56, seed=1))
    assert max(before) < 0.5
    assert min(after) > 0.8
    assert min(moved) > 0.7
    assert len(losses) == 60
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert scores(segmenter, *first) == before


def test_every_object_is_taken_in_turn(tuner: OnlineFineTuner) -> None:
    """Three samples a step, five objects: each is taken three times in five steps."""
    boxes = [(4 + 10 * k, 12 + 10 * k, 4, 12 + k) for k in range(5)]
    mask = box_mask(*SIZE, *boxes)
    counts: dict[int, int] = {}
    for _, masks, _, guides, *_ in samples_of(tuner, [(scene(8, 60)[0], mask)], 5):
        assert guides.shape == (3, 32, 32, 3)
        for sample in masks:
            counts[int(sample.sum())] = counts.get(int(sample.sum()), 0) + 1
    assert counts == {8 * (8 + k): 3 for k in range(5)}


def test_weights_depend_on_the_seed_alone(segmenter: VideoSegmenter) -> None:
    pair = scene(8, 60)
    tuned = []
    for seed in (5, 5, 6):
        with segmenter.finetune([pair], 3, RATE, seed=seed):
            tuned.append(segmenter.adapted_weights())
    assert all((tuned[0][path] == tuned[1][path]).all() for path in tuned[0])
    assert any((tuned[0][path] != tuned[2][path]).any() for path in tuned[0])
    network = network_of(segmenter)
    trained = [*network.frame_encoder.trainable_variables, *network.object_network.trainable_variables]
    assert set(tuned[0]) == {variable.path for variable in trained}


def test_a_second_call_begins_with_the_networks_own_weights(segmenter: VideoSegmenter) -> None:
    pair = scene(8, 60)
    segmenter.finetune([pair], 3, RATE)
    first = segmenter.adapted_weights()
    segmenter.finetune([scene(30, 2)], 3, RATE)
    segmenter.finetune([pair], 3, RATE)
    second = segmenter.adapted_weights()
    assert all((first[path] == second[path]).all() for path in first)


def test_saved_weights_are_those_of_the_fine_tuning(segmenter: VideoSegmenter) -> None:
    pair = scene(8, 60)
    with segmenter.finetune([pair], 3, RATE):
        saved, expected = segmenter.adapted_weights(), scores(segmenter, *pair)
    own = scores(segmenter, *pair)
    segmenter.load_adapted(saved)
    assert scores(segmenter, *pair) == expected != own
    segmenter.restore_weights()
    assert scores(segmenter, *pair) == own
    with pytest.raises(InputError, match="other"):
        segmenter.load_adapted({**saved, "more": np.zeros(1)})
    assert not segmenter.predictor.is_adapted
    with pytest.raises(InputError, match="adapted_weights"):
        segmenter.adapted_weights()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interruption_restores_the_weights(segmenter: VideoSegmenter, error: type[BaseException]) -> None:
    pair = scene(8, 60)
    own = raw_scores(segmenter, *pair)

    def stop(done: int, total: int, loss: float) -> None:
        if done == 2:
            assert not (raw_scores(segmenter, *pair) == own).all()
            raise error

    with pytest.raises(error):
        segmenter.finetune([pair], 5, RATE, progress=stop)
    assert (raw_scores(segmenter, *pair) == own).all()

    def body_fails() -> None:
        with segmenter.finetune([pair], 2, RATE):
            assert not (raw_scores(segmenter, *pair) == own).all()
            raise error

    with pytest.raises(error):
        body_fails()
    assert (raw_scores(segmenter, *pair) == own).all()


def test_forgets_the_video(segmenter: VideoSegmenter) -> None:
    frame, mask = scene(8, 60)
    segmenter.start(frame, mask)
    with segmenter.finetune([(frame, mask)], 1, RATE):
        assert segmenter.labels == ()
        segmenter.start(frame, mask)
    assert segmenter.labels == ()
    # The frames need not have the size of the video before.
    segmenter.finetune([(np.zeros((80, 80, 3), np.uint8), box_mask(80, 80, (10, 40, 10, 40)))], 0)


def _bad_mask() -> np.ndarray:
    return np.full(SIZE, 255, np.uint8)


@pytest.mark.parametrize(
    ("pairs", "arguments", "message"),
    [
        ([], {}, "frames_and_masks"),
        ([(scene(8, 60)[0], np.zeros(SIZE, np.uint8))], {}, "no object"),
        ([(scene(8, 60)[0], _bad_mask())], {}, "no object"),
        ([(scene(8, 60)[0], np.ones((10, 10), np.uint8))], {}, "96 x 64"),
        ([scene(8, 60)], {"steps": -1}, "steps"),
        ([scene(8, 60)], {"learning_rate": 0.0}, "learning_rate"),
        ([scene(8, 60)], {"learning_rate": 1e30, "steps": 5}, "learning_rate: with 1e.30 the loss is"),
    ],
)
def test_bad_input(segmenter: VideoSegmenter, pairs: list, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        segmenter.finetune(pairs, **{"steps": 1, **arguments})
    assert not segmenter.predictor.is_adapted


def test_bad_options() -> None:
    with pytest.raises(InputError, match="batch: expected 1 or more, received 0"):
        FineTuneOptions(batch=0)
    with pytest.raises(InputError, match=r"interpolation: expected a number from 0 to 1, received 1\.5"):
        FineTuneOptions(interpolation=1.5)


@pytest.mark.parametrize(
    ("matches", "share", "expected"),
    [(True, None, 0.5), (False, None, 1.0), (False, 0.25, 0.25)],
    ids=["matching", "others", "told"],
)
def test_how_far_the_weights_go(
    matches: bool, share: float | None, expected: float, tiny_osmn: OSMN, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a training that adds 1 to all of them."""

    def run(training: Training, *_: object) -> None:
        for variable in training.variables:
            variable.assign_add(np.ones(variable.shape))

    monkeypatch.setattr(Training, "run", run)
    model = OSMN(**TINY, **MATCHING) if matches else tiny_osmn
    tuner = OnlineFineTuner(model, SIZE, FineTuneOptions(interpolation=share))
    before = tuner.weights()
    tuner.fit([scene(8, 60)], Budget(3), 1e-3)
    for path, value in tuner.weights().items():
        np.testing.assert_allclose(value - before[path], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        pytest.param(
            FineTuneOptions(train_frame_encoder=False), {"object_network"}, marks=pytest.mark.backend, id="less"
        ),
        pytest.param(
            FineTuneOptions(train_visual_modulator=True),
            {"frame_encoder", "object_network", "visual_modulator"},
            id="more",
        ),
    ],
)
@pytest.mark.usefixtures("eagerly")
def test_trains_what_it_is_told(options: FineTuneOptions, changed: set[str], tiny_osmn: OSMN) -> None:
    """Also: a network without recurrence, and BatchNorm statistics that stay as they are."""
    own = {name: getattr(tiny_osmn, name) for name in ("frame_encoder", "object_network", "visual_modulator")}
    segmenter = VideoSegmenter(tiny_osmn)
    with segmenter.finetune([scene(8, 60)], 1, 1e-3, options=options):
        used = segmenter.predictor.step.network
        after = {name: getattr(used, name) for name in own}
        assert {name for name in own if not equal(own[name].get_weights(), after[name].get_weights())} == changed
        for name in own:
            values = [[numpy(weight) for weight in part.non_trainable_weights] for part in (own[name], after[name])]
            assert equal(*values)
    assert segmenter.predictor.step.network is tiny_osmn


def test_a_second_fine_tuning_compiles_nothing(segmenter: VideoSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = scene(8, 60)
    with segmenter.finetune([pair], 1, RATE):
        raw_scores(segmenter, *pair)
    traced: list[str] = []
    for owner, name in ((ModulatedStep, "step"), (ModulatedStep, "modulate"), (OnlineFineTuner, "_loss")):
        count_calls(monkeypatch, owner, name, traced)
    other = VideoSegmenter(network_of(segmenter), keep_scores=True)
    with other.finetune([pair], 1, RATE, seed=1):
        raw_scores(other, *pair)
    assert traced == []


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("mixed_precision", ["mixed_float16"], indirect=True)
def test_small_gradients_are_not_lost_in_half_precision(mixed_precision: str) -> None:
    """A small share of the loss has gradients that float16 rounds to zero, unless the loss is scaled."""
    model = randomise(ReConvNet(**TINY_VGG), seed=1)
    tuner = OnlineFineTuner(model, SIZE, FineTuneOptions())
    loss = tuner._loss
    training = tuner._training
    training.model.compile(optimizer=training.model.optimizer, loss=lambda y, x: 1e-5 * loss(y, x))
    before = {variable.path: variable.numpy() for variable in training.variables}
    tuner.fit([scene(8, 60)], Budget(1), 1e-3)
    still = {path for path, value in tuner.weights().items() if (value == before[path]).all()}
    assert still == {path for path in before if path.endswith("recurrent_kernel")}  # the clip has one frame


def test_small_objects_are_trained_too(tuner: OnlineFineTuner) -> None:
    """An object that lies between the pixels of the network's size; the segmenter takes it up too."""
    frame = np.zeros((2 * SIZE[0], 2 * SIZE[1], 3), np.uint8)
    mask = np.zeros(frame.shape[:2], np.uint8)
    mask[40, 50] = 1
    _, masks, *_ = next(samples_of(tuner, [(frame, mask)], 1))
    assert (masks.sum(axis=(1, 2)) > 0).all()


@pytest.mark.usefixtures("eagerly")
def test_fine_tuning_one_segmenter_changes_no_other(segmenter: VideoSegmenter) -> None:
    """Also one that is in the middle of a video; and two are fine-tuned to two videos at the same time."""
    first, second = scene(8, 60), scene(40, 2, seed=1)
    other, third = (VideoSegmenter(network_of(segmenter), keep_scores=True) for _ in range(2))
    own = raw_scores(other, *first)
    other.start(*first)
    with segmenter.finetune([first], 1, RATE):
        tuned = raw_scores(segmenter, *first)
        with third.finetune([second], 1, RATE):
            assert not (raw_scores(third, *first) == tuned).all()
            other.step(first[0])
            assert (np.stack(list(other.scores.values())) == own).all()
            assert (raw_scores(segmenter, *first) == tuned).all()
        assert (raw_scores(third, *first) == own).all()
        assert (raw_scores(segmenter, *first) == tuned).all()
    assert not (tuned == own).all()

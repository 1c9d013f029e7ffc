"""Online fine-tuning: it learns the annotated objects, and the network is itself again afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from support import TINY, box_mask, randomise

from osmn_tf.errors import InputError
from osmn_tf.evaluation.metrics import jaccard
from osmn_tf.inference.adaptation.online import FineTuneOptions
from osmn_tf.inference.video_segmenter import VideoSegmenter
from osmn_tf.models.osmn import OSMN
from osmn_tf.models.reconvnet import ReConvNet

SIZE = (64, 96)
RATE = 2e-3  # for weights that are random


@pytest.fixture(scope="module")
def segmenter() -> VideoSegmenter:
    """With a network of its own: these tests change weights. The training step is compiled once."""
    return VideoSegmenter(randomise(ReConvNet(**TINY, decoder="refinement", recurrent_channels=(4, 6, 8)), seed=1))


@pytest.fixture(autouse=True)
def _unchanged(segmenter: VideoSegmenter) -> Iterator[None]:
    before = segmenter.model.get_weights()
    yield
    segmenter.restore_weights()
    assert equal(before, segmenter.model.get_weights())


def equal(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all((a == b).all() for a, b in zip(first, second, strict=True))


def scene(red: int, green: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A frame with a red (label 1) and a green square (label 2), given by their left edges, on dark noise."""
    frame = np.random.default_rng(seed).integers(0, 60, (*SIZE, 3)).astype(np.uint8)
    mask = box_mask(*SIZE, (12, 36, red, red + 24), (30, 54, green, green + 24))
    frame[mask == 1] = (220, 40, 40)
    frame[mask == 2] = (40, 200, 60)
    return frame, mask


def scores(segmenter: VideoSegmenter, frame: np.ndarray, mask: np.ndarray) -> list[float]:
    """J of every object in a second look at an annotated frame."""
    segmenter.start(frame, mask)
    result = segmenter.step(frame)
    return [jaccard(mask == label, result == label) for label in np.unique(mask) if label]


def test_learns_all_objects_of_the_frame(segmenter: VideoSegmenter) -> None:
    frame, mask = scene(8, 60)
    before = scores(segmenter, frame, mask)
    losses: list[float] = []
    with segmenter.finetune([(frame, mask)], 60, RATE, progress=lambda done, total, loss: losses.append(loss)):
        after = scores(segmenter, frame, mask)
        moved = scores(segmenter, *scene(12, 56, seed=1))
    assert max(before) < 0.5
    assert min(after) > 0.8
    assert min(moved) > 0.7
    assert len(losses) == 60
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert scores(segmenter, frame, mask) == before


def test_several_annotated_frames(segmenter: VideoSegmenter) -> None:
    """The second object is annotated in the second frame only."""
    first, second = scene(8, 60), scene(40, 2, seed=1)
    only_red = np.where(first[1] == 1, 1, 0).astype(np.uint8)
    only_green = np.where(second[1] == 2, 2, 0).astype(np.uint8)
    pairs = [(first[0], only_red), (second[0], only_green)]
    seen = set()
    for frames, masks, *_ in segmenter.tuner()._samples(pairs, np.random.default_rng(0), 2):
        seen |= {(int(frame.sum()), int(mask.sum())) for frame, mask in zip(frames, masks)}
    assert seen == {(int(first[0].sum()), 24 * 24), (int(second[0].sum()), 24 * 24)}
    with segmenter.finetune(pairs, 60, RATE):
        assert scores(segmenter, first[0], only_red)[0] > 0.8
        assert scores(segmenter, second[0], only_green)[0] > 0.8


def test_every_object_is_taken_in_turn(segmenter: VideoSegmenter) -> None:
    """Three samples a step, five objects: each is taken three times in five steps."""
    boxes = [(4 + 10 * k, 12 + 10 * k, 4, 12 + k) for k in range(5)]
    mask = box_mask(*SIZE, *boxes)
    counts: dict[int, int] = {}
    for _, masks, guides, *_ in segmenter.tuner()._samples([(scene(8, 60)[0], mask)], np.random.default_rng(0), 5):
        assert guides.shape == (3, 32, 32, 3)
        for sample in masks:
            counts[int(sample.sum())] = counts.get(int(sample.sum()), 0) + 1
    assert counts == {8 * (8 + k): 3 for k in range(5)}


@pytest.mark.backend
def test_weights_depend_on_the_seed_alone(segmenter: VideoSegmenter) -> None:
    pair = scene(8, 60)
    tuned = []
    for seed in (5, 5, 6):
        with segmenter.finetune([pair], 3, RATE, seed=seed):
            tuned.append(segmenter.tuner().weights())
    assert all((tuned[0][path] == tuned[1][path]).all() for path in tuned[0])
    assert any((tuned[0][path] != tuned[2][path]).any() for path in tuned[0])
    assert len(tuned[0]) == len(segmenter.tuner()._variables)


def test_a_second_call_begins_with_the_networks_own_weights(segmenter: VideoSegmenter) -> None:
    pair = scene(8, 60)
    segmenter.finetune([pair], 3, RATE)
    first = segmenter.tuner().weights()
    segmenter.finetune([scene(30, 2)], 3, RATE)
    segmenter.finetune([pair], 3, RATE)
    second = segmenter.tuner().weights()
    assert all((first[path] == second[path]).all() for path in first)


def test_saved_weights_are_those_of_the_fine_tuning(segmenter: VideoSegmenter) -> None:
    pair = scene(8, 60)
    with segmenter.finetune([pair], 10, RATE):
        saved, expected = segmenter.tuner().weights(), scores(segmenter, *pair)
    own = scores(segmenter, *pair)
    segmenter.tuner().load(saved)
    assert scores(segmenter, *pair) == expected != own
    segmenter.restore_weights()
    assert scores(segmenter, *pair) == own
    with pytest.raises(InputError, match="other"):
        segmenter.tuner().load({**saved, "more": np.zeros(1)})


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interruption_restores_the_weights(segmenter: VideoSegmenter, error: type[BaseException]) -> None:
    before = segmenter.model.get_weights()

    def stop(done: int, total: int, loss: float) -> None:
        if done == 2:
            assert not equal(before, segmenter.model.get_weights())
            raise error

    with pytest.raises(error):
        segmenter.finetune([scene(8, 60)], 5, RATE, progress=stop)
    assert equal(before, segmenter.model.get_weights())

    def body_fails() -> None:
        with segmenter.finetune([scene(8, 60)], 2, RATE):
            assert not equal(before, segmenter.model.get_weights())
            raise error

    with pytest.raises(error):
        body_fails()
    assert equal(before, segmenter.model.get_weights())


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
    assert not segmenter.tuner().is_tuned


def test_bad_options() -> None:
    with pytest.raises(InputError, match="batch: expected 1 or more, received 0"):
        FineTuneOptions(batch=0)


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        (FineTuneOptions(train_frame_encoder=False), {"object_network"}),
        (FineTuneOptions(train_visual_modulator=True), {"frame_encoder", "object_network", "visual_modulator"}),
    ],
)
def test_trains_what_it_is_told(options: FineTuneOptions, changed: set[str]) -> None:
    """Also: a network without recurrence, and BatchNorm statistics that stay as they are."""
    model = randomise(OSMN(**TINY), seed=2)
    parts = {name: getattr(model, name) for name in ("frame_encoder", "object_network", "visual_modulator")}
    before = {name: part.get_weights() for name, part in parts.items()}
    statistics = [weight.numpy() for weight in model.non_trainable_weights]
    segmenter = VideoSegmenter(model)
    with segmenter.finetune([scene(8, 60)], 2, 1e-3, options=options):
        after = {name: part.get_weights() for name, part in parts.items()}
        assert equal(statistics, [weight.numpy() for weight in model.non_trainable_weights])
    assert {name for name in parts if not equal(before[name], after[name])} == changed
    assert all(equal(before[name], parts[name].get_weights()) for name in parts)

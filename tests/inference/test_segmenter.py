"""The segmenter: with a network whose answers are known pixel by pixel, and with a real one against the network itself.

The known network segments by colour: an object's modulation is the colour of its guide, its logit at a pixel is
(frame - 128) / 16 in that colour, and -20 where its spatial guide is below 0.05 (so that an object must be near where
it was). Its only state counts the steps.
"""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace

import cv2
import keras
import numpy as np
import pytest
from keras import ops
from support import (
    BACKEND,
    MATCHING,
    TINY,
    box_mask,
    call,
    merge_scores,
    numpy,
    random_frames,
    randomise,
    record_compared,
    soft_aggregate,
)

from osmn_tf.errors import InputError
from osmn_tf.guides import spatial_guide, visual_guide
from osmn_tf.inference.merging import merge_logits
from osmn_tf.inference.modulated import ModulatedPredictor, _Shared
from osmn_tf.inference.predictor import PredictorOptions
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.models.osmn import OSMN
from osmn_tf.video.source import open_source


def segmenter_of(
    network, network_size=None, merge="argmax", exclusive=True, recover=True, keep_scores=False, search_window=None
):
    """A segmenter of the known network, which is none that a registry knows."""
    options = PredictorOptions(network_size, merge, exclusive, recover, search_window=search_window)
    return VideoSegmenter(ModulatedPredictor(network, options), keep_scores=keep_scores)


HEIGHT, WIDTH = 32, 48
RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)
CERTAIN = (255 - 128) / 16  # the logit of a pure colour


class Recorder(keras.layers.Layer):
    """Passes its input on and keeps the batch size of each call."""

    def __init__(self):
        super().__init__(dtype="uint8", autocast=False)
        self.batches = []

    def call(self, x):
        self.batches.append(x.shape[0])
        return x

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


class ByColour(keras.layers.Layer):
    def call(self, colour, guide, modulation, count):
        logits = ops.sum(colour * modulation[:, None, None], axis=-1, keepdims=True)
        return ops.where(guide < 0.05, -20.0, logits), count + 1.0

    def compute_output_spec(self, colour, guide, modulation, count):
        return keras.KerasTensor(guide.shape), keras.KerasTensor(count.shape)


@pytest.fixture(scope="module")
def network():
    calls = {name: Recorder() for name in ("visual_modulator", "frame_encoder", "object_network")}
    guide = keras.Input((16, 16, 3))
    seen = calls["visual_modulator"](guide)
    total = keras.layers.Lambda(lambda x: ops.sum(x, (1, 2)), output_shape=(3,))(seen)
    unit = keras.layers.Lambda(lambda x: x / ops.maximum(ops.max(x, -1, keepdims=True), 1.0))(total)
    frame = keras.Input((None, None, 3), dtype="uint8", name="frame")
    colour = keras.layers.Rescaling(1 / 16, -8.0)(calls["frame_encoder"](frame))
    inputs = {
        "colour": keras.Input((None, None, 3), name="colour"),
        "spatial_guide": keras.Input((None, None, 1), name="spatial_guide"),
        "modulation": keras.Input((3,), name="modulation"),
        "count": keras.Input((1, 1, 1), name="count"),
    }
    colours, spatial, modulation, steps = inputs.values()
    logits, count = ByColour()(colours, spatial, calls["object_network"](modulation), steps)
    return SimpleNamespace(
        guide_size=16,
        guide_background=(0.0, 0.0, 0.0),
        guide="gaussian",
        matching=None,
        network_size=(HEIGHT, WIDTH),
        visual_modulator=keras.Model(guide, unit),
        frame_encoder=keras.Model({"frame": frame}, {"colour": colour}),
        object_network=keras.Model(inputs, {"logits": logits, "count": count}),
        calls=calls,
        initial_state=lambda objects, height, width: {"count": ops.zeros((objects, 1, 1, 1))},
    )


@pytest.fixture(autouse=True)
def _untraced(request):
    """The known network computes next to nothing: making graphs would be nearly all the time. Real ones have them."""
    if "network" in request.fixturenames:
        request.getfixturevalue("eagerly")


def draw(*boxes, height=HEIGHT, width=WIDTH):
    """A black frame with boxes ((top, bottom, left, right), colour)."""
    frame = np.zeros((height, width, 3), np.uint8)
    for (top, bottom, left, right), colour in boxes:
        frame[top:bottom, left:right] = colour
    return frame


def mask_of(frame, **labels):
    """The label mask of a frame: red=3 gives every red pixel label 3."""
    colours = {"red": RED, "green": GREEN, "blue": BLUE}
    mask = np.zeros(frame.shape[:2], np.uint8)
    for name, label in labels.items():
        mask[np.all(frame == colours[name], axis=-1)] = label
    return mask


def moving(count=6):
    """A red, a green and a blue box that move by a pixel a frame."""
    return [
        draw(((2 + t, 10 + t, 4, 14), RED), ((20, 28, 6 + t, 16 + t), GREEN), ((8, 18, 34 - t, 44 - t), BLUE))
        for t in range(count)
    ]


# Labels, adding, removing -----------------------------------------------------------------------------------------


@pytest.mark.backend
def test_objects_of_any_labels_are_followed(network):
    frames = moving()
    labels = {"red": 3, "green": 254, "blue": 7}
    segmenter = segmenter_of(network)
    first = mask_of(frames[0], **labels)
    result = segmenter.start(frames[0], first)
    np.testing.assert_array_equal(result, first)
    assert segmenter.labels == (3, 7, 254)
    for frame in frames[1:]:
        mask = segmenter.step(frame)
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, mask_of(frame, **labels))
        assert set(np.unique(mask)) == {0, 3, 7, 254}


def test_track_gives_every_frame_with_its_mask(network):
    frames = moving()
    results = list(segmenter_of(network).track(iter(frames), mask_of(frames[0], red=9, blue=2)))
    assert len(results) == len(frames)
    for (frame, mask), expected in zip(results, frames):
        assert frame is expected
        np.testing.assert_array_equal(mask, mask_of(expected, red=9, blue=2))


@pytest.mark.backend
def test_objects_are_added_later(network):
    frames = moving()
    segmenter = segmenter_of(network)
    segmenter.start(frames[0], mask_of(frames[0], red=5))
    segmenter.step(frames[1])
    # The object that is already tracked is stepped, the new one's mask is the given one.
    mask = segmenter.add(frames[2], mask_of(frames[2], green=2))
    np.testing.assert_array_equal(mask, mask_of(frames[2], red=5, green=2))
    assert segmenter.labels == (5, 2)
    np.testing.assert_array_equal(segmenter.step(frames[3]), mask_of(frames[3], red=5, green=2))


def test_the_given_mask_lies_on_top(network):
    frames = moving()
    segmenter = segmenter_of(network)
    segmenter.start(frames[0], mask_of(frames[0], red=5))
    given = np.zeros((HEIGHT, WIDTH), np.uint8)
    given[5:9, 5:9] = 4  # over the red box
    mask = segmenter.add(frames[1], given)
    assert np.all(mask[5:9, 5:9] == 4)
    np.testing.assert_array_equal(mask[given == 0], mask_of(frames[1], red=5)[given == 0])


def test_an_object_starts_again_from_a_new_mask(network):
    frames = moving()
    segmenter = segmenter_of(network)
    segmenter.start(frames[0], mask_of(frames[0], red=1, green=2))
    segmenter.step(frames[1])
    # Label 1 is the blue box from now on.
    mask = segmenter.add(frames[2], mask_of(frames[2], blue=1))
    np.testing.assert_array_equal(mask, mask_of(frames[2], blue=1, green=2))
    assert segmenter.labels == (2, 1)
    np.testing.assert_array_equal(segmenter.step(frames[3]), mask_of(frames[3], blue=1, green=2))


def test_start_forgets_the_video_before(network):
    segmenter = segmenter_of(network)
    frames = moving()
    segmenter.start(frames[0], mask_of(frames[0], red=1, green=2))
    segmenter.step(frames[1])
    other = draw(((3, 12, 3, 12), BLUE), height=40, width=56)
    segmenter.start(other, mask_of(other, blue=6))
    assert segmenter.labels == (6,)
    assert segmenter.step(other).shape == (40, 56)


@pytest.mark.parametrize("labels", [pytest.param(2, marks=pytest.mark.backend), [2], np.uint8(2), (2,)])
def test_objects_are_removed(network, labels):
    frames = moving()
    segmenter = segmenter_of(network)
    segmenter.start(frames[0], mask_of(frames[0], red=1, green=2, blue=3))
    segmenter.remove(labels)
    assert segmenter.labels == (1, 3)
    np.testing.assert_array_equal(segmenter.step(frames[1]), mask_of(frames[1], red=1, blue=3))


def test_an_object_ends_at_a_frame_unless_it_gets_a_mask_again(network):
    frames, masks = [np.zeros((HEIGHT, WIDTH, 3), np.uint8) for _ in range(6)], np.zeros((HEIGHT, WIDTH), np.uint8)
    for frame in frames:
        frame[4:12, 4:12], frame[20:28, 30:40] = RED, BLUE
    masks[4:12, 4:12], masks[20:28, 30:40] = 1, 5
    again = np.where(masks == 5, masks, 0).astype(np.uint8)
    found = [set(np.unique(m)) for _, m in segmenter_of(network).track(frames, {0: masks, 4: again}, ends={5: 2})]
    assert found == [{0, 1, 5}, {0, 1, 5}, {0, 1}, {0, 1}, {0, 1, 5}, {0, 1, 5}]
    both = segmenter_of(network).track_both_ways(frames, {0: masks, 4: again}, ends={1: 1, 5: 2})
    assert [set(np.unique(m)) for _, m in both] == [{0, 1, 5}, {0, 5}, {0}, {0}, {0, 5}, {0, 5}]


def test_without_objects_masks_are_empty(network):
    frames = moving()
    segmenter = segmenter_of(network)
    assert not segmenter.step(frames[0]).any()
    segmenter.add(frames[1], mask_of(frames[1], red=1))
    segmenter.remove([1])
    assert segmenter.labels == ()
    mask = segmenter.step(frames[2])
    assert mask.shape == (HEIGHT, WIDTH)
    assert not mask.any()
    segmenter.add(frames[3], mask_of(frames[3], green=8))
    np.testing.assert_array_equal(segmenter.step(frames[4]), mask_of(frames[4], green=8))


def test_removing_what_is_not_tracked(network):
    segmenter = segmenter_of(network)
    frames = moving()
    segmenter.start(frames[0], mask_of(frames[0], red=1))
    with pytest.raises(InputError, match=r"labels: \[4\] are not tracked; tracked are \[1\]"):
        segmenter.remove([1, 4])
    assert segmenter.labels == (1,)


def test_state_is_counted_for_every_object_by_itself(network):
    frames = moving()
    segmenter = segmenter_of(network)
    segmenter.start(frames[0], mask_of(frames[0], red=1, green=2))
    segmenter.step(frames[1])
    segmenter.add(frames[2], mask_of(frames[2], blue=3, green=2))
    segmenter.step(frames[3])
    assert segmenter.labels == (1, 2, 3)
    # Red: frames 0 to 3; green and blue: 2 and 3.
    assert segmenter.snapshot()["state/count"].ravel().tolist() == [4.0, 2.0, 2.0]
    segmenter.remove(2)
    assert segmenter.snapshot()["state/count"].ravel().tolist() == [4.0, 2.0]


# Sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 96), (50, 70), (20, 30)])
def test_masks_have_the_frame_s_size(network, size):
    """Network size 32 x 48: masks agree with the colours up to the resizing's blur at the outline."""
    height, width = size
    frames = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_NEAREST) for frame in moving(4)]
    results = list(segmenter_of(network).track(frames, mask_of(frames[0], red=1, green=2, blue=3)))
    for frame, mask in results:
        assert mask.shape == size
        expected = mask_of(frame, red=1, green=2, blue=3)
        for label in (1, 2, 3):
            union = ((mask == label) | (expected == label)).sum()
            assert ((mask == label) & (expected == label)).sum() > 0.7 * union


def test_network_size_is_separate(network):
    frames = moving()
    segmenter = segmenter_of(network, network_size=(64, 96))
    segmenter.start(frames[0], mask_of(frames[0], red=1))
    assert segmenter.snapshot()["guide_masks"].shape == (1, 64, 96)
    assert segmenter.step(frames[1]).shape == (HEIGHT, WIDTH)
    assert segmenter_of(network).network_size == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    "place", [pytest.param((20, 30), marks=pytest.mark.backend), (21, 31), (20, 31), (0, 0), (63, 95)]
)
def test_an_object_of_one_pixel_survives_the_resize(network, place):
    frame = np.zeros((64, 96, 3), np.uint8)
    mask = np.zeros((64, 96), np.uint8)
    mask[place] = 5
    frame[place] = RED
    segmenter = segmenter_of(network)
    segmenter.start(frame, mask)
    rows, columns = np.nonzero(segmenter.snapshot()["guide_masks"][0])
    assert 1 <= len(rows) <= 4
    assert np.abs(rows - place[0] / 2).max() <= 1
    assert np.abs(columns - place[1] / 2).max() <= 1


def test_a_network_that_matches_may_run_at_a_scale_and_fits_the_video(network):
    """At twice its size, and at the square of about as many pixels for an upright video."""
    parts = {name: value for name, value in vars(network).items() if not name.startswith("_")}
    matching = SimpleNamespace(**{**parts, "matching": "first+previous"})
    segmenter = VideoSegmenter(ModulatedPredictor(matching, PredictorOptions(scale=2.0)))
    assert segmenter.network_size == (64, 96)
    for size, expected in (((60, 120), (64, 96)), ((120, 60), (80, 80))):
        mask = np.zeros(size, np.uint8)
        mask[10:40, 10:40] = 1
        segmenter.start(np.zeros((*size, 3), np.uint8), mask)
        assert segmenter.network_size == expected
        assert segmenter.snapshot()["guide_masks"].shape == (1, *expected)


@pytest.mark.usefixtures("eagerly")
def test_what_objects_have_in_common_is_matched_once(monkeypatch):
    """All of them the previous frame, those that were given together the first one too."""
    if BACKEND == "jax":
        pytest.skip("it looks into both cases")
    compared = record_compared(monkeypatch)
    segmenter = VideoSegmenter(randomise(OSMN(**{**TINY, **MATCHING, "matching": "first+previous"}), seed=4))
    frames = [random_frames(64, 96, seed=number) for number in range(4)]
    segmenter.start(frames[0], box_mask(64, 96, (4, 30, 4, 30), (30, 60, 40, 80)))
    compared.clear()
    segmenter.step(frames[1])
    assert compared == [1, 1]
    segmenter.add(frames[2], 3 * box_mask(64, 96, (40, 60, 4, 30)))
    compared.clear()
    segmenter.step(frames[3])
    assert compared == [3, 1]


def test_another_frame_size_is_refused(network):
    frames = moving()
    segmenter = segmenter_of(network)
    segmenter.start(frames[0], mask_of(frames[0], red=1))
    with pytest.raises(InputError, match="frame: expected 48 x 32 pixels as in the first frame, received 32 x 48"):
        segmenter.step(frames[1].swapaxes(0, 1))
    np.testing.assert_array_equal(segmenter.step(frames[1]), mask_of(frames[1], red=1))


def test_a_refused_start_leaves_the_segmenter_usable(network):
    segmenter = segmenter_of(network)
    small = np.zeros((8, 9, 3), np.uint8)
    with pytest.raises(InputError, match="no object in it"):
        segmenter.start(small, np.zeros((8, 9), np.uint8))
    frames = moving()
    segmenter.start(frames[0], mask_of(frames[0], red=1))
    assert segmenter.labels == (1,)


# Wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "received"),
    [
        (np.zeros((32, 48, 3), np.float32), r"float32 \[32, 48, 3\]"),
        (np.zeros((32, 48), np.uint8), r"uint8 \[32, 48\]"),
        (np.zeros((32, 48, 4), np.uint8), r"uint8 \[32, 48, 4\]"),
        (np.zeros((1, 32, 48, 3), np.uint8), r"uint8 \[1, 32, 48, 3\]"),
    ],
)
def test_wrong_frames(network, frame, received):
    segmenter = segmenter_of(network)
    with pytest.raises(InputError, match=rf"frame: expected uint8 RGB \[H, W, 3\], received {received}"):
        segmenter.step(frame)
    with pytest.raises(InputError, match="frame: expected"):
        segmenter.start(frame, np.ones((32, 48), np.uint8))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((32, 48), np.uint8), "mask: no object in it"),
        (np.full((32, 48), 255, np.uint8), "mask: no object in it"),
        (np.ones((32, 47), np.uint8), "mask: expected 48 x 32 pixels as the frame has, received 47 x 32"),
        (np.ones((32, 48), np.int32), r"mask: expected uint8 \[H, W\] with labels, received int32 \[32, 48\]"),
        (np.ones((32, 48, 3), np.uint8), r"mask: expected uint8 \[H, W\] with labels, received uint8 \[32, 48, 3\]"),
    ],
)
def test_wrong_masks(network, mask, message):
    frame = moving(1)[0]
    with pytest.raises(InputError, match=message):
        segmenter_of(network).start(frame, mask)
    with pytest.raises(InputError, match=message):
        list(segmenter_of(network).track([frame], mask))


def test_a_bool_mask_is_object_1(network):
    frames = moving()
    segmenter = segmenter_of(network)
    segmenter.start(frames[0], mask_of(frames[0], red=1) > 0)
    np.testing.assert_array_equal(segmenter.step(frames[1]), mask_of(frames[1], red=1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"merge": "mean"}, "merge: expected one of argmax, soft, painted, received 'mean'"),
        ({"network_size": (31, 64)}, "network_size: expected at least 32 x 32 pixels, received 31 x 64"),
    ],
)
def test_wrong_arguments(network, arguments, message):
    with pytest.raises(InputError, match=message):
        segmenter_of(network, **arguments)


# Objects that leave and come back ---------------------------------------------------------------------------------


@pytest.mark.parametrize("recover", [pytest.param(True, marks=pytest.mark.backend), False])
def test_recovery_of_an_object_that_left(network, recover):
    there, away = moving(1)[0], draw(((20, 28, 6, 16), GREEN))
    segmenter = segmenter_of(network, recover=recover)
    segmenter.start(there, mask_of(there, red=1, green=2))
    for _ in range(3):
        np.testing.assert_array_equal(segmenter.step(away), mask_of(away, green=2))
    found = mask_of(there, red=1, green=2) if recover else mask_of(there, green=2)
    np.testing.assert_array_equal(segmenter.step(there), found)


@pytest.mark.parametrize("exclusive", [pytest.param(True, marks=pytest.mark.backend), False])
def test_next_guide_is_of_the_pixels_an_object_wins(network, exclusive):
    orange = (255, 200, 0)  # each object's network claims the other's pixels too, but less surely
    frame = draw(((8, 20, 10, 22), RED), ((8, 20, 22, 34), orange))
    red, other = (np.all(frame == colour, axis=-1) for colour in (RED, orange))
    mask = (red + 2 * other).astype(np.uint8)
    segmenter = segmenter_of(network, exclusive=exclusive)
    segmenter.start(frame, mask)
    np.testing.assert_array_equal(segmenter.step(frame), mask)
    guides = segmenter.snapshot()["guide_masks"].astype(bool)
    assert (guides[0] & red).sum() == red.sum()
    assert (guides[1] & other).sum() == other.sum()
    assert (guides[0] & other).any() != exclusive
    assert (guides[1] & red).any() != exclusive


@pytest.mark.parametrize("search_window", [pytest.param(True, marks=pytest.mark.backend), False, None])
def test_what_looks_alike_far_away_is_another_object(network, search_window):
    """Unless nothing is where the object was. A network without matching looks everywhere by itself."""
    near, far = (10, 12, 10, 12), (10, 12, 18, 20)
    segmenter = segmenter_of(network, search_window=search_window, keep_scores=True)
    both, gone = draw((near, RED), (far, RED)), draw((far, RED))
    segmenter.start(both, mask_of(draw((near, RED)), red=1))
    found = segmenter.step(both)
    assert (found[11, 11], found[11, 19]) == (1, 0 if search_window else 1)
    assert (segmenter.scores[1][11, 19] < 0.001) == bool(search_window)
    assert segmenter.snapshot()["guide_masks"][0, :, 15:].any() == (not search_window)
    found = segmenter.step(gone)
    assert (found[11, 11], found[11, 19]) == (0, 1)


def test_a_rough_mask_says_nothing_of_where_an_object_ends(network):
    both = draw(((10, 12, 10, 12), RED), ((10, 12, 18, 20), RED))
    rough = mask_of(draw(((10, 12, 10, 12), RED)), red=1)[None]
    predictor = segmenter_of(network, search_window=True).predictor
    np.testing.assert_array_equal(predictor.probe(both, rough), mask_of(both, red=1))
    assert predictor.objects == 0
    predictor.begin(both, rough)  # the window is there again
    np.testing.assert_array_equal(predictor.advance(both).winners, rough[0])


# Scores and merging -----------------------------------------------------------------------------------------------


@pytest.mark.backend
def test_scores_are_the_sigmoid_of_every_object_s_logits(network):
    frames = moving()
    segmenter = segmenter_of(network, keep_scores=True)
    segmenter.start(frames[0], mask_of(frames[0], red=9, blue=4))
    for label, colour in ((9, "red"), (4, "blue")):
        np.testing.assert_array_equal(segmenter.scores[label], mask_of(frames[0], **{colour: 1}) > 0)
    segmenter.step(frames[1])
    scores = segmenter.scores
    assert list(scores) == [4, 9]
    for label, colour in ((9, "red"), (4, "blue")):
        assert scores[label].shape == (HEIGHT, WIDTH)
        assert scores[label].dtype == np.float32
        inside = mask_of(frames[1], **{colour: 1}) > 0
        np.testing.assert_allclose(scores[label][inside], 1 / (1 + np.exp(-CERTAIN)), rtol=1e-5)
        assert scores[label][~inside].max() < 1e-3
    segmenter.remove(9)
    with pytest.raises(InputError, match="scores"):
        _ = segmenter.scores
    segmenter.step(frames[2])
    assert list(segmenter.scores) == [4]
    segmenter.add(frames[3], mask_of(frames[3], red=9))
    scores = segmenter.scores
    assert list(scores) == [4, 9]
    np.testing.assert_array_equal(scores[9], mask_of(frames[3], red=1) > 0)
    inside = mask_of(frames[3], blue=1) > 0
    np.testing.assert_allclose(scores[4][inside], 1 / (1 + np.exp(-CERTAIN)), rtol=1e-5)


def test_scores_are_not_kept_unless_asked_for(network):
    frames = moving()
    segmenter = segmenter_of(network)
    segmenter.start(frames[0], mask_of(frames[0], red=9))
    segmenter.step(frames[1])
    with pytest.raises(InputError, match="scores"):
        _ = segmenter.scores


def two_reds(value):
    """Two red boxes side by side, each an object; then a frame with a red of `value` all over both."""
    first = draw(((8, 20, 8, 20), RED), ((8, 20, 22, 34), RED))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[8:20, 8:20], mask[8:20, 22:34] = 7, 3
    return first, mask, draw(((8, 20, 8, 34), (value, 0, 0)))


def test_ties_between_objects_go_to_the_first(network):
    first, mask, second = two_reds(200)
    segmenter = segmenter_of(network, keep_scores=True)
    segmenter.start(first, mask)
    found = segmenter.step(second)
    assert segmenter.labels == (3, 7)
    scores = segmenter.scores
    both = (scores[3] > 0.5) & (scores[7] > 0.5)
    assert both.sum() > 20
    np.testing.assert_array_equal(scores[3][both], scores[7][both])
    assert np.all(found[both] == 3)
    np.testing.assert_array_equal(found, merge_scores(np.stack([scores[3], scores[7]]), [3, 7]))


@pytest.mark.parametrize(("value", "winner"), [(127, 0), (128, 0), (129, 3)])
def test_a_score_of_one_half_is_background(network, value, winner):
    first, mask, second = two_reds(value)
    segmenter = segmenter_of(network, recover=False, keep_scores=True)
    segmenter.start(first, mask)
    found = segmenter.step(second)
    scores = segmenter.scores
    if value == 128:
        assert scores[3][14, 27] == 0.5
    assert found[14, 27] == winner
    np.testing.assert_array_equal(found, merge_scores(np.stack([scores[3], scores[7]]), [3, 7]))


@pytest.mark.parametrize("value", [110, 118, pytest.param(125, marks=pytest.mark.backend), 140, 255])
def test_soft_aggregation(network, value):
    """At 125 both objects have a score of 0.453: two of them beat the background, (1 - p)^2, which one would not."""
    first, mask, second = two_reds(value)
    segmenter = segmenter_of(network, merge="soft", keep_scores=True)
    segmenter.start(first, mask)
    found = segmenter.step(second)
    scores = np.stack(list(segmenter.scores.values()))
    expected = np.array([0, 3, 7], np.uint8)[soft_aggregate(scores).argmax(0)]
    np.testing.assert_array_equal(found, expected)
    if value == 125:
        assert np.any(found == 3)
        assert not merge_scores(scores, [3, 7]).any()
    if value == 110:
        assert not found.any()


@pytest.mark.backend
@pytest.mark.parametrize("merge", ["argmax", "soft"])
@pytest.mark.parametrize("objects", [1, 2, 5])
def test_merging_equals_the_reference_on_random_logits(network, merge, objects):
    logits = np.random.default_rng(objects).normal(-0.3, 1.5, (objects, 40, 50)).astype(np.float32)
    logits[:, :10] = 0.0
    logits[:, 10:15] = logits[:1, 10:15]
    found = numpy(segmenter_of(network, merge=merge).predictor.step.merged(ops.convert_to_tensor(logits)))
    np.testing.assert_array_equal(merge_logits(logits, merge)[10:], found[10:])
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    labels = list(range(1, objects + 1))
    expected = merge_scores(scores, labels) if merge == "argmax" else soft_aggregate(scores).argmax(0)
    agree = found == expected
    if merge == "soft" and objects == 1:
        agree[:10] = True  # p = 1 - p: rounding decides
    assert agree.all()
    assert found.dtype == np.uint8
    assert len(np.unique(found)) == objects + 1


@pytest.mark.parametrize("merge", ["argmax", "soft"])
def test_certain_and_impossible_scores(network, merge):
    logits = np.array([[200.0, -200.0, 200.0, -1e4], [-200.0, -200.0, 100.0, -1e4]], np.float32)[:, None]
    found = numpy(segmenter_of(network, merge=merge).predictor.step.merged(ops.convert_to_tensor(logits)))
    assert found.tolist() == merge_logits(logits, merge).tolist() == [[1, 0, 1, 0]]


# Interruption -----------------------------------------------------------------------------------------------------


def test_snapshot_and_restore_continue_identically(tiny_reconvnet, tmp_path):
    frames = random_frames(6, 40, 60)
    mask = np.zeros((40, 60), np.uint8)
    mask[4:20, 5:25], mask[22:38, 30:55] = 9, 4
    segmenter = VideoSegmenter(tiny_reconvnet, keep_scores=True)
    segmenter.start(frames[0], mask)
    segmenter.step(frames[1])
    np.savez(tmp_path / "state.npz", **segmenter.snapshot())
    expected = []
    for frame in frames[2:]:
        expected.append((segmenter.step(frame), segmenter.scores))
    other = VideoSegmenter(tiny_reconvnet, keep_scores=True)
    with np.load(tmp_path / "state.npz") as snapshot:
        other.restore(snapshot)
    assert other.labels == (4, 9)
    for frame, (mask, scores) in zip(frames[2:], expected):
        np.testing.assert_array_equal(other.step(frame), mask)
        for label, score in scores.items():
            np.testing.assert_array_equal(other.scores[label], score)
    with pytest.raises(InputError, match="frame: expected 60 x 40"):
        other.step(random_frames(30, 30))


@pytest.mark.backend
@pytest.mark.parametrize("mixed_precision", ["mixed_bfloat16"], indirect=True)
def test_snapshot_in_mixed_precision(mixed_precision, tiny_reconvnet, tmp_path):
    model = type(tiny_reconvnet).from_config(tiny_reconvnet.get_config())
    model.set_weights(tiny_reconvnet.get_weights())
    frames = random_frames(3, 40, 60)
    mask = np.zeros((40, 60), np.uint8)
    mask[4:20, 5:25] = 9
    segmenter = VideoSegmenter(model, keep_scores=True)
    segmenter.start(frames[0], mask)
    np.savez(tmp_path / "state.npz", **segmenter.snapshot())
    segmenter.step(frames[1])
    other = VideoSegmenter(model, keep_scores=True)
    with np.load(tmp_path / "state.npz") as snapshot:
        other.restore(snapshot)
    other.step(frames[1])
    np.testing.assert_array_equal(other.scores[9], segmenter.scores[9])


def test_snapshots_of_other_settings_are_refused(network, tiny_reconvnet):
    frames = moving()
    segmenter = segmenter_of(network)
    with pytest.raises(InputError, match="snapshot: no object is tracked"):
        segmenter.snapshot()
    segmenter.start(frames[0], mask_of(frames[0], red=1))
    snapshot = segmenter.snapshot()
    message = "snapshot: its state is not of this network and network size"
    with pytest.raises(InputError, match=message):
        VideoSegmenter(tiny_reconvnet).restore(snapshot)
    with pytest.raises(InputError, match=message):
        segmenter_of(network, network_size=(64, 96)).restore(snapshot)


# Masks anywhere in the video --------------------------------------------------------------------------------------


def test_masks_at_several_frames(network):
    frames = moving()
    given = {1: mask_of(frames[1], red=1), 3: mask_of(frames[3], green=2, blue=1)}
    masks = [mask for _, mask in segmenter_of(network).track(frames, given)]
    assert not masks[0].any()
    np.testing.assert_array_equal(masks[1], given[1])
    np.testing.assert_array_equal(masks[2], mask_of(frames[2], red=1))
    for t in (3, 4, 5):  # label 1 is the blue box from frame 3 on
        np.testing.assert_array_equal(masks[t], mask_of(frames[t], green=2, blue=1))


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({}, "masks: expected at least one mask, received none"),
        ({-1: np.ones((32, 48), np.uint8)}, "masks: frame numbers count from 0, received -1"),
        ({9: np.ones((32, 48), np.uint8)}, "masks: a mask is given for frame 9, but the video has 6 frames"),
        ({2: np.zeros((32, 48), np.uint8)}, "mask: no object in it"),
    ],
)
def test_wrong_masks_of_a_video(network, masks, message):
    segmenter, frames = segmenter_of(network), moving()
    with pytest.raises(InputError, match=message):
        list(segmenter.track(frames, masks))
    with pytest.raises(InputError, match=message):
        list(segmenter.track_both_ways(frames, masks))


def test_bad_masks_are_found_before_the_first_frame_is_read(network):
    def frames():
        raise AssertionError("a frame was read")
        yield

    with pytest.raises(InputError, match="no object in it"):
        next(segmenter_of(network).track(frames(), {7: np.zeros((32, 48), np.uint8)}))


@pytest.fixture
def folder(tmp_path):
    for index, frame in enumerate(moving()):
        cv2.imwrite(str(tmp_path / f"{index:05d}.png"), frame[..., ::-1])
    return tmp_path


@pytest.mark.parametrize("as_source", [False, True])
def test_both_ways(network, folder, as_source):
    frames = moving()
    given = {2: mask_of(frames[2], red=5), 4: mask_of(frames[4], green=1, red=5)}
    video = open_source(folder) if as_source else frames
    results = list(segmenter_of(network).track_both_ways(video, given))
    assert len(results) == 6
    for t, (frame, mask) in enumerate(results):
        np.testing.assert_array_equal(frame, frames[t])
        np.testing.assert_array_equal(mask, mask_of(frames[t], red=5, green=1), err_msg=str(t))


def test_both_ways_forward_wins_over_backward(network):
    """Before its first mask an object comes from the backward pass, and never hides one that was given."""
    frames = [draw(((8, 20, 8, 34), RED))] * 4
    left, right = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    left[8:20, 8:20], right[8:20, 20:34] = 1, 2
    masks = [mask for _, mask in segmenter_of(network).track_both_ways(frames, {0: left, 3: right})]
    np.testing.assert_array_equal(masks[0] == 1, left == 1)
    assert np.all(masks[0][:, 26:34][8:20] == 2)
    forward = [mask for _, mask in segmenter_of(network).track(frames, {0: left})]
    for t in (1, 2):
        np.testing.assert_array_equal(masks[t] == 1, forward[t] == 1)
    np.testing.assert_array_equal(masks[3] == 2, right == 2)


def test_both_ways_from_the_first_frame_is_the_forward_pass(network):
    frames = moving()
    given = {0: mask_of(frames[0], red=1, blue=2)}
    forward = [mask for _, mask in segmenter_of(network).track(frames, given)]
    both = [mask for _, mask in segmenter_of(network).track_both_ways(frames, given)]
    np.testing.assert_array_equal(both, forward)


# Once per frame, once per object, bounded memory ------------------------------------------------------------------


@pytest.mark.backend
def test_the_frame_encoder_runs_once_per_frame_and_the_modulator_once_per_object(network):
    """On JAX calls are counted while a step is compiled: once for the whole video."""
    frames = moving()
    segmenter = segmenter_of(network, network_size=(64, 32))  # of which nothing is compiled yet
    for recorder in network.calls.values():
        recorder.batches.clear()
    segmenter.start(frames[0], mask_of(frames[0], red=1, green=2, blue=3))
    for frame in frames[1:]:
        segmenter.step(frame)
    encoder, objects = network.calls["frame_encoder"].batches, network.calls["object_network"].batches
    assert set(encoder) == {1}
    assert set(objects) == {3}
    assert len(encoder) == len(objects)
    assert network.calls["visual_modulator"].batches == [3]
    assert len(encoder) == (1 if BACKEND == "jax" else len(frames))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="counts graphs of TensorFlow")
def test_the_number_of_compiled_graphs_is_bounded(network, monkeypatch):
    import tensorflow as tf

    tf.config.run_functions_eagerly(False)
    graphs = _Shared.of(network).graphs
    monkeypatch.setattr(graphs, "limit", 2)
    frames = moving()
    two, one = mask_of(frames[0], red=1, green=2), mask_of(frames[0], blue=1)
    segmenter = segmenter_of(network, network_size=(48, 32))  # of which nothing is compiled yet
    expected = [mask for _, mask in segmenter.track(frames, two)]
    list(segmenter.track(frames, one))  # one object and two need other graphs
    assert len(graphs) == 2
    np.testing.assert_array_equal([mask for _, mask in segmenter.track(frames, two)], expected)
    assert len(graphs) == 2


def held_bytes(segmenter):
    """Size of everything that the segmenter and its predictor hold for the video."""
    total = 0
    for value in keras.tree.flatten([segmenter.scores, vars(segmenter), vars(segmenter.predictor)]):
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            total += int(np.prod(value.shape)) * 4
    return total


def test_memory_does_not_grow_with_the_video(network):
    frame = cv2.resize(moving(1)[0], (360, 240), interpolation=cv2.INTER_NEAREST)
    segmenter = segmenter_of(network, keep_scores=True)
    segmenter.start(frame, mask_of(frame, red=1, green=2))
    for _ in range(5):
        segmenter.step(frame)
    held, attributes = held_bytes(segmenter), len({**vars(segmenter), **vars(segmenter.predictor)})
    tracemalloc.start()
    segmenter.step(frame)
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(10):
        segmenter.step(frame)
    growth = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert growth < 2 * frame.shape[0] * frame.shape[1]  # two masks
    assert held_bytes(segmenter) == held > 2 * 240 * 360 * 4  # the scores of two objects, at least
    assert len({**vars(segmenter), **vars(segmenter.predictor)}) == attributes


def test_both_ways_keeps_no_masks_in_memory(network):
    frame = cv2.resize(moving(1)[0], (360, 240), interpolation=cv2.INTER_NEAREST)
    mask = mask_of(frame, red=1)
    list(segmenter_of(network).track_both_ways([frame] * 2, {1: mask}))
    peaks = []
    for length in (5, 15):
        segmenter = segmenter_of(network)
        list(segmenter.track([frame], mask))  # a first call keeps what later ones share
        tracemalloc.start()
        for _, found in segmenter.track_both_ways([frame] * length, {length - 1: mask}):
            assert (found == 1).sum() > 100
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 4 * mask.size


# A real network ---------------------------------------------------------------------------------------------------


def reference_scores(model, frames, guide_mask):
    """One object through the network, frame by frame from its documented parts, at network size (= frame size)."""
    guide_mask = guide_mask[None]
    crop = visual_guide(frames[:1], guide_mask, model.guide_size, model.guide_background)
    modulation, state = call(model.visual_modulator, crop), model.initial_state(1, *frames.shape[1:3])

    def run(frame):
        features = call(model.frame_encoder, {"frame": frame[None]})
        guide = spatial_guide(guide_mask)
        inputs = {**features, "spatial_guide": guide, "modulation": modulation, **state}
        outputs = dict(call(model.object_network, inputs))
        return numpy(outputs.pop("logits"))[..., 0], outputs

    if state:
        _, state = run(frames[0])
    scores = []
    for frame in frames[1:]:
        logits, state = run(frame)
        if (logits > 0).any():
            guide_mask = (logits > 0).astype(np.uint8)
        scores.append(1 / (1 + np.exp(-logits[0])))
    return scores


@pytest.mark.parametrize("kind", [pytest.param("tiny_reconvnet", marks=pytest.mark.backend), "tiny_osmn"])
def test_equals_the_network_and_objects_do_not_mix(kind, request):
    model = request.getfixturevalue(kind)
    frames = random_frames(3, 64, 96)
    mask = np.zeros((64, 96), np.uint8)
    boxes = {2: (0, 20, 0, 30), 254: (10, 60, 40, 70), 5: (30, 64, 5, 20)}
    for label, (top, bottom, left, right) in boxes.items():
        mask[top:bottom, left:right] = label
    segmenter = VideoSegmenter(model, exclusive=False, keep_scores=True)
    segmenter.start(frames[0], mask)
    assert segmenter.labels == (2, 5, 254)
    together = []
    for frame in frames[1:]:
        segmenter.step(frame)
        together.append(segmenter.scores)
    for label in boxes:
        expected = reference_scores(model, frames, (mask == label).astype(np.uint8))
        for found, score in zip(together, expected, strict=True):
            np.testing.assert_allclose(found[label], score, atol=1e-4)
    assert np.abs(together[-1][2] - together[-1][254]).max() > 1e-3

"""The shared trunk with matching: sizes, state, streaming and clips, files."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from support import (
    EPSILON,
    MATCHING,
    TINY,
    TINY_MOBILENET,
    WHOLE_NETWORK,
    assert_close,
    call,
    numpy,
    random_frames,
    randomise,
    tensors,
)

from osmn_tf.guides import full_guide
from osmn_tf.layers.matching import RECENT_EVERY
from osmn_tf.models.osmn import OSMN
from osmn_tf.models.presets import load


@pytest.fixture(scope="module")
def network():
    return randomise(OSMN(**TINY, **MATCHING), seed=3)


@pytest.fixture(scope="module")
def without_memory():
    return randomise(OSMN(**{**TINY, **MATCHING, "matching": "first+previous"}), seed=3)


@pytest.fixture(scope="module")
def four_frames(network):
    return network.clip_model(4, 45, 70)


def step(model, frame, guide, modulation, state):
    features = call(model.frame_encoder, {"frame": frame})
    outputs = dict(
        call(model.object_network, tensors({**features, "spatial_guide": guide, "modulation": modulation, **state}))
    )
    return numpy(outputs.pop("logits")), outputs


def boxes(count, height, width):
    masks = np.zeros((count, height, width), np.uint8)
    for n in range(count):
        masks[n, 8 + 4 * n : 40, 10 * n + 4 : 10 * n + 50] = 1
    return masks


def test_what_is_computed_per_object_is_small_beside_what_runs_once_a_frame():
    network = OSMN(**TINY_MOBILENET, **MATCHING)
    assert network.object_network.count_params() < 0.15 * network.frame_encoder.count_params()


@pytest.mark.backend
def test_sizes_and_state(network, without_memory):
    assert network.state_specs[0].stride == 16
    state = network.initial_state(2, 61, 75)
    assert {name: tuple(x.shape) for name, x in state.items()} == {
        "first_key": (2, 4, 6, 128),
        "first_mask": (2, 4, 6, 1),
        "previous_key": (2, 4, 6, 128),
        "recent_key": (2, 4, 6, 128),
        "recent_mask": (2, 4, 6, 1),
        "recent_age": (2, 4, 6, 1),
        "previous_score": (2, 4, 6, 1),
    }
    assert [spec.name for spec in without_memory.state_specs] == ["first_key", "first_mask", "previous_key"]
    assert network.visual_modulator.output_shape == (None, 32 + 64 + 128)


def test_the_first_step_starts_the_state_and_the_next_ones_keep_it(network):
    frames, masks = random_frames(2, 1, 61, 75), boxes(2, 61, 75)
    guide = numpy(full_guide(masks, "gaussian+mask"))
    assert guide.shape == (2, 61, 75, 2)
    np.testing.assert_array_equal(guide[..., 1], masks)
    modulation = np.ones((2, 224), np.float32)
    _, begun = step(network, frames[0], guide, modulation, network.initial_state(2, 61, 75))
    key = numpy(call(network.frame_encoder, {"frame": frames[0]})["key"])
    np.testing.assert_allclose(np.linalg.norm(key, axis=-1), 1, rtol=key.shape[-1] * EPSILON)
    expected = network.begun_state(key, masks)
    assert expected.keys() == begun.keys()
    for name in expected.keys() - {"previous_score"}:  # found where it was marked: untrained weights find anything
        assert_close(begun[name], expected[name], WHOLE_NETWORK)
    np.testing.assert_allclose(numpy(begun["first_mask"]).sum(axis=(1, 2, 3)) * 256, masks.sum(axis=(1, 2)), rtol=1e-5)

    _, after = step(network, frames[1], guide[::-1].copy(), modulation, begun)
    for name in ("first_key", "first_mask"):
        np.testing.assert_array_equal(numpy(after[name]), numpy(begun[name]))
    second_key = numpy(call(network.frame_encoder, {"frame": frames[1]})["key"])
    assert_close(numpy(after["previous_key"])[1], second_key[0], WHOLE_NETWORK)


def test_every_part_of_the_state_and_of_the_guide_matters(network):
    frames, masks = random_frames(2, 1, 64, 96), boxes(1, 64, 96)
    guide = numpy(full_guide(masks, "gaussian+mask"))
    modulation = np.ones((1, 224), np.float32)
    _, state = step(network, frames[0], guide, modulation, network.initial_state(1, 64, 96))
    state = {name: numpy(value) for name, value in state.items()}
    before, _ = step(network, frames[1], guide, modulation, state)
    other = numpy(call(network.frame_encoder, {"frame": random_frames(1, 64, 96, seed=9)})["key"])
    for name, value in {
        "first_key": other,
        "first_mask": state["first_mask"][:, ::-1].copy(),
        "previous_key": other,
        "recent_key": other,
        "recent_mask": state["recent_mask"][:, ::-1].copy(),
    }.items():
        changed, _ = step(network, frames[1], guide, modulation, {**state, name: value})
        assert np.abs(changed - before).max() > 1e-4 * np.abs(before).max(), name
    due = {**state, "recent_key": other, "recent_age": 0 * state["recent_age"] + RECENT_EVERY}
    found, lost = (
        step(network, frames[1], guide, modulation, {**due, "previous_score": 0 * state["previous_score"] + score})
        for score in (1.0, -1.0)
    )
    np.testing.assert_array_equal(numpy(found[1]["recent_key"]), state["previous_key"])
    np.testing.assert_array_equal(numpy(lost[1]["recent_key"]), other)
    assert np.abs(found[0] - lost[0]).max() > 1e-4 * np.abs(before).max()
    for channel in (0, 1):
        less = guide.copy()
        less[..., channel] = 0
        changed, _ = step(network, frames[1], less, modulation, state)
        assert np.abs(changed - before).max() > 1e-4 * np.abs(before).max(), channel
    changed, _ = step(network, frames[1], guide, 2 * modulation, state)
    assert np.abs(changed - before).max() > 1e-4 * np.abs(before).max()


@pytest.mark.backend
def test_streaming_equals_the_clip(network, four_frames):
    """With given and own guides side by side and one after the other, and two own ones in turn."""
    height, width, rng = 45, 70, np.random.default_rng(5)
    first, frames = random_frames(2, height, width, seed=1), random_frames(2, 4, height, width, seed=2)
    masks = boxes(2, height, width)
    inputs = {
        "first_frame": first,
        "first_mask": masks,
        "frames": frames,
        "visual_guide": rng.uniform(0, 255, (2, 32, 32, 3)).astype(np.float32),
        "spatial_guides": rng.uniform(0, 1, (2, 4, height, width, 2)).astype(np.float32),
        "own_guide": np.array([[1, 1, 1, 1], [0, 0, 0, 1]], np.float32),
    }
    found = numpy(call(four_frames, inputs))
    assert found.shape == (2, 3, height, width, 1)

    modulation = call(network.visual_modulator, inputs["visual_guide"])
    for b in range(2):
        guide = numpy(full_guide(masks[b : b + 1], "gaussian+mask"))
        _, state = step(
            network, first[b : b + 1], guide, modulation[b : b + 1], network.initial_state(1, height, width)
        )
        for t in range(4):
            guide = inputs["spatial_guides"][b : b + 1, t]
            if t > 1 and inputs["own_guide"][b, t]:
                # The clip's own: rounding may decide on which side of 0 a pixel is.
                guide = numpy(full_guide((found[b : b + 1, t - 2, ..., 0] > 0).astype(np.uint8), "gaussian+mask"))
            logits, state = step(network, frames[b : b + 1, t], guide, modulation[b : b + 1], state)
            if t:
                assert_close(found[b, t - 1], logits[0], WHOLE_NETWORK)


def test_files(network, tmp_path):
    network.save_to_preset(tmp_path / "preset")
    again = load(tmp_path / "preset")
    assert again.get_config() == network.get_config()
    frame, masks = random_frames(1, 64, 96), boxes(1, 64, 96)
    guide, modulation = numpy(full_guide(masks, "gaussian+mask")), np.ones((1, 224), np.float32)
    state = network.initial_state(1, 64, 96)
    np.testing.assert_array_equal(
        step(again, frame, guide, modulation, state)[0], step(network, frame, guide, modulation, state)[0]
    )
    clip = network.clip_model(2, 64, 96)
    clip.save(tmp_path / "clip.keras")
    assert keras.models.load_model(tmp_path / "clip.keras").output_shape == (None, 1, 64, 96, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trunk": "other"}, "other"),
        ({"trunk": "modulated"}, "matching: needs trunk='shared'"),
        ({"guide": "gaussian"}, "matching: needs trunk='shared' and guide='gaussian\\+mask'"),
        ({"guide": "mask"}, "guide: expected one of gaussian, gaussian\\+mask"),
        ({"matching": "all"}, "matching: expected one of first\\+previous"),
        ({"decoder": "hypercolumn"}, "decoder: with trunk=.shared. expected refinement"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        OSMN(**{**TINY, **MATCHING, **arguments})


def test_a_network_without_state_has_no_clips(tiny_osmn):
    with pytest.raises(ValueError, match="clip_model"):
        tiny_osmn.clip_model(3)


def test_clips_have_a_frame_before_the_first_that_counts(network):
    with pytest.raises(ValueError, match="length: expected at least 2"):
        network.clip_model(1)

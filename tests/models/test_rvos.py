"""RVOS: its sizes, a literal graph of the reference, streaming against the clip, and its files."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest
from support import (
    NARROW_MOBILENET,
    NARROW_VGG,
    WHOLE_NETWORK,
    assert_close,
    call,
    needs_tensorflow,
    numpy,
    random_frames,
    randomise,
    tensors,
)

import osmn_tf
from osmn_tf.backbones.registry import find_layer
from osmn_tf.models.rvos import RVOS, STRIDES

# Of TensorFlow, for the fixtures below.
LITERAL_ONE = [-0.132312, -0.16204, -0.156428, -0.220401, -0.156817, -0.133469]
LITERAL_ZERO = [-0.088799, -0.239692, 0.056636, -0.113713, -0.269327, 0.11221]

SMALL = {
    "backbone": "short",
    "hidden_channels": 16,
    "network_size": (64, 96),
}


@pytest.fixture(scope="module")
def one_shot():
    """Shared by all tests: do not change its weights."""
    return randomise(RVOS(**SMALL), seed=1)


@pytest.fixture(scope="module")
def zero_shot():
    """Shared by all tests: do not change its weights."""
    return randomise(RVOS(**SMALL, one_shot=False), seed=2)


@pytest.fixture(scope="module")
def independent(one_shot):
    """With the weights of `one_shot`."""
    model = RVOS(**SMALL, independent=True)
    model.set_weights(one_shot.get_weights())
    return model


def random_masks(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (*shape, 1)).astype(np.float32)


def frame_inputs(model, objects, size=(64, 96), seed=0):
    """Of `frame_model`, with a state that is not zero."""
    rng = np.random.default_rng(seed)
    state = model.initial_state(objects, *size)
    inputs = {name: 0.5 * rng.standard_normal(tuple(x.shape), np.float32) for name, x in state.items()}
    if model.one_shot:
        inputs["previous_masks"] = random_masks(objects, *size, seed=seed)
    return {"frame": random_frames(1, *size, seed=seed), **inputs}


# What is in it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one_shot", "expected"), [(True, 2_940_433), (False, 2_931_793)])
def test_parameters_of_the_decoder(one_shot, expected):
    model = RVOS(backbone="mobilenet", block_channels=NARROW_MOBILENET, one_shot=one_shot)
    decoder = [w for w in model.weights if w.path.startswith(("seg_lstm", "seg_score"))]
    assert sum(int(np.prod(w.shape)) for w in decoder) == expected
    assert all(weight.trainable for weight in decoder)
    # The skips: 3x3 to 128, 128, 64 and 32 channels, each with its normalisation.
    assert [find_layer(model, f"seg_skip{stride}").kernel.shape[-1] for stride in STRIDES] == [128, 128, 64, 32]
    assert len(model.weights) - len(decoder) == 27 * 5 + 4 * (2 + 4)


def test_the_paper_s_encoder():
    defaults = inspect.signature(RVOS).parameters
    assert defaults["backbone"].default == "resnet101"
    model = RVOS(backbone="resnet50", block_channels=(1, 1, 1, 1), hidden_channels=8)
    assert find_layer(model, "seg_conv4_block6_3_conv").kernel.shape == (1, 1, 1, 4)
    assert (model.one_shot, model.recurrence, model.normalization) == (True, "both", "caffe")
    assert model.network_size == (256, 448)


@pytest.mark.parametrize(
    ("recurrence", "expected"),
    [
        ("both", [("lstm32_h", 32, 16), ("lstm16_h", 16, 8), ("lstm8_h", 8, 4), ("lstm4_h", 4, 2)]),
        ("spatial", []),
        (
            "temporal",
            [
                ("lstm32_h", 32, 16), ("lstm32_c", 32, 16), ("lstm16_h", 16, 8), ("lstm16_c", 16, 8),
                ("lstm8_h", 8, 4), ("lstm8_c", 8, 4), ("lstm4_h", 4, 2), ("lstm4_c", 4, 2),
            ],
        ),
    ],
)  # fmt: skip
def test_state(recurrence, expected):
    model = RVOS(**SMALL, recurrence=recurrence)
    assert [(spec.name, spec.stride, spec.channels) for spec in model.state_specs] == expected
    state = model.initial_state(3, 61, 75)
    assert {name: tuple(x.shape) for name, x in state.items()} == {
        name: (3, -(-61 // stride), -(-75 // stride), channels) for name, stride, channels in expected
    }
    assert not any(numpy(x).any() for x in state.values())
    names = set(model.input)
    assert {name for name in names if name.startswith("frame_")} == {f"frame_{name}" for name, _, _ in expected}
    assert len([name for name in names if name.startswith("object_")]) == (0 if recurrence == "temporal" else 8)


# The reference ----------------------------------------------------------------------------------------------------


def joined_kernels(model):
    """The one kernel of each cell, input order: upsampled hidden, skip, mask, spatial h, temporal h."""
    kernels = {}
    for level, stride in enumerate(STRIDES):
        frame, cell = (numpy(find_layer(model, f"seg_lstm{stride}{end}").kernel) for end in ("_frame", ""))
        upsampled = 0 if level == 0 else 2 * frame.shape[-1] // 4
        kernels[stride] = np.concatenate([cell[:, :, :upsampled], frame, cell[:, :, upsampled:]], axis=2)
    return kernels


def literal_decoder(model, skips, mask, spatial, temporal, size):
    """One object, written out with TensorFlow's basic operations. Returns the logits and (h, c) of every level."""
    import tensorflow as tf

    kernels, states, h = joined_kernels(model), [], None
    if mask is not None:
        mask = tf.nn.max_pool2d(mask, 2, 2, "SAME")
    pyramid = {}
    for stride in reversed(STRIDES):
        if mask is not None:
            mask = pyramid[stride] = tf.nn.max_pool2d(mask, 2, 2, "SAME")
    for level, stride in enumerate(STRIDES):
        skip = skips[stride]
        inputs = [skip]
        if h is not None:
            inputs.insert(0, tf.compat.v1.image.resize_bilinear(h, skip.shape[1:3], align_corners=True))
        if mask is not None:
            inputs.append(pyramid[stride])
        stacked = tf.concat([*inputs, spatial[level][0], temporal[level]], -1)
        bias = find_layer(model, f"seg_lstm{stride}").bias
        i, f, o, g = tf.split(tf.nn.conv2d(stacked, kernels[stride], 1, "SAME") + bias, 4, -1)
        c = tf.sigmoid(f) * spatial[level][1] + tf.sigmoid(i) * tf.tanh(g)
        h = tf.sigmoid(o) * tf.tanh(c)
        states.append((h, c))
    rows, columns = h.shape[1:3]
    h = tf.compat.v1.image.resize_bilinear(h, (2 * rows, 2 * columns), align_corners=True)
    score = find_layer(model, "seg_score")
    logits = tf.nn.conv2d(h, score.kernel, 1, "SAME") + score.bias
    return tf.compat.v1.image.resize_bilinear(logits, size, align_corners=True), states


@needs_tensorflow
@pytest.mark.parametrize("form", ["one_shot", "zero_shot"])
@pytest.mark.parametrize("size", [(64, 96), (61, 75)])
def test_equals_a_literal_graph_of_the_reference(form, size, request):
    """Three objects in two frames: both recurrences are in use."""
    model = request.getfixturevalue(form)
    assert [k.shape[2] for k in joined_kernels(model).values()] == [
        16 + model.one_shot + 32, 32 + model.one_shot + 16, 16 + model.one_shot + 8, 8 + model.one_shot + 4,
    ]  # fmt: skip
    skips_model = keras.Model(
        model.frame_encoder.input, {stride: find_layer(model, f"seg_skip{stride}_bn").output for stride in STRIDES}
    )
    frames, masks = random_frames(2, *size), random_masks(2, 3, *size)
    network = model.frame_model(3)
    state = model.initial_state(3, *size)
    zeros = [np.zeros((1, -(-size[0] // s), -(-size[1] // s), 16 * s // 32), np.float32) for s in STRIDES]
    temporal = [zeros] * 3
    for frame, previous in zip(frames, masks):
        inputs = {"frame": frame[None], **state}
        if model.one_shot:
            inputs["previous_masks"] = previous
        found = network(tensors(inputs))
        skips = skips_model({"frame": frame[None]})
        spatial = [(zero, zero) for zero in zeros]
        for k in range(3):
            mask = previous[k : k + 1] if model.one_shot else None
            expected, spatial = literal_decoder(model, skips, mask, spatial, temporal[k], size)
            scale = float(np.std(expected))
            assert scale > 0.01
            assert_close(numpy(found["logits"])[k], expected[0], WHOLE_NETWORK)
            temporal[k] = [h for h, _ in spatial]
            for spec, h in zip(model.state_specs, temporal[k], strict=True):
                assert_close(numpy(found[spec.name])[k], h[0], WHOLE_NETWORK)
        state = {spec.name: found[spec.name] for spec in model.state_specs}


@pytest.mark.backend
@pytest.mark.parametrize(("form", "expected"), [("one_shot", LITERAL_ONE), ("zero_shot", LITERAL_ZERO)])
def test_every_backend_gives_these_numbers(form, expected, request):
    model = request.getfixturevalue(form)
    found = call(model.frame_model(2), tensors(frame_inputs(model, 2, (61, 75))))
    logits = numpy(found["logits"])
    assert logits.shape == (2, 61, 75, 1)
    np.testing.assert_allclose(logits[:, [0, 17, 60], [0, 40, 74], 0].ravel(), expected, atol=1e-4)


# Objects, frames and clips ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["one_shot", "zero_shot"])
def test_any_number_of_objects(form, request):
    """An object knows those before it, and none of those behind."""
    model = request.getfixturevalue(form)
    inputs = frame_inputs(model, 4)
    all_four = model.frame_model(4)(tensors(inputs))
    for count in (1, 3):
        fewer = {name: x if name == "frame" else x[:count] for name, x in inputs.items()}
        found = model.frame_model(count)(tensors(fewer))
        for name, x in found.items():
            assert x.shape[0] == count
            assert_close(x, numpy(all_four[name])[:count], WHOLE_NETWORK)
    changed = {name: x[::-1] if name != "frame" else x for name, x in inputs.items()}
    assert np.abs(numpy(model.frame_model(4)(tensors(changed))["logits"])[::-1] - numpy(all_four["logits"])).max() > 0.1


def test_one_object_is_the_whole_model(one_shot):
    inputs = frame_inputs(one_shot, 1)
    found = one_shot.frame_model(1)(tensors(inputs))
    step = {"frame": inputs["frame"], "previous_mask": inputs["previous_masks"]}
    for spec in one_shot.state_specs:
        step[f"frame_{spec.name}"] = inputs[spec.name]
        for part in "hc":
            step[f"object_{spec.name[:-1]}{part}"] = np.zeros_like(inputs[spec.name])
    expected = one_shot(tensors(step))
    for name, x in found.items():
        assert_close(x, expected[name], WHOLE_NETWORK)


@pytest.mark.parametrize("recurrence", ["spatial", "temporal"])
def test_one_recurrence_alone(recurrence):
    model = randomise(RVOS(**SMALL, recurrence=recurrence), seed=4)
    inputs = frame_inputs(model, 3)
    network = model.frame_model(3)
    expected = numpy(network(tensors(inputs))["logits"])
    order = {name: x if name == "frame" else x[[2, 1, 0]] for name, x in inputs.items()}
    found = numpy(network(tensors(order))["logits"])[[2, 1, 0]]
    if recurrence == "temporal":  # each object on its own
        assert_close(found, expected, WHOLE_NETWORK)
    else:
        assert np.abs(found - expected).max() > 0.01
        assert list(inputs) == ["frame", "previous_masks"]


def streamed(model, inputs, objects, clip):
    """The clip's inputs, frame by frame; own masks are of the clip's logits, since rounding may decide who wins."""
    network = model.frame_model(objects)
    _, length, height, width, _ = inputs["frames"].shape
    state, logits = model.initial_state(objects, height, width), []
    for t in range(length):
        step = {"frame": inputs["frames"][:, t], **state}
        if model.one_shot:
            masks = inputs["previous_masks"][0, t]
            if t > 0:
                own = 1 / (1 + np.exp(-clip[t - 1]))
                if model.independent:
                    own[clip[t - 1] < clip[t - 1].max(axis=0)] = 0
                masks = np.where(inputs["own_mask"][0, t, :, None, None, None] > 0.5, own, masks)
            step["previous_masks"] = masks
        outputs = network(tensors(step))
        logits.append(numpy(outputs["logits"]))
        state = {spec.name: outputs[spec.name] for spec in model.state_specs}
    return np.stack(logits)[None]


def clip_inputs(model, batch, length, objects, size, seed=0):
    inputs = {"frames": random_frames(batch, length, *size, seed=seed)}
    if model.one_shot:
        own = np.random.default_rng(seed).integers(0, 2, (batch, length, objects)).astype(np.float32)
        inputs |= {"previous_masks": random_masks(batch, length, objects, *size, seed=seed), "own_mask": own}
    return inputs


def test_independent_objects_are_each_the_first(independent, one_shot):
    """Whatever the others are; and the weights are those of the paper's network."""
    inputs = frame_inputs(independent, 3)
    found = independent.frame_model(3)(tensors(inputs))
    alone = one_shot.frame_model(1)
    for k in range(3):
        expected = alone(tensors({name: x if name == "frame" else x[k : k + 1] for name, x in inputs.items()}))
        for name, x in found.items():
            assert_close(numpy(x)[k : k + 1], expected[name], WHOLE_NETWORK)


def test_own_masks(independent, one_shot):
    logits = np.array([[2.0, -1.0, 0.0], [1.0, -2.0, 3.0]], np.float32)
    np.testing.assert_allclose(
        numpy(one_shot.own_masks(logits)), [[0.881, 0.269, 0.5], [0.731, 0.119, 0.953]], atol=1e-3
    )
    np.testing.assert_allclose(numpy(independent.own_masks(logits)), [[0.881, 0.269, 0], [0, 0, 0.953]], atol=1e-3)


@pytest.mark.parametrize("form", ["one_shot", "zero_shot", "independent"])
def test_streaming_equals_the_clip(form, request):
    model = request.getfixturevalue(form)
    for objects, length, size in ((2, 3, (61, 75)), (1, 2, (64, 96))):
        inputs = clip_inputs(model, 2, length, objects, size)
        found = numpy(model.clip_model(length, objects)(tensors(inputs)))
        assert found.shape == (2, length, objects, *size, 1)
        for b in range(2):
            one = {name: x[b : b + 1] for name, x in inputs.items()}
            assert_close(found[b : b + 1], streamed(model, one, objects, found[b]), WHOLE_NETWORK)


@needs_tensorflow
@pytest.mark.parametrize("form", ["one_shot", "zero_shot"])
def test_gradients_go_through_objects_and_frames_and_not_through_own_masks(form, request):
    import tensorflow as tf

    model = request.getfixturevalue(form)
    inputs = tensors(clip_inputs(model, 1, 2, 2, (32, 64)))
    network = model.clip_model(2, 2)
    gates = find_layer(model, "seg_lstm32")
    with tf.GradientTape(persistent=True) as tape:
        if model.one_shot:
            tape.watch(inputs["previous_masks"])
        logits = network(inputs)
        last = tf.reduce_sum(logits[:, 1, 1] ** 2)
    assert all(x is not None for x in tape.gradient(last, model.trainable_variables))
    assert np.abs(tape.gradient(last, gates.kernel).numpy()).max() > 0
    if model.one_shot:
        reached = np.abs(tape.gradient(last, inputs["previous_masks"]).numpy()).max(axis=(3, 4, 5))[0]
        assert reached[0, 0] > 0  # an earlier frame's other object, by the states
        inputs["own_mask"] = tf.ones((1, 2, 2))
        with tf.GradientTape() as tape:
            tape.watch(inputs["previous_masks"])
            last = tf.reduce_sum(network(inputs)[:, 1, 1] ** 2)
        assert not np.abs(tape.gradient(last, inputs["previous_masks"]).numpy()[:, 1]).any()


def test_frames_of_any_size(zero_shot):
    network = zero_shot.frame_model(2)
    for size in ((33, 70), (130, 31)):
        found = network(tensors(frame_inputs(zero_shot, 2, size)))
        assert found["logits"].shape == (2, *size, 1)
        assert found["lstm8_h"].shape == (2, -(-size[0] // 8), -(-size[1] // 8), 4)


@needs_tensorflow
def test_compiles_with_sides_that_are_unknown(one_shot):
    import tensorflow as tf

    network = one_shot.frame_model(2)
    signature = {name: tf.TensorSpec(x.shape, x.dtype) for name, x in network.input.items()}
    compiled = tf.function(lambda inputs: network(inputs), input_signature=[signature], autograph=False)
    for size in ((64, 96), (61, 75)):
        inputs = tensors(frame_inputs(one_shot, 2, size))
        expected = network(inputs)
        for name, x in compiled(inputs).items():
            assert_close(x, expected[name], WHOLE_NETWORK)


# Files ------------------------------------------------------------------------------------------------------------


@pytest.mark.backend
def test_preset_round_trip(one_shot, tmp_path):
    one_shot.save_to_preset(tmp_path / "preset", {"licence": "CC0"})
    copy = osmn_tf.load(tmp_path / "preset")
    assert type(copy) is RVOS
    assert copy.get_config() == one_shot.get_config()
    for found, expected in zip(copy.weights, one_shot.weights, strict=True):
        np.testing.assert_array_equal(numpy(found), numpy(expected))


def test_keras_files(zero_shot, tmp_path):
    zero_shot.save(tmp_path / "model.keras")
    copy = osmn_tf.load(tmp_path / "model.keras")
    frame = zero_shot.frame_model(2)
    frame.save(tmp_path / "frame.keras")
    inputs = tensors(frame_inputs(zero_shot, 2))
    expected = numpy(frame(inputs)["logits"])
    for network in (copy.frame_model(2), keras.saving.load_model(tmp_path / "frame.keras")):
        np.testing.assert_array_equal(numpy(network(inputs)["logits"]), expected)


@pytest.mark.parametrize("mixed_precision", ["mixed_bfloat16"], indirect=True)
def test_mixed_precision(mixed_precision, one_shot):
    half = RVOS(**SMALL)
    half.set_weights(one_shot.get_weights())
    inputs = tensors(frame_inputs(one_shot, 2))
    found, expected = half.frame_model(2)(inputs), one_shot.frame_model(2)(inputs)
    assert keras.backend.standardize_dtype(found["logits"].dtype) == "float32"
    assert keras.backend.standardize_dtype(found["lstm8_h"].dtype) == "bfloat16"
    logits = numpy(expected["logits"])
    assert np.abs(numpy(found["logits"]) - logits).mean() < 0.05 * logits.std()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recurrence": "none"}, "recurrence: expected one of spatial, temporal, both, received 'none'"),
        ({"hidden_channels": 12}, "hidden_channels: expected a positive multiple of 8, received 12"),
        ({"hidden_channels": 0}, "hidden_channels: expected a positive multiple of 8, received 0"),
        ({"independent": True, "slots": 2}, "independent: objects that are found without masks would all be the same"),
        ({"independent": True, "one_shot": False}, "independent: .* expected one_shot: true and slots: 1 or none"),
        ({"network_size": (0, 5)}, "network_size: expected a positive height and width"),
        ({"normalization": "grey"}, "normalization: expected one of .*, received 'grey'"),
        ({"backbone": "vgg16", "block_channels": NARROW_VGG}, r"backbone: .* 'vgg16' has none at \[32\]"),
        ({"backbone": "alexnet"}, "backbone: expected one of .*mobilenet.*, received 'alexnet'"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        RVOS(**{**SMALL, **arguments})


def test_what_is_no_argument(one_shot):
    with pytest.raises(TypeError, match="RVOS has no argument decoder"):
        RVOS(**SMALL, decoder="refinement")
    with pytest.raises(ValueError, match="objects: expected 1 or more, received 0"):
        one_shot.frame_model(0)

"""ReConvNet: what it adds to OSMN, its initial values, its state, and streaming against the clip call."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from support import (
    NARROW_MOBILENET,
    TINY,
    TINY_MOBILENET,
    TINY_VGG,
    UNTRACED,
    WHOLE_NETWORK,
    assert_close,
    call,
    numpy,
    object_batch,
    random_frames,
    randomise,
    tensors,
    zero_lstms,
)

from osmn_tf.guides import spatial_guide
from osmn_tf.models.osmn import OSMN
from osmn_tf.models.reconvnet import ReConvNet
from osmn_tf.training.optimization import SegmentationLoss


def weight_dict(model):
    return {weight.path: numpy(weight) for weight in model.weights}


def inner(model, name):
    """A layer of the object network or of the visual modulator."""
    for part in (model.object_network, model.visual_modulator):
        for layer in part.layers:
            if layer.name == name:
                return layer
    raise LookupError(name)


# What is in it ----------------------------------------------------------------------------------------------------


@pytest.fixture
def quick_init(monkeypatch):
    """Zeros instead of orthogonal matrices, whose making takes half a minute at these sizes."""
    monkeypatch.setattr(keras.initializers.Orthogonal, "__call__", lambda self, shape, dtype: keras.ops.zeros(shape))


def test_vgg_form_has_the_paper_s_sizes(quick_init):
    model = ReConvNet(visual_head="pooled", visual_hidden=4, guide_size=32)
    weights = weight_dict(model)
    for block, channels in ((3, 256), (4, 512), (5, 512)):
        name = f"seg_conv{block}_lstm"
        assert weights[f"{name}/kernel"].shape == (3, 3, channels, 4 * channels)
        assert weights[f"{name}/recurrent_kernel"].shape == (3, 3, channels, 4 * channels)
        assert weights[f"{name}/bias"].shape == (4 * channels,)
    assert weights["modulator_fc8/bias"].shape == (3840,)
    assert weights["modulator_recurrent/bias"].shape == (1280,)
    guide = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    scales = numpy(call(model.visual_modulator, guide))
    assert scales.shape == (2, 5120)
    assert np.all(scales == 1.0)
    assert [(spec.name, spec.stride, spec.channels) for spec in model.state_specs] == [
        ("conv3_lstm_h", 4, 256), ("conv3_lstm_c", 4, 256), ("conv4_lstm_h", 8, 512), ("conv4_lstm_c", 8, 512),
        ("conv5_lstm_h", 16, 512), ("conv5_lstm_c", 16, 512),
    ]  # fmt: skip


def test_initial_values():
    model = ReConvNet(**TINY_VGG)
    weights = weight_dict(model)
    for block, channels in ((3, 4), (4, 5), (5, 6)):
        name = f"seg_conv{block}_lstm"
        kernel, recurrent = weights[f"{name}/kernel"], weights[f"{name}/recurrent_kernel"]
        assert kernel.std() == pytest.approx(0.001, rel=0.15)
        assert abs(kernel.mean()) < 2e-4
        columns = recurrent.reshape(-1, 4 * channels)
        assert_close(columns.T @ columns, np.eye(4 * channels), len(columns))
        bias = weights[f"{name}/bias"].reshape(4, channels)
        assert np.all(bias[1] == 1.0)
        assert not bias[[0, 2, 3]].any()
        assert inner(model, name).activation is keras.activations.tanh
        assert inner(model, name).recurrent_activation is keras.activations.sigmoid
    assert not weights["modulator_recurrent/kernel"].any()
    assert np.all(weights["modulator_recurrent/bias"] == 1.0)


def test_mobilenet_form_has_one_lstm_after_each_of_the_last_three_modulated_blocks():
    """With as many channels as the block before it has."""
    model = ReConvNet(**TINY_MOBILENET, block_channels=NARROW_MOBILENET)
    assert [(spec.name, spec.stride, spec.channels) for spec in model.state_specs] == [
        ("Conv2d_5_lstm_h", 8, 5), ("Conv2d_5_lstm_c", 8, 5), ("Conv2d_11_lstm_h", 16, 6),
        ("Conv2d_11_lstm_c", 16, 6), ("Conv2d_13_lstm_h", 32, 7), ("Conv2d_13_lstm_c", 32, 7),
    ]  # fmt: skip
    assert weight_dict(model)["modulator_recurrent/bias"].shape == (18,)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (61, 75)])
def test_state_shapes(tiny_reconvnet, height, width):
    vgg = ReConvNet(**TINY_VGG)
    for model in (vgg, tiny_reconvnet):
        batch = tensors(object_batch(model, 2, height, width))
        initial = model.initial_state(2, height, width)
        assert list(initial) == [spec.name for spec in model.state_specs]
        assert not any(numpy(value).any() for value in initial.values())
        outputs = call(model, {**batch, **initial})
        assert set(outputs) == {"logits", *initial}
        padded = (height, width) if model is vgg else (-(-height // 32) * 32, -(-width // 32) * 32)
        for spec in model.state_specs:
            expected = (2, -(-padded[0] // spec.stride), -(-padded[1] // spec.stride), spec.channels)
            assert tuple(outputs[spec.name].shape) == tuple(initial[spec.name].shape) == expected


def test_osmn_has_no_state(tiny_osmn):
    assert tiny_osmn.state_specs == ()
    assert tiny_osmn.initial_state(2, 64, 96) == {}


# How the ConvLSTMs are wired --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "recurrence"),
    [
        pytest.param("vgg16", "residual", marks=pytest.mark.backend),
        ("vgg16", "replace"),
        ("mobilenet", "residual"),
        pytest.param("mobilenet", "replace", marks=pytest.mark.backend),
    ],
)
def test_recurrence(backbone, recurrence):
    """The next layer and the side branch read features + scale * h, or scale * h alone, with the right scales."""
    arguments = TINY_VGG if backbone == "vgg16" else {**TINY_MOBILENET, "block_channels": NARROW_MOBILENET}
    model = randomise(ReConvNet(**arguments, recurrence=recurrence), seed=4)
    if backbone == "vgg16":  # blocks of 2, 3, 4, 5, 6 channels
        levels = {3: ("seg_conv3_3", "seg_pool3", 45, 4), 4: ("seg_conv4_3", "seg_pool4", 49, 5),
                  5: ("seg_conv5_3", "seg_conv5_3_16", 54, 6)}  # fmt: skip
        lstm, side = "seg_conv{}_lstm", {3: "seg_conv3_3_16", 4: "seg_conv4_3_16", 5: "seg_conv5_3_16"}
        assert sum((4,) * 3 + (5,) * 3 + (6,) * 3) == 45
    else:  # modulated layers of 4, 5, 6, 7 channels
        levels = {5: ("seg_Conv2d_5", "seg_Conv2d_6_depthwise", 22, 5),
                  11: ("seg_Conv2d_11", "seg_Conv2d_12_depthwise", 27, 6),
                  13: ("seg_Conv2d_13", "seg_conv13_16", 33, 7)}  # fmt: skip
        assert sum((4, 5, 6, 7)) == 22
        lstm, side = "seg_Conv2d_{}_lstm", {5: "seg_conv5_16", 11: "seg_conv11_16", 13: "seg_conv13_16"}
    batch = object_batch(model, 2, 64, 96)
    modulation = numpy(call(model.visual_modulator, batch.pop("visual_guide")))
    inputs = {**call(model.frame_encoder, {"frame": batch.pop("frame")}), **batch, "modulation": modulation}
    for level, (block, reader, offset, channels) in levels.items():
        cell = inner(model, lstm.format(level))
        probe = keras.Model(
            model.object_network.inputs,
            [inner(model, f"{block}_modulation").output, cell.output[0], inner(model, reader).input,
             inner(model, side[level]).input],
        )  # fmt: skip
        ordered = [keras.ops.convert_to_tensor(inputs[tensor.name]) for tensor in model.object_network.inputs]
        features, hidden, read, side_read = (numpy(x) for x in call(probe, ordered))
        assert features.shape[-1] == channels
        expected = hidden * modulation[:, None, None, offset : offset + channels]
        if recurrence == "residual":
            expected = expected + features
        assert np.abs(hidden).max() > 0.05
        assert_close(read, expected, 10)
        np.testing.assert_array_equal(side_read, read)


def test_silent_lstms_leave_the_osmn():
    for arguments in (TINY_VGG, TINY, {**TINY, "decoder": "refinement"}):
        osmn = randomise(OSMN(**arguments))
        model = ReConvNet.from_osmn(osmn)
        zero_lstms(model)
        batch = tensors(object_batch(model, 2, 45, 70))
        batch |= model.initial_state(2, 45, 70)
        outputs = call(model, batch)
        expected = call(osmn, {name: batch[name] for name in ("frame", "visual_guide", "spatial_guide")})
        np.testing.assert_array_equal(numpy(outputs["logits"]), numpy(expected))
        assert not any(numpy(outputs[spec.name]).any() for spec in model.state_specs if spec.name.endswith("_h"))
    # Features that are replaced are lost.
    replaced = ReConvNet.from_osmn(osmn, recurrence="replace")
    zero_lstms(replaced)
    assert np.abs(numpy(call(replaced, batch)["logits"]) - numpy(expected)).max() > 1e-3


def test_new_lstms_hardly_change_the_osmn_at_the_first_step(tiny_osmn):
    model = ReConvNet.from_osmn(tiny_osmn, recurrent_channels=(8, 8, 8))
    batch = tensors(object_batch(model, 1, 64, 96))
    batch |= model.initial_state(1, 64, 96)
    expected = numpy(call(tiny_osmn, {name: batch[name] for name in ("frame", "visual_guide", "spatial_guide")}))
    difference = np.abs(numpy(call(model, batch)["logits"]) - expected)
    assert 0 < difference.mean() < 0.05 * expected.std()


@pytest.mark.backend
def test_from_osmn_copies_by_name(tiny_osmn):
    model = ReConvNet.from_osmn(tiny_osmn, recurrence="replace", recurrent_channels=(2, 3, 4))
    theirs, ours = weight_dict(tiny_osmn), weight_dict(model)
    assert set(theirs) < set(ours)
    for path, value in theirs.items():
        np.testing.assert_array_equal(ours[path], value)
    added = set(ours) - set(theirs)
    assert all("_lstm" in path or "modulator_recurrent" in path for path in added)
    assert np.all(ours["modulator_recurrent/bias"] == 1.0)
    assert not ours["modulator_recurrent/kernel"].any()
    assert model.recurrence == "replace"
    assert model.recurrent_channels == [2, 3, 4]
    shared = tiny_osmn.get_config()
    assert {key: model.get_config()[key] for key in shared if key != "name"} == {
        key: value for key, value in shared.items() if key != "name"
    }


def test_from_osmn_of_another_form_names_the_weight(tiny_osmn):
    with pytest.raises(ValueError, match=r"seg_conv\d+_16/\w+ of the OSMN has no counterpart in this ReConvNet"):
        ReConvNet.from_osmn(tiny_osmn, decoder="refinement", recurrent_channels=(2, 2, 2))


def test_state_is_carried_from_frame_to_frame(tiny_reconvnet):
    batch = tensors(object_batch(tiny_reconvnet, 1, 64, 96))
    fresh = call(tiny_reconvnet, {**batch, **tiny_reconvnet.initial_state(1, 64, 96)})
    carried = call(tiny_reconvnet, {**batch, **{name: x for name, x in fresh.items() if name != "logits"}})
    difference = np.abs(numpy(carried["logits"]) - numpy(fresh["logits"])).max()
    assert difference > 1e-3 * numpy(fresh["logits"]).std()


def test_weakened_memory(tiny_reconvnet):
    """Literal weights; without h and with shut forget gates, a step does not depend on the state."""
    model = ReConvNet.from_config(tiny_reconvnet.get_config())
    model.set_weights(tiny_reconvnet.get_weights())
    before = weight_dict(model)
    model.weaken_memory(recurrent_scale=0.25, forget_shift=2.0)
    changed = {path for path, value in weight_dict(model).items() if not np.array_equal(value, before[path])}
    layers = [f"seg_Conv2d_{index}_lstm" for index in (3, 4, 5)]
    assert changed == {f"{layer}/{name}" for layer in layers for name in ("recurrent_kernel", "bias")}
    for layer, filters in zip(layers, (4, 6, 8)):
        kernel, bias = (weight_dict(model)[f"{layer}/{name}"] for name in ("recurrent_kernel", "bias"))
        np.testing.assert_array_equal(kernel, 0.25 * before[f"{layer}/recurrent_kernel"])
        expected = before[f"{layer}/bias"].copy()
        expected[filters : 2 * filters] -= 2.0
        np.testing.assert_array_equal(bias, expected)

    model.weaken_memory(recurrent_scale=0.0, forget_shift=100.0)
    batch = tensors(object_batch(model, 1, 64, 96))
    fresh = call(model, {**batch, **model.initial_state(1, 64, 96)})
    assert_close(call(model, batch)["logits"], fresh["logits"], WHOLE_NETWORK)
    for arguments in ({"recurrent_scale": 1.5}, {"recurrent_scale": -0.1}, {"forget_shift": -1.0}):
        with pytest.raises(ValueError, match="recurrent_scale, forget_shift: expected 0 to 1 and 0 or more"):
            model.weaken_memory(**arguments)


# The clip call ----------------------------------------------------------------------------------------------------


def clip_inputs(model, batch, length, height, width, own):
    rng = np.random.default_rng(8)
    return {
        "frames": random_frames(batch, length, height, width),
        "visual_guide": rng.uniform(0, 255, (batch, model.guide_size, model.guide_size, 3)).astype(np.float32),
        "spatial_guides": rng.uniform(0, 1, (batch, length, height, width, 1)).astype(np.float32),
        "own_guide": np.array(own, np.float32),
    }


def stream(model, inputs, clip):
    """The clip, one step after the other, from the parts of the network. Own masks are those of `clip`, the logits of
    the whole: rounding may decide on which side of 0 a pixel is."""
    batch, length, height, width, _ = inputs["frames"].shape
    modulation = call(model.visual_modulator, inputs["visual_guide"])
    state, results = model.initial_state(batch, height, width), []
    for t in range(length):
        guide = inputs["spatial_guides"][:, t].copy()
        for b in range(batch):
            if t > 0 and inputs["own_guide"][b, t] > 0.5:
                guide[b] = numpy(spatial_guide((clip[b : b + 1, t - 1, ..., 0] > 0).astype(np.uint8)))[0]
        features = call(model.frame_encoder, {"frame": inputs["frames"][:, t]})
        step_inputs = tensors({**features, "spatial_guide": guide, "modulation": modulation, **state})
        outputs = dict(call(model.object_network, step_inputs))
        results.append(numpy(outputs.pop("logits")))
        state = outputs
    return np.stack(results, 1)


@pytest.mark.backend
def test_streaming_equals_the_clip(tiny_reconvnet):
    """With given and own guides side by side and one after the other."""
    inputs = clip_inputs(tiny_reconvnet, 2, 4, 45, 70, [[0, 1, 0, 1], [1, 0, 1, 1]])
    found = numpy(call(tiny_reconvnet.clip_model(4), inputs))
    assert found.shape == (2, 4, 45, 70, 1)
    expected = stream(tiny_reconvnet, inputs, found)
    assert_close(found, expected, WHOLE_NETWORK)
    assert np.abs(found[:, 3] - found[:, 2]).max() > 1e-3


def test_own_guides_matter(tiny_reconvnet):
    given = clip_inputs(tiny_reconvnet, 1, 3, 64, 96, [[0, 0, 0]])
    own = {**given, "own_guide": np.ones((1, 3), np.float32)}
    clip = tiny_reconvnet.clip_model(3)
    first, second = numpy(call(clip, given)), numpy(call(clip, own))
    np.testing.assert_array_equal(first[:, 0], second[:, 0])  # the first frame has no prediction before it
    assert np.abs(first[:, 1] - second[:, 1]).max() > 1e-3


def test_clip_equals_streaming_on_vgg():
    model = randomise(ReConvNet(**TINY_VGG), seed=5)
    inputs = clip_inputs(model, 1, 3, 33, 47, [[0, 0, 1]])
    found = numpy(call(model.clip_model(3), inputs))
    assert_close(found, stream(model, inputs, found), WHOLE_NETWORK)


@pytest.mark.backend
def test_clip_model_trains_the_network_itself():
    model = randomise(ReConvNet(**{**TINY_VGG, "visual_hidden": 8}), seed=6)
    for weight in model.weights:
        if weight.path.endswith("_lstm/kernel"):
            weight.assign(numpy(weight) * 1e-4)  # random features are large and would saturate the gates
    clip = model.clip_model(3, 32, 64)
    assert clip.output_shape == (None, 3, 32, 64, 1)
    assert {w.path for w in clip.trainable_weights} == {w.path for w in model.trainable_weights}
    clip.compile(optimizer=keras.optimizers.Adam(1e-3), loss=SegmentationLoss(lovasz=1.0), **UNTRACED)
    before = weight_dict(model)
    inputs = clip_inputs(model, 2, 3, 32, 64, [[0, 0, 1], [0, 1, 1]])
    labels = (inputs["spatial_guides"] > 0.8).astype(np.uint8)
    history = clip.fit(inputs, labels, batch_size=2, epochs=1, verbose=0).history
    assert np.isfinite(history["loss"][0])
    after = weight_dict(model)
    assert all(np.all(np.isfinite(value)) for value in after.values())
    unchanged = {path for path, value in after.items() if np.array_equal(value, before[path])}
    assert unchanged == {f"seg_score_multi{level}_up/kernel" for level in (2, 3, 4, 5)}


def test_clip_model_predicts_with_unknown_sizes(tiny_reconvnet):
    clip = tiny_reconvnet.clip_model(2)
    for size in ((64, 96), (33, 50)):
        inputs = clip_inputs(tiny_reconvnet, 1, 2, *size, [[0, 1]])
        expected = numpy(call(clip, inputs))
        np.testing.assert_allclose(clip.predict(inputs, verbose=0), expected, atol=1e-4 * expected.std())


def test_clip_model_file_round_trip(tiny_reconvnet, tmp_path):
    clip = tiny_reconvnet.clip_model(2)
    clip.save(tmp_path / "clip.keras")
    copy = keras.saving.load_model(tmp_path / "clip.keras")
    inputs = clip_inputs(tiny_reconvnet, 1, 2, 40, 50, [[0, 1]])
    np.testing.assert_array_equal(numpy(call(copy, inputs)), numpy(call(clip, inputs)))


# Configuration, files, precision ----------------------------------------------------------------------------------


@pytest.mark.backend
@pytest.mark.parametrize("mixed_precision", ["mixed_bfloat16"], indirect=True)
def test_mixed_precision(mixed_precision, tiny_reconvnet):
    model = ReConvNet.from_config(tiny_reconvnet.get_config())
    model.set_weights(tiny_reconvnet.get_weights())
    inputs = clip_inputs(model, 1, 2, 40, 50, [[0, 0]])
    found = call(model.clip_model(2), inputs)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    half = mixed_precision.removeprefix("mixed_")
    assert {keras.backend.standardize_dtype(x.dtype) for x in model.initial_state(1, 40, 50).values()} == {half}
    expected = stream(tiny_reconvnet, inputs, found)
    assert np.all(np.isfinite(numpy(found)))
    assert np.abs(numpy(found) - expected).mean() < 0.1 * expected.std()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recurrence": "add"}, "recurrence: expected one of residual, replace, received 'add'"),
        ({"recurrent_channels": (4, 4)}, "recurrent_channels: expected three positive numbers"),
        ({"recurrent_channels": (4, 0, 4)}, "recurrent_channels: expected three positive numbers"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ReConvNet(**TINY, **arguments)

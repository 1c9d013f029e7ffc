"""OSMN: parameters, names and numbers of the release, in both forms; any frame size; any number of objects."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from support import (
    TINY,
    TINY_MOBILENET,
    TINY_VGG,
    UNTRACED,
    call,
    needs_tensorflow,
    numpy,
    object_batch,
    random_frames,
    randomise,
    tensors,
)

from osmn_tf.models.osmn import OSMN


def weight_dict(model):
    return {weight.path: numpy(weight) for weight in model.weights}


def shapes(model):
    return {weight.path: tuple(weight.shape) for weight in model.weights}


def conv_shapes(name, *shape):
    return {f"{name}/kernel": shape, f"{name}/bias": (shape[-1],)}


def norm_shapes(name, channels):
    return {f"{name}/{part}": (channels,) for part in ("gamma", "beta", "moving_mean", "moving_variance")}


def vgg_shapes(prefix):
    expected, channels = {}, 3
    for block, widths in {1: (64, 64), 2: (128, 128), 3: (256,) * 3, 4: (512,) * 3, 5: (512,) * 3}.items():
        for index, width in enumerate(widths, start=1):
            expected |= conv_shapes(f"{prefix}_conv{block}_{index}", 3, 3, channels, width)
            channels = width
    return expected


# The VGG form -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def release_network():
    """The release's network: 165 M parameters, 0.7 GB."""
    return OSMN()


def test_vgg_parameters_and_names(release_network):
    assert release_network.count_params() == 165_277_953
    expected = vgg_shapes("modulator") | vgg_shapes("seg")
    expected |= conv_shapes("modulator_fc6", 7, 7, 512, 4096)
    expected |= conv_shapes("modulator_fc7", 1, 1, 4096, 4096)
    expected |= conv_shapes("modulator_fc8", 1, 1, 4096, 3840)
    for block, channels in ((3, 768), (4, 1536), (5, 1536)):
        expected[f"modulator_sp_conv{block}/kernel"] = (1, 1, 1, channels)
        expected |= norm_shapes(f"modulator_sp_conv{block}_bn", channels)
    for side, channels in (("2_2", 128), ("3_3", 256), ("4_3", 512), ("5_3", 512)):
        expected |= conv_shapes(f"seg_conv{side}_16", 3, 3, channels, 16)
    for level, size in ((2, 4), (3, 8), (4, 16), (5, 32)):
        expected[f"seg_score_multi{level}_up/kernel"] = (size, size, 16, 16)
    expected |= conv_shapes("seg_upscore_fuse", 1, 1, 64, 1)
    assert len(expected) == 87
    assert shapes(release_network) == expected


def test_vgg_modulator_starts_with_scales_of_one_whatever_it_sees(release_network):
    guide = np.random.default_rng(0).uniform(0, 255, (1, 224, 224, 3)).astype(np.float32)
    scales = numpy(call(release_network.visual_modulator, guide))
    assert scales.shape == (1, 3840)
    assert np.all(scales == 1.0)


@needs_tensorflow
def test_vgg_fc_modulator_equals_the_release(release_network):
    from . import release

    rng = np.random.default_rng(1)
    fc8 = next(layer for layer in release_network.visual_modulator.layers if layer.name == "modulator_fc8")
    before = fc8.get_weights()
    fc8.set_weights([rng.normal(0, 0.1, before[0].shape).astype(np.float32), before[1]])
    guide = rng.uniform(0, 255, (1, 224, 224, 3)).astype(np.float32)
    weights = {weight.path: weight.value for weight in release_network.visual_modulator.weights}
    expected = release.vgg_modulator_fc(guide, weights).numpy()
    found = numpy(call(release_network.visual_modulator, guide))
    fc8.set_weights(before)
    assert expected.std() > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std())


@needs_tensorflow
@pytest.mark.parametrize("size", [(61, 75), (48, 64), (17, 130)])
def test_vgg_equals_the_release(vgg_osmn, size):
    from . import release

    batch, weights = object_batch(vgg_osmn, 2, *size), weight_dict(vgg_osmn)
    gamma = release.vgg_modulator_pooled(batch["visual_guide"], weights)
    assert np.abs(gamma - 1).max() > 0.1
    expected = release.vgg_logits(batch["frame"], batch["spatial_guide"], gamma, weights).numpy()
    assert np.abs(expected[0] - expected[1]).max() > 0.1 * expected.std()
    found = numpy(call(vgg_osmn, batch))
    assert found.shape == (2, *size, 1)
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std())


def test_early_modulation_widths():
    model = OSMN(**TINY_VGG, modulate_early=True)
    found = shapes(model)
    # 2 + 2 + 3 + 3 scales more, and spatial maps for the first two blocks.
    assert found["modulator_fc8/bias"] == (2 * 2 + 3 * 2 + 4 * 3 + 5 * 3 + 6 * 3,)
    assert found["modulator_sp_conv1/kernel"] == (1, 1, 1, 4)
    assert found["modulator_sp_conv2/kernel"] == (1, 1, 1, 6)
    randomise(model)
    batch = object_batch(model, 1, 20, 28)
    logits = numpy(call(model, batch))
    # The first scale and the first shift belong to conv1_1: the frame encoder ends before them.
    assert set(model.frame_encoder.output) == {"conv1_1"}
    weights = model.get_layer("object_network").get_layer("modulator_sp_conv1_bn")
    weights.beta.assign(weights.beta + 1.0)
    assert np.abs(numpy(call(model, batch)) - logits).max() > 1e-3


def test_early_modulation_widths_of_the_release():
    model = OSMN(visual_head="pooled", modulate_early=True, visual_hidden=4, guide_size=32)
    found = shapes(model)
    assert found["modulator_fc8/kernel"] == (1, 1, 4, 4224)
    assert found["modulator_sp_conv1/kernel"] == (1, 1, 1, 128)
    assert found["modulator_sp_conv2/kernel"] == (1, 1, 1, 256)
    assert found["modulator_sp_conv1_bn/beta"] == (128,)


# The MobileNet form -----------------------------------------------------------------------------------------------


def test_mobilenet_parameters_and_names():
    model = OSMN(backbone="mobilenet")
    assert model.count_params() == 12_777_217
    widths = {1: 64, 2: 128, 3: 128, 4: 256, 5: 256, **dict.fromkeys(range(6, 12), 512), 12: 1024, 13: 1024}
    expected = {}
    for prefix in ("modulator", "seg"):
        expected |= {f"{prefix}_Conv2d_0/kernel": (3, 3, 3, 32)} | norm_shapes(f"{prefix}_Conv2d_0_bn", 32)
        channels = 32
        for index, width in widths.items():
            name = f"{prefix}_Conv2d_{index}"
            expected |= {f"{name}_depthwise/kernel": (3, 3, channels, 1)} | norm_shapes(
                f"{name}_depthwise_bn", channels
            )
            expected |= {f"{name}_pointwise/kernel": (1, 1, channels, width)}
            expected |= norm_shapes(f"{name}_pointwise_bn", width)
            channels = width
    expected |= conv_shapes("modulator_Conv2d_1c_1x1", 1, 1, 1024, 2048)
    for head, (index, channels) in enumerate(((3, 128), (5, 256), (11, 512), (13, 1024)), start=1):
        expected |= conv_shapes(f"Conv2d_out_{head}", 1, 1, 2048, channels)
        expected |= {f"modulator_sp_conv{index}/kernel": (1, 1, 1, channels)}
        expected |= norm_shapes(f"modulator_sp_conv{index}_bn", channels)
        expected |= conv_shapes(f"seg_conv{index}_16", 3, 3, channels, 16)
    expected |= conv_shapes("seg_score", 1, 1, 64, 1)
    assert len(expected) == 310
    assert shapes(model) == expected
    guide = np.random.default_rng(0).uniform(0, 255, (1, 224, 224, 3)).astype(np.float32)
    scales = numpy(call(model.visual_modulator, guide))
    assert scales.shape == (1, 1920)
    assert np.all(scales == 1.0)


@pytest.fixture(scope="module")
def lite():
    """The release's small form, the trunks as they are and all else narrow. Do not change its weights."""
    return randomise(OSMN(**TINY_MOBILENET), seed=2)


@needs_tensorflow
def test_mobilenet_equals_the_release(lite):
    from . import release

    batch, weights = object_batch(lite, 2, 64, 96), weight_dict(lite)
    gamma = release.mobilenet_modulator(batch["visual_guide"], weights)
    assert np.abs(gamma - 1).max() > 0.1
    expected = release.mobilenet_logits(batch["frame"], batch["spatial_guide"], gamma, weights).numpy()
    np.testing.assert_allclose(numpy(call(lite, batch)), expected, atol=1e-4 * expected.std())


@needs_tensorflow
def test_mobilenet_pads_other_sizes_with_the_mean_and_an_empty_guide(lite):
    from . import release

    batch, weights = object_batch(lite, 1, 61, 75), weight_dict(lite)
    padded = np.zeros((1, 64, 96, 3), np.float32) + np.array([123, 117, 104], np.float32)
    padded[:, :61, :75] = batch["frame"]
    guide = np.pad(batch["spatial_guide"], ((0, 0), (0, 3), (0, 21), (0, 0)))
    gamma = release.mobilenet_modulator(batch["visual_guide"], weights)
    expected = release.mobilenet_logits(padded, guide, gamma, weights).numpy()[:, :61, :75]
    np.testing.assert_allclose(numpy(call(lite, batch)), expected, atol=1e-4 * expected.std())


# Sizes, objects, precision ----------------------------------------------------------------------------------------


def test_video_size(tiny_osmn, tiny_reconvnet):
    size = (480, 854)
    vgg = randomise(OSMN(**TINY_VGG))
    for model in (vgg, tiny_osmn, tiny_reconvnet):
        outputs = call(model, object_batch(model, 1, *size))
        logits = numpy(outputs["logits"] if isinstance(outputs, dict) else outputs)
        assert logits.shape == (1, *size, 1)
        assert np.all(np.isfinite(logits))
        assert logits.std() > 1e-3


# The refinement decoder: in the clip model of `test_reconvnet.py`.
@pytest.mark.parametrize("backbone", ["vgg16", "short"])
def test_one_graph_for_many_sizes(backbone, tiny_osmn):
    """`predict` on TensorFlow makes one graph with unknown sides; it gives what a call gives."""
    model = randomise(OSMN(**TINY_VGG)) if backbone == "vgg16" else tiny_osmn
    for height, width in ((32, 64), (33, 47), (50, 40)):
        batch = object_batch(model, 2, height, width)
        found = model.predict(batch, verbose=0)
        assert found.shape == (2, height, width, 1)
        np.testing.assert_allclose(found, numpy(call(model, batch)), atol=1e-4 * found.std())


def test_objects_in_one_call_equal_one_by_one(tiny_osmn, tiny_reconvnet):
    count = 3
    vgg = randomise(OSMN(**TINY_VGG, network_size=(64, 96)))
    early = randomise(OSMN(**TINY_VGG, modulate_early=True))
    for model in (vgg, early, tiny_osmn, tiny_reconvnet):
        batch = tensors(object_batch(model, count, 45, 70, seed=count))
        modulation = call(model.visual_modulator, batch.pop("visual_guide"))
        frame = batch.pop("frame")[:1]
        features = call(model.frame_encoder, {"frame": frame})
        assert all(x.shape[0] == 1 for x in features.values())
        together = call(model.object_network, {**features, **batch, "modulation": modulation})
        for index in range(count):
            one = {name: x[index : index + 1] for name, x in {**batch, "modulation": modulation}.items()}
            alone = call(model.object_network, {**features, **one})
            for name, expected in alone.items():
                found = numpy(together[name])[index : index + 1]
                tolerance = 1e-4 * max(1.0, numpy(expected).std())
                np.testing.assert_allclose(found, numpy(expected), atol=tolerance, err_msg=f"{model.name} {name}")


@pytest.mark.parametrize(
    "mixed_precision", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.backend)], indirect=True
)
def test_mixed_precision(mixed_precision, tiny_osmn):
    model = OSMN.from_config(tiny_osmn.get_config())
    model.set_weights(tiny_osmn.get_weights())
    batch = object_batch(model, 1, 45, 70)
    found = call(model, batch)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    assert keras.backend.standardize_dtype(model.frame_encoder.output["Conv2d_2"].dtype) == mixed_precision[6:]
    expected = numpy(call(tiny_osmn, batch))
    assert np.all(np.isfinite(numpy(found)))
    assert np.abs(numpy(found) - expected).mean() < 0.1 * expected.std()


def test_training_changes_every_trainable_weight():
    model = randomise(OSMN(**TINY_VGG, network_size=(32, 48)))
    assert {w.path for w in model.non_trainable_weights} == {
        *(f"seg_score_multi{level}_up/kernel" for level in (2, 3, 4, 5)),
        *(f"modulator_sp_conv{b}_bn/{part}" for b in (3, 4, 5) for part in ("moving_mean", "moving_variance")),
    }
    from osmn_tf.training.optimization import SegmentationLoss

    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=SegmentationLoss(lovasz=1.0), **UNTRACED)
    before = {weight.path: numpy(weight) for weight in model.weights}
    batch = object_batch(model, 2, 32, 48)
    labels = (batch["spatial_guide"] > 0.7).astype(np.uint8)
    model.fit(batch, labels, batch_size=2, epochs=2, verbose=0)
    for weight in model.weights:
        changed = np.any(numpy(weight) != before[weight.path])
        assert np.all(np.isfinite(numpy(weight)))
        assert changed == ("score_multi" not in weight.path), weight.path


@pytest.mark.parametrize("batch_statistics", [True, False])
def test_batch_statistics_can_be_left_alone_in_training(batch_statistics):
    model = OSMN(**TINY, batch_statistics=batch_statistics)
    norms = [weight for weight in model.weights if "moving" in weight.path]
    gammas = [weight for weight in model.trainable_weights if weight.path.endswith("_bn/gamma")]
    assert len(norms) == 2 * len(gammas) > 40
    before = [numpy(weight) for weight in norms]
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(1e-3), loss=loss, **UNTRACED)
    batch = object_batch(model, 2, 32, 64)
    model.fit(batch, np.zeros((2, 32, 64, 1), np.uint8), verbose=0)
    same = [np.array_equal(numpy(weight), old) for weight, old in zip(norms, before)]
    assert all(same) if not batch_statistics else not any(same)


# Configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "resnet"}, "backbone: expected one of mobilenet, .*vgg16, received 'resnet'"),
        ({"visual_head": "big"}, "visual_head: expected one of fc, pooled, received 'big'"),
        ({"backbone": "mobilenet", "visual_head": "fc"}, "visual_head: expected one of pooled, received 'fc'"),
        ({"decoder": "unet"}, "decoder: expected one of hypercolumn, refinement, received 'unet'"),
        ({"normalization": "none"}, "normalization: expected one of caffe, .*signed_unit.*, received 'none'"),
        ({"network_size": (480,)}, "network_size: expected a positive height and width, received"),
        ({"guide_size": 192}, "guide_size: the fc head takes 224, received 192"),
        ({"backbone": "mobilenet", "modulate_early": True}, "modulate_early: the mobilenet backbone does not"),
        ({"block_channels": (4, 4)}, "block_channels: expected 5 positive numbers, received"),
        ({"backbone": "mobilenet", "block_channels": [0] * 13}, "block_channels: expected 13 positive numbers"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        OSMN(**arguments)


def test_unknown_arguments_are_refused():
    with pytest.raises((TypeError, ValueError), match="no_such_argument"):
        OSMN(**TINY, no_such_argument=3)


@pytest.mark.backend
def test_guide_background_is_what_the_network_subtracts(tiny_osmn):
    assert tiny_osmn.guide_background == (123.0, 117.0, 104.0)
    signed = OSMN(**TINY, normalization="signed_unit")
    assert signed.guide_background == (127.5, 127.5, 127.5)
    guide = np.full((1, 32, 32, 3), 127.5, np.float32)
    normalised = signed.visual_modulator.get_layer("modulator_normalization")(guide)
    assert not numpy(normalised).any()


def test_keras_file_round_trip(tiny_osmn, tmp_path):
    tiny_osmn.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras")
    assert type(copy) is OSMN
    assert copy.get_config() == tiny_osmn.get_config()
    assert copy.network_size == (64, 96)
    batch = object_batch(copy, 1, 40, 50)
    np.testing.assert_array_equal(numpy(call(copy, batch)), numpy(call(tiny_osmn, batch)))


@pytest.mark.backend
def test_raw_frames_of_uint8_and_float_are_the_same(tiny_osmn):
    frame = random_frames(1, 32, 64)
    first = call(tiny_osmn.frame_encoder, {"frame": frame})["Conv2d_2"]
    second = call(tiny_osmn.frame_encoder, {"frame": frame.astype(np.float32)})["Conv2d_2"]
    np.testing.assert_array_equal(numpy(first), numpy(second))

"""Folded networks give the numbers of the networks that they are made of."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers
from support import TINY_VGG, numpy, object_batch, randomise, tensors

from osmn_tf.inference.compilation import compile_function
from osmn_tf.inference.folding import FoldedNetwork, _foldable
from osmn_tf.layers.normalization import BatchNorm
from osmn_tf.models.osmn import OSMN


def both_forms(model, height, width):
    """[(of the network, of the folded network)], each a dict of arrays: of the frame encoder, then of the objects."""
    batch = tensors(object_batch(model, 2, height, width))
    modulation = model.visual_modulator(batch.pop("visual_guide"))
    folded = [FoldedNetwork(model.frame_encoder), FoldedNetwork(model.object_network)]

    def run(inputs):
        frame = {"frame": inputs["frame"]}
        features, folded_features = model.frame_encoder(frame, training=False), folded[0](frame)
        rest = {name: x for name, x in inputs.items() if name != "frame"}
        plain = model.object_network({**features, **rest}, training=False)
        return features, folded_features, plain, folded[1]({**folded_features, **rest})

    outputs = compile_function(run, [model.frame_encoder, model.object_network])({**batch, "modulation": modulation})
    arrays = [{name: numpy(x) for name, x in values.items()} for values in outputs]
    return [(arrays[0], arrays[1]), (arrays[2], arrays[3])]


@pytest.mark.parametrize(
    "network",
    [
        "tiny_osmn",
        "tiny_reconvnet",
        OSMN,
    ],
)
@pytest.mark.usefixtures("eagerly")
def test_the_same_numbers(network, request):
    model = request.getfixturevalue(network) if isinstance(network, str) else randomise(network(**TINY_VGG))
    for plain, folded in both_forms(model, 45, 70):
        assert set(plain) == set(folded)
        for name, expected in plain.items():
            np.testing.assert_allclose(folded[name], expected, atol=2e-5 * np.abs(expected).max(), err_msg=name)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("mixed_precision", ["mixed_bfloat16"], indirect=True)
def test_half_precision(mixed_precision, tiny_osmn):
    model = OSMN.from_config(tiny_osmn.get_config())
    model.set_weights(tiny_osmn.get_weights())
    exact = numpy(tiny_osmn(object_batch(tiny_osmn, 2, 32, 64)))
    _, (plain, folded) = both_forms(model, 32, 64)
    error = np.abs(folded["logits"] - exact).mean()
    assert 0 < error < 0.1 * exact.std()
    assert error < 3 * np.abs(plain["logits"] - exact).mean()


@pytest.mark.backend
def test_changed_weights_are_seen(tiny_osmn):
    model = OSMN.from_config(tiny_osmn.get_config())
    frame = tensors({"frame": np.full((1, 32, 64, 3), 100, np.uint8)})
    folded = FoldedNetwork(model.frame_encoder)
    compiled = compile_function(folded, [model.frame_encoder])
    compiled(frame)
    model.set_weights(tiny_osmn.get_weights())
    for found in (compiled(frame), folded(frame)):
        for name, expected in tiny_osmn.frame_encoder(frame, training=False).items():
            expected = numpy(expected)
            np.testing.assert_allclose(numpy(found[name]), expected, atol=2e-5 * np.abs(expected).max(), err_msg=name)


@pytest.mark.backend
@pytest.mark.parametrize(
    ("layer", "folds"),
    [
        (lambda: layers.Conv2D(4, 3, use_bias=False), True),
        (lambda: layers.Conv2D(4, 3, dilation_rate=2, use_bias=False), True),
        (lambda: layers.Conv2D(4, 3, strides=2, padding="same"), True),
        (lambda: layers.DepthwiseConv2D(3, dilation_rate=2), True),
        (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), True),
        (lambda: layers.Conv2D(6, 3, groups=3), True),
        (lambda: layers.Conv2D(4, 3, activation="relu"), False),
        (lambda: layers.DepthwiseConv2D(3, activation="tanh", use_bias=False), False),
        (lambda: layers.Conv2DTranspose(4, 3), False),
        (lambda: layers.ReLU(), False),
    ],
)
def test_whatever_is_before_the_normalisation_counts(layer, folds):
    image = keras.Input((8, 8, 3), name="image")
    x = layer()(image)
    # Neither a scale nor a shift of its own in the second one, which cannot be folded into anything.
    y = BatchNorm(scale=False, center=False, name="last")(BatchNorm(name="norm")(x))
    network = randomise(keras.Model({"image": image}, {"y": y}))
    inputs = {"image": np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)}
    expected = numpy(network(tensors(inputs), training=False)["y"])
    folded = FoldedNetwork(network)
    np.testing.assert_allclose(numpy(folded(tensors(inputs))["y"]), expected, atol=1e-5 * np.abs(expected).max())
    assert len(_foldable(network)) == folds


def test_a_convolution_that_is_read_elsewhere_stays():
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, use_bias=False)(image)
    network = randomise(keras.Model({"image": image}, {"y": BatchNorm()(x), "x": x}))
    inputs = tensors({"image": np.ones((1, 8, 8, 3), np.float32)})
    assert not _foldable(network)
    for name, expected in network(inputs, training=False).items():
        np.testing.assert_array_equal(numpy(FoldedNetwork(network)(inputs)[name]), numpy(expected))


def test_the_network_s_own_graph_stays_as_it_was(tiny_osmn):
    before = [layer.output for layer in tiny_osmn.frame_encoder.layers]
    FoldedNetwork(tiny_osmn.frame_encoder)
    # A layer with two nodes would have no output of its own any more.
    assert all(x is layer.output for x, layer in zip(before, tiny_osmn.frame_encoder.layers))

"""Folded networks give the numbers of the networks that they are made of."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers
from support import TINY_VGG, numpy, object_batch, randomise, tensors

from osmn_tf.inference.compilation import compile_function
from osmn_tf.inference.folding import FoldedNetwork
from osmn_tf.layers.normalization import BatchNorm
from osmn_tf.models.osmn import OSMN
from osmn_tf.models.reconvnet import ReConvNet


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
        pytest.param("tiny_osmn", marks=pytest.mark.backend),
        "tiny_reconvnet",
        OSMN,
        pytest.param(ReConvNet, marks=pytest.mark.backend),
    ],
)
def test_the_same_numbers(network, request):
    model = request.getfixturevalue(network) if isinstance(network, str) else randomise(network(**TINY_VGG))
    for plain, folded in both_forms(model, 45, 70):
        assert set(plain) == set(folded)
        for name, expected in plain.items():
            np.testing.assert_allclose(folded[name], expected, atol=2e-5 * np.abs(expected).max(), err_msg=name)


@pytest.mark.parametrize("mixed_precision", ["mixed_bfloat16"], indirect=True)
def test_half_precision(mixed_precision, tiny_osmn):
    model = OSMN.from_config(tiny_osmn.get_config())
    model.set_weights(tiny_osmn.get_weights())
    exact = both_forms(tiny_osmn, 32, 64)[1][0]["logits"]
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


@pytest.mark.parametrize("before", [layers.ReLU(name="rectified"), layers.Conv2D(4, 1, name="rectified")])
def test_what_cannot_be_folded_is_refused(before):
    x = keras.Input((8, 8, 3))
    network = keras.Model(x, {"y": BatchNorm(name="norm")(before(x))})
    with pytest.raises(ValueError, match="norm: expected a convolution without bias before it, not rectified"):
        FoldedNetwork(network)

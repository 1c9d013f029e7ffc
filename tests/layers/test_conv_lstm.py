"""The modulated ConvLSTM against Keras's own, and what Keras's own cannot do."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from support import BACKEND, UNTRACED, assert_close, numpy

from osmn_tf import ModulatedConvLSTM2D
from osmn_tf.layers.conv_lstm import ModulatedConvLSTM2DCell

pytestmark = pytest.mark.backend

FILTERS, CHANNELS = 3, 2
# 3 x 3 pixels of the frame and of the state, through four steps that feed each other.
ROUNDINGS = 4 * 9 * (CHANNELS + FILTERS)


def clip(batch=2, length=4, height=6, width=5, channels=CHANNELS, seed=0):
    return np.random.default_rng(seed).normal(0, 1, (batch, length, height, width, channels)).astype(np.float32)


def state(batch=2, height=6, width=5, seed=9):
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 0.5, (batch, height, width, FILTERS)).astype(np.float32) for _ in "hc"]


def randomised(layer, seed=1):
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(0, 0.3, weight.shape).astype(np.float32) for weight in layer.weights])
    return layer


def pair(**arguments):
    """Ours and Keras's layer with the same random weights."""
    x = clip()
    ours = ModulatedConvLSTM2D(FILTERS, 3, **arguments)
    theirs = keras.layers.ConvLSTM2D(FILTERS, 3, padding="same", **arguments)
    ours(x), theirs(x)
    randomised(ours)
    theirs.set_weights(ours.get_weights())
    return ours, theirs


# Equality with keras.layers.ConvLSTM2D ----------------------------------------------------------------------------


@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("use_bias", [True, False])
def test_equals_keras(return_sequences, use_bias):
    ours, theirs = pair(return_sequences=return_sequences, return_state=True, use_bias=use_bias)
    x = clip(seed=3)
    for found, expected in zip(ours(x), theirs(x), strict=True):
        assert tuple(found.shape) == tuple(expected.shape)
        assert_close(found, expected, ROUNDINGS)


def test_equals_keras_with_other_activations():
    ours, theirs = pair(activation="relu", recurrent_activation="hard_sigmoid")
    x = clip(seed=3)
    assert_close(ours(x), theirs(x), ROUNDINGS)


def test_equals_keras_from_an_initial_state():
    ours, theirs = pair(return_sequences=True, return_state=True)
    x = clip(seed=3)
    initial = [keras.ops.convert_to_tensor(s) for s in state()]
    for found, expected in zip(ours(x, initial_state=initial), theirs(x, initial_state=initial), strict=True):
        assert_close(found, expected, ROUNDINGS)
    assert np.abs(numpy(ours(x)[0]) - numpy(ours(x, initial_state=initial)[0])).max() > 0.01


@pytest.mark.skipif(BACKEND == "jax", reason="Keras 3.15's own ConvLSTM2D cannot take a mask on JAX")
@pytest.mark.parametrize("return_sequences", [False, True])
def test_equals_keras_with_a_mask(return_sequences):
    ours, theirs = pair(return_sequences=return_sequences, return_state=True)
    x = clip(seed=3)
    mask = np.array([[True, False, True, False], [False, True, True, True]])
    for found, expected in zip(ours(x, mask=mask), theirs(x, mask=keras.ops.convert_to_tensor(mask)), strict=True):
        assert_close(found, expected, ROUNDINGS)


# Masks and clip lengths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaled", [None, "object", "frame"])
def test_a_padded_clip_equals_the_short_clip(scaled):
    layer = ModulatedConvLSTM2D(FILTERS, return_state=True)
    long, short = clip(1, 6, seed=1), clip(1, 6, seed=1)[:, :4]
    mask = np.array([[True] * 4 + [False] * 2])
    layer(short)
    randomised(layer)
    scale = {None: None, "object": np.array([[2.0, -1.0, 0.5]]), "frame": np.arange(1.0, 19.0).reshape(1, 6, 3)}[scaled]
    short_scale = scale[:, :4] if scaled == "frame" else scale
    for found, expected in zip(layer(long, scale=scale, mask=mask), layer(short, scale=short_scale), strict=True):
        assert_close(found, expected, ROUNDINGS)


def test_masked_outputs_repeat_and_are_zero_at_the_start():
    layer = randomised(_built(return_sequences=True))
    found = numpy(layer(clip(1, 4), mask=np.array([[False, True, False, True]])))
    assert np.all(found[:, 0] == 0)
    assert np.abs(found[:, 1]).max() > 0
    np.testing.assert_array_equal(found[:, 2], found[:, 1])
    assert np.abs(found[:, 3] - found[:, 2]).max() > 1e-3


def test_a_frame_that_is_masked_out_leaves_no_trace_even_if_it_is_not_finite():
    layer = randomised(_built(return_sequences=True))
    x = clip(1, 4)
    damaged = x.copy()
    damaged[:, 1] = np.inf
    mask = np.array([[True, False, True, True]])
    np.testing.assert_array_equal(numpy(layer(damaged, mask=mask)), numpy(layer(x, mask=mask)))


def test_mask_reaches_the_next_layer_only_with_sequences():
    mask = np.array([[True, False]])
    assert ModulatedConvLSTM2D(1).compute_mask(None, mask) is None
    assert ModulatedConvLSTM2D(1, return_sequences=True).compute_mask(None, mask) is mask
    many = ModulatedConvLSTM2D(1, return_sequences=True, return_state=True)
    assert many.compute_mask(None, mask) == [mask, None, None]


def _built(**arguments):
    layer = ModulatedConvLSTM2D(FILTERS, **arguments)
    layer(clip())
    return layer


def test_one_model_for_any_size_and_length():
    inputs = keras.Input((None, None, None, CHANNELS))
    scale = keras.Input((FILTERS,))
    layer = ModulatedConvLSTM2D(FILTERS, return_sequences=True, return_state=True)
    model = keras.Model([inputs, scale], layer(inputs, scale=scale))
    randomised(layer)
    assert layer.output[0].shape == (None, None, None, None, FILTERS)
    for length, height, width in ((3, 6, 5), (1, 9, 4)):
        x, s = clip(2, length, height, width), np.array([[1, 2, 3], [0.5, 0, -1]], np.float32)
        expected = [numpy(y) for y in layer(x, scale=s)]
        for found in (model([x, s]), model.predict([x, s], verbose=0)):
            for a, b in zip(found, expected, strict=True):
                assert_close(a, b, ROUNDINGS)
        assert expected[0].shape == (2, length, height, width, FILTERS)


# Scales -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("return_sequences", [False, True])
def test_scale_multiplies_the_output_and_not_the_state(return_sequences):
    layer = randomised(_built(return_sequences=return_sequences, return_state=True))
    x = clip(seed=4)
    plain, h, c = (numpy(y) for y in layer(x))
    scale = np.array([[2.0, 0.0, -1.5], [1.0, 0.5, 3.0]], np.float32)
    scaled, h_scaled, c_scaled = (numpy(y) for y in layer(x, scale=scale))
    axes = (slice(None), None, None, None) if return_sequences else (slice(None), None, None)
    assert_close(scaled, plain * scale[axes], ROUNDINGS)
    np.testing.assert_array_equal(h_scaled, h)
    np.testing.assert_array_equal(c_scaled, c)


def test_scale_for_every_frame():
    layer = randomised(_built(return_sequences=True))
    last = ModulatedConvLSTM2D(FILTERS)
    x = clip(seed=4)
    last(x)
    last.set_weights(layer.get_weights())
    scale = np.random.default_rng(0).normal(1, 1, (2, 4, FILTERS)).astype(np.float32)
    expected = numpy(layer(x)) * scale[:, :, None, None]
    assert_close(layer(x, scale=scale), expected, ROUNDINGS)
    assert_close(last(x, scale=scale), expected[:, -1], ROUNDINGS)


# Streaming --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own_initial_state", [False, True])
def test_streaming_the_cell_equals_the_sequence(own_initial_state):
    layer = randomised(_built(return_sequences=True, return_state=True))
    x, scale = clip(seed=5), np.array([[2.0, 0.5, -1.0], [1.0, 1.5, 0.0]], np.float32)
    initial = state() if own_initial_state else [np.zeros((2, 6, 5, FILTERS), np.float32)] * 2
    outputs, h, c = layer(x, scale=scale, initial_state=initial if own_initial_state else None)
    cell = ModulatedConvLSTM2DCell(FILTERS)
    states = initial
    cell(x[:, 0], states)
    cell.set_weights(layer.get_weights())
    for t in range(4):
        output, states = cell(x[:, t], states, scale=scale)
        assert_close(output, numpy(outputs)[:, t], ROUNDINGS)
    assert_close(states[0], h, ROUNDINGS)
    assert_close(states[1], c, ROUNDINGS)


def test_the_cell_by_hand():
    """One pixel, 1x1 kernels: the gates i, f, c, o written out."""
    cell = ModulatedConvLSTM2DCell(1, kernel_size=1)
    x, h, c = (np.full((1, 1, 1, 1), value, np.float32) for value in (0.7, -0.3, 0.4))
    cell(x, [h, c])
    w, u, b = [0.5, -1.0, 2.0, 0.25], [1.5, 0.5, -0.5, 1.0], [0.1, 0.2, 0.3, 0.4]
    cell.set_weights(
        [np.reshape(np.array(v, np.float32), s) for v, s in ((w, (1, 1, 1, 4)), (u, (1, 1, 1, 4)), (b, 4))]
    )
    i, f, g, o = (0.7 * w[k] - 0.3 * u[k] + b[k] for k in range(4))

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    carry = sigmoid(f) * 0.4 + sigmoid(i) * np.tanh(g)
    hidden = sigmoid(o) * np.tanh(carry)
    output, (h1, c1) = cell(x, [h, c], scale=np.array([[3.0]], np.float32))
    assert numpy(c1).item() == pytest.approx(carry, rel=1e-5)
    assert numpy(h1).item() == pytest.approx(hidden, rel=1e-5)
    assert numpy(output).item() == pytest.approx(3 * hidden, rel=1e-5)


def test_one_cell_takes_frames_of_any_size():
    cell = ModulatedConvLSTM2DCell(FILTERS)
    for height, width in ((6, 5), (3, 8)):
        _, (h, c) = cell(clip(2, 1, height, width)[:, 0], [np.zeros((2, height, width, FILTERS), np.float32)] * 2)
        assert tuple(h.shape) == tuple(c.shape) == (2, height, width, FILTERS)


# Initial values, configuration, files -----------------------------------------------------------------------------


def test_initial_values():
    layer = ModulatedConvLSTM2D(16, 3)
    layer(clip(channels=8))
    kernel, recurrent, bias = layer.get_weights()
    assert kernel.shape == (3, 3, 8, 64)
    assert kernel.std() == pytest.approx(0.001, rel=0.1)
    assert abs(kernel.mean()) < 1e-4
    assert recurrent.shape == (3, 3, 16, 64)
    rows = recurrent.reshape(-1, 64)  # 144 x 64: orthonormal columns
    assert_close(rows.T @ rows, np.eye(64), len(rows))
    assert bias.tolist() == [0.0] * 16 + [1.0] * 16 + [0.0] * 32
    plain = ModulatedConvLSTM2D(2, unit_forget_bias=False)
    plain(clip())
    assert plain.get_weights()[2].tolist() == [0.0] * 8


ARGUMENTS = {
    "filters": 5,
    "kernel_size": 1,
    "activation": "relu",
    "recurrent_activation": "hard_sigmoid",
    "use_bias": False,
    "unit_forget_bias": False,
    "kernel_initializer": keras.initializers.RandomUniform(-0.25, 0.25, seed=3),
    "recurrent_initializer": "glorot_uniform",
    "bias_initializer": "ones",
    "kernel_regularizer": keras.regularizers.L2(0.125),
    "recurrent_regularizer": keras.regularizers.L1(0.5),
    "name": "mine",
}


@pytest.mark.parametrize(
    ("layer_class", "arguments"),
    [
        (ModulatedConvLSTM2D, {**ARGUMENTS, "return_sequences": True, "return_state": True}),
        (ModulatedConvLSTM2DCell, ARGUMENTS),
    ],
)
def test_configuration_round_trip(layer_class, arguments):
    layer = layer_class(**arguments)
    config = json.loads(json.dumps(layer.get_config()))
    copy = layer_class.from_config(config)
    assert copy.get_config() == layer.get_config()
    for name in ("filters", "kernel_size", "use_bias", "unit_forget_bias", "name"):
        assert getattr(copy, name) == arguments[name]
    assert copy.activation is keras.activations.relu
    assert copy.kernel_initializer.maxval == 0.25
    assert float(copy.kernel_regularizer.l2) == 0.125
    assert float(copy.recurrent_regularizer.l1) == 0.5
    if layer_class is ModulatedConvLSTM2D:
        assert copy.return_sequences is True
        assert copy.return_state is True


def test_regularizers_add_losses():
    layer = ModulatedConvLSTM2D(2, kernel_regularizer="l2", recurrent_regularizer="l2")
    layer(clip())
    kernel, recurrent, _ = layer.get_weights()
    expected = 0.01 * np.array([(kernel**2).sum(), (recurrent**2).sum()])
    np.testing.assert_allclose([float(numpy(loss)) for loss in layer.losses], expected, rtol=1e-5)


def test_keras_file_round_trip(tmp_path):
    frames = keras.Input((None, 6, 5, CHANNELS), name="frames")
    scale = keras.Input((FILTERS,), name="scale")
    initial = [keras.Input((6, 5, FILTERS), name=name) for name in "hc"]
    layer = ModulatedConvLSTM2D(FILTERS, return_sequences=True, return_state=True)
    model = keras.Model([frames, scale, *initial], layer(frames, scale=scale, initial_state=initial))
    randomised(layer)
    values = [clip(), np.array([[1, 2, 3], [4, 5, 6]], np.float32), *state()]
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras")
    for found, expected in zip(copy(values), model(values), strict=True):
        np.testing.assert_array_equal(numpy(found), numpy(expected))


def test_cell_keras_file_round_trip(tmp_path):
    frame = keras.Input((None, None, CHANNELS))
    initial = [keras.Input((None, None, FILTERS), name=name) for name in "hc"]
    cell = ModulatedConvLSTM2DCell(FILTERS)
    output, states = cell(frame, initial)
    model = keras.Model([frame, *initial], [output, *states])
    randomised(cell)
    model.save(tmp_path / "cell.keras")
    copy = keras.saving.load_model(tmp_path / "cell.keras")
    values = [clip()[:, 0], *state()]
    for found, expected in zip(copy(values), model(values), strict=True):
        np.testing.assert_array_equal(numpy(found), numpy(expected))


# Precision, training, mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixed_precision", ["mixed_bfloat16"], indirect=True)
def test_mixed_precision(mixed_precision):
    layer = _built(return_sequences=True, return_state=True)
    randomised(layer)
    expected = ModulatedConvLSTM2D(FILTERS, return_sequences=True, return_state=True, dtype="float32")
    x, scale = clip(), np.array([[1, 2, 3], [0, 1, -1]], np.float32)
    expected(x)
    expected.set_weights(layer.get_weights())
    half = mixed_precision.removeprefix("mixed_")
    mask = np.array([[True, True, False, True], [True] * 4])
    for arguments in ({}, {"scale": scale}, {"scale": scale, "mask": mask}, {"initial_state": state()}):
        found = layer(x, **arguments)
        for a, b in zip(found, expected(x, **arguments), strict=True):
            assert keras.backend.standardize_dtype(a.dtype) == half
            assert np.abs(numpy(a) - numpy(b)).max() < 16 * 2**-8 * np.abs(numpy(b)).max()
    assert all(keras.backend.standardize_dtype(weight.dtype) == "float32" for weight in layer.weights)


@pytest.mark.parametrize("return_sequences", [False, True])
def test_training_reaches_every_weight(return_sequences):
    inputs = keras.Input((None, None, None, CHANNELS))
    outputs = ModulatedConvLSTM2D(FILTERS, return_sequences=return_sequences, kernel_initializer="glorot_uniform")(
        inputs
    )
    model = keras.Model(inputs, outputs)
    before = model.get_weights()
    x = clip(4, 5)
    target = np.roll(x[..., :1], 1, axis=1)
    model.compile(optimizer=keras.optimizers.Adam(0.05), loss="mse", **UNTRACED)
    history = model.fit(x, target if return_sequences else target[:, -1], epochs=5, verbose=0).history["loss"]
    assert history[-1] < history[0]
    for old, new in zip(before, model.get_weights(), strict=True):
        assert np.all(np.isfinite(new))
        # The recurrent kernel included: gradients flow through time.
        assert np.mean(old != new) > 0.9


@pytest.mark.skipif(BACKEND != "tensorflow", reason="gradients by tf.GradientTape")
def test_gradient_reaches_the_first_frame_and_the_initial_state():
    import tensorflow as tf

    layer = randomised(_built())
    x, initial = tf.Variable(clip()), [tf.Variable(s) for s in state()]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x, initial_state=initial) ** 2)
    gradients = tape.gradient(loss, [x, *initial])
    assert np.abs(gradients[0].numpy()[:, 0]).max() > 1e-5
    assert all(np.abs(gradient.numpy()).max() > 1e-5 for gradient in gradients[1:])


@pytest.mark.parametrize("layer_class", [ModulatedConvLSTM2D, ModulatedConvLSTM2DCell])
@pytest.mark.parametrize("arguments", [{"filters": 0}, {"filters": 2, "kernel_size": 0}, {"filters": -1}])
def test_wrong_sizes_are_refused(layer_class, arguments):
    with pytest.raises(ValueError, match="filters and kernel_size must be positive, received"):
        layer_class(**arguments)


def test_wrong_names_are_refused():
    with pytest.raises(ValueError):
        ModulatedConvLSTM2D(2, activation="no such activation")
    with pytest.raises((TypeError, ValueError)):
        ModulatedConvLSTM2D(2, no_such_argument=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": np.ones((2, FILTERS + 1), np.float32)}, "scale"),
        ({"initial_state": [np.zeros((2, 6, 5, FILTERS), np.float32)]}, "initial_state"),
        ({"initial_state": [np.zeros((2, 6, 5, FILTERS + 1), np.float32)] * 2}, "initial_state"),
    ],
)
def test_wrong_call_arguments_are_named(arguments, message):
    layer = _built()
    with pytest.raises(ValueError, match=message):
        layer(clip(), **arguments)


def test_scales_for_another_number_of_frames_are_refused():
    with pytest.raises(Exception, match=r"(?i)broadcast|incompatible|expand"):
        _built()(clip(), scale=np.ones((2, 3, FILTERS), np.float32))


def test_wrong_rank_is_refused():
    with pytest.raises(ValueError):
        _built()(clip()[:, 0])

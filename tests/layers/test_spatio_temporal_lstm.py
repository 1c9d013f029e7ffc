"""RVOS's cell against a plain NumPy one, its channels' order, its refusals and its files."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from support import assert_close, numpy

from osmn_tf.layers.spatio_temporal_lstm import SpatioTemporalConvLSTM2DCell

pytestmark = pytest.mark.backend


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def convolved(x, kernel):
    """SAME convolution with stride 1, by its definition."""
    side = kernel.shape[0]
    padded = np.pad(x, ((0, 0), (side // 2, side // 2), (side // 2, side // 2), (0, 0)))
    height, width = x.shape[1:3]
    return sum(
        padded[:, r : r + height, q : q + width] @ kernel[r, q] for r in range(side) for q in range(side)
    )  # fmt: skip


def reference_step(inputs, spatial_h, spatial_c, temporal_h, kernel, bias):
    """The reference's cell, with the one kernel over everything: input, output and forget gates and a candidate."""
    gates = convolved(np.concatenate([inputs, spatial_h, temporal_h], -1).astype(np.float64), kernel) + bias
    i, f, o, g = np.split(gates, 4, axis=-1)
    c = sigmoid(f) * spatial_c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("size", [(4, 6), (5, 3)])
def test_equals_the_plain_cell(kernel_size, size):
    """The kernel in the reference's order: hidden of the level above, skip, mask, spatial h, temporal h."""
    filters, widths = 3, {"above": 4, "skip": 5, "mask": 1, "spatial": 3, "temporal": 3}
    maps = {name: normal(2, *size, width, seed=seed) for seed, (name, width) in enumerate(widths.items())}
    c = normal(2, *size, filters, seed=9)
    kernel = 0.3 * normal(kernel_size, kernel_size, sum(widths.values()), 4 * filters, seed=10)
    bias = normal(4 * filters, seed=11)
    expected = reference_step(
        np.concatenate([maps["above"], maps["skip"], maps["mask"]], -1),
        maps["spatial"], c, maps["temporal"], kernel, bias,
    )  # fmt: skip

    cell = SpatioTemporalConvLSTM2DCell(filters, kernel_size)
    projected = convolved(maps["skip"], kernel[:, :, 4:9]).astype(np.float32)
    call = (
        projected, [maps["spatial"], maps["temporal"]], c, np.concatenate([maps["above"], maps["mask"]], -1)
    )  # fmt: skip
    cell(*call)
    assert [tuple(weight.shape) for weight in cell.weights] == [(kernel_size, kernel_size, 11, 12), (12,)]
    cell.set_weights([np.delete(kernel, np.s_[4:9], axis=2), bias])
    for found, value in zip(cell(*call), expected, strict=True):
        assert_close(found, value, 100)


def test_literal_gates():
    """Biases alone decide: the order is input, forget, output, candidate."""
    cell = SpatioTemporalConvLSTM2DCell(1, 1)
    zero, c = np.zeros((1, 1, 1, 1), np.float32), np.full((1, 1, 1, 1), 2.0, np.float32)
    call = (np.zeros((1, 1, 1, 4), np.float32), [zero, zero], c)
    cell(*call)
    cell.set_weights([np.zeros((1, 1, 2, 4), np.float32), np.array([0.5, -1.0, 2.0, 0.25], np.float32)])
    h, carry = (float(numpy(x)[0, 0, 0, 0]) for x in cell(*call))
    # 0.268941 * 2 + 0.622459 * 0.244919 and 0.880797 * tanh of that
    assert carry == pytest.approx(0.690335, abs=1e-6)
    assert h == pytest.approx(0.526890, abs=1e-6)


@pytest.mark.parametrize("recurrence", ["spatial", "temporal"])
def test_one_recurrence_alone(recurrence):
    cell = SpatioTemporalConvLSTM2DCell(2, recurrence=recurrence)
    hidden, c, projected = normal(1, 3, 4, 2, seed=1), normal(1, 3, 4, 2, seed=2), normal(1, 3, 4, 8, seed=3)
    h, carry = cell(projected, [hidden], c)
    assert tuple(cell.kernel.shape) == (3, 3, 2, 8)
    kernel = numpy(cell.kernel)
    gates = convolved(hidden.astype(np.float64), kernel) + projected
    i, f, o, g = np.split(gates, 4, axis=-1)
    expected = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    assert_close(carry, expected, 100)
    assert_close(h, sigmoid(o) * np.tanh(expected), 100)


def test_functional_models_of_any_size_and_files(tmp_path):
    inputs = [keras.Input((None, None, channels)) for channels in (8, 2, 2, 2, 5)]
    projected, spatial, temporal, c, x = inputs
    h, carry = SpatioTemporalConvLSTM2DCell(2)(projected, [spatial, temporal], c, x)
    assert tuple(h.shape) == tuple(carry.shape) == (None, None, None, 2)
    model = keras.Model(inputs, [h, carry])
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras")
    for size in ((4, 5), (7, 2)):
        values = [normal(2, *size, x.shape[-1], seed=seed) for seed, x in enumerate(inputs)]
        for found, expected in zip(copy(values), model(values), strict=True):
            assert found.shape == (2, *size, 2)
            np.testing.assert_array_equal(numpy(found), numpy(expected))


def test_configuration_round_trip():
    cell = SpatioTemporalConvLSTM2DCell(4, 5, "spatial", "zeros")
    copy = SpatioTemporalConvLSTM2DCell.from_config(cell.get_config())
    assert (copy.filters, copy.kernel_size, copy.recurrence) == (4, 5, "spatial")
    assert isinstance(copy.kernel_initializer, keras.initializers.Zeros)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": 0}, "must be positive, received 0 and 3"),
        ({"filters": 2, "recurrence": "none"}, "expected one of spatial, temporal, both, received 'none'"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpatioTemporalConvLSTM2DCell(**arguments)


@pytest.mark.parametrize(
    ("projected", "hidden", "message"),
    [
        (4, (2, 2), "projected: expected 8 channels, received"),
        (8, (2,), "expected 2 hidden states and a cell state with 2 channels each, received"),
        (8, (2, 1), "expected 2 hidden states and a cell state with 2 channels each, received"),
    ],
)
def test_wrong_tensors(projected, hidden, message):
    def zeros(channels):
        return np.zeros((1, 2, 2, channels), np.float32)

    with pytest.raises(ValueError, match=message):
        SpatioTemporalConvLSTM2DCell(2)(zeros(projected), [zeros(channels) for channels in hidden], zeros(2))

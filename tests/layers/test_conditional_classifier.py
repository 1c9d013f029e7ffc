"""The mixture of two heads: its numbers, its gradients and its files."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from support import BACKEND, assert_close, numpy

from osmn_tf.layers.conditional_classifier import ConditionalClassifier

pytestmark = pytest.mark.backend

INSIDE = np.array([2.0, 2.0, -1.0], np.float32).reshape(1, 1, 3, 1)
OUTSIDE = np.array([-4.0, 0.0, 7.0], np.float32).reshape(1, 1, 3, 1)
WEIGHT = np.array([1.0, 0.25, 0.0], np.float32).reshape(1, 1, 3, 1)


def gradients(loss, values):
    """Of a scalar function, in each of its arguments."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tensors = [tf.constant(value) for value in values]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            result = loss(*tensors)
        return [value.numpy() for value in tape.gradient(result, tensors, unconnected_gradients="zero")]
    import jax

    return [np.asarray(value) for value in jax.grad(loss, argnums=tuple(range(len(values))))(*values)]


def test_literal():
    found = numpy(ConditionalClassifier()(INSIDE, OUTSIDE, WEIGHT))
    np.testing.assert_allclose(found.ravel(), [2.0, 0.5, 7.0])


@pytest.mark.skipif(BACKEND == "torch", reason="takes TensorFlow's and JAX's ways to a gradient")
def test_gradients_are_shared_by_the_weight():
    layer, g = ConditionalClassifier(), np.array([3.0, 8.0, -5.0], np.float32).reshape(1, 1, 3, 1)
    inside, outside, weight = gradients(
        lambda *values: keras.ops.sum(layer(*values) * g), [INSIDE, OUTSIDE, WEIGHT]
    )  # fmt: skip
    np.testing.assert_allclose(inside.ravel(), [3.0, 2.0, 0.0])
    np.testing.assert_allclose(outside.ravel(), [0.0, 6.0, -5.0])
    assert not weight.any()


def test_one_weight_for_a_batch_and_files(tmp_path):
    inputs = [keras.Input((None, None, channels)) for channels in (2, 2, 1)]
    model = keras.Model(inputs, ConditionalClassifier()(*inputs))
    assert model.output_shape == (None, None, None, 2)
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras")
    rng = np.random.default_rng(0)
    first, second = (rng.normal(0, 1, (2, 3, 4, 2)).astype(np.float32) for _ in range(2))
    weight = rng.uniform(0, 1, (1, 3, 4, 1)).astype(np.float32)
    expected = weight * first + (1 - weight) * second
    assert_close(copy([first, second, weight]), expected, 10)

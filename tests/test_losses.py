"""Losses against literal numbers, definitions by brute force, and `model.fit`."""

from __future__ import annotations

import itertools
import math

import keras
import numpy as np
import pytest
from support import BACKEND, JIT, as_one, assert_close, numpy

from osmn_tf import losses
from osmn_tf.training.optimization import SegmentationLoss

pytestmark = pytest.mark.backend

ALL = {
    "balanced": as_one(losses.class_balanced_cross_entropy),
    "balanced_per_pixel": as_one(lambda y, x: losses.class_balanced_cross_entropy(y, x, per_pixel=True)),
    "cross_entropy": as_one(losses.binary_cross_entropy),
    "lovasz": as_one(losses.lovasz_hinge),
    "soft_iou": as_one(losses.soft_iou),
}
TERMS = [{"class_balanced": 1.0}, {"cross_entropy": 1.0}, {"lovasz": 1.0}, {"soft_iou": 1.0}]


def row(*values):
    return np.array([values], np.float32)


def gradient(loss, y_true, logits):
    """d sum(loss) / d logits on the active backend."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        x = tf.Variable(logits)
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(loss(y_true, x))
        return tape.gradient(value, x).numpy()
    if BACKEND == "jax":
        import jax

        return np.asarray(jax.grad(lambda x: loss(y_true, x).sum())(logits))
    import torch

    x = torch.tensor(logits, requires_grad=True)
    loss(keras.ops.convert_to_tensor(y_true), x).sum().backward()
    return x.grad.numpy()


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


# Class-balanced cross-entropy -------------------------------------------------------------------------------------


def test_balanced_golden_value():
    labels, logits = row(1, 1, 0, 0), row(2, -1, 0.5, -3)
    found = numpy(losses.class_balanced_cross_entropy(labels, logits))
    assert found.shape == (1,)
    assert found[0] == pytest.approx(1.23142702, abs=1e-6)
    per_pixel = numpy(losses.class_balanced_cross_entropy(labels, logits, per_pixel=True))
    assert per_pixel[0] == pytest.approx(1.23142702 / 4, abs=1e-6)


def test_balanced_counts_each_example_by_itself():
    # 1 of 4 positive: weight 3/4 for the positive, 1/4 for each negative.
    labels = np.array([[1, 0, 0, 0], [1, 1, 1, 0]], np.float32)
    logits = np.array([[0.3, -1.0, 2.0, 0.0], [0.3, -1.0, 2.0, 0.0]], np.float32)

    def softplus(x):
        return math.log1p(math.exp(x))

    first = 0.75 * softplus(-0.3) + 0.25 * (softplus(-1.0) + softplus(2.0) + softplus(0.0))
    second = 0.25 * (softplus(-0.3) + softplus(1.0) + softplus(-2.0)) + 0.75 * softplus(0.0)
    found = numpy(losses.class_balanced_cross_entropy(labels, logits))
    np.testing.assert_allclose(found, [first, second], rtol=1e-6)


def test_balanced_without_positives_or_negatives_is_zero():
    logits = np.array([[5, -3, 1], [5, -3, 1]], np.float32)
    labels = np.array([[0, 0, 0], [1, 1, 1]], np.float32)
    assert numpy(losses.class_balanced_cross_entropy(labels, logits)).tolist() == [0.0, 0.0]


def test_cross_entropy_literal():
    found = numpy(losses.binary_cross_entropy(row(1, 0, 255), row(2, 0.5, 7)))
    assert found[0] == pytest.approx((math.log1p(math.exp(-2)) + math.log1p(math.exp(0.5))) / 2, rel=1e-6)


# Lovasz hinge -----------------------------------------------------------------------------------------------------


def jaccard_loss(wrong, positives):
    """1 - IoU when the pixels in `wrong` are misclassified: |wrong| / |positives or wrong|, 0 for no error."""
    return len(wrong) / len(positives | wrong) if wrong else 0.0


def lovasz_extension_by_integral(labels, logits):
    """The Lovasz extension as the integral over thresholds of the set function of {error >= threshold}."""
    positives = {i for i, y in enumerate(labels) if y == 1}
    errors = [max(0.0, 1 - float(x) * (1 if y == 1 else -1)) for x, y in zip(logits, labels)]
    thresholds = sorted({0.0, *errors})
    total = 0.0
    for low, high in itertools.pairwise(thresholds):
        total += (high - low) * jaccard_loss({i for i, e in enumerate(errors) if e >= high}, positives)
    return total


def lovasz_extension_by_permutations(labels, logits):
    """The same as the largest value over all orders: the Jaccard loss is submodular."""
    positives = {i for i, y in enumerate(labels) if y == 1}
    errors = [max(0.0, 1 - float(x) * (1 if y == 1 else -1)) for x, y in zip(logits, labels)]
    best = 0.0
    for order in itertools.permutations(range(len(labels))):
        value, wrong, before = 0.0, set(), 0.0
        for pixel in order:
            wrong = wrong | {pixel}
            after = jaccard_loss(wrong, positives)
            value, before = value + errors[pixel] * (after - before), after
        best = max(best, value)
    return best


@pytest.mark.parametrize("seed", range(12))
def test_lovasz_equals_its_definitions(seed):
    rng = np.random.default_rng(seed)
    labels = (rng.random(6) < rng.choice([0.2, 0.5, 0.9])).astype(np.float32)
    logits = rng.normal(0, 2, 6).astype(np.float32)
    by_integral = lovasz_extension_by_integral(labels, logits)
    assert by_integral == pytest.approx(lovasz_extension_by_permutations(labels, logits), rel=1e-9)
    assert numpy(ALL["lovasz"](labels[None], logits[None]))[0] == pytest.approx(by_integral, rel=1e-5)


def test_lovasz_on_many_pixels():
    rng = np.random.default_rng(0)
    labels = (rng.random((3, 20, 30, 1)) < 0.3).astype(np.float32)
    logits = rng.normal(0, 2, (3, 20, 30, 1)).astype(np.float32)
    expected = [lovasz_extension_by_integral(y.ravel(), x.ravel()) for y, x in zip(labels, logits)]
    np.testing.assert_allclose(numpy(ALL["lovasz"](labels, logits)), expected, rtol=2e-5)


def test_lovasz_literal():
    # Errors: pixel 0 (positive, logit 0.5) 0.5, pixel 1 (negative, logit 1) 2. Order 1, 0: J({1}) = 1/2, J({0, 1}) = 1.
    assert numpy(ALL["lovasz"](row(1, 0), row(0.5, 1.0)))[0] == pytest.approx(2 * 0.5 + 0.5 * 0.5, rel=1e-6)
    # Right by more than the margin: no loss.
    assert numpy(ALL["lovasz"](row(1, 0), row(3.0, -1.5)))[0] == 0.0
    # At zero logits every error is 1, and so is the loss.
    assert numpy(ALL["lovasz"](row(1, 0, 1), row(0, 0, 0)))[0] == pytest.approx(1.0, rel=1e-6)


def test_lovasz_without_positives_is_the_largest_error():
    found = numpy(ALL["lovasz"](row(0, 0, 0), row(-3, 0.5, 1.25)))
    assert found[0] == pytest.approx(2.25, rel=1e-6)
    assert numpy(ALL["lovasz"](row(0, 0), row(-3, -1)))[0] == 0.0


# Soft IoU ---------------------------------------------------------------------------------------------------------


def test_soft_iou_literal():
    p = [sigmoid(x) for x in (2, -1, 0.5)]
    expected = 1 - (p[0] + p[1]) / (p[0] + p[1] + p[2] + 2 - (p[0] + p[1]) + 1e-6)
    assert numpy(losses.soft_iou(row(1, 1, 0), row(2, -1, 0.5)))[0] == pytest.approx(expected, rel=1e-6)
    # Probabilities of 1/2 and half the pixels: intersection 1/2 * n/2, union n/2 + n/2 - n/4.
    assert numpy(losses.soft_iou(row(1, 0), row(0, 0)))[0] == pytest.approx(1 - 0.5 / 1.5, rel=1e-5)
    # A certain, right prediction costs nothing, a certain, wrong one everything.
    assert numpy(losses.soft_iou(row(1, 0), row(50, -50)))[0] == pytest.approx(0.0, abs=1e-5)
    assert numpy(losses.soft_iou(row(1, 0), row(-50, 50)))[0] == pytest.approx(1.0, abs=1e-6)
    assert numpy(losses.soft_iou(row(0, 0), row(1, -2)))[0] == pytest.approx(1.0, abs=1e-6)
    assert numpy(losses.soft_iou(row(1, 0), row(0, 0), epsilon=0.5))[0] == pytest.approx(1 - 0.5 / 2.0, rel=1e-6)


# What holds for all -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_void_pixels_count_for_nothing(name):
    rng = np.random.default_rng(1)
    labels = (rng.random((2, 12)) < 0.4).astype(np.float32)
    logits = rng.normal(0, 2, (2, 12)).astype(np.float32)
    void = np.full((2, 5), 255, np.float32)
    clutter = rng.normal(0, 50, (2, 5)).astype(np.float32)
    expected = numpy(ALL[name](labels, logits))
    found = numpy(ALL[name](np.concatenate([void, labels], 1), np.concatenate([clutter, logits], 1)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    everything_void = numpy(ALL[name](void, clutter))
    assert np.all(np.isfinite(everything_void))
    assert np.all(np.isin(everything_void, [0.0, 1.0]))  # 1: soft IoU's value without positives


@pytest.mark.parametrize("name", ALL)
def test_examples_do_not_mix(name):
    rng = np.random.default_rng(2)
    labels = (rng.random((3, 6, 5, 1)) < np.array([0.1, 0.5, 0.9])[:, None, None, None]).astype(np.uint8)
    labels[0, 0, :2] = 255
    logits = rng.normal(0, 2, (3, 6, 5, 1)).astype(np.float32)
    together = numpy(ALL[name](labels, logits))
    assert together.shape == (3,)
    alone = [numpy(ALL[name](labels[i : i + 1], logits[i : i + 1]))[0] for i in range(3)]
    assert_close(together, np.array(alone), 30)  # pixels
    without_channel = numpy(ALL[name](labels[..., 0], logits))
    np.testing.assert_array_equal(without_channel, together)


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_finite_and_right(name):
    rng = np.random.default_rng(3)
    labels = np.array([[1, 0, 0, 1, 255, 0], [0, 0, 0, 0, 0, 0], [255] * 6, [1] * 6], np.float32)
    logits = rng.normal(0, 1, labels.shape).astype(np.float32)
    found = gradient(ALL[name], labels, logits)
    assert np.all(np.isfinite(found))
    assert np.all(found[labels == 255] == 0)
    step = 1e-2
    for index in np.ndindex(2, 6):
        difference = np.zeros_like(logits)
        difference[index] = step
        above, below = ALL[name](labels, logits + difference), ALL[name](labels, logits - difference)
        numerical = (numpy(above)[index[0]] - numpy(below)[index[0]]) / (2 * step)
        assert found[index] == pytest.approx(numerical, abs=2e-3)


@pytest.mark.parametrize("name", ALL)
def test_extreme_logits_stay_finite(name):
    labels, logits = row(1, 0, 1, 0), row(1e4, 1e4, -1e4, -1e4)
    assert np.all(np.isfinite(numpy(ALL[name](labels, logits))))
    assert np.all(np.isfinite(gradient(ALL[name], labels, logits)))


def test_configuration_round_trip():
    loss = SegmentationLoss(0.5, True, 1.0, 0.25, 2, 2.0, name="mine", reduction="sum")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(copy) is SegmentationLoss
    assert copy.get_config() == loss.get_config()
    assert (copy.name, copy.reduction) == ("mine", "sum")


@pytest.mark.parametrize("terms", TERMS)
def test_class_averages_and_weighs_examples(terms):
    rng = np.random.default_rng(4)
    labels = (rng.random((3, 4, 5, 1)) < 0.5).astype(np.float32)
    logits = rng.normal(0, 1, (3, 4, 5, 1)).astype(np.float32)
    each = numpy(SegmentationLoss(**terms, reduction=None)(labels, logits))
    assert each.shape == (3,)
    assert float(numpy(SegmentationLoss(**terms)(labels, logits))) == pytest.approx(each.mean(), rel=1e-6)
    weighted = SegmentationLoss(**terms)(labels, logits, sample_weight=np.array([1.0, 0.0, 2.0], np.float32))
    assert float(numpy(weighted)) == pytest.approx((each[0] + 2 * each[2]) / 3, rel=1e-6)


def test_fit_reports_the_mean_over_examples():
    """Batches of 2 and of 1 report, and learn from, the mean over all examples; the loss comes down."""
    terms = {name: weight for each in TERMS for name, weight in each.items()}
    rng = np.random.default_rng(6)
    images = rng.normal(0, 1, (4, 6, 7, 2)).astype(np.float32)
    labels = (images[..., :1] > 0.3).astype(np.float32)
    labels[:, :2] = 255
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, keras.layers.Conv2D(1, 1, kernel_initializer="ones")(inputs))
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss=SegmentationLoss(**terms), jit_compile=JIT)
    mean = numpy(SegmentationLoss(**terms, reduction=None)(labels, numpy(model(images)))).mean()
    for batch_size in (2, 1):
        history = model.fit(images, labels, batch_size=batch_size, verbose=0).history
        assert history["loss"][0] == pytest.approx(mean, rel=1e-5)
    model.compile(optimizer=keras.optimizers.Adam(0.05), loss=SegmentationLoss(**terms), jit_compile=JIT)
    history = model.fit(images, labels, batch_size=4, epochs=20, verbose=0).history["loss"]
    assert history[-1] < 0.9 * history[0]

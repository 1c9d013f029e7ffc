from __future__ import annotations

import keras
import numpy as np
import pytest
from support import numpy

from osmn_tf import losses
from osmn_tf.errors import InputError
from osmn_tf.training import optimization
from osmn_tf.training.config import LossConfig, OptimizerConfig
from osmn_tf.training.tasks import group_of
from osmn_tf.training.tasks.osmn import OSMNTask

pytestmark = pytest.mark.backend


def test_loss_is_the_weighted_sum_per_frame() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 255], (2, 3, 8, 10, 1)).astype(np.uint8)
    logits = rng.standard_normal((2, 3, 8, 10, 1)).astype(np.float32)
    config = LossConfig(0.5, True, 1.0, 0.25, 2, 2.0)
    values = numpy(optimization.make_loss(config).call(labels, logits))
    assert values.shape == (6,)
    y, z = labels[1, 2][None], logits[1, 2][None]
    expected = (
        0.5 * numpy(losses.class_balanced_cross_entropy(y, z, per_pixel=True))
        + numpy(losses.binary_cross_entropy(y, z))
        + 0.25 * numpy(losses.lovasz_hinge(y[:, ::2, ::2], z[:, ::2, ::2]))
        + 2.0 * numpy(losses.soft_iou(y, z))
    )
    np.testing.assert_allclose(values[5], expected[0], rtol=1e-5)
    whole = float(optimization.make_loss(config)(labels, logits))
    assert whole == pytest.approx(values.mean(), rel=1e-5)
    loss = optimization.make_loss(config)
    assert optimization.SegmentationLoss.from_config(loss.get_config()).get_config() == loss.get_config()


def rates(config: OptimizerConfig, steps: int, at: int) -> float:
    optimizer = optimization.make_optimizer(config, steps, [])
    optimizer.iterations.assign(at)
    return optimization.learning_rates(optimizer)["learning_rate"]


def test_schedules() -> None:
    steps = OptimizerConfig(1e-3, schedule="steps", drop_at=(10, 20), drop_factor=0.1)
    assert [rates(steps, 30, at) for at in (0, 10, 11, 21)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5])
    cosine = OptimizerConfig(1e-3, schedule="cosine", warmup_steps=10)
    assert [rates(cosine, 110, at) for at in (0, 5, 10, 60, 110)] == pytest.approx(
        [0.0, 5e-4, 1e-3, 1e-3 * (0.99 * 0.5 + 0.01), 1e-5]
    )
    assert rates(OptimizerConfig(2e-3), 10, 9) == pytest.approx(2e-3)


def test_two_learning_rates() -> None:
    trunk, lstm = keras.Variable([1.0, 2.0], name="kernel"), keras.Variable([3.0], name="kernel")
    lstm._path = "seg_conv3_lstm/kernel"
    config = OptimizerConfig(1e-6, group_rates={"recurrent": 1e-5})
    optimizer = optimization.make_optimizer(config, 10, [trunk, lstm], OSMNTask.groups)
    assert isinstance(optimizer, keras.optimizers.MultiOptimizer)
    optimizer.apply([keras.ops.ones(2), keras.ops.ones(1)], [trunk, lstm])
    # Adam's first step has the size of the learning rate.
    np.testing.assert_allclose(1.0 - numpy(trunk)[0], 1e-6, rtol=0.1)
    np.testing.assert_allclose(3.0 - numpy(lstm)[0], 1e-5, rtol=0.1)
    assert optimization.learning_rates(optimizer) == pytest.approx(
        {"learning_rate": 1e-6, "recurrent_learning_rate": 1e-5}
    )


@pytest.mark.parametrize(
    ("path", "recurrent"),
    [
        ("seg_conv3_lstm/input_kernel", True),
        ("object_network/seg_Conv2d_5_lstm_in/kernel", True),
        ("modulator_recurrent/bias", True),
        ("seg_conv3_1/kernel", False),
        ("modulator_fc8/kernel", False),
    ],
)
def test_recurrent_parts(path: str, recurrent: bool) -> None:
    assert (group_of(path, OSMNTask.groups) == "recurrent") is recurrent


def small_model() -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Conv2D(2, 3, name="conv"),
            keras.layers.BatchNormalization(name="conv_bn"),
        ]
    )
    model.compile(optimization.make_optimizer(OptimizerConfig(0.1, ema=0.5), 10, []), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def test_penalty_is_half_the_squared_kernels() -> None:
    model = small_model()
    optimization.penalise_kernels(model, 0.4)
    kernel = model.get_layer("conv").kernel
    kernel.assign(keras.ops.full(kernel.shape, 2.0))
    assert float(sum(model.losses)) == pytest.approx(0.5 * 0.4 * 18 * 4.0)  # no bias, no gamma


def test_frozen_layers() -> None:
    model = small_model()
    optimization.freeze_layers(model, ("*_bn",))
    assert [weight.path.split("/", 1)[1] for weight in model.trainable_weights] == ["conv/kernel", "conv/bias"]
    before = numpy(model.get_layer("conv_bn").moving_mean)
    model(np.ones((2, 4, 4, 1), np.float32), training=True)
    np.testing.assert_array_equal(numpy(model.get_layer("conv_bn").moving_mean), before)
    with pytest.raises(InputError, match=r"model\.freeze: no layer is called 'vgg\*'"):
        optimization.freeze_layers(model, ("vgg*",))
    with pytest.raises(InputError, match=r"model\.freeze: nothing is left to train"):
        optimization.freeze_layers(model, ("*",))


def test_averaged_weights_and_back() -> None:
    model = small_model()
    kernel = model.get_layer("conv").kernel
    values = []
    for _ in range(3):
        model.optimizer.apply([keras.ops.ones(w.shape) for w in model.trainable_weights], model.trainable_weights)
        values.append(numpy(kernel).copy())
    average = values[0]
    for value in values[1:]:
        average = 0.5 * average + 0.5 * value
    with optimization.averaged_weights(model):
        np.testing.assert_allclose(numpy(kernel), average, rtol=1e-5)
    np.testing.assert_array_equal(numpy(kernel), values[-1])


def test_accumulated_gradients_make_one_step() -> None:
    variable, reference = keras.Variable([1.0]), keras.Variable([1.0])
    several = optimization.make_optimizer(OptimizerConfig(0.1, accumulate=2, clip_norm=1.0), 10, [])
    one = optimization.make_optimizer(OptimizerConfig(0.1, clip_norm=1.0), 10, [])
    several.apply([keras.ops.array([4.0])], [variable])
    assert float(numpy(variable)[0]) == 1.0
    several.apply([keras.ops.array([-3.0])], [variable])
    one.apply([keras.ops.array([0.5])], [reference])
    np.testing.assert_allclose(numpy(variable), numpy(reference), rtol=1e-6)

import subprocess
import sys

import numpy as np
import pytest

from osmn_tf.errors import InputError
from osmn_tf.evaluation import metrics

from .conftest import moving_boxes


def test_frame_by_frame_equals_the_whole_video():
    truth = np.stack(moving_boxes(9)) == 1
    guess = np.roll(truth, 2, axis=2)
    for metric, function in ((metrics.Jaccard(), metrics.jaccard), (metrics.BoundaryF(), metrics.boundary_f)):
        for a, b in zip(truth, guess):
            metric.update(a, b)
        assert metric.compute() == metrics.statistics(function(truth, guess))
        metric.reset()
        metric.update(truth, guess)
        assert metric.compute() == metrics.statistics(function(truth, guess))
        metric.reset()
        with pytest.raises(InputError, match="one value per frame"):
            metric.compute()


def test_tolerance_reaches_the_boundary_measure():
    truth = np.stack(moving_boxes(4)) == 1
    wide = metrics.BoundaryF(tolerance=0.1)
    wide.update(truth, np.roll(truth, 4, axis=2))
    assert wide.compute().mean == 1.0


def test_objects_of_a_video():
    masks = moving_boxes(7)
    metric = metrics.VideoMetric(objects=2)
    for mask in masks:
        guess = np.where(mask == 2, 0, mask).astype(np.uint8)
        metric.update(mask, guess)
    scores = metric.compute()
    assert scores.objects[1] == ((1.0, 1.0, 0.0), (1.0, 1.0, 0.0))
    assert scores.objects[2][0].mean == 0.0
    assert scores.j.mean == 0.5
    assert scores.j_and_f == 0.5
    metric.reset()
    with pytest.raises(InputError, match="at least one update"):
        metric.compute()


def test_void_is_left_out_of_a_video():
    mask = moving_boxes(1)[0]
    guess, void = mask.copy(), np.zeros(mask.shape, bool)
    guess[40:, :8], void[40:, :8] = 1, True
    metric = metrics.VideoMetric(objects=[1, 2])
    metric.update(mask, guess, void)
    assert metric.compute().j_and_f == 1.0


def test_metrics_load_no_deep_learning_framework():
    code = (
        "import sys; from osmn_tf import metrics; import osmn_tf.evaluation.benchmark, osmn_tf.cli.evaluate;"
        "print([m for m in ('keras', 'tensorflow', 'jax', 'torch', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_keras_metric_is_the_mean_over_examples():
    keras = pytest.importorskip("keras")
    from osmn_tf.evaluation.keras_metrics import MeanIoU

    labels = np.zeros((4, 8, 8, 1), np.uint8)
    logits = np.full((4, 8, 8, 1), -2.0, np.float32)
    labels[0, :4], logits[0, :2] = 1, 3.0  # 16 of 32: 0.5
    labels[1, :4], logits[1, :4] = 1, 0.5  # 1
    logits[2, :1] = 0.5  # nothing annotated: 0
    labels[3, :4], labels[3, 4:], logits[3] = 1, 255, 0.5  # all that is labelled: 1
    metric = MeanIoU()
    metric.update_state(labels[:3], logits[:3])
    assert float(metric.result()) == pytest.approx(0.5, abs=1e-6)
    metric.update_state(labels[3:], logits[3:])
    assert float(metric.result()) == pytest.approx(2.5 / 4, abs=1e-6)
    for i in range(3):
        expected = metrics.jaccard(labels[i, ..., 0], logits[i, ..., 0] > 0)
        metric.reset_state()
        metric.update_state(labels[i : i + 1], logits[i : i + 1])
        assert float(metric.result()) == pytest.approx(expected, abs=1e-6)
    metric.reset_state()
    assert float(metric.result()) == 0.0
    metric.update_state(np.zeros((1, 4, 4, 1)), np.full((1, 4, 4, 1), -1.0))
    assert float(metric.result()) == 1.0
    metric.reset_state()
    metric.update_state(labels[:3], logits[:3], sample_weight=np.array([1.0, 3.0, 0.0]))
    assert float(metric.result()) == pytest.approx(3.5 / 4, abs=1e-6)
    config = keras.metrics.serialize(MeanIoU(threshold=0.25, name="j"))
    again = keras.metrics.deserialize(config)
    assert config["registered_name"] == "osmn_tf>MeanIoU"
    assert (again.threshold, again.name) == (0.25, "j")


def test_keras_metric_gives_a_clip_a_value_for_every_frame():
    pytest.importorskip("keras")
    from osmn_tf.evaluation.keras_metrics import MeanIoU

    labels = np.zeros((1, 2, 8, 8, 1), np.uint8)
    logits = np.full((1, 2, 8, 8, 1), -1.0, np.float32)
    labels[0, 0], logits[0, 0] = 1, 1.0  # a frame that the object fills: 1
    labels[0, 1, 0, 0] = 1  # a frame with one pixel of it, which is missed: 0; pooled, the clip would have 64 / 65
    metric = MeanIoU()
    metric.update_state(labels, logits)
    assert float(metric.result()) == 0.5
    metric.reset_state()
    metric.update_state(np.repeat(labels, 2, 0), np.repeat(logits, 2, 0), sample_weight=np.array([1.0, 3.0]))
    assert float(metric.result()) == 0.5
    metric.reset_state()
    metric.update_state(labels, logits, sample_weight=np.array([[3.0, 1.0]]))
    assert float(metric.result()) == 0.75


def test_keras_metric_in_fit():
    keras = pytest.importorskip("keras")
    from osmn_tf.evaluation.keras_metrics import MeanIoU

    model = keras.Sequential([keras.layers.Input((None, None, 1)), keras.layers.Conv2D(1, 1)])
    model.set_weights([np.ones((1, 1, 1, 1), np.float32), np.zeros(1, np.float32)])
    model.compile(loss="mse", metrics=[MeanIoU()])
    x = np.ones((2, 4, 4, 1), np.float32)
    y = np.ones((2, 4, 4, 1), np.float32)
    y[1, :1] = 0
    assert model.evaluate(x, y, verbose=0, return_dict=True)["mean_iou"] == pytest.approx((1 + 0.75) / 2, abs=1e-6)

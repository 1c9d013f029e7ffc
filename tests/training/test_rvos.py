"""The training of RVOS: matching, loss, a step, and a run that is interrupted."""

from __future__ import annotations

import itertools
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from support import BACKEND, JIT, NARROW_MOBILENET, needs_tensorflow, numpy, random_frames, randomise

from osmn_tf import losses
from osmn_tf.errors import InputError
from osmn_tf.models import presets
from osmn_tf.models.osvos import OSVOS
from osmn_tf.models.rvos import RVOS
from osmn_tf.training import config as cfg
from osmn_tf.training import stages
from osmn_tf.training.assignment import SlotAssignment, assign, best_assignment, pairwise_soft_iou
from osmn_tf.training.initial import build_network
from osmn_tf.training.tasks.rvos import RVOSTask, SlotIoU, SlotLoss

CONFIG = """
model:
  network: RVOS
  arguments:
    backbone: short
    hidden_channels: 8
    batch_statistics: false
    slots: 2
  freeze: ["seg_Conv2d_*"]
task: {kind: rvos, slots: 2, find: 0.5, empty: 0.3}
data:
  sources: {davis: {kind: davis, path: davis, year: 2017, split: train}}
  size: [32, 64]
  length: 2
  own_guide: {start: 0.5, end: 1.0}
loss: {soft_iou: 1.0, cross_entropy: 0.5}
optimizer: {learning_rate: 1.0e-3, group_rates: {decoder: 2.0e-3}, ema: 0.9, clip_norm: 1.0}
train: {steps: 2, batch_size: 2, checkpoint_every: 1}
"""


def load(folder: Path, data_root: Path, *settings: str) -> cfg.Config:
    (folder / "rvos.yaml").write_text(CONFIG)
    return cfg.load(folder / "rvos.yaml", [f"data.root={data_root}", *settings])


@pytest.fixture(autouse=True)
def _no_determinism_left_behind():
    """`train` makes TensorFlow deterministic for the process; other tests do not ask for that."""
    yield
    if BACKEND == "tensorflow":
        from tensorflow.python.framework import config

        config.disable_op_determinism()


# Matching ---------------------------------------------------------------------------------------------------------


@pytest.mark.backend
def test_the_best_assignment_is_the_best_of_all() -> None:
    scores = np.random.default_rng(0).uniform(0, 1, (5, 4, 4)).astype(np.float32)
    for found in (best_assignment(scores), numpy(assign(ops.convert_to_tensor(scores)))):
        for table, order in zip(scores, found, strict=True):
            sums = [sum(table[j, k] for j, k in enumerate(each)) for each in itertools.permutations(range(4))]
            assert sum(table[j, k] for j, k in enumerate(order)) == pytest.approx(max(sums))


@pytest.mark.backend
def test_soft_iou_of_pairs() -> None:
    rng = np.random.default_rng(1)
    labels = rng.choice([0, 1, 255], (2, 3, 20)).astype(np.uint8)
    logits = rng.standard_normal((2, 3, 20)).astype(np.float32)
    found = numpy(pairwise_soft_iou(ops.convert_to_tensor(labels), ops.convert_to_tensor(logits)))
    for j, k in itertools.product(range(3), range(3)):
        expected = 1 - numpy(losses.soft_iou(labels[:, j], logits[:, k]))
        np.testing.assert_allclose(found[:, j, k], expected, rtol=1e-5)


@pytest.mark.backend
def test_predictions_come_in_the_order_of_their_objects() -> None:
    """Decided on the first frame, whatever comes later; where masks were given the order stands."""
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 2, (2, 3, 4, 5)).astype(np.uint8)
    truth[:, 2] = 0  # an empty slot
    order = [1, 2, 0]  # prediction of each slot
    logits = np.full((2, 2, 3, 4, 5, 1), -9.0, np.float32)
    for slot, prediction in enumerate(order[:2]):
        logits[:, 0, prediction, ..., 0] += 18.0 * truth[:, slot]
    logits[:, 1] = rng.standard_normal((2, 3, 4, 5, 1))
    given = np.array([0, 1], np.float32)
    found = numpy(SlotAssignment()(*(ops.convert_to_tensor(x) for x in (logits, truth, given))))
    np.testing.assert_array_equal(found[0], logits[0][:, order])
    np.testing.assert_array_equal(found[1], logits[1])


# Loss -------------------------------------------------------------------------------------------------------------


@pytest.mark.backend
def test_the_loss_is_the_mean_over_objects() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, (2, 2, 3, 4, 5, 1)).astype(np.uint8)
    labels[0, :, 1] = 0  # labelled as empty
    labels[0, :, 2] = 255
    labels[1, 1, 0] = 0  # gone in the second frame
    logits = rng.standard_normal(labels.shape).astype(np.float32)

    def value(b: int, t: int, k: int) -> float:
        one = labels[b, t, k][None], logits[b, t, k][None]
        return float(numpy(losses.soft_iou(*one) + 0.5 * losses.binary_cross_entropy(*one))[0])

    expected = [
        [value(0, t, 0) + 0.3 * value(0, t, 1) for t in range(2)],
        [np.mean([value(1, t, k) for k in range(3)]) for t in range(2)],
    ]
    loss = SlotLoss(0.3, soft_iou=1.0, cross_entropy=0.5)
    np.testing.assert_allclose(numpy(loss.call(labels, logits)), np.ravel(expected), rtol=1e-5)
    assert float(numpy(loss(labels, logits))) == pytest.approx(np.mean(expected), rel=1e-5)
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert float(numpy(copy(labels, logits))) == float(numpy(loss(labels, logits)))
    metric = SlotIoU()
    metric.update_state(labels, logits)
    ious = []
    for b, t, k in itertools.product(range(2), range(2), range(3)):
        if b or k == 0:
            guess, there = logits[b, t, k] > 0, labels[b, t, k] == 1
            ious.append((guess & there).sum() / max((guess | there).sum(), 1))
    assert float(numpy(metric.result())) == pytest.approx(np.mean(ious), rel=1e-5)


# A step -----------------------------------------------------------------------------------------------------------

# Loss of three steps on TensorFlow, which other backends are to give too.
LOSSES = [1.215387, 1.1915, 1.173896]


def trained(batch: slice = slice(None), steps: int = 3, eagerly: bool = False) -> tuple[list[float], keras.Model]:
    """Losses of steps on one batch of two clips, the first without masks, and the network."""
    config = cfg.parse(
        {
            "model": {"network": "RVOS", "arguments": {"backbone": "short"}},
            "task": {"kind": "rvos", "slots": 2, "find": 0.5, "empty": 0.3},
            "data": {"sources": {"a": {"kind": "synthetic"}}, "size": [32, 64], "length": 2},
            "loss": {"soft_iou": 1.0, "cross_entropy": 0.5},
            "optimizer": {"learning_rate": 1e-3},
            "train": {"steps": 4, "batch_size": 2},
        }
    )
    arguments = {"hidden_channels": 8, "batch_statistics": False, "slots": 2}
    network = randomise(RVOS(backbone="short", **arguments), seed=5)
    model = config.task.training_model(config, network)
    masks = np.zeros((2, 2, 2, 32, 64, 1), np.uint8)
    masks[:, :, 0, 4:20, 8:30], masks[:, :, 1, 14:30, 34:60] = 1, 1
    inputs = {
        "frames": random_frames(2, 2, 32, 64, seed=6),
        "previous_masks": masks.astype(np.float32),
        "own_mask": np.array([[[0, 0], [1, 1]], [[0, 0], [0, 1]]], np.float32),
        "first_masks": masks[:, 0, ..., 0],
        "given": np.array([0, 1], np.float32),
    }
    inputs["previous_masks"][0] = 0
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss=config.task.losses(config), jit_compile=JIT)
    model.run_eagerly = eagerly  # for a single step, building the graph is nearly all the time
    found = [
        float(model.train_on_batch({name: x[batch] for name, x in inputs.items()}, masks[batch])) for _ in range(steps)
    ]
    return found, network


@pytest.mark.backend
def test_a_step_is_the_same_on_every_backend() -> None:
    np.testing.assert_allclose(trained()[0], LOSSES, rtol=1e-4)


@needs_tensorflow
def test_replicas_that_share_a_batch_out_give_its_step() -> None:
    """Nothing in the matching or the loss mixes clips: the step of a batch is the mean of its clips' steps."""
    whole, first, second = (trained(batch, 1, True) for batch in (slice(None), slice(0, 1), slice(1, 2)))
    assert whole[0][0] == pytest.approx((first[0][0] + second[0][0]) / 2, rel=1e-5)
    start = randomise(whole[1].__class__.from_config(whole[1].get_config()), seed=5).trainable_weights
    moved = 0.0
    for before, one, two, both in zip(start, *(each[1].trainable_weights for each in (first, second, whole))):
        mean = (numpy(one) + numpy(two)) / 2 - numpy(before)
        np.testing.assert_allclose(numpy(both) - numpy(before), mean, rtol=0, atol=1e-6 + 1e-3 * np.abs(mean).max())
        moved = max(moved, np.abs(mean).max())
    assert moved > 1e-4


# A run ------------------------------------------------------------------------------------------------------------


@needs_tensorflow
@pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly`:UserWarning")
@pytest.mark.usefixtures("eagerly")
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load(tmp_path, data_root)
    whole = stages.train(config, tmp_path / "whole", progress=False)
    saved = stages.Checkpointing.on_epoch_end

    def save_and_stop(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        saved(self, epoch, logs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stages.Checkpointing, "on_epoch_end", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            stages.train(config, tmp_path / "halves", progress=False)
    halves = stages.train(config, tmp_path / "halves", progress=False)
    assert (whole.step, halves.step) == (2, 2)
    first, second = (presets.load(tmp_path / name / "final") for name in ("whole", "halves"))
    initial = config.task.build(config)
    moved = []
    for a, b, c in zip(first.weights, second.weights, initial.weights, strict=True):
        np.testing.assert_array_equal(numpy(a), numpy(b))
        moved.append((numpy(a) != numpy(c)).any())
    assert any(moved)
    assert not all(moved)  # the trunk is frozen


def test_refusals(data_root: Path, tmp_path: Path) -> None:
    finder = "model.arguments.one_shot=false"
    with pytest.raises(InputError, match=r"task\.find: expected 0, since a network without masks"):
        load(tmp_path, data_root, finder)
    with pytest.raises(InputError, match=r"task\.slots: expected 1 with task\.find, since independent objects"):
        load(tmp_path, data_root, "model.arguments.independent=true")
    validation = "validation={source: {kind: davis, path: davis, split: val}}"
    with pytest.raises(InputError, match="validation: tracks from given masks, which this network does not take"):
        load(tmp_path, data_root, finder, "task.find=0", validation)
    with pytest.raises(InputError, match="find: expected a probability, received 2"):
        RVOSTask(find=2)
    with pytest.raises(InputError, match="slots: expected 1"):
        RVOSTask(slots=0)


# Where it begins ----------------------------------------------------------------------------------------------------


@pytest.mark.backend
def test_trunk_of_another_network(tmp_path: Path) -> None:
    def config(**arguments: object) -> cfg.ModelConfig:
        arguments = {"block_channels": NARROW_MOBILENET, **arguments, "backbone": "mobilenet", "hidden_channels": 8}
        return cfg.ModelConfig("RVOS", arguments, backbone_weights=str(tmp_path / "osvos"))

    osvos = randomise(OSVOS(backbone="mobilenet", block_channels=NARROW_MOBILENET, side_channels=4), seed=1)
    presets.save_preset(osvos, tmp_path / "osvos")
    given = {weight.path: numpy(weight) for weight in osvos.weights}
    rvos = build_network(config(), {})
    trunk = [weight for weight in rvos.weights if "_Conv2d_" in weight.path]
    assert len(trunk) == 27 * 5  # convolutions, each with the four weights of its BatchNorm
    for weight in trunk:
        np.testing.assert_array_equal(numpy(weight), given[weight.path])
    other = [2 * channels for channels in NARROW_MOBILENET]
    with pytest.raises(InputError, match=r"^model.backbone_weights: .*osvos: its trunk has \[.*the network \["):
        build_network(config(block_channels=other), {})
    with pytest.raises(InputError, match=r"^model.backbone_weights: nowhere: .*no preset"):
        build_network(cfg.ModelConfig("RVOS", {"backbone": "mobilenet"}, backbone_weights="nowhere"), {})

"""Training of OSVOS parents: deep supervision, learning rates by group, and weights from and for OSMN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import NARROW_MOBILENET, NARROW_VGG, numpy, randomise

from osmn_tf.errors import InputError
from osmn_tf.models import presets
from osmn_tf.models.osmn import OSMN
from osmn_tf.models.osvos import OSVOS
from osmn_tf.training import config as cfg
from osmn_tf.training import optimization, stages
from osmn_tf.training.initial import copy_weights
from osmn_tf.training.tasks import TASKS, group_of
from osmn_tf.training.tasks.osvos_parent import OSVOSParentTask
from tests.training.conftest import make_davis


@pytest.mark.parametrize(("phase", "weight"), [(1, 1.0), (2, 0.5), (3, 0.0)])
def test_phases_of_the_release(phase: int, weight: float) -> None:
    config = cfg.load(f"osvos_davis_{phase}")
    assert config.task == OSVOSParentTask(weight)
    losses = config.task.losses(config)
    assert set(losses) == {"logits", *(f"side{level}" for level in (2, 3, 4, 5) if weight)}
    assert {loss.class_balanced for name, loss in losses.items() if name != "logits"} <= {weight}
    assert (losses["logits"].class_balanced, losses["logits"].per_pixel) == (1.0, False)
    optimizer = config.optimizer
    assert (optimizer.kind, optimizer.momentum, optimizer.accumulate) == ("sgd", 0.9, 10)
    assert config.train.steps == optimizer.accumulate * (15000, 15000, 20000)[phase - 1]
    assert optimizer.drop_at == (10 * 10000,)


@pytest.mark.parametrize(
    ("path", "factor"),
    [
        ("seg_conv1_1/kernel", 1.0),
        ("seg_conv1_1/bias", 2.0),
        ("seg_conv2_2_16/bias", 2.0),
        ("seg_score_dsn_2/kernel", 0.1),
        ("seg_score_dsn_5/bias", 0.2),
        ("seg_upscore_fuse/kernel", 0.01),
        ("seg_upscore_fuse/bias", 0.02),
    ],
)
def test_rates_of_the_release(path: str, factor: float) -> None:
    optimizer = cfg.load("osvos_davis_1").optimizer
    group = group_of(path, OSVOSParentTask.groups)
    rate = optimizer.learning_rate if group is None else optimizer.group_rates[group]
    assert rate == pytest.approx(1e-8 * factor)


NEVER_EAGER = pytest.mark.filterwarnings(
    "ignore:Even though the `tf.config.experimental_run_functions_eagerly`:UserWarning"  # those of tf.data
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    make_davis(tmp_path / "davis")
    return tmp_path


@NEVER_EAGER
def test_every_side_output_learns(data: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """With deep supervision the scores of the sides alone learn too; without it they stay, and the rest learns."""
    tiny = {"block_channels": NARROW_VGG, "side_channels": 2}
    initial = randomise(OSVOS(**tiny), seed=4)
    initial.save_to_preset(tmp_path / "initial")
    settings = [
        f"model.initial={tmp_path / 'initial'}",
        *(f"model.arguments.{name}={value}" for name, value in {**tiny, "block_channels": list(NARROW_VGG)}.items()),
        f"data.root={data}",
        "train.deterministic=false",
        "loss.per_pixel=true",
        "optimizer.learning_rate=0.1",
        "optimizer.accumulate=2",
        "train.steps=4",
        "train.checkpoint_every=4",
        *(f"optimizer.group_rates.{name}=0.1" for name in cfg.load("osvos_davis_1").optimizer.group_rates),
    ]
    changed = {}
    for phase in (1, 3):
        if phase == 3:  # the graph of a step is made once
            request.getfixturevalue("eagerly")
        config = cfg.load(f"osvos_davis_{phase}", settings, smoke=True)
        changed[phase] = changes(initial, stages.train(config, tmp_path / f"run{phase}", progress=False).model)
    assert changed[1] == {weight.path for weight in initial.trainable_weights}
    assert changed[3] == {path for path in changed[1] if not path.startswith("seg_score_dsn")}


def changes(before: Any, after: Any) -> set[str]:
    values = {weight.path: numpy(weight) for weight in before.weights}
    return {weight.path for weight in after.weights if (numpy(weight) != values[weight.path]).any()}


@pytest.mark.backend
def test_momentum() -> None:
    """The literal rule of momentum: v = 0.9 v - r g, w = w + v."""
    import keras

    weight = keras.Variable([1.0], name="kernel")
    optimizer = optimization.make_optimizer(cfg.OptimizerConfig(0.1, kind="sgd"), 10, [weight])
    for _ in range(2):
        optimizer.apply([keras.ops.ones(1)], [weight])
    np.testing.assert_allclose(numpy(weight), [1.0 - 0.1 - 0.19], rtol=1e-6)
    with pytest.raises(InputError, match="kind: expected one of adam, sgd"):
        cfg.OptimizerConfig(0.1, kind="adagrad")


@pytest.mark.backend
@pytest.mark.parametrize("direction", ["from OSMN", "for OSMN"])
def test_weights_fit_osmn_both_ways(direction: str, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"backbone": "mobilenet", "side_channels": 4, "block_channels": NARROW_MOBILENET}
    osmn = randomise(OSMN(**arguments, guide_size=32, visual_hidden=4), seed=1)
    osvos = randomise(OSVOS(**arguments), seed=2)
    source, target = (osmn, osvos) if direction == "from OSMN" else (osvos, osmn)
    before = {weight.path: numpy(weight) for weight in target.weights}
    given = {weight.path: numpy(weight) for weight in source.weights}
    copy_weights(source, target, TASKS.get(target.task_name or "").groups)
    shared = before.keys() & given.keys()
    assert len(shared) == len(osvos.weights) - 8
    for weight in target.weights:
        expected = given if weight.path in shared else before
        np.testing.assert_array_equal(numpy(weight), expected[weight.path])


@NEVER_EAGER
@pytest.mark.usefixtures("eagerly")
def test_light_recipe_starts(data: Path, tmp_path: Path) -> None:
    settings = [
        "model.initial=null",
        f"model.arguments.block_channels={list(NARROW_MOBILENET)}",
        f"data.root={data}",
        "data.sources.stills=null",
        "data.sources.coco=null",
        "data.sources.coco_val=null",
        "train.deterministic=false",
    ]
    result = stages.train(cfg.load("osvos_lite", settings, smoke=True), tmp_path / "run", progress=False)
    final = presets.load(tmp_path / "run/final")
    assert isinstance(final, OSVOS)
    assert (result.step, final.decoder, final.task_name) == (2, "refinement", "osvos_parent")
    log = (tmp_path / "run/log.csv").read_text().splitlines()
    assert log[0].split(",")[:3] == ["step", "loss", "mean_iou"]
    assert 0 <= float(log[-1].split(",")[2]) <= 1


def test_refuses() -> None:
    with pytest.raises(InputError, match=r"osvos_lite: task\.side_weight: only the hypercolumn decoder"):
        cfg.load("osvos_lite", ["task={kind: osvos_parent, side_weight: 1}"])
    with pytest.raises(InputError, match=r"data\.length: OSVOS trains on single frames"):
        cfg.load("osvos_lite", ["data.length=3"])
    with pytest.raises(InputError, match="side_weight: expected 0 or more"):
        OSVOSParentTask(-1.0)

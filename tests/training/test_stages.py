from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import signal
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml
from support import NARROW_MOBILENET, NARROW_VGG_SETTING, TINY_VGG, randomise

from osmn_tf.errors import InputError
from osmn_tf.models import presets
from osmn_tf.models.osmn import OSMN
from osmn_tf.models.osvos import OSVOS
from osmn_tf.models.reconvnet import ReConvNet
from osmn_tf.training import config as cfg
from osmn_tf.training import stages
from osmn_tf.training.initial import build_network, copy_trunks
from osmn_tf.training.tasks.osmn import OSMNTask

from .conftest import make_data, tiny_command
from .test_config import STAGES

# Small networks of the stages' kinds, without weights that would have to be fetched.
NARROW_VGG = ("visual_head=pooled", "visual_hidden=8", "guide_size=32")
NARROW_LITE = ("visual_hidden=8", "guide_size=32", f"block_channels={list(NARROW_MOBILENET)}")


def read_log(folder: Path) -> list[dict[str, str]]:
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def load(name: str, data_root: Path, *settings: str) -> cfg.Config:
    """A trial of a shipped stage with a narrow network."""
    if name.startswith("rvos"):
        narrow = ["backbone=mobilenet", f"block_channels={list(NARROW_MOBILENET)}", "hidden_channels=8"]
        return _trial(name, data_root, [f"model.arguments.{argument}" for argument in narrow], *settings)
    lite = "lite" in name or "match" in name
    arguments = []
    if not name.startswith("osvos"):  # it has no visual modulator
        arguments = [f"model.arguments.{argument}" for argument in (NARROW_LITE if lite else NARROW_VGG)]
    if not lite:
        arguments.append(NARROW_VGG_SETTING)
    if name.startswith("reconvnet_lite"):
        arguments.append("model.arguments.recurrent_channels=[4, 4, 4]")
    return _trial(name, data_root, arguments, *settings)


def _trial(name: str, data_root: Path, arguments: list[str], *settings: str) -> cfg.Config:
    narrow = [*arguments, "model.backbone_weights=null", f"data.root={data_root}"]
    return cfg.load(name, [*narrow, *settings], smoke=True)


def build(config: cfg.ModelConfig) -> keras.Model:
    return build_network(config, OSMNTask.groups)


def load_tiny(path: Path, data_root: Path, *settings: str) -> cfg.Config:
    return cfg.load(path, [f"data.root={data_root}", *settings])


@pytest.fixture(autouse=True)
def _no_determinism_left_behind():
    """`train` makes TensorFlow deterministic for the process; other tests do not ask for that."""
    yield
    if keras.backend.backend() == "tensorflow":
        from tensorflow.python.framework import config

        config.disable_op_determinism()


# A kind of stage each: frames, and clips with most of the network frozen on all kinds of data.
# On a short backbone and with short clips.
SHORT = ("model.arguments.backbone=short", "model.arguments.block_channels=null")
TRAINED = ("osmn_davis", "reconvnet_lite_memory")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly`:UserWarning")
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("name", TRAINED)
def test_stage_trains_validates_and_leaves_presets(
    name: str, data_root: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    settings = [*SHORT]
    if name == "osmn_davis":
        request.getfixturevalue("bfloat16")
        settings += ["train.precision=mixed_bfloat16"]
    else:
        settings += ["data.length=3"]
    config = load(name, data_root, *settings)
    keras.utils.set_random_seed(config.train.seed)
    before = config.task.build(config)
    result = stages.train(config, tmp_path / "run", progress=False)
    assert (result.step, result.stopped_early) == (2, False)
    rows = read_log(tmp_path / "run")
    assert [row["step"] for row in rows] == ["1", "2"]
    assert all(np.isfinite(float(row["loss"])) and float(row["samples_per_second"]) > 0 for row in rows)
    assert [bool(row["val_j_mean"]) for row in rows] == [False, True]
    assert not any("learning_rate" in column for column in rows[0].keys() - {"learning_rate"})
    model = presets.load(tmp_path / "run" / "final")
    trainable = {weight.path for weight in before.trainable_weights}
    assert len(trainable) < len(before.weights)  # every one of these stages freezes something
    moved = [w.path in trainable for w, a in zip(model.weights, before.weights) if (w.numpy() != a.numpy()).any()]
    assert all(moved)
    assert len(moved) > len(trainable) / 2
    best = presets.read_metadata(tmp_path / "run" / "best")
    assert best["validation"] == {"step": 2, "j_mean": result.best["j_mean"], "f_mean": result.best["f_mean"]}
    assert best["recipe"]["data"]["size"] == list(config.data.size)
    versions = json.loads((tmp_path / "run" / "versions.json").read_text())
    assert versions["keras"] == keras.__version__
    assert list((tmp_path / "run" / "tensorboard").iterdir())


@pytest.mark.parametrize("name", STAGES)
def test_stage_can_begin(name: str, data_root: Path) -> None:
    """Its data are found and give samples, its network is built, and what is to be frozen is there."""
    config = load(name, data_root)
    model = config.task.build(config)
    samples = stages.open_samples(config.data, 0, config.task.target(config))
    batches = config.task.batches(config, model)
    batches.check(samples)
    sample = {**samples.sample(0, 0), **batches.values(0)}
    inputs, labels = batches.prepare({key: keras.ops.convert_to_tensor(value[None]) for key, value in sample.items()})
    specification = config.task.training_model(config, model).inputs
    assert {name: tuple(value.shape[1:]) for name, value in inputs.items()} == {
        tensor.name: tuple(b or a for a, b in zip(inputs[tensor.name].shape[1:], tensor.shape[1:]))
        for tensor in specification
    }
    assert {tuple(label.shape[-3:]) for label in keras.tree.flatten(labels)} == {(64, 96, 1)}


# BatchNorm's statistics, dropout's seed, Adam's moments, the schedule and the averages: all that has to go on after an
# interruption.
SETTINGS = (
    "model.arguments={statistics: true, dropout: 0.3}",
    "optimizer.schedule=cosine",
    "optimizer.warmup_steps=1",
    "optimizer.weight_decay=1e-2",
    "optimizer.ema=0.9",
    "train.steps=6",
    "train.checkpoint_every=2",
    "validation=null",
)

# Kills the process when the second checkpoint is written and not in its place yet.
KILLED_WHILE_IT_WRITES = """
import os, signal
replace, checkpoints = os.replace, []
def replace_or_die(source, target):
    checkpoints.extend([target] * str(target).endswith("checkpoint.npz"))
    if len(checkpoints) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = replace_or_die
"""


def final_weights(folder: Path) -> list[np.ndarray]:
    return [np.asarray(w) for w in presets.load(folder / "final").get_weights()]


def test_killed_run_ends_with_the_weights_of_an_uninterrupted_one(
    tiny_config: Path, data_root: Path, tmp_path: Path
) -> None:
    """`kill -9` after four steps, of which two are in the checkpoint and all in the log."""
    # Its own process would draw other initial values (`tests/conftest.py`).
    first = load_tiny(tiny_config, data_root, *SETTINGS)
    first.task.build(first).save_to_preset(tmp_path / "initial")
    settings = (*SETTINGS, f"model.initial={tmp_path / 'initial'}")
    words = ["train", str(tiny_config), "--run-dir", str(tmp_path / "killed"), "--quiet"]
    for setting in (f"data.root={data_root}", *settings):
        words += ["--set", setting]
    process = subprocess.run(tiny_command(*words, prelude=KILLED_WHILE_IT_WRITES), stderr=subprocess.DEVNULL)
    assert process.returncode == -signal.SIGKILL
    assert [row["step"] for row in read_log(tmp_path / "killed")] == ["2", "4"]
    checkpoint = tmp_path / "killed" / "checkpoint.npz"
    assert len(list((tmp_path / "killed").glob(".checkpoint*"))) == 1
    assert not (tmp_path / "killed" / "final").exists()
    config = load_tiny(tiny_config, data_root, *settings)
    resumed = stages.train(config, tmp_path / "killed", progress=False)
    assert not list((tmp_path / "killed").glob(".checkpoint*"))
    whole = stages.train(config, tmp_path / "whole", progress=False)
    assert resumed.step == whole.step == 6
    ended, second = final_weights(tmp_path / "killed"), final_weights(tmp_path / "whole")
    for a, b in zip(ended, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [row["step"] for row in read_log(tmp_path / "killed")] == ["2", "4", "6"]
    assert all(
        0 < float(row["head_learning_rate"]) != float(row["learning_rate"]) for row in read_log(tmp_path / "killed")
    )
    assert [r["loss"] for r in read_log(tmp_path / "killed")] == [r["loss"] for r in read_log(tmp_path / "whole")]
    # A run that is over is not trained further.
    again = stages.train(config, tmp_path / "whole", progress=False)
    assert again.step == 6
    for a, b in zip(final_weights(tmp_path / "whole"), second, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match=r"holds a run with another optimizer\.learning_rate: 0\.001 there, 0\.5 now"):
        stages.train(load_tiny(tiny_config, data_root, *settings, "optimizer.learning_rate=0.5"), tmp_path / "whole")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"checkpoint\.npz is damaged"):
        stages.train(config, tmp_path / "killed", progress=False)


def test_early_stopping_keeps_the_best(
    tiny_config: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([(0.5, 0.4), (0.7, 0.1), (0.6, 0.9), (0.7, 0.9), (0.9, 0.9)])
    monkeypatch.setattr("osmn_tf.training.callbacks.Validation.evaluate", lambda self: next(scores))
    settings = ("train.steps=6", "train.checkpoint_every=1", "validation.every=1", "validation.patience=2")
    config = load_tiny(tiny_config, data_root, *settings)
    result = stages.train(config, tmp_path, progress=False)
    assert (result.step, result.stopped_early) == (4, True)
    assert result.best == {"step": 2, "j_mean": 0.7, "f_mean": 0.1}
    assert [row["val_j_mean"] for row in read_log(tmp_path)] == ["0.5", "0.7", "0.6", "0.7"]
    assert presets.read_metadata(tmp_path / "best")["step"] == 2
    # The same command: nothing is left to do.
    again = stages.train(config, tmp_path, progress=False)
    assert (again.step, again.stopped_early, again.best) == (4, True, result.best)


def test_initial_weights_of_the_stage_before(tmp_path: Path) -> None:
    osmn = OSMN(**TINY_VGG)
    osmn.get_layer("visual_modulator").get_layer("modulator_hidden").bias.assign(np.full(4, 0.25, np.float32))
    osmn.save_to_preset(str(tmp_path / "osmn"))
    recurrent = {**TINY_VGG, "recurrent_channels": [4, 4, 4]}
    model = build(cfg.ModelConfig("ReConvNet", recurrent, initial=str(tmp_path / "osmn")))
    theirs = {weight.path: weight for weight in model.weights}
    for weight in osmn.weights:
        np.testing.assert_array_equal(weight.numpy(), theirs[weight.path].numpy())
    wider = {**TINY_VGG, "visual_hidden": 9}
    with pytest.raises(InputError, match=r"model\.initial: its weight .* is \[1, 1, 6, 4\], the network has \[1, 1, "):
        build(cfg.ModelConfig("OSMN", wider, initial=str(tmp_path / "osmn")))
    with pytest.raises(InputError, match=r"model\.initial: preset: no preset, folder"):
        build(cfg.ModelConfig("OSMN", TINY_VGG, initial=str(tmp_path / "nothing")))


def test_an_osmn_starts_from_the_osmn_part_of_a_reconvnet(tmp_path: Path) -> None:
    source = randomise(ReConvNet(**TINY_VGG, recurrent_channels=(4, 4, 4)))
    source.save_to_preset(tmp_path / "reconvnet")
    model = build(cfg.ModelConfig("OSMN", TINY_VGG, initial=str(tmp_path / "reconvnet")))
    theirs = {weight.path: weight.numpy() for weight in source.weights}
    for weight in model.weights:
        np.testing.assert_array_equal(weight.numpy(), theirs.pop(weight.path), err_msg=weight.path)
    assert len(theirs) == 23
    assert all("lstm" in path or "modulator_recurrent" in path for path in theirs)


def test_all_trunks_begin_as_those_of_another_network() -> None:
    sizes = {"backbone": "mobilenet", "block_channels": NARROW_MOBILENET}
    tiny = {**sizes, "visual_head": "pooled", "visual_hidden": 4, "guide_size": 32}
    model = OSMN(**tiny, trunk="shared", decoder="refinement")
    # An OSMN has two, which differ here; an OSVOS has one, and so gives it twice.
    for source in (OSMN(**tiny), OSVOS(**sizes, side_channels=4)):
        given = {weight.path: weight.numpy() for weight in randomise(source, seed=3).weights}
        copy_trunks(source, model)
        for prefix in ("seg", "modulator"):
            parts = re.compile(rf"{prefix}_Conv2d_(0|\d+_(depth|point)wise)(_bn)?/")
            trunk = [weight for weight in model.weights if parts.match(weight.path)]
            assert len(trunk) == 27 * 5  # convolutions, each with the four weights of its BatchNorm
            for weight in trunk:
                path = weight.path if weight.path in given else weight.path.replace("modulator_", "seg_")
                np.testing.assert_array_equal(weight.numpy(), given[path])


def test_a_stage_that_leaves_out_what_is_validated_on(data_root: Path) -> None:
    """With DAVIS's own train.txt of 2016, which has the sequences of `dev` in it."""
    (data_root / "davis/ImageSets/2016").mkdir(exist_ok=True)
    (data_root / "davis/ImageSets/2016/train.txt").write_text("one\ntwo\n")
    (data_root / "davis/ImageSets/2016/dev.txt").write_text("two\n")
    config = load("osmn_match_frames", data_root)
    validation = stages.open_validation(config.validation, data_root)
    assert [sequence.name for sequence in validation.sequences] == ["two"]
    target = config.task.target(config)
    source = stages.open_source(config.data.sources["davis"], config.data, target)
    assert [sequence.name for sequence in source.data.sequences] == ["one"]
    assert len(stages.open_samples(config.data, 0, target, validation)) > 0
    none = load("osmn_match_frames", data_root, "data.sources.davis.leave_out=train")
    with pytest.raises(InputError, match=r"data\.sources\.davis: DAVIS: the list 'train' leaves out all of 'train'"):
        stages.open_samples(none.data, 0, target)


def test_mistakes_come_before_anything_is_built(data_root: Path, tmp_path: Path) -> None:
    missing = load("osmn_coco", data_root, "data.sources.coco.path=elsewhere")
    with pytest.raises(
        InputError, match=r"^data\.sources\.coco: COCO: .* at .*elsewhere.*--set data\.sources\.coco=null"
    ):
        stages.train(missing, tmp_path / "run")
    unknown = load("osmn_coco", data_root, "validation.source.split=test")
    with pytest.raises(InputError, match=r"^validation\.source: DAVIS: no split 'test'"):
        stages.train(unknown, tmp_path / "run")
    large = load("osmn_coco", data_root, "train.batch_size=50")
    with pytest.raises(InputError, match=r"^train\.batch_size: 50 is more than an epoch's 4 samples"):
        stages.train(large, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_training_refuses_what_is_validated_on(data_root: Path, tmp_path: Path) -> None:
    """As with DAVIS's own train.txt, if nothing were left out of it: the sequences of `dev` are in it."""
    own = "validation.source={kind: davis, path: davis, year: 2017, split: train}"
    config = load("osmn_davis", data_root, own)
    message = r"^data\.sources\.davis: 2 of its sequences are in validation\.source too \(one, two\), .*allow_overlap"
    with pytest.raises(InputError, match=message):
        stages.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    validation = stages.open_validation(config.validation, data_root)
    allowed = load("osmn_davis", data_root, own, "data.sources.davis.allow_overlap=true")
    target = allowed.task.target(allowed)
    assert len(stages.open_samples(allowed.data, 0, target, validation)) > 0
    # One sequence of the validation's list is apart from the training's, the other is not.
    for names, refused in (("[three]", False), ("[two, three]", True)):
        (data_root / "davis/ImageSets/2017/both.txt").write_text("two\nthree\n")
        both = "validation.source={kind: davis, path: davis, year: 2017, split: both}"
        config = load("osmn_davis", data_root, both, f"validation.sequences={names}")
        validation = stages.open_validation(config.validation, data_root)
        with pytest.raises(InputError, match=r"1 of its sequences .*two") if refused else contextlib.nullcontext():
            stages.open_samples(config.data, 0, target, validation)


@pytest.mark.filterwarnings("ignore::osmn_tf.datasets.index.DamagedFileWarning")
def test_too_many_damaged_files_are_one_line(
    tiny_config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from osmn_tf.cli.main import main

    make_data(tmp_path / "data")
    for path in (tmp_path / "data/davis/JPEGImages/480p").glob("*/*.jpg"):
        path.write_bytes(path.read_bytes()[:100])
    words = ["train", str(tiny_config), "--quiet", "--run-dir", str(tmp_path / "run")]
    assert main([*words, "--set", f"data.root={tmp_path / 'data'}"]) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len([line for line in lines if "damaged" in line]) == 1
    assert not [line for line in lines if "Traceback" in line]
    assert "more than 3 of 12 items are damaged, the last: " in lines[-1]
    assert not (tmp_path / "run/checkpoint.npz").exists()


def test_command_line(data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from osmn_tf.cli.main import main

    assert main(["train", "--list"]) == 0
    assert "reconvnet_davis " in capsys.readouterr().out
    assert main(["train", "--config", "osmn_coco", "--check", "--set", "train.seed=5"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["train"]["seed"] == 5
    assert main(["train", "osmn_coco", "--set", "train.sede=5", "--run-dir", os.devnull]) == 2
    assert "train.sede: unknown key (did you mean seed?)" in capsys.readouterr().err
    assert main(["train", "--run-dir", "x"]) == 2

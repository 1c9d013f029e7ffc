from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml
from support import NARROW_VGG_SETTING, command, randomise

from osmn_tf.errors import InputError
from osmn_tf.models import presets
from osmn_tf.models.reconvnet import ReConvNet
from osmn_tf.training import config as cfg
from osmn_tf.training import stages

from .test_config import STAGES


def read_log(folder: Path) -> list[dict[str, str]]:
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def load(name: str, data_root: Path, *settings: str) -> cfg.Config:
    narrow = [] if "lite" in name else [NARROW_VGG_SETTING]
    return cfg.load(name, [f"data.root={data_root}", *narrow, *settings])


@pytest.fixture(autouse=True)
def _no_determinism_left_behind():
    """`train` makes TensorFlow deterministic for the process; other tests do not ask for that."""
    yield
    if keras.backend.backend() == "tensorflow":
        from tensorflow.python.framework import config

        config.disable_op_determinism()


@pytest.fixture
def eagerly():
    """Runs functions without building graphs: for two tiny steps, building is nearly all the time."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly`:UserWarning")
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("name", STAGES)
def test_stage_trains_validates_and_leaves_presets(name: str, data_root: Path, tmp_path: Path) -> None:
    settings = [] if name != "osmn_davis" else ["train.precision=mixed_bfloat16"]
    config = load(f"{name}_smoke", data_root, *settings)
    before = stages.build_model(config.model)
    result = stages.train(config, tmp_path / "run", progress=False)
    assert (result.step, result.stopped_early) == (2, False)
    rows = read_log(tmp_path / "run")
    assert [row["step"] for row in rows] == ["1", "2"]
    assert all(np.isfinite(float(row["loss"])) and float(row["samples_per_second"]) > 0 for row in rows)
    assert [bool(row["val_j_mean"]) for row in rows] == [False, True]
    assert bool(rows[0]["recurrent_learning_rate"]) == (name == "reconvnet_davis")
    model = presets.load(tmp_path / "run" / "final")
    moved = [not np.array_equal(a, b) for a, b in zip(before.get_weights(), model.get_weights())]
    assert sum(moved) > len(moved) / 5  # frozen BatchNorm does not move
    if name == "osmn_davis":
        frozen = [w for w in model.weights if "_bn/" in w.path]
        assert frozen
        sources = {w.path: w for w in before.weights}
        for weight in frozen:
            np.testing.assert_array_equal(weight.numpy(), sources[weight.path].numpy())
    best = presets.read_metadata(tmp_path / "run" / "best")
    assert best["validation"] == {"step": 2, "j_mean": result.best["j_mean"], "f_mean": result.best["f_mean"]}
    assert best["recipe"]["data"]["size"] == list(config.data.size)
    versions = json.loads((tmp_path / "run" / "versions.json").read_text())
    assert versions["keras"] == keras.__version__
    assert list((tmp_path / "run" / "tensorboard").iterdir())


# BatchNorm's statistics, Adam's moments, the schedule and the averages: all that has to go on after an interruption.
SETTINGS = (
    "model.freeze=[]",
    "optimizer.learning_rate=1e-3",
    "optimizer.schedule=cosine",
    "optimizer.warmup_steps=1",
    "optimizer.drop_at=[]",
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


@pytest.mark.slow
def test_killed_run_ends_with_the_weights_of_an_uninterrupted_one(data_root: Path, tmp_path: Path) -> None:
    """`kill -9` after four steps, of which two are in the checkpoint and all in the log."""
    words = ["train", "osmn_coco_smoke", "--run-dir", str(tmp_path / "killed"), "--quiet"]
    for setting in (f"data.root={data_root}", NARROW_VGG_SETTING, *SETTINGS):
        words += ["--set", setting]
    process = subprocess.run(command(*words, prelude=KILLED_WHILE_IT_WRITES), stderr=subprocess.DEVNULL)
    assert process.returncode == -signal.SIGKILL
    assert [row["step"] for row in read_log(tmp_path / "killed")] == ["2", "4"]
    checkpoint = tmp_path / "killed" / "checkpoint.npz"
    assert len(list((tmp_path / "killed").glob(".checkpoint*"))) == 1
    assert not (tmp_path / "killed" / "final").exists()
    config = load("osmn_coco_smoke", data_root, *SETTINGS)
    resumed = stages.train(config, tmp_path / "killed", progress=False)
    assert not list((tmp_path / "killed").glob(".checkpoint*"))
    whole = stages.train(config, tmp_path / "whole", progress=False)
    assert resumed.step == whole.step == 6
    first, second = final_weights(tmp_path / "killed"), final_weights(tmp_path / "whole")
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [row["step"] for row in read_log(tmp_path / "killed")] == ["2", "4", "6"]
    assert [r["loss"] for r in read_log(tmp_path / "killed")] == [r["loss"] for r in read_log(tmp_path / "whole")]
    # A run that is over is not trained further.
    again = stages.train(config, tmp_path / "whole", progress=False)
    assert again.step == 6
    for a, b in zip(final_weights(tmp_path / "whole"), second, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match=r"holds a run with another optimizer\.learning_rate: 0\.001 there, 0\.5 now"):
        stages.train(load("osmn_coco_smoke", data_root, *SETTINGS, "optimizer.learning_rate=0.5"), tmp_path / "whole")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"checkpoint\.npz is damaged"):
        stages.train(config, tmp_path / "killed", progress=False)


@pytest.mark.slow
def test_early_stopping_keeps_the_best(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([(0.5, 0.4), (0.7, 0.1), (0.6, 0.9), (0.7, 0.9), (0.9, 0.9)])
    monkeypatch.setattr("osmn_tf.training.callbacks.Validation.evaluate", lambda self: next(scores))
    config = load("osmn_davis_smoke", data_root, "train.steps=6", "validation.every=1", "validation.patience=2")
    result = stages.train(config, tmp_path, progress=False)
    assert (result.step, result.stopped_early) == (4, True)
    assert result.best == {"step": 2, "j_mean": 0.7, "f_mean": 0.1}
    assert [row["val_j_mean"] for row in read_log(tmp_path)] == ["0.5", "0.7", "0.6", "0.7"]
    assert presets.read_metadata(tmp_path / "best")["step"] == 2
    # The same command: nothing is left to do.
    again = stages.train(config, tmp_path, progress=False)
    assert (again.step, again.stopped_early, again.best) == (4, True, result.best)


def test_initial_weights_of_the_stage_before(tmp_path: Path) -> None:
    osmn = stages.build_model(cfg.load("osmn_lite_coco_smoke").model)
    osmn.get_layer("visual_modulator").get_layer("modulator_Conv2d_1c_1x1").bias.assign(np.full(8, 0.25, np.float32))
    osmn.save_to_preset(str(tmp_path / "osmn"))
    arguments = {**cfg.load("osmn_lite_coco_smoke").model.arguments, "recurrent_channels": [4, 4, 4]}
    model = stages.build_model(cfg.ModelConfig("ReConvNet", arguments, initial=str(tmp_path / "osmn")))
    theirs = {weight.path: weight for weight in model.weights}
    for weight in osmn.weights:
        np.testing.assert_array_equal(weight.numpy(), theirs[weight.path].numpy())
    wider = {**cfg.load("osmn_lite_coco_smoke").model.arguments, "visual_hidden": 9}
    with pytest.raises(
        InputError, match=r"model\.initial: its weight .* is \[1, 1, 1024, 8\], the network has \[1, 1, "
    ):
        stages.build_model(cfg.ModelConfig("OSMN", wider, initial=str(tmp_path / "osmn")))
    with pytest.raises(InputError, match=r"model\.initial: preset: no preset, folder"):
        stages.build_model(cfg.ModelConfig("OSMN", {}, initial=str(tmp_path / "nothing")))


def test_an_osmn_starts_from_the_osmn_part_of_a_reconvnet(tmp_path: Path) -> None:
    arguments = {"backbone": "mobilenet", "visual_hidden": 8, "guide_size": 32}
    source = randomise(ReConvNet(**arguments, recurrent_channels=(4, 4, 4)))
    source.save_to_preset(tmp_path / "reconvnet")
    model = stages.build_model(cfg.ModelConfig("OSMN", arguments, initial=str(tmp_path / "reconvnet")))
    theirs = {weight.path: weight.numpy() for weight in source.weights}
    for weight in model.weights:
        np.testing.assert_array_equal(weight.numpy(), theirs.pop(weight.path), err_msg=weight.path)
    assert len(theirs) == 23
    assert all("lstm" in path or "modulator_recurrent" in path for path in theirs)


def test_mistakes_come_before_anything_is_built(data_root: Path, tmp_path: Path) -> None:
    missing = load("osmn_coco_smoke", data_root, "data.sources.coco.path=elsewhere")
    with pytest.raises(
        InputError, match=r"^data\.sources\.coco: COCO: expected a folder with images and annotations at"
    ):
        stages.train(missing, tmp_path / "run")
    unknown = load("osmn_coco_smoke", data_root, "validation.source.split=test")
    with pytest.raises(InputError, match=r"^validation\.source: DAVIS: no split 'test'"):
        stages.train(unknown, tmp_path / "run")
    large = load("osmn_coco_smoke", data_root, "train.batch_size=50")
    with pytest.raises(InputError, match=r"^train\.batch_size: 50 is more than an epoch's 4 samples"):
        stages.train(large, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_command_line(data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from osmn_tf.cli.main import main

    assert main(["train", "--list"]) == 0
    assert "reconvnet_davis " in capsys.readouterr().out
    assert main(["train", "--config", "osmn_coco", "--check", "--set", "train.seed=5"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["train"]["seed"] == 5
    assert main(["train", "osmn_coco", "--set", "train.sede=5", "--run-dir", os.devnull]) == 2
    assert "train.sede: unknown key (did you mean seed?)" in capsys.readouterr().err
    assert main(["train", "--run-dir", "x"]) == 2

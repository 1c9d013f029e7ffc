"""A checkpoint of OSVOS's release: it becomes an OSVOS with the same outputs, and comes back bit for bit."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from support import random_frames

from convert import release
from osmn_tf.cli.main import main
from osmn_tf.errors import InputError
from osmn_tf.models.osvos import OSVOS
from osmn_tf.models.presets import load, read_metadata

MEAN_BGR = np.array([104.00699, 116.66877, 122.67892], np.float32)


@pytest.fixture(scope="module")
def values():
    return release.random_values(release.osvos_shapes(), seed=10)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, values) -> str:
    prefix = tmp_path_factory.mktemp("osvos") / "OSVOS_parent.ckpt"
    return release.write_checkpoint(prefix, values, step=50000, adam="osvos/conv1/")


@pytest.fixture(scope="module")
def preset(tmp_path_factory, checkpoint):
    folder = tmp_path_factory.mktemp("preset") / "osvos"
    assert main(["import-tf1", checkpoint, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def model(preset):
    return load(preset)


def test_every_tensor_is_used(preset):
    record = json.loads((preset / "import.json").read_text())
    assert len(record["used"]) == 26 + 8 + 8 + 2
    assert record["used"]["osvos/score-dsn_3/weights"] == ["seg_score_dsn_3/kernel"]
    assert record["skipped"]["osvos/score-dsn_3-up/weights"] == "fixed bilinear kernel, value checked"
    metadata = read_metadata(preset)
    assert (metadata["format"], metadata["step"]) == ("osvos", 50000)
    assert "initialisation_only" not in metadata


@pytest.mark.parametrize("size", [(64, 112), (57, 91)])
def test_gives_the_originals_outputs(model, checkpoint, size):
    frame = random_frames(1, *size, seed=2)
    expected = release.run_graph(
        checkpoint,
        release.osvos_shapes(),
        lambda v, image: [release.osvos_segmentation(v, image), *release.osvos_side_scores(v, image)],
        {"image": release.normalise(frame, mean_bgr=MEAN_BGR)},
    )
    assert isinstance(model, OSVOS)
    outputs = model({"frame": tf.constant(frame)}, training=False)
    for name, scores in zip(("logits", "side2", "side3", "side4", "side5"), expected, strict=True):
        difference = np.abs(outputs[name].numpy() - scores).max()
        assert difference < 1e-4 * scores.std()


def test_comes_back_bit_for_bit(preset, values, tmp_path):
    assert main(["export-tf1", "--preset", str(preset), "--out", str(tmp_path / "back.ckpt")]) == 0
    reader = tf.train.load_checkpoint(str(tmp_path / "back.ckpt"))
    assert reader.get_variable_to_shape_map().keys() == values.keys() | {"global_step"}
    assert int(reader.get_tensor("global_step")) == 50000
    for name, value in values.items():
        np.testing.assert_array_equal(reader.get_tensor(name), value)


def test_fixed_kernels_may_be_missing(values, tmp_path):
    """Those of the side scores: some files lack them. They are what they have to be all the same."""
    few = {name: value for name, value in values.items() if "dsn" not in name or "-up" not in name}
    checkpoint = release.write_checkpoint(tmp_path / "few.ckpt", few)
    assert main(["import-tf1", checkpoint, "--out", str(tmp_path / "preset")]) == 0
    weights = {weight.path: weight.numpy() for weight in load(tmp_path / "preset").weights}
    np.testing.assert_array_equal(weights["seg_score_dsn_4_up/kernel"], release.bilinear_filter(16, 1))


def test_refuses(checkpoint, tmp_path, capsys):
    arguments = ["import-tf1", checkpoint, "--out", str(tmp_path / "x")]
    assert main([*arguments, "--modulator-weights", "vgg_16.ckpt"]) == 2
    assert "--modulator-weights: an OSVOS has no modulators; give --network OSMN with it" in capsys.readouterr().err
    from osmn_tf.convert.tf1_checkpoint import export_checkpoint

    with pytest.raises(InputError, match=r"not of the release's form \(OSVOS parent.*backbone='mobilenet'"):
        export_checkpoint(OSVOS("mobilenet", block_channels=[2] * 13), tmp_path / "a.ckpt")

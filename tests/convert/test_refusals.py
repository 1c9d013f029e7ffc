"""Checkpoints that are damaged, incomplete or of something else: one line that says so, exit code 2, no output."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf

from convert import release
from osmn_tf import InputError
from osmn_tf.cli.main import main
from osmn_tf.convert import tf1_checkpoint
from osmn_tf.convert.forms import all_forms, recognise, training_state

DATA = ".data-00000-of-00001"


def save(prefix: Path, values: dict[str, np.ndarray]) -> Path:
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=[tf.constant(value) for value in values.values()],
    )
    return prefix


@pytest.fixture
def copy(lite_checkpoint, tmp_path) -> Path:
    """A checkpoint of its own for a test to damage."""
    for ending in (".index", DATA):
        shutil.copy(lite_checkpoint + ending, tmp_path / f"osmn.ckpt-1200{ending}")
    return tmp_path / "osmn.ckpt-1200"


def refuse(path, capsys, *words: str) -> None:
    """The import ends with exit code 2 and one line that has all `words`, and leaves nothing."""
    out = Path(path).parent / "out" / "preset"
    assert main(["import-tf1", str(path), "--out", str(out)]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("osmn import-tf1: error: ")
    assert "\n" not in error
    for word in words:
        assert word in error
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


# Damaged files -----------------------------------------------------------------------------------------------------


def test_truncated_data_file(copy, capsys):
    data = Path(f"{copy}{DATA}")
    size = data.stat().st_size
    with open(data, "r+b") as file:
        file.truncate(size - 1000)
    refuse(copy, capsys, f"{data}: truncated", f"expected at least {size} bytes", f"received {size - 1000}")


def test_missing_data_file(copy, capsys):
    Path(f"{copy}{DATA}").unlink()
    refuse(copy, capsys, "all of its data files are missing", f"{copy}.data-00000-of-")


def test_one_of_several_shards_is_missing(lite_values, tmp_path, capsys):
    prefix = tmp_path / "osmn.ckpt"
    halves = list(lite_values)[::2], list(lite_values)[1::2]
    for number, names in enumerate(halves):
        save(tmp_path / f"part{number}", {name: lite_values[name] for name in names})
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(tmp_path / "part0"), str(tmp_path / "part1")], destination_prefix=str(prefix)
    )
    assert tf1_checkpoint.inspect(prefix).parameters == 12_777_217
    Path(f"{prefix}.data-00001-of-00002").unlink()
    refuse(prefix, capsys, "1 of its 2 data files are missing", f"{prefix}.data-00001-of-00002")


def test_missing_index(copy, capsys):
    Path(f"{copy}.index").unlink()
    refuse(copy, capsys, "osmn.ckpt-1200.index is missing")


@pytest.mark.parametrize("keep", [0, 40, 3000])
def test_truncated_index(copy, keep, capsys):
    index = Path(f"{copy}.index")
    content = index.read_bytes()
    assert len(content) > 3000
    index.write_bytes(content[:keep])
    refuse(copy, capsys, f"{copy}: not a readable TensorFlow checkpoint")


def test_index_with_a_damaged_block_inside(copy, capsys):
    index = Path(f"{copy}.index")
    content = bytearray(index.read_bytes())
    content[200:400] = b"\xff" * 200
    index.write_bytes(content)
    refuse(copy, capsys, str(copy))


def test_flipped_bits_in_the_values(copy, lite_values, capsys):
    """Bytes of a single tensor: the checksum finds them, and the message names the tensor."""
    name = "osmn/seg/Conv2d_5_pointwise/weights"
    offset = Path(f"{copy}{DATA}").read_bytes().index(lite_values[name].tobytes())
    with open(f"{copy}{DATA}", "r+b") as file:
        file.seek(offset + 40)
        file.write(b"\x00\x00\x00\x3f")
    refuse(copy, capsys, f"{name} cannot be read, damaged file", "Checksum")


def test_values_that_are_not_finite(lite_values, tmp_path, capsys):
    broken = np.full_like(lite_values["osmn/score/weights"], np.nan)
    prefix = save(tmp_path / "osmn.ckpt", {**lite_values, "osmn/score/weights": broken})
    refuse(prefix, capsys, "osmn/score/weights holds values that are not finite")


# Other content -----------------------------------------------------------------------------------------------------


def test_one_tensor_of_another_shape(lite_values, tmp_path, capsys):
    name = "osmn/conv11_16/weights"
    prefix = save(tmp_path / "osmn.ckpt", {**lite_values, name: np.zeros((3, 3, 512, 32), np.float32)})
    refuse(prefix, capsys, "OSMN lite", f"{name} has shape [3, 3, 512, 32], expected [3, 3, 512, 16]")


def test_one_tensor_of_another_type(lite_values, tmp_path, capsys):
    name = "osmn/score/biases"
    prefix = save(tmp_path / "osmn.ckpt", {**lite_values, name: np.zeros(1, np.float64)})
    refuse(prefix, capsys, f"{name} has type float64, expected float32")


def test_missing_tensors(lite_values, tmp_path, capsys):
    names = ("osmn/score/biases", "osmn/modulator_sp/conv5/BatchNorm/gamma")
    kept = {name: value for name, value in lite_values.items() if name not in names}
    refuse(save(tmp_path / "osmn.ckpt", kept), capsys, "OSMN lite", "2 missing", *names)


def test_unexpected_tensor(lite_values, tmp_path, capsys):
    extra = {"osmn/seg/attention/weights": np.zeros((2, 2), np.float32)}
    refuse(save(tmp_path / "osmn.ckpt", lite_values | extra), capsys, "1 unexpected (osmn/seg/attention/weights)")


def test_a_slot_of_no_variable_is_unexpected(lite_values, tmp_path, capsys):
    extra = {"osmn/other/weights/Adam": np.zeros(2, np.float32)}
    refuse(save(tmp_path / "osmn.ckpt", lite_values | extra), capsys, "1 unexpected (osmn/other/weights/Adam)")


def test_checkpoint_of_something_else(tmp_path, capsys):
    values = {f"resnet/block{k}/kernel": np.zeros((3, 3), np.float32) for k in range(4)}
    prefix = save(tmp_path / "resnet.ckpt", values)
    refuse(
        prefix, capsys, "a checkpoint of something else", "4 variables such as resnet/block0/kernel", "OSMN on VGG-16"
    )
    assert main(["import-tf1", "--check", str(prefix)]) == 2


def test_object_based_checkpoint(tmp_path, capsys):
    path = tf.train.Checkpoint(a=tf.Variable([1.0, 2.0])).write(str(tmp_path / "tf2.ckpt"))
    refuse(path, capsys, "an object-based checkpoint of TensorFlow 2")


def test_file_that_is_no_checkpoint(tmp_path, capsys):
    path = tmp_path / "vgg_16.ckpt"
    path.write_bytes(b"\x89PNG not a checkpoint" * 100)
    refuse(path, capsys, "not a readable TensorFlow checkpoint")


def test_no_such_checkpoint(tmp_path, capsys):
    refuse(tmp_path / "nothing.ckpt-1", capsys, "no such checkpoint (expected nothing.ckpt-1.index")


def test_folder_without_a_checkpoint(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", capsys, "a folder without a usable 'checkpoint' file")


def test_bilinear_kernels_are_checked_for_value():
    kernel = release.bilinear_filter(8, 16)
    np.testing.assert_array_equal(tf1_checkpoint._checked_bilinear(kernel, "kernel"), kernel)
    kernel[3, 4, 2, 2] += 1e-4
    with pytest.raises(InputError, match=r"fixed bilinear filter, but differs from it by up to 0\.0001"):
        tf1_checkpoint._checked_bilinear(kernel, "score-multi3-up")


def test_h5_of_something_else(tmp_path, capsys):
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file["dense/kernel"] = np.zeros((3, 3), np.float32)
    refuse(path, capsys, "expected the 13 convolutions of keras.applications.VGG16")
    path.write_bytes(b"not HDF5")
    refuse(path, capsys, "not a readable HDF5 file")


# Arguments ---------------------------------------------------------------------------------------------------------


def test_out_that_holds_something_else(lite_checkpoint, tmp_path, capsys):
    out = tmp_path / "photos"
    out.mkdir()
    (out / "a.png").write_bytes(b"picture")
    for arguments in ([], ["--force"]):
        assert main(["import-tf1", lite_checkpoint, "--out", str(out), *arguments]) == 2
        assert "holds something else than a preset" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["a.png"]


def test_out_and_check_exclude_each_other(lite_checkpoint, tmp_path, capsys):
    assert main(["import-tf1", lite_checkpoint]) == 2
    assert main(["import-tf1", lite_checkpoint, "--check", "--out", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err.count("expected either --out PRESET_DIR or --check") == 2


def test_modulator_weights_are_for_osvos_only(lite_checkpoint, tmp_path, capsys):
    arguments = ["--out", str(tmp_path / "x"), "--modulator-weights", "vgg_16.ckpt"]
    assert main(["import-tf1", lite_checkpoint, *arguments]) == 2
    assert "--modulator-weights: only for OSVOS parents; OSMN lite" in capsys.readouterr().err
    assert main(["import-tf1", lite_checkpoint, *arguments, "--network", "OSVOS"]) == 2
    assert "--network: OSMN lite (MobileNet-v1) becomes an OSMN, received OSVOS" in capsys.readouterr().err


def test_export_refuses_what_the_release_does_not_have(tiny_reconvnet, tiny_osmn, tmp_path):
    with pytest.raises(InputError, match="expected one of OSMN, OSVOS, received a ReConvNet"):
        tf1_checkpoint.export_checkpoint(tiny_reconvnet, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match=r"not of the release's form.*visual_hidden=8 instead of 2048"):
        tf1_checkpoint.export_checkpoint(tiny_osmn, tmp_path / "a.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_classifiers_go_into_vgg_networks_only(tiny_osmn, tmp_path):
    with pytest.raises(InputError, match="backbone='vgg16'"):
        tf1_checkpoint.initialise_vgg16(tiny_osmn, tmp_path / "vgg_16.ckpt")


# Recognition -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "shapes", "count", "parameters"),
    [
        ("osmn_vgg16", release.vgg_shapes(), 87, 165_277_953),
        ("osmn_vgg16_early", release.vgg_shapes(early=True), 97, 165_277_953 + 384 * 4097 + 5 * 384),
        ("osmn_lite", release.lite_shapes(), 310, 12_777_217),
        ("osvos", release.osvos_shapes(), 52, None),
        ("slim_vgg16", release.slim_vgg16_shapes(), 33, 138_357_544 + 3),
    ],
)
def test_each_form_is_recognised_with_all_its_shapes(key, shapes, count, parameters):
    form = recognise(shapes)
    assert form is not None
    assert form.key == key
    assert len(shapes) == count
    assert shapes.keys() == form.tensors.keys()
    assert all(spec.fits(shapes[name]) for name, spec in form.tensors.items())
    if parameters is not None:
        assert sum(int(np.prod(shape)) for shape in shapes.values()) == parameters
    targets = [target for spec in form.tensors.values() for target in spec.targets]
    assert len(targets) == len(set(targets))


def test_forms_have_keys_of_their_own():
    assert [form.key for form in all_forms()] == [
        "osmn_lite",
        "osmn_vgg16",
        "osmn_vgg16_early",
        "osvos",
        "osvos_as_osmn",
        "slim_vgg16",
    ]


def test_training_state_is_told_from_weights():
    names = ["osmn/a/weights", "train/osmn/a/weights/Adam_1", "osmn/a/weights/Momentum", "osmn/b/Adam", "global_step"]
    names += ["beta1_power", "train/beta2_power_1", "osmn/global_step_weights"]
    assert training_state(names) == {
        "train/osmn/a/weights/Adam_1": "Adam slot of the optimiser",
        "osmn/a/weights/Momentum": "Momentum slot of the optimiser",
        "global_step": "step counter",
        "beta1_power": "Adam's running power",
        "train/beta2_power_1": "Adam's running power",
    }

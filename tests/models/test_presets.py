"""Preset folders: round trips, and every way in which the files can be wrong."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest
from support import NARROW_VGG, TINY, TINY_VGG, box_mask, call, numpy, object_batch, randomise

import osmn_tf
from osmn_tf.errors import InputError
from osmn_tf.models import presets
from osmn_tf.models.osmn import OSMN
from osmn_tf.models.reconvnet import ReConvNet


@pytest.fixture(scope="module")
def osmn():
    """An OSMN that is built in no time. Shared by all tests: do not change it."""
    return randomise(OSMN(**TINY_VGG, network_size=(64, 96)), seed=2)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, osmn):
    """A preset that is written once; tests that damage it take a copy."""
    folder = tmp_path_factory.mktemp("presets") / "saved"
    osmn.save_to_preset(folder, {"data": "none", "licence": "CC0"})
    return folder


@pytest.fixture
def preset(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "preset")


def rewrite(folder, change):
    """Changes the weight file and gives the metadata its new checksum: damage that no checksum finds."""
    with h5py.File(folder / presets.WEIGHTS_FILE, "r+") as file:
        change(file)
    metadata = json.loads((folder / "metadata.json").read_text())
    metadata["sha256"] = hashlib.sha256((folder / presets.WEIGHTS_FILE).read_bytes()).hexdigest()
    (folder / "metadata.json").write_text(json.dumps(metadata))


def datasets(file):
    names = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


# Round trips ------------------------------------------------------------------------------------------------------


@pytest.mark.backend
def test_float32_round_trip_is_exact(tiny_reconvnet, tmp_path):
    tiny_reconvnet.save_to_preset(tmp_path / "new" / "preset", {"licence": "CC0"})
    assert sorted(path.name for path in (tmp_path / "new" / "preset").iterdir()) == [
        "config.json", "metadata.json", "model.weights.h5",
    ]  # fmt: skip
    copy = osmn_tf.load(tmp_path / "new" / "preset")
    assert type(copy) is ReConvNet
    assert {w.path: w.shape for w in copy.weights} == {w.path: w.shape for w in tiny_reconvnet.weights}
    for found, expected in zip(copy.weights, tiny_reconvnet.weights):
        np.testing.assert_array_equal(numpy(found), numpy(expected))
    expected, found = tiny_reconvnet.get_config(), copy.get_config()
    assert expected == found
    assert (copy.recurrent_channels, copy.decoder, copy.network_size) == ([4, 6, 8], "refinement", (64, 96))


@pytest.fixture(scope="module")
def wide_reconvnet():
    """Kernels of up to half a million numbers, so that they are most of a file. Do not change its weights."""
    arguments = {**TINY, "block_channels": (64, 128, 256, 512, 1024), "recurrent_channels": (4, 6, 8)}
    return randomise(ReConvNet(**arguments, decoder="refinement"), seed=1)


@pytest.fixture(scope="module")
def full_size(wide_reconvnet, tmp_path_factory):
    """Bytes of its weights as float32."""
    folder = tmp_path_factory.mktemp("presets") / "full"
    wide_reconvnet.save_to_preset(folder)
    return (folder / "model.weights.h5").stat().st_size


@pytest.mark.parametrize(("dtype", "bits", "size"), [("float16", 11, 0.6), ("bfloat16", 8, 0.5)])
def test_rounded_weights_round_trip(wide_reconvnet, full_size, tmp_path, dtype, bits, size):
    wide_reconvnet.save_to_preset(tmp_path / "rounded", dtype=dtype)
    assert (tmp_path / "rounded" / "model.weights.h5").stat().st_size < size * full_size
    copy = osmn_tf.load(str(tmp_path / "rounded"))
    for found, expected in zip(copy.weights, wide_reconvnet.weights):
        assert found.dtype == "float32"
        expected = numpy(expected)
        np.testing.assert_array_equal(numpy(found), expected.astype(ml_dtypes.finfo(dtype).dtype).astype(np.float32))
        np.testing.assert_allclose(numpy(found), expected, rtol=2.0**-bits, atol=1e-6)
    batch = object_batch(copy, 1, 64, 96)
    expected = numpy(call(wide_reconvnet, batch)["logits"])
    # A weight is wrong by half a step at most, and errors of twenty layers do not add up in one direction.
    assert np.abs(numpy(call(copy, batch)["logits"]) - expected).mean() < 40 * 2.0**-bits * expected.std()


def test_weights_beyond_float16_are_refused(tmp_path):
    model = OSMN(**TINY_VGG)
    variance = next(weight for weight in model.weights if weight.path.endswith("moving_variance"))
    variance.assign(np.full(variance.shape, 1e5, np.float32))
    with pytest.raises(InputError, match="dtype: float16 ends at 65504, and a weight is 100000; expected bfloat16 or"):
        model.save_to_preset(tmp_path / "half", dtype="float16")
    assert not list((tmp_path / "half").iterdir())
    model.save_to_preset(tmp_path / "rounded", dtype="bfloat16")
    assert all(np.isfinite(numpy(weight)).all() for weight in osmn_tf.load(tmp_path / "rounded").weights)


def test_kernels_of_few_significant_bits(wide_reconvnet, tmp_path):
    """Large kernels are at most half a step off, all else is as it was; and they pack to less."""
    wide_reconvnet.save_to_preset(tmp_path / "few", dtype="float16", significant_bits=5)
    wide_reconvnet.save_to_preset(tmp_path / "half", dtype="float16")
    few, half = ((tmp_path / name / "model.weights.h5").stat().st_size for name in ("few", "half"))
    assert few < 0.8 * half
    assert presets.read_metadata(tmp_path / "few")["significant_bits"] == 5
    rounded = 0
    for weight, original in zip(osmn_tf.load(tmp_path / "few").weights, wide_reconvnet.weights, strict=True):
        found, right = numpy(weight), numpy(original).astype(np.float16).astype(np.float32)
        if found.ndim > 1 and found.size > 2000:
            np.testing.assert_allclose(found, right, rtol=1 / 30, atol=1e-6)
            fractions = np.frexp(found[np.abs(found) > 1e-3])[0] * 2**5
            np.testing.assert_array_equal(fractions, np.rint(fractions))
            rounded += 1
        else:
            np.testing.assert_array_equal(found, right)
    assert rounded > 3
    with pytest.raises(InputError, match=r"significant_bits: expected 1..24, received 0"):
        wide_reconvnet.save_to_preset(tmp_path / "none", significant_bits=0)
    assert not (tmp_path / "none").exists()


def test_metadata(saved, osmn):
    metadata = presets.read_metadata(saved)
    assert metadata["data"] == "none"
    assert metadata["licence"] == "CC0"
    assert metadata["weights_dtype"] == "float32"
    assert metadata["parameters"] == osmn.count_params()
    assert metadata["sha256"] == hashlib.sha256((saved / "model.weights.h5").read_bytes()).hexdigest()
    assert metadata["osmn_tf_version"] == osmn_tf.__version__


def test_networks_with_dropout_can_be_saved(tmp_path):
    """Dropout has a variable, its seed, that is none of the network's weights."""
    model = randomise(OSMN(block_channels=NARROW_VGG, visual_hidden=8))
    model.save_to_preset(tmp_path)
    copy = osmn_tf.load(tmp_path)
    assert copy.visual_head == "fc"
    for found, expected in zip(copy.weights, model.weights):
        np.testing.assert_array_equal(numpy(found), numpy(expected))


def test_a_trained_model_s_optimizer_is_left_out(tmp_path):
    model = OSMN(**TINY_VGG)
    model.compile(optimizer="adam", loss=keras.losses.BinaryCrossentropy(from_logits=True), metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    model.save_to_preset(tmp_path / "after")
    with h5py.File(tmp_path / "after" / "model.weights.h5") as file:
        assert "optimizer" not in file
        assert len(presets._datasets(file)) == len(model.weights)
    for found, expected in zip(osmn_tf.load(tmp_path / "after").weights, model.weights, strict=True):
        np.testing.assert_array_equal(numpy(found), numpy(expected))


def test_keras_files_load_by_the_same_function(osmn, tmp_path):
    osmn.save(tmp_path / "model.keras")
    copy = osmn_tf.load(tmp_path / "model.keras")
    assert type(copy) is OSMN
    for found, expected in zip(copy.weights, osmn.weights):
        np.testing.assert_array_equal(numpy(found), numpy(expected))


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("kind", ["preset", "keras"])
def test_precision_is_chosen_at_loading(kind, preset, osmn, tmp_path):
    path = preset
    if kind == "keras":
        path = tmp_path / "model.keras"
        osmn.save(path)
    before = keras.config.dtype_policy()
    model = presets.load(path, "mixed_bfloat16")
    assert keras.config.dtype_policy() == before
    assert {x.dtype for x in model.frame_encoder.output.values()} == {"bfloat16"}
    for weight, given in zip(model.weights, osmn.weights, strict=True):
        assert weight.dtype == "float32"
        np.testing.assert_array_equal(weight, given)
    with pytest.raises(InputError, match="precision: expected one of float32, mixed_bfloat16, mixed_float16, received"):
        presets.load(path, "int8")


def test_saving_again_replaces_the_files(preset, tiny_reconvnet):
    tiny_reconvnet.save_to_preset(preset)
    assert type(osmn_tf.load(preset)) is ReConvNet
    assert "data" not in presets.read_metadata(preset)
    assert len(list(preset.iterdir())) == 3


def test_an_interrupted_save_leaves_the_preset_as_it_was(preset, osmn, monkeypatch):
    before = {path.name: path.read_bytes() for path in preset.iterdir()}

    def interrupted(path):
        path.write_bytes(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(osmn, "save_weights", interrupted)
    with pytest.raises(KeyboardInterrupt):
        osmn.save_to_preset(preset)
    assert {path.name: path.read_bytes() for path in preset.iterdir()} == before


def test_weights_of_an_unknown_dtype_are_refused(osmn, tmp_path):
    with pytest.raises(InputError, match="dtype: expected one of float32, float16, bfloat16, received 'int8'"):
        osmn.save_to_preset(tmp_path / "x", dtype="int8")
    assert not (tmp_path / "x").exists()


def test_a_file_in_the_folder_s_place_is_refused(osmn, tmp_path):
    (tmp_path / "x").write_text("mine")
    with pytest.raises(InputError, match="expected a folder"):
        osmn.save_to_preset(tmp_path / "x")


# Names ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def shipped(saved, monkeypatch, tmp_path):
    """An installation that ships two presets."""
    for name in ("first", "second"):
        shutil.copytree(saved, tmp_path / "shipped" / name)
    monkeypatch.setattr(presets, "_shipped_folders", lambda: [tmp_path / "shipped"])
    return tmp_path / "shipped"


def test_presets_are_listed_and_load_by_name(shipped):
    (shipped / "no_preset").mkdir()
    assert presets.list_presets() == {"first": shipped / "first", "second": shipped / "second"}
    assert type(osmn_tf.load("second")) is OSMN
    assert presets.read_metadata("first")["licence"] == "CC0"


@pytest.mark.parametrize("name", ["nothing", "a/b/c"])
def test_unknown_names_list_what_there_is(shipped, name):
    message = f"preset: no preset, folder or .keras file named '{name}'; shipped presets: first, second"
    with pytest.raises(InputError, match=re.escape(message)):
        osmn_tf.load(name)


def test_a_folder_without_config_is_named(shipped, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"the folder .*empty has no config.json; shipped presets: first, second"):
        osmn_tf.load(tmp_path / "empty")


# Damage -----------------------------------------------------------------------------------------------------------


def test_truncated_weights(preset):
    path = preset / "model.weights.h5"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(InputError, match=r"model.weights.h5 is damaged"):
        osmn_tf.load(preset)
    (preset / "metadata.json").unlink()  # without a checksum too
    with pytest.raises(InputError, match="does not fit the network or is damaged"):
        osmn_tf.load(preset)


def test_one_flipped_bit(preset):
    path = preset / "model.weights.h5"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"its SHA-256 is not the one in metadata.json"):
        osmn_tf.load(preset)


def test_changed_checksum(preset):
    metadata = json.loads((preset / "metadata.json").read_text())
    (preset / "metadata.json").write_text(json.dumps({**metadata, "sha256": "0" * 64}))
    with pytest.raises(InputError, match="is damaged"):
        osmn_tf.load(preset)


def test_missing_weight_file(preset):
    (preset / "model.weights.h5").unlink()
    with pytest.raises(InputError, match=r"the weight file .* is missing"):
        osmn_tf.load(preset)


def test_a_missing_weight(preset, osmn):
    count = len(osmn.weights)

    def change(file):
        del file[next(name for name in datasets(file) if "seg_score" in name or name.endswith("/0"))]

    rewrite(preset, change)
    with pytest.raises(InputError, match=f"holds {count - 1} weights, the network has {count}"):
        osmn_tf.load(preset)


def test_a_weight_too_many(preset, osmn):
    count = len(osmn.weights)
    rewrite(preset, lambda file: file.create_dataset("layers/stray/vars/0", data=np.zeros(3)))
    with pytest.raises(InputError, match=f"holds {count + 1} weights, the network has {count}"):
        osmn_tf.load(preset)


def test_a_weight_of_another_shape(preset):
    def change(file):
        name = next(name for name in datasets(file) if file[name].ndim == 4)
        shape = file[name].shape
        del file[name]
        file.create_dataset(name, data=np.zeros((*shape[:3], shape[3] + 1), np.float32))

    rewrite(preset, change)
    with pytest.raises(InputError, match="does not fit the network or is damaged"):
        osmn_tf.load(preset)


def test_a_weight_under_another_name(preset):
    def change(file):
        name = next(name for name in datasets(file) if file[name].ndim == 4)
        file.move(name, "layers/stray/vars/0")

    rewrite(preset, change)
    with pytest.raises(InputError, match="does not fit the network or is damaged"):
        osmn_tf.load(preset)


def test_a_weight_that_is_a_link_to_nowhere(preset):
    def change(file):
        name = next(name for name in datasets(file) if file[name].ndim == 4)
        del file[name]
        file[name] = h5py.SoftLink("/nowhere")

    rewrite(preset, change)
    with pytest.raises(InputError, match="does not fit the network or is damaged"):
        osmn_tf.load(preset)


def test_weights_of_another_network(preset, saved):
    document = json.loads((preset / "config.json").read_text())
    document["config"]["side_channels"] = 8
    (preset / "config.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="does not fit the network or is damaged"):
        osmn_tf.load(preset)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": "RNN"}, r"needs 'class' \(.*OSMN or .*ReConvNet.*\)"),
        ({"class": None}, r"needs 'class' \(.*OSMN or .*ReConvNet.*\)"),
        ({"class": ["OSMN"]}, r"needs 'class' \(.*OSMN or .*ReConvNet.*\)"),
        ({"config": [1, 2]}, "its arguments as 'config'"),
        ({"config": {**TINY, "backbone": "resnet"}}, "config.json: backbone: expected one of mobilenet, .*vgg16"),
        ({"config": {**TINY, "colour": "red"}}, "config.json: .*colour"),
        ({"config": {**TINY, "guide_size": "large"}}, "config.json: "),
        ({"config": {**TINY, "network_size": [64]}}, "config.json: "),
    ],
)
def test_wrong_configurations(preset, change, message):
    document = json.loads((preset / "config.json").read_text())
    (preset / "config.json").write_text(json.dumps({**document, **change}))
    with pytest.raises(InputError, match=message) as caught:
        osmn_tf.load(preset)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff"])
@pytest.mark.parametrize("name", ["config.json", "metadata.json"])
def test_files_that_are_no_json_objects(preset, name, content):
    (preset / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=f"{name} (is not readable JSON|should hold a JSON object)"):
        osmn_tf.load(preset)


def test_damaged_keras_files(osmn, tmp_path):
    with pytest.raises(InputError, match=r"the file .*none.keras does not exist"):
        osmn_tf.load(tmp_path / "none.keras")
    osmn.save(tmp_path / "model.keras")
    assert presets.read_metadata(tmp_path / "model.keras") == {}
    (tmp_path / "cut.keras").write_bytes((tmp_path / "model.keras").read_bytes()[:10000])
    with pytest.raises(InputError, match=r"cut.keras is not a readable .keras file"):
        osmn_tf.load(tmp_path / "cut.keras")


@pytest.mark.parametrize("command", ["segment", "export", "export-tf1"])
def test_commands_name_a_missing_file(command, tmp_path, capsys):
    from osmn_tf.cli.main import main
    from osmn_tf.masks.files import write_mask

    (tmp_path / "video").mkdir()
    keras.utils.save_img(tmp_path / "video" / "0.png", np.zeros((32, 48, 3)), scale=False)
    write_mask(tmp_path / "mask.png", box_mask(32, 48, (4, 20, 4, 20)))
    words = {
        "segment": [str(tmp_path / "video"), "--mask", str(tmp_path / "mask.png"), "--out", str(tmp_path / "out")],
        "export": ["--format", "litert", "--out", str(tmp_path / "out")],
        "export-tf1": ["--out", str(tmp_path / "out")],
    }[command]
    assert main([command, *words, "--preset", str(tmp_path / "nosuch.keras")]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert f"preset: the file {tmp_path / 'nosuch.keras'} does not exist; shipped presets:" in errors[0]


def test_keras_files_of_other_models_are_refused(osmn, tmp_path):
    osmn.visual_modulator.save(tmp_path / "part.keras")
    with pytest.raises(InputError, match=r"holds a Functional, expected one of .*OSMN, "):
        osmn_tf.load(tmp_path / "part.keras")


def test_equal_weights_are_written_once_and_come_back(tmp_path) -> None:
    """A frozen trunk that a network has twice takes no room twice; shapes that differ are told apart."""

    def named_and_stored(folder: Path) -> tuple[int, int]:
        places: dict[object, int] = {}

        def count(group: h5py.Group) -> int:
            total = 0
            for item in group.values():
                if isinstance(item, h5py.Dataset):
                    places[h5py.h5o.get_info(item.id).addr] = item.nbytes
                    total += item.nbytes
                else:
                    total += count(item)
            return total

        with h5py.File(folder / "model.weights.h5") as file:
            return count(file), sum(places.values())

    network = osmn_tf.load("osmn_match_lite")
    expected = [numpy(weight) for weight in network.weights]
    for dtype in ("float16", "float32"):
        presets.save_preset(network, tmp_path / dtype, {}, dtype)
    for folder in (presets.list_presets()["osmn_match_lite"], tmp_path / "float16", tmp_path / "float32"):
        named, stored = named_and_stored(folder)
        assert stored < 0.7 * named
    for dtype in ("float16", "float32"):
        for weight in network.weights:
            weight.assign(np.full(weight.shape, np.nan, np.float32))
        presets.load_weights(network, tmp_path / dtype / presets.WEIGHTS_FILE)
        for weight, same in zip(network.weights, expected, strict=True):
            np.testing.assert_array_equal(numpy(weight), same)

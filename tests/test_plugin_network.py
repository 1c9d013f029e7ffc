"""A network that is added by one file outside the package: nothing in the package names it."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import osmn_tf as osmn
from osmn_tf.cli.main import main
from osmn_tf.errors import InputError
from osmn_tf.masks.drawing import write_image
from osmn_tf.models import presets, registry
from osmn_tf.training import config as cfg
from osmn_tf.training import stages
from tests.training.conftest import make_data

PLUGIN = '''
"""Objects are those pixels that are as bright as the object was when it was given."""

import keras
import numpy as np
from keras import ops

from osmn_tf.inference.merging import merge_logits
from osmn_tf.inference.predictor import Prediction, Predictor, register_predictor
from osmn_tf.models.network import Network
from osmn_tf.models.registry import register_network


@register_network("PluginBrightness")
class Brightness(Network):
    def __init__(self, gain=1.0, network_size=(32, 48), **kwargs):
        frame = keras.Input((None, None, 3), dtype="uint8", name="frame")
        x = keras.layers.Rescaling(1 / 255)(frame)
        x = keras.layers.Conv2D(1, 1, kernel_initializer=keras.initializers.Constant(gain / 3), name="mean")(x)
        super().__init__(frame, x, **kwargs)
        self.gain = gain
        self.network_size = tuple(network_size)

    def get_config(self):
        return {"name": self.name, "gain": self.gain, "network_size": list(self.network_size)}


@register_predictor("PluginBrightness")
class BrightnessPredictor(Predictor):
    zero_shot = True

    def __init__(self, network, options):
        options.refuse("brightness has no guides", "exclusive", "recover")
        self.network, self.merge = network, options.merge
        self.forget()

    @property
    def network_size(self):
        return None

    @property
    def objects(self):
        return len(self.levels)

    def forget(self):
        self.levels = np.zeros(0, np.float32)

    def brightness(self, frame):
        return ops.convert_to_numpy(self.network(frame[None]))[0, ..., 0]

    def begin(self, frame, masks):
        image = self.brightness(frame)
        masks = image[None] > 0.5 if masks is None else masks
        levels = [image[mask != 0].mean() for mask in masks]
        self.levels = np.concatenate([self.levels, levels]).astype(np.float32)

    def keep(self, indices):
        self.levels = self.levels[list(indices)]

    def advance(self, frame):
        logits = 10 * (0.1 - np.abs(self.brightness(frame)[None] - self.levels[:, None, None]))
        return Prediction(merge_logits(logits, self.merge), lambda: logits)

    def snapshot(self):
        return {"levels": self.levels}

    def restore(self, snapshot):
        self.levels = snapshot["levels"]
'''


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    path = tmp_path_factory.mktemp("elsewhere") / "plugin_network.py"
    path.write_text(PLUGIN)
    spec = importlib.util.spec_from_file_location("plugin_network", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["plugin_network"] = module
    spec.loader.exec_module(module)
    return module


def clip() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Two boxes, grey and white, that move; their masks with labels 4 and 9."""
    frames, masks = [], []
    for t in range(4):
        frame, mask = np.zeros((32, 48, 3), np.uint8), np.zeros((32, 48), np.uint8)
        mask[4 : 12 + t, 2 + t : 14 + t], mask[18:28, 30 - t : 40 - t] = 4, 9
        frame[mask == 4], frame[mask == 9] = 90, 250
        frames.append(frame)
        masks.append(mask)
    return frames, masks


def test_is_found_by_name(plugin: ModuleType) -> None:
    assert registry.NETWORKS.get("PluginBrightness") is plugin.Brightness
    assert {"OSMN", "PluginBrightness", "ReConvNet"} <= set(registry.NETWORKS.names())
    assert set(registry.constructor_arguments("PluginBrightness")) == {"gain", "network_size"}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_preset_round_trip(plugin: ModuleType, tmp_path: Path, dtype: str) -> None:
    network = plugin.Brightness(gain=0.7, network_size=(24, 40))
    network.save_to_preset(tmp_path / "preset", {"licence": "CC0"}, dtype)
    assert json.loads((tmp_path / "preset" / "config.json").read_text())["class"] == "PluginBrightness"
    network.save(tmp_path / "network.keras")
    folder, file = osmn.load(tmp_path / "preset"), osmn.load(tmp_path / "network.keras", precision="float32")
    for copy, stored in ((folder, dtype), (file, "float32")):
        assert type(copy) is plugin.Brightness
        assert copy.get_config() == network.get_config()
        for found, expected in zip(copy.get_weights(), network.get_weights(), strict=True):
            np.testing.assert_array_equal(found, expected.astype(stored))


@pytest.mark.parametrize("kind", ["model", "folder", "keras"])
def test_segments(plugin: ModuleType, tmp_path: Path, kind: str) -> None:
    network = plugin.Brightness()
    network.save_to_preset(tmp_path / "preset")
    network.save(tmp_path / "network.keras")
    segmenter = osmn.VideoSegmenter(
        {"model": network, "folder": tmp_path / "preset", "keras": tmp_path / "network.keras"}[kind], keep_scores=True
    )
    frames, masks = clip()
    for (_, found), expected in zip(segmenter.track(frames, masks[0]), masks, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert set(segmenter.scores) == {4, 9}
    for (_, found), expected in zip(segmenter.track_both_ways(frames, {2: masks[2]}), masks, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_goes_on_from_a_snapshot(plugin: ModuleType) -> None:
    frames, masks = clip()
    first, second = (osmn.VideoSegmenter(plugin.Brightness()) for _ in range(2))
    first.start(frames[0], masks[0])
    first.remove(9)
    second.restore(first.snapshot())
    np.testing.assert_array_equal(second.step(frames[1]), np.where(masks[1] == 4, 4, 0))


def test_finds_objects_by_itself(plugin: ModuleType) -> None:
    """The white box is found, under the label 1."""
    frames, masks = clip()
    for (_, found), expected in zip(osmn.VideoSegmenter(plugin.Brightness()).track(frames), masks, strict=True):
        np.testing.assert_array_equal(found, expected == 9)


def test_refuses_what_it_cannot(plugin: ModuleType) -> None:
    network = plugin.Brightness()
    frames, masks = clip()
    with pytest.raises(InputError, match="recover: brightness has no guides, received False"):
        osmn.VideoSegmenter(network, recover=False)
    with pytest.raises(InputError, match="adapt: this network cannot be fine-tuned"):
        osmn.VideoSegmenter(network).finetune([(frames[0], masks[0])], 1)


def test_trains_with_its_own_task_and_comes_back(tmp_path: Path) -> None:
    """`tiny_network.py` is such a file too: a network, its training task and its predictor."""
    import tiny_network

    make_data(tmp_path / "data")
    (tmp_path / "tiny.yaml").write_text(tiny_network.CONFIG)
    settings = [f"data.root={tmp_path / 'data'}", "train.steps=2", "train.deterministic=false"]
    config = cfg.load(tmp_path / "tiny.yaml", settings)
    assert config.task == tiny_network.TinyTask()
    before = config.task.build(config).get_weights()
    result = stages.train(config, tmp_path / "run", progress=False)
    assert result.step == 2
    final = presets.load(tmp_path / "run/final")
    assert isinstance(final, tiny_network.TinyNet)
    for a, b, c in zip(result.model.get_weights(), final.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()
    # It was validated by tracking, with its own predictor.
    assert result.best == presets.read_metadata(tmp_path / "run/best")["validation"]
    assert 0 <= result.best["j_mean"] <= 1
    # The run's own configuration names the task; the next stage starts from the preset.
    again = cfg.load(tmp_path / "run/config.yaml", [f"model.initial={tmp_path / 'run/final'}"])
    assert again.task == config.task
    for a, b in zip(again.task.build(again).get_weights(), final.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_evaluates(plugin: ModuleType, tmp_path: Path) -> None:
    plugin.Brightness().save_to_preset(tmp_path / "brightness")
    data = tmp_path / "DAVIS"
    for folder in ("JPEGImages/480p/clip", "Annotations/480p/clip", "ImageSets/2017"):
        (data / folder).mkdir(parents=True)
    (data / "ImageSets/2017/val.txt").write_text("clip\n")
    for t, (frame, mask) in enumerate(zip(*clip())):
        write_image(data / f"JPEGImages/480p/clip/{t:05d}.png", frame)
        labels = np.searchsorted([4, 9], mask, "right").astype(np.uint8)  # DAVIS numbers its objects from 1 on
        osmn.write_mask(data / f"Annotations/480p/clip/{t:05d}.png", labels)
    assert main(["evaluate", str(data), "--preset", str(tmp_path / "brightness"), "--out", str(tmp_path / "out")]) == 0
    table = (tmp_path / "out/brightness/global_results-val.csv").read_text().splitlines()
    assert table[1].split(",")[:2] == ["1.000", "1.000"]
    assert "clip" in {path.stem for path in (tmp_path / "out/results/brightness").iterdir()}

"""Which engine runs a preset: pure choices over files, without a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from osmn_tf import errors
from osmn_tf.errors import InputError, MissingDependencyError
from osmn_tf.files import file_digest
from osmn_tf.inference import engines
from osmn_tf.inference.predictor import PredictorOptions, find_network
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.jobs.options import SegmentOptions
from osmn_tf.jobs.segment import find_source
from osmn_tf.models.presets import DEFAULT_PRESET, WEIGHTS_FILE, list_presets, read_metadata
from osmn_tf.runtime.network import read_metadata as read_export
from tests.jobs.drift import Drift

BOTH = ("ai_edge_litert", "keras", "tensorflow")


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A preset's folder, with LiteRT files for 64 x 96 by their metadata alone, and what is installed."""

    def make(
        quantization: str | None = "int8",
        weights: str = "a",
        installed: tuple[str, ...] = BOTH,
        square: tuple[int, int] | None = None,
        larger: Sequence[tuple[int, int]] = (),
    ) -> Path:
        folder = tmp_path / "preset"
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "metadata.json").write_text(json.dumps({"sha256": "a"}))
        if quantization is not None:
            (folder / "litert").mkdir()
            facts = {
                "format": "osmn_tf.litert",
                "format_version": 1,
                "network_size": [64, 96],
                "objects": 1,
                "guide_size": 32,
                "guide_background": [1, 2, 3],
                "modulation_size": 5,
                "features": {},
                "state": {},
                "files": {},
                "quantization": quantization,
                "source": {"sha256": weights},
                **({} if square is None else {"square": {"network_size": square}}),
                "larger": [{"network_size": size} for size in larger],
            }
            (folder / "litert" / "metadata.json").write_text(json.dumps(facts))
        monkeypatch.delenv("KERAS_BACKEND", raising=False)
        for where in (engines, errors):
            monkeypatch.setattr(where, "is_installed", lambda module: module in installed)
        return folder

    return make


@pytest.mark.parametrize(
    ("preset", "options", "adapts", "expected"),
    [
        ({}, {}, False, "litert"),
        ({}, {"engine": "litert"}, False, "litert"),
        ({}, {"engine": "keras"}, False, "keras"),
        ({}, {"network_size": (64, 96), "threads": 1, "merge": "soft"}, False, "litert"),
        ({}, {"network_size": (96, 64)}, False, "keras"),
        ({"square": (80, 80)}, {"network_size": (80, 80)}, False, "litert"),
        ({"square": (80, 80)}, {"network_size": (96, 96)}, False, "keras"),
        ({}, {"scale": 1.5}, False, "keras"),
        ({"larger": [(80, 128), (96, 96)]}, {"scale": 1.36}, False, "litert"),
        ({"larger": [(80, 128), (96, 96)]}, {"scale": 1.5}, False, "keras"),
        ({}, {}, True, "keras"),
        ({}, {"precision": "float32"}, False, "keras"),
        ({"quantization": "none"}, {"precision": "float32"}, False, "litert"),
        ({"quantization": "none"}, {"precision": "mixed_bfloat16"}, False, "keras"),
        ({"quantization": None}, {}, False, "keras"),
        # Someone has trained the preset further and left the files as they were.
        ({"weights": "b"}, {}, False, "keras"),
        ({"installed": BOTH[1:]}, {}, False, "keras"),
        ({"installed": BOTH[:1]}, {}, False, "litert"),
    ],
)
def test_what_runs(make: Callable[..., Path], preset: dict, options: dict, adapts: bool, expected: str) -> None:
    folder = make(**preset)
    source = find_network(folder, PredictorOptions(**options), adapts)
    assert (source.engine, source.needs_backend) == (expected, expected == "keras")
    assert source.kind == "a preset"
    assert source.path == (folder / "litert" if expected == "litert" else folder)


@pytest.mark.parametrize(
    ("preset", "options", "adapts", "message"),
    [
        ({}, {"engine": "tflite"}, False, "engine: expected one of auto, litert, keras, received 'tflite'"),
        ({}, {"engine": "litert"}, True, "engine: fine-tuning needs Keras, received 'litert'"),
        (
            {},
            {"engine": "litert", "network_size": (32, 32)},
            False,
            "engine: another network size than 64 x 96 needs Keras, received 'litert'",
        ),
        (
            {},
            {"engine": "litert", "scale": 1.5},
            False,
            "engine: 1.5 times the network size needs Keras, received 'litert'",
        ),
        (
            {},
            {"engine": "litert", "precision": "mixed_float16"},
            False,
            "engine: the precision mixed_float16 needs Keras, received 'litert'",
        ),
        (
            {"weights": "b"},
            {"engine": "litert"},
            False,
            "engine: a preset whose litert/ is of other weights needs Keras, received 'litert'",
        ),
        (
            {"quantization": None},
            {"engine": "litert"},
            False,
            "engine: a preset has no LiteRT files, received 'litert'",
        ),
    ],
)
def test_what_an_engine_cannot_do(
    make: Callable[..., Path], preset: dict, options: dict, adapts: bool, message: str
) -> None:
    folder = make(**preset)
    with pytest.raises(InputError) as error:
        find_network(folder, PredictorOptions(**options), adapts)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("preset", "options", "adapts", "message"),
    [
        ({}, {}, False, "running a preset's LiteRT files needs the package 'ai-edge-litert', .*[runtime]"),
        ({}, {"engine": "litert"}, False, "running a preset's LiteRT files needs the package 'ai-edge-litert'"),
        (
            {},
            {"engine": "keras"},
            False,
            "with Keras, not with --engine litert, needs the package 'keras', .*osmn-tf[tf]",
        ),
        ({}, {}, True, "fine-tuning needs the package 'keras', .*osmn-tf[tf]"),
        ({}, {"network_size": (32, 64)}, False, "another network size than 64 x 96 needs the package 'keras'"),
        ({"quantization": None}, {}, False, "a preset without LiteRT files needs the package 'keras', .*osmn-tf[tf]"),
        ({"installed": ("keras",)}, {}, True, "fine-tuning needs the package 'tensorflow', .*osmn-tf[tf]"),
    ],
)
def test_what_is_not_installed(
    make: Callable[..., Path], preset: dict, options: dict, adapts: bool, message: str
) -> None:
    folder = make(**{"installed": (), **preset})
    pattern = message.replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(MissingDependencyError, match=pattern) as error:
        find_network(folder, PredictorOptions(**options), adapts)
    assert "\n" not in str(error.value)


def test_the_environment_says_which_backend_but_not_that_it_is_needed(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make()
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert find_network(folder).engine == "litert"
    with pytest.raises(MissingDependencyError, match=r"'jax', which is not installed: .*osmn-tf\[jax\]"):
        find_network(folder, adapts=True)


def test_networks_that_are_no_presets_have_one_engine(make: Callable[..., Path]) -> None:
    exported = make() / "litert"
    assert find_network(exported, PredictorOptions(engine="litert")).engine == "litert"
    for x, engine, message in (
        (exported, "keras", "engine: a LiteRT export does not run on Keras, received 'keras'"),
        ("grpc://localhost:8500/any", "litert", "engine: a network on a server has no choice of engine"),
        ("http://localhost:8501/any", "keras", "engine: a network on a server has no choice of engine"),
    ):
        with pytest.raises(InputError, match=message):
            find_network(x, PredictorOptions(engine=engine))


def test_a_job_that_fine_tunes_runs_on_keras(make: Callable[..., Path]) -> None:
    folder = make()
    assert find_source(SegmentOptions("clip.mp4", preset=folder)).engine == "litert"
    assert find_source(SegmentOptions("clip.mp4", preset=folder, finetune=1)).engine == "keras"


class _Fixed(Drift):
    """In the place of LiteRT files."""

    can_adapt = False


def test_a_segmenter_goes_over_to_keras_to_be_fine_tuned(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []

    def open_keras(name: str, options: PredictorOptions) -> Drift:
        opened.append(options.engine)
        return Drift()

    folder = make()
    monkeypatch.setattr("osmn_tf.inference.loading._load", open_keras)
    monkeypatch.setattr("osmn_tf.runtime.predictor.ExportedPredictor", lambda *_: _Fixed())
    frame, mask = np.zeros((32, 48, 3), np.uint8), np.ones((32, 48), np.uint8)
    segmenter = VideoSegmenter(folder)
    assert (type(segmenter.predictor), opened) == (_Fixed, [])
    with segmenter.finetune([(frame, mask)], steps=2):
        assert (type(segmenter.predictor), segmenter.predictor.trained, opened) == (Drift, 2, ["auto"])
        weights = segmenter.adapted_weights()
    with segmenter.finetune([(frame, mask)], steps=1):  # it stays with Keras
        assert opened == ["auto"]
    other = VideoSegmenter(folder)
    with other.load_adapted(weights):
        assert other.predictor.trained == 2
    with pytest.raises(InputError, match="engine: fine-tuning needs Keras, received 'litert'"):
        VideoSegmenter(folder, engine="litert").finetune([(frame, mask)], steps=1)


def test_the_default_preset_ships() -> None:
    assert DEFAULT_PRESET in list_presets()
    # Wide videos and all others run on its LiteRT files, at their size and at that of `--quality good`.
    source = engines.find_litert(list_presets()[DEFAULT_PRESET])
    assert list(read_export(source)[1].sizes) == [(352, 608), (464, 464), (480, 832), (624, 624)]
    assert sum(path.stat().st_size for path in list_presets()[DEFAULT_PRESET].rglob("*")) <= 30e6


@pytest.mark.parametrize("folder", list_presets().values(), ids=list_presets())
def test_shipped_litert_files_are_of_the_shipped_weights(folder: Path) -> None:
    """What `osmn export` has noted of the weights is what the preset knows, and what its weights are."""
    exported = engines.find_litert(folder)
    if exported is None:
        pytest.skip("this preset runs on Keras alone")
    metadata = read_export(exported)[1]
    assert metadata.weights == read_metadata(folder)["sha256"] == file_digest(folder / WEIGHTS_FILE)
    assert {name: digest for name, digest in metadata.files.values()} == {
        path.name: file_digest(path) for path in exported.glob("*.tflite")
    }
    assert metadata.files

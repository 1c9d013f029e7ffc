"""LiteRT files: what is written, what is quantised, what is refused. Their numbers are in tests/runtime."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest
from support import (
    BACKEND,
    MATCHING,
    TINY,
    WHOLE_NETWORK,
    assert_close,
    box_mask,
    passed_through,
    random_frames,
    randomise,
)

from osmn_tf.errors import InputError
from osmn_tf.inference.predictor import PredictorOptions
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.resampling import resize_frame

if BACKEND != "tensorflow":
    pytest.skip("LiteRT files are made with TensorFlow", allow_module_level=True)

from osmn_tf.export import litert
from osmn_tf.export.litert import export_litert
from osmn_tf.export.steps import step_of
from osmn_tf.models.osmn import OSMN

pytestmark = pytest.mark.filterwarnings("ignore:.*np.object.*:FutureWarning")


@pytest.fixture(scope="module")
def small_clip() -> tuple[list[np.ndarray], np.ndarray]:
    """Six frames with two objects, of another size than the network's."""
    return [random_frames(80, 100, seed=t) for t in range(6)], box_mask(80, 100, (10, 50, 10, 60), (40, 75, 50, 95))


@pytest.fixture(scope="module", params=["dynamic", "int8"])
def quantized(request, tiny_reconvnet, small_clip, tmp_path_factory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    calibration = [small_clip] if request.param == "int8" else None
    source = {"preset": "somewhere"}
    return request.param, export_litert(
        tiny_reconvnet, folder, quantize=request.param, calibration=calibration, source=source
    )


def scores(segmenter, clip: tuple[list[np.ndarray], np.ndarray]) -> dict[int, np.ndarray]:
    """Of the clip's objects in its second frame."""
    segmenter.start(clip[0][0], clip[1])
    segmenter.step(clip[0][1])
    return segmenter.scores


@pytest.fixture(scope="module")
def float_scores(tiny_reconvnet, small_clip) -> dict[int, np.ndarray]:
    return scores(VideoSegmenter(tiny_reconvnet, keep_scores=True), small_clip)


def graphs_of(network, objects: int) -> litert._Graphs:
    step = step_of(network, PredictorOptions((64, 96)), litert._GRAPHS)
    return litert._Graphs(step, objects)


def graph_types(path: Path) -> tuple[set[str], list[str]]:
    """Operators of a file, and the data types of its tensors."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    types = [np.dtype(detail["dtype"]).name for detail in interpreter.get_tensor_details()]
    return {detail["op_name"] for detail in interpreter._get_ops_details()}, types


def int8_operators(path: Path) -> Counter[str]:
    """How many operators of each kind give int8."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    int8 = {detail["index"] for detail in interpreter.get_tensor_details() if detail["dtype"] == np.int8}
    return Counter(
        detail["op_name"] for detail in interpreter._get_ops_details() if int8.intersection(detail["outputs"])
    )


def test_quantized_files(quantized, tiny_reconvnet, small_clip, float_scores) -> None:
    kind, folder = quantized
    step = folder / "step.tflite"
    operators, types = graph_types(step)
    weights = 4 * sum(int(np.prod(weight.shape)) for weight in tiny_reconvnet.object_network.weights)
    # A byte a weight, and the graph; with two bytes it would be half.
    assert 0.24 * weights < step.stat().st_size < 0.4 * weights
    # No operators beyond the built-in ones, and the type of numbers that was asked for.
    assert not any(name.startswith("Flex") or name == "CUSTOM" for name in operators)
    assert ("QUANTIZE" in operators) == (kind == "int8")
    # "dynamic" leaves small kernels as they are.
    assert types.count("int8") > {"dynamic": 5, "int8": 30}[kind]
    if kind == "int8":
        assert types.count("float32") < 0.2 * len(types)

    # The same scores as the float network, within what numbers of this size allow.
    allowed = {"dynamic": 0.12, "int8": 0.15}[kind]
    for label, score in scores(VideoSegmenter(folder, keep_scores=True), small_clip).items():
        expected = float_scores[label]
        assert np.abs(score - expected).mean() < allowed * expected.std()
        assert expected.std() > 0.05


def test_metadata(quantized, tiny_reconvnet) -> None:
    kind, folder = quantized
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["format"] == "osmn_tf.litert"
    assert metadata["quantization"] == kind
    assert metadata["source"] == {"preset": "somewhere"}
    assert (metadata["network"], metadata["network_size"], metadata["objects"]) == ("ReConvNet", [64, 96], 1)
    assert (metadata["guide_size"], metadata["guide_background"]) == (32, list(tiny_reconvnet.guide_background))
    assert metadata["state"]["Conv2d_5_lstm_h"] == [2, 3, 8]
    assert len(metadata["state"]) == 6
    assert "square" not in metadata  # only what matches has two sizes
    for file in metadata["files"].values():
        content = (folder / file["name"]).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert sorted(path.name for path in folder.iterdir()) == [
        "encoder.tflite",
        "metadata.json",
        "modulator.tflite",
        "step.tflite",
    ]


def test_signatures_have_names(quantized) -> None:
    from ai_edge_litert.interpreter import Interpreter

    signatures = Interpreter(str(quantized[1] / "step.tflite")).get_signature_list()
    states = [f"Conv2d_{block}_lstm_{part}" for block in (3, 4, 5) for part in "hc"]
    assert list(signatures) == ["step"]
    assert sorted(signatures["step"]["outputs"]) == sorted([*states, "logits"])
    assert sorted(signatures["step"]["inputs"]) == sorted([*states, "Conv2d_2", "skip2", "modulation", "spatial_guide"])


def test_float16_weights(tmp_path) -> None:
    """Of one graph only, with enough of them: what is done with the others is the same."""
    network = OSMN(**TINY, block_channels=(128, 256, 8, 8, 8))
    path = tmp_path / "encoder.tflite"
    path.write_bytes(litert._convert({"": graphs_of(network, 1)}, "encoder", "float16", ()))
    weights = sum(int(np.prod(weight.shape)) for weight in network.frame_encoder.weights)
    operators, types = graph_types(path)
    assert types.count("float16") >= 10
    assert not any(name.startswith("Flex") or name == "CUSTOM" for name in operators)
    assert path.stat().st_size < 3 * weights
    assert litert._BY_GRAPH["float16"] == dict.fromkeys(["modulator", "encoder", "step"], "float16")


def test_calibration_runs_the_network_with_its_own_states_and_guides(tiny_reconvnet, small_clip, monkeypatch) -> None:
    monkeypatch.setattr(litert, "CALIBRATION_STEPS", 8)
    graphs = graphs_of(tiny_reconvnet, 2)
    samples = list(litert.calibration_samples(graphs, "step", [small_clip]))
    assert len(samples) == 8  # four frames with each of the two objects
    assert all(not samples[index]["Conv2d_4_lstm_h"].any() for index in (0, 4))
    first = {name: keras.ops.convert_to_tensor(value) for name, value in samples[0].items()}
    outputs = tiny_reconvnet.object_network(first)
    for name in graphs.state:
        assert_close(samples[1][name], outputs[name], WHOLE_NETWORK)
    np.testing.assert_array_equal(samples[0]["spatial_guide"], samples[1]["spatial_guide"])  # of the given mask
    assert np.abs(samples[2]["spatial_guide"] - samples[1]["spatial_guide"]).max() > 0.01
    assert samples[0]["spatial_guide"].shape == (2, 64, 96, 1)
    assert np.abs(samples[4]["modulation"] - samples[0]["modulation"]).max() > 1e-4


def test_around_a_shared_trunk_int8_is_convolutions(small_clip, tmp_path) -> None:
    network = randomise(OSMN(**TINY, **MATCHING), seed=6)
    folder = export_litert(network, tmp_path, quantize="int8", calibration=[small_clip])
    for graph, part in (("encoder", network.frame_encoder), ("step", network.object_network)):
        operators, _ = graph_types(folder / f"{graph}.tflite")
        assert not any(name.startswith("Flex") or name == "CUSTOM" for name in operators)
        computed = int8_operators(folder / f"{graph}.tflite")
        depthwise = sum(isinstance(x, keras.layers.DepthwiseConv2D) for x in part.layers)
        assert computed.pop("DEPTHWISE_CONV_2D", 0) == depthwise
        assert computed.pop("CONV_2D") == sum(isinstance(x, keras.layers.Conv2D) for x in part.layers)
        # What changes no number, or only averages, stays between convolutions as it is.
        assert computed.keys() <= {"QUANTIZE", "STRIDED_SLICE", "AVERAGE_POOL_2D"}
    assert passed_through((folder / "step.tflite").read_bytes()) == set()
    expected = scores(VideoSegmenter(network, keep_scores=True, search_window=False), small_clip)
    received = scores(VideoSegmenter(folder, keep_scores=True, search_window=False), small_clip)
    for label, score in received.items():
        assert np.abs(score - expected[label]).mean() < 0.15 * expected[label].std()
        assert expected[label].std() > 0.05


def test_an_encoder_is_calibrated_on_the_clips_frames(tiny_reconvnet, small_clip, monkeypatch) -> None:
    monkeypatch.setattr(litert, "CALIBRATION_STEPS", 8)
    samples = list(litert.calibration_samples(graphs_of(tiny_reconvnet, 1), "encoder", [small_clip]))
    expected = [resize_frame(frame, (64, 96))[None] for frame in small_clip[0][:4]]
    np.testing.assert_array_equal([sample["frame"] for sample in samples], expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"quantize": "int4"},
            "quantize: expected one of none, float16, compact, smallest, dynamic, int8, received 'int4'",
        ),
        ({"quantize": "int8"}, "calibration: quantize='int8' needs clips"),
        ({"quantize": "int8", "calibration": []}, "calibration: quantize='int8' needs clips"),
        ({"objects": 0}, "objects: expected at least 1, received 0"),
        ({"size": (16, 96)}, "size: expected at least 32 x 32 pixels, received 16 x 96"),
    ],
)
def test_refused_arguments(tiny_reconvnet, tmp_path, arguments, message) -> None:
    with pytest.raises(InputError, match=message):
        export_litert(tiny_reconvnet, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (([], np.ones((80, 100), np.uint8)), "received none"),
        (([random_frames(40, 50)], np.ones((80, 100), np.uint8)), r"\[80, 100\], received \[40, 50, 3\]"),
        (([random_frames(80, 100)], np.zeros((80, 100), np.uint8)), "has no object in it"),
    ],
)
def test_refused_clips(tiny_reconvnet, clip, message) -> None:
    graphs = graphs_of(tiny_reconvnet, 1)
    with pytest.raises(InputError, match=f"calibration: .*{message}"):
        next(litert.calibration_samples(graphs, "step", [clip]))


@pytest.mark.parametrize("mixed_precision", ["mixed_bfloat16"], indirect=True)
def test_half_precision_models_are_refused(mixed_precision, tmp_path) -> None:
    with pytest.raises(InputError, match=r"model: expected one that computes in float32, received bfloat16"):
        export_litert(OSMN(**TINY), tmp_path / "out")

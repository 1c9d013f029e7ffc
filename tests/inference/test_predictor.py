"""What sessions share of one network, how much is kept, and what `open_predictor` takes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from support import box_mask, count_calls, needs_tensorflow, numpy, random_frames

import osmn_tf as osmn
from osmn_tf.errors import InputError
from osmn_tf.inference.compilation import CompiledGraphs, compile_function
from osmn_tf.inference.modulated import ModulatedPredictor, ModulatedStep
from osmn_tf.inference.predictor import PredictorOptions, find_network, open_predictor
from osmn_tf.inference.segmenter import VideoSegmenter

FRAMES = list(random_frames(4, 70, 110))
MASK = box_mask(70, 110, (10, 40, 10, 50), (30, 66, 60, 100))


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A name for every time that a function of a network is traced."""
    names: list[str] = []
    for name in ("modulate", "step"):
        count_calls(monkeypatch, ModulatedStep, name, names)
    return names


def masks_of(segmenter: VideoSegmenter, mask: np.ndarray = MASK) -> np.ndarray:
    return np.stack([found for _, found in segmenter.track(FRAMES, mask)])


def test_sessions_of_a_network_compile_once(tiny_reconvnet, traced: list[str]) -> None:
    """Also a second video, sessions that take turns, and one that begins when the first has ended."""
    size = (64, 64)  # of which nothing is compiled yet
    first = VideoSegmenter(tiny_reconvnet, size)
    expected = masks_of(first)
    assert sorted(traced) == ["modulate", "step"]
    np.testing.assert_array_equal(masks_of(first), expected)
    second = VideoSegmenter(tiny_reconvnet, size)
    turns = [segmenter.track(FRAMES, MASK) for segmenter in (first, second)]
    for index, pairs in enumerate(zip(*turns, strict=True)):
        for _, found in pairs:
            np.testing.assert_array_equal(found, expected[index])
    first.close()
    np.testing.assert_array_equal(masks_of(VideoSegmenter(tiny_reconvnet, size)), expected)
    assert sorted(traced) == ["modulate", "step"]
    soft = VideoSegmenter(tiny_reconvnet, size, merge="soft").predictor
    assert isinstance(soft, ModulatedPredictor)
    assert soft.step is not second.predictor.step  # another setting is another program


def test_the_least_recently_used_goes() -> None:
    made: list[str] = []

    def get(key: str) -> None:
        assert graphs.get(key, lambda: made.append(key) or key) == key

    graphs = CompiledGraphs(limit=2)
    for key in "ababcab":
        get(key)
    assert made == ["a", "b", "c", "a", "b"]  # c took the place of a, and so on
    get("b")
    get("a")
    get("c")  # takes the place of b
    get("a")
    assert made == ["a", "b", "c", "a", "b", "c"]
    assert len(graphs) == 2


@pytest.mark.backend
def test_functions_that_share_their_graphs_do_not_mix() -> None:
    graphs = CompiledGraphs()
    double, square = (compile_function(f, [], graphs) for f in (lambda x: 2 * x, lambda x: x * x))
    x = np.array([3.0, 4.0], np.float32)
    assert [np.asarray(f(x)).tolist() for f in (double, square, double)] == [[6, 8], [9, 16], [6, 8]]
    times = compile_function(lambda x, by: by * x, [], graphs)
    assert [np.asarray(times(x, by=by)).tolist() for by in (2, 3, 2)] == [[6, 8], [9, 12], [6, 8]]


@needs_tensorflow
@pytest.mark.usefixtures("eagerly")
def test_no_graph_is_made_where_tensorflow_runs_without() -> None:
    calls: list[int] = []
    graphs = CompiledGraphs()
    double = compile_function(lambda x, by: (calls.append(by), by * x)[1], [], graphs)
    for by in (2, 2, 3):
        assert np.asarray(double(np.array([3.0, 4.0], np.float32), by=by)).tolist() == [3 * by, 4 * by]
    assert (calls, len(graphs)) == ([2, 2, 3], 0)


def test_what_a_name_is_of(tiny_reconvnet, tmp_path, monkeypatch) -> None:
    shipped = find_network("reconvnet_lite")
    assert shipped.path == osmn.list_presets()["reconvnet_lite"]
    assert shipped.needs_backend
    tiny_reconvnet.save_to_preset(tmp_path / "tiny")
    tiny_reconvnet.save(tmp_path / "tiny.keras")
    assert find_network(str(tmp_path / "tiny")).path == find_network(tmp_path / "tiny").path == tmp_path / "tiny"
    for path in (tmp_path / "tiny", tmp_path / "tiny.keras"):
        network = VideoSegmenter(path).predictor.network
        assert network.get_config() == tiny_reconvnet.get_config()
        for found, expected in zip(network.weights, tiny_reconvnet.weights, strict=True):
            np.testing.assert_array_equal(numpy(found), numpy(expected))
    # A folder that is called like a shipped preset does not come before it.
    (tmp_path / "reconvnet_lite").mkdir()
    (tmp_path / "reconvnet_lite" / "saved_model.pb").touch()
    monkeypatch.chdir(tmp_path)
    assert find_network("reconvnet_lite").path == shipped.path


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ("nosuch", "no preset, folder or .keras file named 'nosuch'"),
        ("nosuch.keras", "the file nosuch.keras does not exist"),
        ("nosuch.tflite", "the file nosuch.tflite does not exist"),
        (
            {"a": 1},
            r"expected one that has a predictor \(.*OSMN.*\), or the name, path or address of one, received dict",
        ),
        (None, "expected one that has a predictor"),
    ],
)
def test_what_is_no_network(x: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        VideoSegmenter(x)
    assert "\n" not in str(error.value)


def test_options_without_a_choice_are_refused(tiny_osmn) -> None:
    with pytest.raises(InputError, match="merge: expected one of argmax, soft, painted, received 'hard'"):
        VideoSegmenter(tiny_osmn, merge="hard")
    with pytest.raises(InputError, match="network_size: expected at least 32 x 32 pixels, received 16 x 64"):
        VideoSegmenter(tiny_osmn, (16, 64))
    with pytest.raises(InputError, match=r"scale: expected 0.25 to 4 times the network's own size, received 0.1"):
        VideoSegmenter(tiny_osmn, scale=0.1)
    with pytest.raises(InputError, match=r"network_size: there is none beside a scale, 1.5 here .*received 64x96"):
        VideoSegmenter(tiny_osmn, (64, 96), scale=1.5)
    with pytest.raises(InputError, match=r"scale: only networks that match see more in larger frames .*received 1.5"):
        VideoSegmenter(tiny_osmn, scale=1.5)
    with pytest.raises(InputError, match="precision: a network that is loaded computes in what it was made with"):
        VideoSegmenter(tiny_osmn, precision="mixed_bfloat16")
    with pytest.raises(InputError, match="threads: is not applicable to a network that Keras runs, received 2"):
        VideoSegmenter(tiny_osmn, threads=2)
    predictor = ModulatedPredictor(tiny_osmn)
    assert open_predictor(predictor) is predictor
    with pytest.raises(InputError, match="exclusive: a predictor has its options already, received False"):
        open_predictor(predictor, PredictorOptions(exclusive=False))


def test_the_segmenter_needs_no_keras() -> None:
    probe = """import sys
import osmn_tf.inference.segmenter, osmn_tf.client.predictor, osmn_tf.runtime.predictor
raise SystemExit(bool({"keras", "tensorflow", "jax", "torch"} & set(sys.modules)))"""
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0

"""A matching network as LiteRT files, against the Keras segmenter: the state that NumPy carries starts and stays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support import BACKEND, MATCHING, TINY, passed_through, randomise

from osmn_tf import InputError, VideoSegmenter
from osmn_tf.inference.adaptation.quality import LARGER
from osmn_tf.models.osmn import OSMN

if BACKEND != "tensorflow":
    pytest.skip("LiteRT files are made with TensorFlow", allow_module_level=True)


@pytest.fixture(scope="module")
def network() -> OSMN:
    return randomise(OSMN(**TINY, **MATCHING), seed=6)


@pytest.fixture(scope="module")
def one_size(network, tmp_path_factory) -> Path:
    """For two objects at a time; the converter is told to use built-in operators only."""
    from osmn_tf.export.litert import export_litert

    return export_litert(network, tmp_path_factory.mktemp("matching"), size=(64, 96), objects=2)


@pytest.fixture(scope="module")
def all_sizes(network, tmp_path_factory) -> Path:
    """For one object at a time, for videos that are not wide too, and of both for larger frames."""
    from osmn_tf.export.litert import export_litert

    return export_litert(network, tmp_path_factory.mktemp("sizes"), scales=[LARGER])


@pytest.fixture(params=["one_size", "all_sizes"])
def matching_export(request) -> Path:
    return request.getfixturevalue(request.param)


def test_no_output_is_an_input(one_size, all_sizes) -> None:
    # The frame's key is the next frame's state, unchanged.
    shipped = Path(__file__).parents[2] / "saved_models/osmn_match_lite/litert"
    for folder in (one_size, all_sizes, shipped):
        for graph in ("modulator", "encoder", "step"):
            assert passed_through((folder / f"{graph}.tflite").read_bytes()) == set()


def test_scores_are_those_of_the_keras_segmenter(network, matching_export, frames, first_mask) -> None:
    segmenters = [
        make(source, keep_scores=True)
        for make, source in ((VideoSegmenter, matching_export), (VideoSegmenter, network))
    ]
    for segmenter in segmenters:
        segmenter.start(frames[0], first_mask)
    for frame in frames[1:4]:
        received, expected = ([mask, s.scores] for s in segmenters for mask in [s.step(frame)])
        assert (received[0] == expected[0]).mean() > 0.999
        for label, score in expected[1].items():
            # A pixel of a guide that falls on the other side of zero may change what follows.
            assert np.median(np.abs(received[1][label] - score)) < 1e-4


def test_rough_masks_are_answered_as_by_keras(network, matching_export, frames, first_mask) -> None:
    masks = np.stack([first_mask == label for label in (1, 2)]).astype(np.uint8)
    exported, keras = (VideoSegmenter(source).predictor for source in (matching_export, network))
    received, expected = exported.probe(frames[0], masks), keras.probe(frames[0], masks)
    assert (received == expected).mean() > 0.999
    for predictor in (exported, keras):
        predictor.begin(frames[0], masks)
        assert (predictor.advance(frames[0]).winners != expected).mean() > 0.01  # here, where they were given only


def test_an_interrupted_video_goes_on_as_it_was(network, frames, first_mask) -> None:
    whole, again = VideoSegmenter(network), VideoSegmenter(network)
    whole.start(frames[0], first_mask)
    whole.step(frames[1])
    again.restore(whole.snapshot())
    for frame in frames[2:4]:
        np.testing.assert_array_equal(again.step(frame), whole.step(frame))
    whole.remove(2)
    assert whole.step(frames[4]).max() == 3


# Videos that are not wide, and larger frames -------------------------------------------------------------------------


def _upright(frames: list[np.ndarray], mask: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    return [np.ascontiguousarray(frame.swapaxes(0, 1)) for frame in frames], np.ascontiguousarray(mask.T)


def _assert_equal(segmenters: list[VideoSegmenter], video: list[np.ndarray], mask: np.ndarray, size: tuple) -> None:
    """Both see the video at this size and give the same masks."""
    for segmenter in segmenters:
        segmenter.reset()
        segmenter.start(video[0], mask)
        assert segmenter.network_size == size
    for frame in video[1:]:
        received, expected = (segmenter.step(frame) for segmenter in segmenters)
        assert (received == expected).mean() > 0.999


def test_the_square_graphs_are_what_keras_computes(network, all_sizes, frames, first_mask) -> None:
    segmenters = [VideoSegmenter(all_sizes), VideoSegmenter(network)]
    upright, upright_mask = _upright(frames, first_mask)
    for video, mask, size in (
        (upright, upright_mask, (80, 80)),
        (frames, first_mask, (64, 96)),  # the same segmenters go on with a wide one
        (upright, upright_mask, (80, 80)),
    ):
        _assert_equal(segmenters, video[:4], mask, size)


def test_the_larger_graphs_are_what_keras_computes(network, all_sizes, frames, first_mask) -> None:
    segmenters = [VideoSegmenter(source, scale=LARGER) for source in (all_sizes, network)]
    for video, mask, size in ((*_upright(frames, first_mask), (96, 96)), (frames, first_mask, (80, 128))):
        _assert_equal(segmenters, video[:3], mask, size)
    with pytest.raises(InputError, match=r"scale: .* it was exported for \('osmn export --scales' .*, received 1\.5"):
        VideoSegmenter(all_sizes, scale=1.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scales": [1.0]}, "scales: expected others than 1, received 1"),
        ({"scales": [5.0]}, "scale: expected 0.25 to 4 times the network's own size, received 5"),
        ({"scales": [LARGER], "size": (64, 96)}, r"scales: expected .* no network size with them, received \(64, 96\)"),
    ],
)
def test_scales_that_cannot_be_had(network, tmp_path, arguments: dict, message: str) -> None:
    from osmn_tf.export.litert import export_litert

    with pytest.raises(InputError, match=message):
        export_litert(network, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_scales_are_of_networks_that_match(tiny_osmn, tmp_path) -> None:
    from osmn_tf.export.litert import export_litert

    with pytest.raises(InputError, match=r"scales: expected a network that matches, .* received 2"):
        export_litert(tiny_osmn, tmp_path / "out", scales=[2.0])
    assert not (tmp_path / "out").exists()


def test_a_size_that_is_asked_for_is_taken(network, all_sizes, frames, first_mask) -> None:
    upright, mask = _upright(frames, first_mask)
    for source in (network, all_sizes):
        for video, given, size in ((upright, mask, (64, 96)), (frames, first_mask, (80, 80))):
            segmenter = VideoSegmenter(source, network_size=size)
            segmenter.start(video[0], given)
            assert segmenter.network_size == size
    with pytest.raises(InputError, match="for 64 x 96, 80 x 80, 80 x 128 and 96 x 96 and runs at no other size"):
        VideoSegmenter(all_sizes, network_size=(96, 112))


def test_equal_weights_are_kept_once(one_size, all_sizes) -> None:
    # Of the weights of the encoder and the step nothing is there twice: the rest is a graph's description.
    for graph in ("encoder", "step"):
        one, four = ((folder / f"{graph}.tflite").stat().st_size for folder in (one_size, all_sizes))
        assert four < 2.5 * one


def test_files_of_one_size_take_all_videos(one_size, frames, first_mask) -> None:
    upright, mask = _upright(frames, first_mask)
    segmenter = VideoSegmenter(one_size)
    segmenter.start(upright[0], mask)
    assert segmenter.network_size == (64, 96)
    assert segmenter.step(upright[1]).shape == mask.shape


def test_an_interrupted_upright_video_goes_on_as_it_was(network, all_sizes, frames, first_mask) -> None:
    upright, mask = _upright(frames, first_mask)
    for source in (network, all_sizes):
        whole, again = VideoSegmenter(source), VideoSegmenter(source)
        whole.start(upright[0], mask)
        whole.step(upright[1])
        again.restore(whole.snapshot())
        assert again.network_size == (80, 80)
        for frame in upright[2:4]:
            np.testing.assert_array_equal(again.step(frame), whole.step(frame))


def test_metadata_that_names_graphs_of_another_size_is_refused(all_sizes, one_size, tmp_path) -> None:
    content = json.loads((all_sizes / "metadata.json").read_text(encoding="utf-8"))
    square = content["square"]
    for number, (source, described, message) in enumerate(
        (
            (all_sizes, {**square, "network_size": [96, 112]}, r"damaged or incomplete \(ValueError: the size of its"),
            (all_sizes, {"network_size": [80, 80]}, "expected the output"),
            (all_sizes, "80x80", r"metadata\.json is damaged or incomplete"),
            # Files of one size, of which it is said that they have two.
            (one_size, square, r"encoder\.tflite is no LiteRT file that can be run"),
        )
    ):
        folder = shutil.copytree(source, tmp_path / str(number))
        own = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
        (folder / "metadata.json").write_text(json.dumps({**own, "square": described}), encoding="utf-8")
        with pytest.raises(InputError, match=message):
            VideoSegmenter(folder, network_size=described["network_size"] if described != "80x80" else None)

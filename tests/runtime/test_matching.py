"""A matching network as LiteRT files, against the Keras segmenter: the state that NumPy carries starts and stays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support import BACKEND, MATCHING, TINY, randomise

from osmn_tf import InputError, VideoSegmenter
from osmn_tf.models.osmn import OSMN

if BACKEND != "tensorflow":
    pytest.skip("LiteRT files are made with TensorFlow", allow_module_level=True)


@pytest.fixture(scope="module")
def network() -> OSMN:
    return randomise(OSMN(**TINY, **MATCHING), seed=6)


@pytest.fixture(scope="module", params=[1, 2])
def matching_export(request, network, tmp_path_factory):
    """For one or two objects at a time; the converter is told to use built-in operators only."""
    from osmn_tf.export.litert import export_litert

    return export_litert(network, tmp_path_factory.mktemp("matching"), size=(64, 96), objects=request.param)


def test_no_output_is_an_input(matching_export) -> None:
    from osmn_tf.export.litert import passed_through

    # The frame's key is the next frame's state, unchanged.
    shipped = Path(__file__).parents[2] / "saved_models/osmn_match_lite/litert"
    for folder in (matching_export, shipped):
        for graph in ("modulator", "encoder", "step"):
            assert passed_through((folder / f"{graph}.tflite").read_bytes()) == ()


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


# Videos that are not wide -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_sizes(network, tmp_path_factory) -> Path:
    from osmn_tf.export.litert import export_litert

    return export_litert(network, tmp_path_factory.mktemp("square"))


def _upright(frames: list[np.ndarray], mask: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    return [np.ascontiguousarray(frame.swapaxes(0, 1)) for frame in frames], np.ascontiguousarray(mask.T)


def test_the_square_graphs_are_what_keras_computes(network, two_sizes, frames, first_mask) -> None:
    exported, keras = VideoSegmenter(two_sizes), VideoSegmenter(network)
    upright, upright_mask = _upright(frames, first_mask)
    for video, mask, size in (
        (upright, upright_mask, (80, 80)),
        (frames, first_mask, (64, 96)),  # the same segmenters go on with a wide one
        (upright, upright_mask, (80, 80)),
    ):
        for segmenter in (exported, keras):
            segmenter.reset()
            segmenter.start(video[0], mask)
            assert segmenter.network_size == size
        for frame in video[1:4]:
            assert (exported.step(frame) == keras.step(frame)).mean() > 0.999


def test_a_size_that_is_asked_for_is_taken(network, two_sizes, frames, first_mask) -> None:
    upright, mask = _upright(frames, first_mask)
    for source in (network, two_sizes):
        for video, given, size in ((upright, mask, (64, 96)), (frames, first_mask, (80, 80))):
            segmenter = VideoSegmenter(source, network_size=size)
            segmenter.start(video[0], given)
            assert segmenter.network_size == size
    with pytest.raises(InputError, match="was exported for 64 x 96 and 80 x 80 and runs at no other size"):
        VideoSegmenter(two_sizes, network_size=(96, 96))


def test_equal_weights_are_kept_once(matching_export, two_sizes) -> None:
    # Of the weights of the encoder and the step nothing is there twice: the rest is a graph's description.
    for graph in ("encoder", "step"):
        one, two = ((folder / f"{graph}.tflite").stat().st_size for folder in (matching_export, two_sizes))
        assert two < 1.5 * one


def test_files_of_one_size_take_all_videos(matching_export, frames, first_mask) -> None:
    upright, mask = _upright(frames, first_mask)
    segmenter = VideoSegmenter(matching_export)
    segmenter.start(upright[0], mask)
    assert segmenter.network_size == (64, 96)
    assert segmenter.step(upright[1]).shape == mask.shape


def test_an_interrupted_upright_video_goes_on_as_it_was(network, two_sizes, frames, first_mask) -> None:
    upright, mask = _upright(frames, first_mask)
    for source in (network, two_sizes):
        whole, again = VideoSegmenter(source), VideoSegmenter(source)
        whole.start(upright[0], mask)
        whole.step(upright[1])
        again.restore(whole.snapshot())
        assert again.network_size == (80, 80)
        for frame in upright[2:4]:
            np.testing.assert_array_equal(again.step(frame), whole.step(frame))


def test_metadata_that_names_graphs_of_another_size_is_refused(two_sizes, matching_export, tmp_path) -> None:
    content = json.loads((two_sizes / "metadata.json").read_text(encoding="utf-8"))
    square = content["square"]
    for number, (source, described, message) in enumerate(
        (
            (two_sizes, {**square, "network_size": [96, 96]}, r"damaged or incomplete \(ValueError: the size of its"),
            (two_sizes, {"network_size": [80, 80]}, "expected the output"),
            (two_sizes, "80x80", r"metadata\.json is damaged or incomplete"),
            # Files of one size, of which it is said that they have two.
            (matching_export, square, r"encoder\.tflite is no LiteRT file that can be run"),
        )
    ):
        folder = shutil.copytree(source, tmp_path / str(number))
        own = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
        (folder / "metadata.json").write_text(json.dumps({**own, "square": described}), encoding="utf-8")
        with pytest.raises(InputError, match=message):
            VideoSegmenter(folder, network_size=described["network_size"] if described != "80x80" else None)


def test_only_what_matches_has_two_sizes(exported) -> None:
    assert "square" not in json.loads((exported / "metadata.json").read_text(encoding="utf-8"))

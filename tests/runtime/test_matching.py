"""A matching network as LiteRT files, against the Keras segmenter: the state that NumPy carries starts and stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import BACKEND, MATCHING, TINY, randomise

from osmn_tf import VideoSegmenter
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

    return export_litert(network, tmp_path_factory.mktemp("matching"), objects=request.param)


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

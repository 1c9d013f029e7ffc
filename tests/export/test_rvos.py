"""An RVOS as a SavedModel: the segmenter's masks and scores, with any number of objects and frames of any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import BACKEND, TINY_RVOS, box_mask, random_frames, randomise

from osmn_tf.errors import InputError
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.models.rvos import RVOS

if BACKEND != "tensorflow":
    pytest.skip("SavedModels are made with TensorFlow", allow_module_level=True)

import tensorflow as tf

from osmn_tf.client.saved_model_predictor import SavedModelPredictor
from osmn_tf.export.rvos_graph import RVOSModule
from osmn_tf.export.saved_model import export_saved_model, make_record

MASK = box_mask(80, 110, (5, 35, 5, 40), (40, 70, 60, 100), (8, 30, 60, 100))
FRAMES = list(random_frames(3, 80, 110, seed=1))


@pytest.fixture(scope="module")
def network() -> RVOS:
    return randomise(RVOS(**TINY_RVOS, name="rvos"), seed=7)


@pytest.fixture(scope="module")
def exported(network: RVOS, tmp_path_factory: pytest.TempPathFactory) -> SavedModelPredictor:
    folder = export_saved_model(network, tmp_path_factory.mktemp("models"), warm_up=False)
    return SavedModelPredictor(folder, encoding="png")


def test_the_masks_are_the_segmenters(network: RVOS, exported: SavedModelPredictor) -> None:
    """What a client carries is packed and unpacked; one object goes on alone."""
    server, segmenter = VideoSegmenter(exported), VideoSegmenter(network)
    for each in (server, segmenter):
        each.start(FRAMES[0], MASK)
    for frame in FRAMES[1:]:
        # The previous masks are carried in 255ths.
        assert (server.step(frame) == segmenter.step(frame)).mean() > 0.99
        if segmenter.labels == (1, 2, 3):
            for each in (server, segmenter):
                each.remove([1, 3])


def test_scores_ranks_and_state(network: RVOS, exported: SavedModelPredictor) -> None:
    functions = exported.transport.signatures
    begun = functions["modulate"](frame=tf.constant(FRAMES[0]), mask=tf.constant(MASK))
    carried = dict(begun)
    segmenter = VideoSegmenter(network, keep_scores=True)
    segmenter.start(FRAMES[0], MASK)
    kept = segmenter.snapshot()
    np.testing.assert_allclose(begun["modulation"][:, 0], kept["ranks"], atol=0.01)
    np.testing.assert_array_equal(begun["guide_masks"], 255 * kept["masks"])
    for spec in network.state_specs:
        # What the masks are is exact here: one is bound by rounding, unlike below.
        scale = np.abs(kept[f"state/{spec.name}"]).max()
        np.testing.assert_allclose(begun[spec.name], kept[f"state/{spec.name}"], rtol=0, atol=1e-4 * scale)
    found = functions["step_scores"](frame=tf.constant(FRAMES[1]), **carried)
    segmenter.step(FRAMES[1])
    expected = np.stack(list(segmenter.scores.values()))
    np.testing.assert_allclose(found["scores"], expected, rtol=0, atol=1e-4)
    masks = segmenter.snapshot()["masks"]
    np.testing.assert_allclose(found["guide_masks"].numpy() / 255, masks, rtol=0, atol=0.5 / 255 + 1e-4)
    clip = functions["segment_clip"](frames=tf.constant(np.stack(FRAMES[:2])), mask=tf.constant(MASK))["masks"]
    np.testing.assert_array_equal(clip[1], found["mask"])


def test_independent_objects(network: RVOS) -> None:
    """Each is carried on where none of the others is surer; of the functions alone, which are written as above."""
    independent = RVOS(**TINY_RVOS, independent=True, name="rvos")
    independent.set_weights(network.get_weights())
    segmenter = VideoSegmenter(independent, keep_scores=True)
    step = segmenter.predictor.step
    functions = RVOSModule(step, make_record(step, "float32", b"12345678"))
    carried = functions.begin(tf.constant(FRAMES[0]), tf.constant(MASK))
    _, guide_masks, _, logits = functions.advance(tf.constant(FRAMES[1]), *carried)
    segmenter.start(FRAMES[0], MASK)
    segmenter.step(FRAMES[1])
    scores = np.stack(list(segmenter.scores.values()))
    np.testing.assert_allclose(tf.sigmoid(logits), scores, rtol=0, atol=1e-4)
    masks = segmenter.snapshot()["masks"]
    np.testing.assert_array_equal((masks > 0).sum(0), 1)
    close = np.abs(guide_masks.numpy() / 255 - masks) < 0.5 / 255 + 1e-4
    assert close.mean() > 0.999  # rounding may decide which of two has a pixel


def test_a_network_without_masks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="model: a SavedModel is given masks, expected a network that takes them"):
        export_saved_model(RVOS(**TINY_RVOS, one_shot=False), tmp_path, name="finder", warm_up=False)

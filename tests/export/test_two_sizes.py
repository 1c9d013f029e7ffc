"""A matching network as a SavedModel sees videos that are not wide as squares, as the Keras segmenter does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support import MATCHING, TINY, box_mask, needs_tensorflow, random_frames, randomise

from osmn_tf.client import RemotePredictor, SavedModelPredictor
from osmn_tf.client.transport import ServerError
from osmn_tf.errors import InputError
from osmn_tf.inference.segmenter import VideoSegmenter

pytestmark = needs_tensorflow

UPRIGHT, WIDE = (120, 80), (80, 120)  # of frames; the network runs at 80 x 80 and at 64 x 96


@pytest.fixture(scope="module", autouse=True)
def _graphs_as_they_are():
    """TensorFlow would take longer to rewrite these graphs than to load and run them. What it makes of exported graphs
    is compared in the test of one size.
    """
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


@pytest.fixture(scope="module")
def network():
    from osmn_tf.models.osmn import OSMN

    return randomise(OSMN(**TINY, **MATCHING), seed=6)


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory) -> Path:
    from osmn_tf.export.saved_model import export_saved_model

    return export_saved_model(network, tmp_path_factory.mktemp("two_sizes"), name="tiny", warm_up=False)


@pytest.fixture(scope="module")
def raw(folder) -> SavedModelPredictor:
    return SavedModelPredictor(folder)


@pytest.fixture(scope="module")
def png(raw) -> RemotePredictor:
    return RemotePredictor(raw.transport, "png")


def clip(size: tuple[int, int], count: int = 4) -> tuple[list[np.ndarray], np.ndarray]:
    frames = list(random_frames(count, *size, seed=5))
    return frames, box_mask(*size, (10, 40, 10, 50), (45, 75, 40, 70))


def tracked(source, frames: list[np.ndarray], mask: np.ndarray) -> np.ndarray:
    segmenter = source if isinstance(source, VideoSegmenter) else VideoSegmenter(source)
    return np.stack([segmenter.start(frames[0], mask), *(segmenter.step(frame) for frame in frames[1:])])


@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_masks_are_the_segmenters(network, request, encoding) -> None:
    client = VideoSegmenter(request.getfixturevalue(encoding))
    keras = VideoSegmenter(network)
    for size, expected in ((UPRIGHT, (80, 80)), (WIDE, (64, 96)), (UPRIGHT, (80, 80))):
        frames, mask = clip(size)
        masks = tracked(keras, frames, mask)
        assert keras.network_size == expected
        assert set(np.unique(masks[1:])) >= {0, 1}
        # As in the test of one size: averages between two grey values may be rounded to either.
        assert (tracked(client, frames, mask) != masks).mean() <= 0.002
        if encoding == "raw":
            assert client.network_size == expected


def test_whole_clips(raw) -> None:
    for size in (UPRIGHT, WIDE):
        frames, mask = clip(size, count=3)
        masks = raw.transport.signatures["segment_clip"](frames=np.stack(frames), mask=mask)["masks"]
        np.testing.assert_array_equal(masks, tracked(raw, frames, mask))


def test_sessions_have_the_shapes_that_are_written_down(folder, raw, png) -> None:
    document = json.loads((folder / "assets.extra/osmn_tf.json").read_text(encoding="utf-8"))
    assert document["settings"]["network_size"] == [64, 96]
    assert document["square"]["network_size"] == [80, 80]
    assert document["session"]["digest"] != document["square"]["session"]["digest"]
    signatures = raw.transport.signatures
    for size, described in ((WIDE, document), (UPRIGHT, document["square"])):
        frames, mask = clip(size)
        begun = signatures["modulate"](frame=frames[0], mask=mask)
        for name, shape in described["state"].items():
            assert ["N", *begun[name].shape[1:]] == shape
        png.forget()
        png.begin(frames[0], (mask == 1)[None].astype(np.uint8))
        (session,) = png._carried["session_bytes"]
        assert len(session) == described["session"]["bytes_per_object"]


def test_sessions_of_other_shapes_are_refused(raw) -> None:
    signatures = raw.transport.signatures
    frames, mask = clip(UPRIGHT)
    square = {name: value.numpy() for name, value in signatures["modulate"](frame=frames[0], mask=mask).items()}
    wide_frames, wide_mask = clip(WIDE)
    wide = {name: value.numpy() for name, value in signatures["modulate"](frame=wide_frames[0], mask=wide_mask).items()}
    with pytest.raises(ServerError, match="guide_masks: not of this model, received height and width"):
        raw.transport.predict("step", {"frame": frames[1], **square, "guide_masks": np.ones((2, 64, 64), np.uint8)}, 1)
    with pytest.raises(ServerError, match="not compatible with expected shape"):
        raw.transport.predict("step", {"frame": frames[1], **square, "guide_masks": wide["guide_masks"]}, 1)


def test_warm_up_requests_are_of_the_networks_own_size(network, raw) -> None:
    import tensorflow as tf

    from osmn_tf.export.saved_model import MODULES, make_record
    from osmn_tf.export.serving import warm_up_inputs
    from osmn_tf.export.steps import step_of
    from osmn_tf.inference.predictor import PredictorOptions

    record = make_record(step_of(network, PredictorOptions(), MODULES), "float32", b"12345678")
    inputs = warm_up_inputs(raw.transport.signatures, record)
    assert inputs.keys() == raw.transport.signatures.keys()
    inputs = {name: tf.make_ndarray(value) for name, value in inputs["step"].items()}
    assert inputs["guide_masks"].shape == (1, 64, 96)
    assert raw.transport.predict("step", inputs, 1)["mask"].shape == (64, 96)


def test_a_size_that_is_given_is_the_only_one(network, folder, monkeypatch, tmp_path) -> None:
    from osmn_tf.export import saved_model

    made = []
    monkeypatch.setattr(saved_model, "TwoSizes", lambda *modules: made.append(modules))
    monkeypatch.setattr(saved_model.SegmenterModule, "signatures", lambda self: {})  # tracing takes seconds
    monkeypatch.setattr(saved_model.tf.saved_model, "save", lambda module, path, **_: Path(path).mkdir(parents=True))
    one = saved_model.export_saved_model(network, tmp_path, name="one", network_size=(64, 96), warm_up=False)
    assert made == []
    assert "square" not in json.loads((one / "assets.extra/osmn_tf.json").read_text(encoding="utf-8"))
    with pytest.raises(InputError, match="network_size: an exported network does as it was exported"):
        VideoSegmenter(folder, network_size=(64, 96))


def test_what_has_no_square(network) -> None:
    from osmn_tf.export.saved_model import MODULES
    from osmn_tf.export.steps import square_step, step_of
    from osmn_tf.inference.predictor import PredictorOptions
    from osmn_tf.models.osmn import OSMN

    def of(model, size=None):
        options = PredictorOptions(size)
        return square_step(step_of(model, options, MODULES), options, MODULES)

    square = of(network)
    assert square is not None
    assert square.network_size == (80, 80)
    assert of(network, (64, 96)) is None
    assert of(OSMN(**TINY)) is None  # it does not match
    assert of(OSMN(**{**TINY, **MATCHING, "network_size": (96, 96)})) is None  # it is a square itself

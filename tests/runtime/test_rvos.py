"""An exported RVOS gives the masks of the network that it was made of, whatever the number of objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import (
    BACKEND,
    TINY_RVOS,
    WHOLE_NETWORK,
    assert_close,
    box_mask,
    random_frames,
    randomise,
)

from osmn_tf.errors import InputError
from osmn_tf.inference.predictor import find_network
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.models.rvos import RVOS
from osmn_tf.runtime.rvos import ExportedRVOSPredictor

if BACKEND != "tensorflow":
    pytest.skip("LiteRT files are made with TensorFlow", allow_module_level=True)

from osmn_tf.export.litert import export_litert

pytestmark = pytest.mark.filterwarnings("ignore:.*np.object.*:FutureWarning")

FRAMES = list(random_frames(3, 80, 110, seed=1))
MASK = box_mask(80, 110, (5, 35, 5, 40), (40, 70, 60, 100), (8, 30, 60, 100), (45, 72, 10, 50), (36, 44, 40, 60))


@pytest.fixture(scope="module")
def network() -> RVOS:
    return randomise(RVOS(**TINY_RVOS, slots=3), seed=7)


@pytest.fixture(scope="module")
def exported(network: RVOS, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two objects at a time."""
    return export_litert(network, tmp_path_factory.mktemp("exported"), objects=2)


@pytest.mark.parametrize("count", [1, 5])
def test_the_numbers_are_the_networks(network: RVOS, exported: Path, count: int) -> None:
    given = np.where(count >= MASK, MASK, 0)
    expected, found = (VideoSegmenter(x, keep_scores=True) for x in (network, exported))
    assert isinstance(found.predictor, ExportedRVOSPredictor)
    for (_, right), (_, mask) in zip(expected.track(FRAMES, given), found.track(FRAMES, given), strict=True):
        for label, score in expected.scores.items():
            assert_close(found.scores[label], score, WHOLE_NETWORK)
        assert (mask == right).mean() > 0.999
    for name, value in expected.snapshot().items():
        assert_close(found.snapshot()[name], value, WHOLE_NETWORK, name)
    assert found.labels == tuple(range(1, count + 1))


def test_independent_objects(network: RVOS, tmp_path: Path) -> None:
    """Two at a time: of three, each is carried on where none of the others is surer."""
    independent = RVOS(**TINY_RVOS, independent=True)
    independent.set_weights(network.get_weights())
    expected, found = (
        VideoSegmenter(x, keep_scores=True) for x in (independent, export_litert(independent, tmp_path, objects=2))
    )
    for each in (expected, found):
        each.start(FRAMES[0], np.where(MASK <= 3, MASK, 0))
    for frame in FRAMES[1:]:
        for each in (expected, found):
            each.step(frame)
        for label, score in expected.scores.items():
            assert_close(found.scores[label], score, WHOLE_NETWORK)
        masks = found.snapshot()["masks"]
        np.testing.assert_array_equal((masks > 0).sum(0), 1)
        assert ((masks > 0) == (expected.snapshot()["masks"] > 0)).mean() > 0.999
        found.restore(expected.snapshot())  # rounding may decide which of two has a pixel


def test_it_finds_what_the_network_finds(network: RVOS, exported: Path) -> None:
    expected, found = VideoSegmenter(network), VideoSegmenter(exported)
    for (_, right), (_, mask) in zip(expected.track(FRAMES), found.track(FRAMES), strict=True):
        assert (mask == right).mean() > 0.999
    assert found.labels == expected.labels


def test_a_network_without_masks(tmp_path: Path) -> None:
    network = randomise(RVOS(**TINY_RVOS, one_shot=False, recurrence="spatial"), seed=8)
    folder = export_litert(network, tmp_path)
    for (_, right), (_, found) in zip(*(VideoSegmenter(x).track(FRAMES) for x in (network, folder)), strict=True):
        assert (found == right).mean() > 0.999


def test_refusals(network: RVOS, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="an RVOS is exported as none, float16, compact or dynamic, received 'int8'"):
        export_litert(network, tmp_path, quantize="int8", calibration=[(FRAMES, MASK)])
    with pytest.raises(InputError, match="exported for 64 x 96 and runs at no other size"):
        VideoSegmenter(exported, (64, 64))
    with pytest.raises(InputError, match="exclusive: RVOS carries its soft masks on"):
        VideoSegmenter(exported, exclusive=False)
    assert find_network(str(exported)).kind == "a LiteRT export"
    path = exported.parent / "damaged"
    path.mkdir()
    for file in exported.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    (path / "step.tflite").write_bytes(b"")
    with pytest.raises(InputError, match=r"step\.tflite is damaged or of another export"):
        VideoSegmenter(path)

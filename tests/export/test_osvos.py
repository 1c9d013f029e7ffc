"""An OSVOS that has learnt an object, as LiteRT files and as a SavedModel: it finds this object without Keras."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support import BACKEND, WHOLE_NETWORK, assert_close, box_mask, random_frames, randomise, without_graphs

from osmn_tf.cli.main import main
from osmn_tf.errors import InputError
from osmn_tf.inference.osvos import OSVOSPredictor
from osmn_tf.inference.predictor import AdaptOptions
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.masks.drawing import write_image
from osmn_tf.masks.files import write_mask
from osmn_tf.models.osvos import OSVOS

if BACKEND != "tensorflow":
    pytest.skip("files are exported with TensorFlow", allow_module_level=True)

from osmn_tf.client import RemotePredictor, SavedModelPredictor
from osmn_tf.export.litert import export_litert
from osmn_tf.export.saved_model import export_saved_model
from osmn_tf.runtime.osvos import ExportedOSVOSPredictor

pytestmark = pytest.mark.filterwarnings("ignore:.*np.object.*:FutureWarning")

FRAMES = list(random_frames(3, 80, 110, seed=1))
MASK = box_mask(80, 110, (5, 35, 5, 40))


@pytest.fixture(scope="module")
def network() -> OSVOS:
    arguments = {"network_size": (64, 96), "batch_statistics": False}
    return randomise(OSVOS("short", "refinement", **arguments, name="osvos"), seed=3)


@pytest.fixture(scope="module")
def predictor(network: OSVOS) -> OSVOSPredictor:
    """It has learnt two objects, in one step each."""
    predictor = OSVOSPredictor(network)
    with without_graphs():
        predictor.adapt([(FRAMES[0], box_mask(80, 110, (5, 35, 5, 40), (40, 70, 60, 100)))], AdaptOptions(1, 1e-2))
    return predictor


@pytest.fixture(scope="module")
def expected(predictor: OSVOSPredictor) -> list[np.ndarray]:
    """Scores of the first object."""
    predictor.begin(FRAMES[0], MASK[None])
    found = []
    for frame in FRAMES:
        logits = predictor.advance(frame).logits
        assert logits is not None
        found.append(logits()[0])
    predictor.forget()
    return found


def test_a_network_for_every_object(network: OSVOS, predictor: OSVOSPredictor) -> None:
    first, second = predictor.learnt_networks()
    assert first.get_config() == network.get_config()
    for index, learnt in enumerate((first, second)):
        weights = predictor.adapted_weights()
        for variable in learnt.variables:
            np.testing.assert_array_equal(variable.numpy(), weights[f"object{index}/{variable.path}"])
    assert any((a != b).any() for a, b in zip(first.get_weights(), second.get_weights(), strict=True))
    with pytest.raises(InputError, match="learnt_networks: call adapt first"):
        OSVOSPredictor(network).learnt_networks()


def test_litert(predictor: OSVOSPredictor, expected: list[np.ndarray], tmp_path: Path) -> None:
    folder = export_litert(predictor.learnt_networks()[0], tmp_path / "exported", source={"learnt_object": "a box"})
    assert [path.name for path in folder.glob("*.tflite")] == ["step.tflite"]
    content = json.loads((folder / "metadata.json").read_text())
    assert (content["network"], content["source"]) == ("OSVOS", {"learnt_object": "a box"})
    segmenter = VideoSegmenter(str(folder))
    runner = segmenter.predictor
    assert isinstance(runner, ExportedOSVOSPredictor)
    masks = [mask for _, mask in segmenter.track(FRAMES, MASK)]
    np.testing.assert_array_equal(masks[0], MASK)
    for frame, right, mask in zip(FRAMES[1:], expected[1:], masks[1:], strict=True):
        logits = runner.advance(frame).logits
        assert logits is not None
        assert_close(logits()[0], right, WHOLE_NETWORK)
        assert (mask == (right > 0)).mean() > 0.999
    other = VideoSegmenter(str(folder))
    other.restore(segmenter.snapshot())
    np.testing.assert_array_equal(other.step(FRAMES[2]), masks[2])
    with pytest.raises(InputError, match="an exported OSVOS knows one object, the one that it has learnt; received 2"):
        segmenter.start(FRAMES[0], box_mask(80, 110, (5, 35, 5, 40), (40, 70, 60, 100)))
    with pytest.raises(InputError, match="recover: every frame is segmented on its own"):
        VideoSegmenter(str(folder), recover=False)


def test_saved_model(predictor: OSVOSPredictor, expected: list[np.ndarray], tmp_path: Path) -> None:
    raw = SavedModelPredictor(export_saved_model(predictor.learnt_networks()[0], tmp_path, warm_up=False))
    for exported in (raw, RemotePredictor(raw.transport, "png")):
        masks = [mask for _, mask in VideoSegmenter(exported).track(FRAMES, MASK)]
        for right, mask in zip(expected[1:], masks[1:], strict=True):
            assert (mask == (right > 0)).mean() > 0.999


def test_refusals(network: OSVOS, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="an OSVOS is exported as none, float16, compact or dynamic"):
        export_litert(network, tmp_path, quantize="int8", calibration=[(FRAMES, MASK)])
    with pytest.raises(InputError, match="objects: an OSVOS knows one object, expected 1, received 2"):
        export_litert(network, tmp_path, objects=2)


@pytest.mark.usefixtures("eagerly")
def test_the_command_learns_the_object(network: OSVOS, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network.save_to_preset(tmp_path / "preset", {"licence": "CC0"})
    (tmp_path / "clip").mkdir()
    write_image(tmp_path / "clip/00000.png", FRAMES[0])
    write_mask(tmp_path / "mask.png", MASK)
    command = ["export", "--preset", str(tmp_path / "preset"), "--format", "litert", "--out", str(tmp_path / "out")]
    assert main([*command, "--finetune", "1"]) == 2
    assert "--finetune and --time: expected --object VIDEO:PNG with them" in capsys.readouterr().err
    command += ["--object", f"{tmp_path / 'clip'}:{tmp_path / 'mask.png'}"]
    assert main([*command, "--finetune", "1"]) == 0
    source = json.loads((tmp_path / "out/metadata.json").read_text())["source"]
    assert source["learnt_object"] == {"video": "clip", "steps": 1, "seconds": None}
    assert source["licence"] == "CC0"
    write_mask(tmp_path / "mask.png", box_mask(80, 110, (5, 35, 5, 40), (40, 70, 60, 100)))
    assert main([*command, "--force"]) == 2
    assert "--object: expected a mask with one object, received 2" in capsys.readouterr().err

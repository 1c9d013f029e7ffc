"""The exported network in NumPy's hands, against the Keras segmenter with the network that it was exported from."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from keras import ops
from support import WHOLE_NETWORK, assert_close, box_mask, numpy, random_frames

from osmn_tf.errors import InputError, MissingDependencyError
from osmn_tf.guides import full_guide
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.runtime.network import ExportedNetwork, find_export
from osmn_tf.runtime.predictor import ExportedPredictor


def agreement(masks: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Share of equal pixels in the worst frame."""
    assert len(masks) == len(expected)
    return min(float((mask == other).mean()) for mask, other in zip(masks, expected))


# Numbers ----------------------------------------------------------------------------------------------------------


def test_twenty_recurrent_steps_give_the_numbers_of_keras(exported: Path, tiny_reconvnet) -> None:
    model, network = tiny_reconvnet, ExportedNetwork(exported)
    rng = np.random.default_rng(0)
    guides = rng.uniform(0, 255, (2, model.guide_size, model.guide_size, 3)).astype(np.float32)
    modulation = model.visual_modulator(guides)
    received = [network.modulate(guide) for guide in guides]
    assert_close(np.stack(received), modulation, WHOLE_NETWORK)

    state, states = model.initial_state(2, 64, 96), [network.initial_state(), network.initial_state()]
    for t in range(20):
        frame = random_frames(64, 96, seed=t)
        masks = (rng.uniform(0, 1, (2, 64, 96)) < [[[0.1]], [[0.9]]]).astype(np.uint8)
        masks[0, :, t:] = masks[1, t:] = 0  # the first one's first mask is empty
        spatial = full_guide(masks, model.guide)
        features = model.frame_encoder({"frame": ops.convert_to_tensor(frame[None])})
        inputs = {**features, "spatial_guide": spatial, "modulation": modulation, **state}
        state = model.object_network(inputs)
        logits = numpy(state.pop("logits"))[..., 0]

        network.encode(frame)
        found, states = network.step(list(masks), received, states)
        assert_close(found, logits, WHOLE_NETWORK)
        for name, value in state.items():
            assert_close(np.stack([s[name] for s in states]), value, WHOLE_NETWORK)
    assert np.abs(logits).max() > 0.1
    assert max(np.abs(numpy(value)).max() for value in state.values()) > 0.05


@pytest.mark.parametrize(
    "settings",
    [{}, {"merge": "soft"}, {"exclusive": False, "recover": False}, {"search_window": True}],
    ids=["default", "soft", "released", "near"],
)
def test_masks_are_those_of_the_keras_segmenter(exported, tiny_reconvnet, frames, first_mask, settings) -> None:
    """Three objects on files for two, frames of another size than the network's."""
    expected = [mask for _, mask in VideoSegmenter(tiny_reconvnet, **settings).track(frames, first_mask)]
    masks = [mask for _, mask in VideoSegmenter(exported, **settings).track(frames, first_mask)]
    assert agreement(masks, expected) > 0.999
    assert all(mask.dtype == np.uint8 for mask in masks)
    assert len({value for mask in masks[1:] for value in np.unique(mask)}) > 2


def test_objects_come_and_go_as_in_the_keras_segmenter(exported, tiny_reconvnet, frames, first_mask) -> None:
    late = box_mask(*first_mask.shape, (5, 30, 70, 100)) * np.uint8(9)

    def run(segmenter) -> list[np.ndarray]:
        masks = [segmenter.start(frames[0], first_mask), segmenter.step(frames[1])]
        masks.append(segmenter.add(frames[2], late))
        assert segmenter.labels == (1, 2, 3, 9)
        segmenter.remove([1, 3])
        assert segmenter.labels == (2, 9)
        masks += [segmenter.step(frames[3]), segmenter.step(frames[4])]
        masks.append(segmenter.add(frames[5], np.where(first_mask == 2, first_mask, 0)))  # 2 starts again
        assert segmenter.labels == (9, 2)
        masks.append(segmenter.step(frames[6]))
        segmenter.remove(segmenter.labels)
        masks.append(segmenter.step(frames[7]))
        return masks

    received, expected = run(VideoSegmenter(exported)), run(VideoSegmenter(tiny_reconvnet))
    assert agreement(received, expected) > 0.999
    assert not received[-1].any()


def test_both_ways(exported, tiny_reconvnet, frames, first_mask) -> None:
    given = {3: first_mask}
    expected = [mask for _, mask in VideoSegmenter(tiny_reconvnet).track_both_ways(frames, given)]
    masks = [mask for _, mask in VideoSegmenter(exported).track_both_ways(frames, given)]
    assert agreement(masks, expected) > 0.999
    assert masks[0].any()


def test_scores(exported, tiny_reconvnet, frames, first_mask) -> None:
    received, expected = (VideoSegmenter(network, keep_scores=True) for network in (exported, tiny_reconvnet))
    with pytest.raises(InputError, match="keep_scores"):
        _ = received.scores
    for segmenter in (received, expected):
        segmenter.start(frames[0], first_mask)
        segmenter.step(frames[1])
    assert list(received.scores) == [1, 2, 3]
    for label, score in expected.scores.items():
        assert_close(received.scores[label], score, WHOLE_NETWORK)


def test_a_snapshot_continues_where_it_was_made(exported, frames, first_mask) -> None:
    whole = [mask for _, mask in VideoSegmenter(exported).track(frames, first_mask)]
    first = VideoSegmenter(exported)
    for _ in zip(range(4), first.track(frames, first_mask)):
        pass
    second = VideoSegmenter(exported)
    second.restore(first.snapshot())
    assert second.labels == (1, 2, 3)
    for frame, mask in zip(frames[4:], whole[4:]):
        np.testing.assert_array_equal(second.step(frame), mask)

    broken = first.snapshot()
    name = next(name for name in broken if name.startswith("state/"))
    broken[name] = broken[name][:, 1:]
    with pytest.raises(InputError, match="not of this network"):
        second.restore(broken)
    second.reset()
    with pytest.raises(InputError, match="no object is tracked"):
        second.snapshot()


# Refusals ---------------------------------------------------------------------------------------------------------


def test_wrong_frames_masks_and_arguments(exported, frames, first_mask) -> None:
    segmenter = VideoSegmenter(exported, network_size=(64, 96), threads=1)
    with pytest.raises(InputError, match=r"frame: expected uint8 RGB \[H, W, 3\], received float32 \[80, 120, 3\]"):
        segmenter.start(frames[0].astype(np.float32), first_mask)
    with pytest.raises(InputError, match="mask: expected 120 x 80 pixels"):
        segmenter.start(frames[0], first_mask[:-1])
    segmenter.start(frames[0], first_mask)
    with pytest.raises(InputError, match="frame: expected 120 x 80 pixels as in the first frame, received 119 x 80"):
        segmenter.step(frames[0][:, 1:])
    with pytest.raises(InputError, match=r"network_size: .* was exported for 64 x 96 .* received 32 x 96"):
        VideoSegmenter(exported, network_size=(32, 96))
    with pytest.raises(InputError, match="merge: expected one of argmax, soft"):
        VideoSegmenter(exported, merge="hard")
    with pytest.raises(InputError, match="threads: expected at least 1, received 0"):
        VideoSegmenter(exported, threads=0)
    with pytest.raises(InputError, match="precision: an exported network computes in what it was exported in"):
        VideoSegmenter(exported, precision="float32")
    with pytest.raises(InputError, match="adapt: this network cannot be fine-tuned"):
        segmenter.finetune([(frames[0], first_mask)], 1)


def change_metadata(folder: Path, change: Callable[[dict], object]) -> None:
    path = folder / "metadata.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_truncated_file(copied: Path) -> None:
    path = copied / "step.tflite"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"step\.tflite is damaged or of another export"):
        VideoSegmenter(copied)


@pytest.mark.parametrize("content", [b"", b"TFL3 but nothing else" * 50])
def test_a_file_that_is_no_network(copied: Path, content: bytes) -> None:
    import hashlib

    (copied / "encoder.tflite").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    change_metadata(copied, lambda metadata: metadata["files"]["encoder"].update(sha256=digest))
    with pytest.raises(InputError, match=r"encoder\.tflite is no LiteRT file that can be run"):
        VideoSegmenter(copied)


def test_files_of_two_exports(copied: Path) -> None:
    path = copied / "modulator.tflite"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # another weight
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"modulator\.tflite is damaged or of another export"):
        VideoSegmenter(copied)


def test_a_missing_file(copied: Path) -> None:
    (copied / "encoder.tflite").unlink()
    with pytest.raises(InputError, match=r"encoder\.tflite is missing"):
        VideoSegmenter(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version=99), "format version 99, this release reads 1"),
        (lambda m: m.pop("state"), "damaged or incomplete"),
        (lambda m: m.update(network_size="64x96"), "damaged or incomplete"),
        (lambda m: m["files"].pop("step"), "names no file for step"),
        (lambda m: m["files"]["step"].update(name="../step.tflite"), "is missing"),
        (lambda m: m.update(objects=1), r"input \w+ to have the shape \[1, .*\] as metadata.json says, received \[2, "),
        (lambda m: m.update(format="something"), "not that of an exported network"),
    ],
)
def test_metadata_that_does_not_fit(copied: Path, change: Callable[[dict], object], message: str) -> None:
    change_metadata(copied, change)
    with pytest.raises(InputError, match=message):
        VideoSegmenter(copied)


def test_what_counts_as_an_export(exported: Path, copied: Path, tmp_path: Path) -> None:
    assert find_export(exported) == exported
    assert find_export(exported / "step.tflite") == exported
    assert find_export(tmp_path) is None
    assert find_export(tmp_path / "nothing") is None
    preset = tmp_path / "preset"
    preset.mkdir()
    (preset / "metadata.json").write_text('{"parameters": 1}')
    assert find_export(preset) is None
    with pytest.raises(InputError, match=r"other\.tflite does not exist"):
        find_export(exported / "other.tflite")
    (copied / "metadata.json").unlink()
    for path in (copied, copied / "encoder.tflite"):
        with pytest.raises(InputError, match=r"metadata\.json is missing"):
            find_export(path)
    with pytest.raises(InputError, match="is not an exported network"):
        ExportedPredictor(preset)


def test_without_the_interpreter(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MissingDependencyError, match=r"'ai-edge-litert'.*pip install 'osmn-tf\[runtime\]'") as caught:
        VideoSegmenter(exported)
    assert "\n" not in str(caught.value)

from __future__ import annotations

import numpy as np
import pytest
from support import (
    BACKEND,
    EPSILON,
    TINY_RVOS,
    TINY_VGG,
    WHOLE_NETWORK,
    is_quotient,
    needs_tensorflow,
    random_frames,
    randomise,
)

from osmn_tf.benchmarks import infer as speed
from osmn_tf.cli.main import main
from osmn_tf.errors import InputError
from osmn_tf.export.litert import export_litert
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.models.reconvnet import ReConvNet
from osmn_tf.models.rvos import RVOS


def test_operations_of_the_convolutions_are_counted_from_their_shapes(tiny_osmn):
    """Twice the area is twice the operations; a second object adds what is not shared."""
    counts = {}
    for objects, width in ((1, 64), (1, 128), (2, 64)):
        frame = np.zeros((64, width, 3), np.uint8)
        segmenter = VideoSegmenter(tiny_osmn, network_size=(64, width))
        segmenter.start(frame, speed._stripes(64, width, objects))
        program, counts[objects, width] = speed._bare_convolutions(segmenter.predictor, frame)
    assert all(np.isfinite(value) for value in program())
    assert counts[1, 128] == 2 * counts[1, 64]
    assert counts[1, 64] < counts[2, 64] < 2 * counts[1, 64]
    # The stem at half the size: 3x3 kernels from 3 to 32 channels. Nothing smaller can have been missed below it.
    assert counts[1, 64] > 2 * 32 * 32 * 3 * 3 * 3 * 32


@needs_tensorflow
def test_the_encoder_of_rvos_is_counted_once_a_frame():
    """Another object adds a decoder's pass, whatever the number; what is left is the encoder's."""
    model = randomise(RVOS(**TINY_RVOS))
    frame = np.zeros((64, 96, 3), np.uint8)
    counts = []
    for objects in (1, 2, 3):
        segmenter = VideoSegmenter(model)
        segmenter.start(frame, speed._stripes(64, 96, objects))
        program, operations = speed._bare_convolutions(segmenter.predictor, frame)
        counts.append(operations)
    assert all(np.isfinite(value) for value in program())
    one_more = counts[1] - counts[0]
    assert counts == [counts[0] + extra * one_more for extra in (0, 1, 2)]
    assert 0 < one_more < counts[0]


@pytest.mark.backend
@pytest.mark.skipif(BACKEND != "jax", reason="on other backends JAX counts nothing")
def test_jax_counts_the_operations_of_a_step(monkeypatch):
    model = randomise(ReConvNet(**TINY_VGG, network_size=(64, 96)))
    monkeypatch.setattr(speed, "build_network", lambda name, precision: model)
    one, two = (row.operations for row in speed.measure("narrow", objects=[1, 2], repeat=1, peers=False))
    assert 1.2 * one < two < 2 * one
    # All of VGG-16's convolutions at these channels, without padding's share, and the ConvLSTMs'.
    assert one > 2 * 9 * (60 * 92 * (3 * 2 + 2 * 2) + 15 * 23 * 2 * (4 * 4))


@pytest.mark.usefixtures("bfloat16")
def test_whatever_runs_a_network_gives_the_same_numbers(tmp_path, request):
    """The segmenter's step, the programs it is timed against, an exported network and half precision."""
    model = randomise(ReConvNet(**{**TINY_VGG, "visual_hidden": 8}, network_size=(64, 96)), seed=3)
    first, second = random_frames(2, *model.network_size)
    mask = speed._stripes(*model.network_size, 3)

    def step(segmenter):
        segmenter.start(first, mask)
        masks = segmenter.step(second)
        return masks, np.stack([segmenter.scores[label] for label in (1, 2, 3)])

    masks, scores = step(VideoSegmenter(model, keep_scores=True, exclusive=False))
    assert {0, 1} < set(np.unique(masks))
    exported = export_litert(model, tmp_path / "exported", objects=2)
    exported_masks, exported_scores = step(VideoSegmenter(exported, keep_scores=True, exclusive=False))
    # The slope of a score is at most a quarter of its logit's, and the logits of random weights reach hundreds.
    logits = np.concatenate(speed._unshared(model, second, compiled=False)(mask)())[..., 0]
    bound = WHOLE_NETWORK * EPSILON * np.abs(logits).max() / 4
    np.testing.assert_allclose(exported_scores, scores, rtol=0, atol=bound)
    assert np.mean(exported_masks == masks) > 0.999

    # The simpler programs know one frame, and begin with an empty state where the segmenter has one of its first frame.
    segmenter = VideoSegmenter(model, keep_scores=True, exclusive=False)
    segmenter.start(second, mask)
    segmenter.predictor._state = model.initial_state(3, *model.network_size)
    segmenter.step(second)
    expected = np.stack(list(segmenter.scores.values()))
    for compiled in (True, False):
        logits = np.concatenate(speed._unshared(model, second, compiled)(mask)())[..., 0]
        np.testing.assert_allclose(0.5 + 0.5 * np.tanh(0.5 * logits), expected, rtol=0, atol=bound)

    model.save_to_preset(tmp_path / "preset")
    request.getfixturevalue("eagerly")
    # 8 bits of bfloat16, 11 of float16, through some twenty layers: as many scores change sides, where they are 0 or 1.
    for precision, bits in (("mixed_bfloat16", 8), ("mixed_float16", 11)):
        half = speed.build_network(str(tmp_path / "preset"), precision)
        _, half_scores = step(VideoSegmenter(half, keep_scores=True, exclusive=False))
        assert 0 < np.abs(half_scores - scores).mean() < 20 * 2**-bits, precision


def test_the_command_prints_a_row_per_number_of_objects(tiny_osmn, tmp_path, capsys):
    tiny_osmn.save_to_preset(tmp_path / "tiny")
    words = ["benchmark", "infer", "--networks", str(tmp_path / "tiny"), "--objects", "1", "2", "--repeat", "1"]
    assert main([*words, "--network-size", "64x96", "--peak", "1"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == [
        "network",
        "precision",
        "objects",
        "ms",
        "convolutions",
        "ratio",
        "GFLOP",
        "unshared",
        "predict",
        "frames/s",
    ]
    assert [row.split()[:3] for row in rows] == [["tiny", "float32", "1"], ["tiny", "float32", "2"]]
    for row in rows:
        step, convolutions, ratio, _, unshared, predict, rate = map(float, row.split()[3:10])
        assert min(step, convolutions, unshared, predict) > 0
        assert is_quotient(ratio, step, convolutions)
        assert is_quotient(rate, 1e3, step)
        assert row.endswith("of the peak")


@pytest.mark.parametrize("settings", [{"repeat": 0}, {"objects": []}, {"objects": [0]}, {"objects": [65]}])
def test_numbers_out_of_range_are_refused(settings):
    with pytest.raises(InputError, match="repeat, objects: expected"):
        next(speed.measure("reconvnet_lite", **settings))


@pytest.mark.usefixtures("bfloat16")
def test_precisions_are_checked_and_leave_no_trace(tiny_osmn, tmp_path):
    import keras

    tiny_osmn.save_to_preset(tmp_path / "tiny")
    before = keras.config.dtype_policy()
    with pytest.raises(InputError, match="precision: expected one of float32"):
        speed.build_network(str(tmp_path / "tiny"), "int8")
    model = speed.build_network(str(tmp_path / "tiny"), "mixed_bfloat16")
    assert model.frame_encoder.output["Conv2d_2"].dtype == "bfloat16"
    assert keras.config.dtype_policy() == before

"""`osmn benchmark litert` on a small data set and a small network."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from support import BACKEND, WHOLE_NETWORK, assert_close, box_mask, numpy, random_frames, tensors

from osmn_tf.cli.main import main
from osmn_tf.errors import InputError
from osmn_tf.evaluation.protocols import PROTOCOLS, find_sequences
from osmn_tf.guides import spatial_guide
from osmn_tf.masks.drawing import write_image
from osmn_tf.masks.files import write_mask
from osmn_tf.runtime.network import ExportedNetwork

if BACKEND != "tensorflow":
    pytest.skip("LiteRT files are made with TensorFlow", allow_module_level=True)

from osmn_tf.benchmarks.litert import Form, calibration_clips, format_table


@pytest.fixture(scope="module")
def davis(tmp_path_factory) -> Path:
    """Three sequences of 14 frames, of which `scored` is in the split of this name and all are in `train`."""
    root = tmp_path_factory.mktemp("davis")
    lists = root / "ImageSets" / "2016"
    lists.mkdir(parents=True)
    (lists / "scored.txt").write_text("scored\n")
    (lists / "train.txt").write_text("first\nscored\nsecond\n")
    rng = np.random.default_rng(0)
    for name in ("first", "scored", "second"):
        for folder in ("Annotations", "JPEGImages"):
            (root / folder / "480p" / name).mkdir(parents=True)
        for t in range(14):
            mask = np.zeros((48, 80), np.uint8)
            mask[10:30, 10 + t : 40 + t] = 1
            frame = rng.integers(0, 256, (48, 80, 3), np.uint8)
            write_mask(root / "Annotations" / "480p" / name / f"{t:05d}.png", mask * 255)
            write_image(root / "JPEGImages" / "480p" / name / f"{t:05d}.jpg", frame)
    return root


def test_calibration_takes_the_beginnings_of_sequences(davis) -> None:
    protocol = PROTOCOLS["davis-2016"]
    clips = calibration_clips(find_sequences(davis, protocol, split="train"), protocol)
    assert len(clips) == 3
    for frames, mask in clips:
        assert len(list(frames)) == 14  # 96 / 3 would be more than there are
        assert set(np.unique(mask)) == {0, 1}
        assert mask[10:30, 10:40].all()
    with pytest.raises(InputError, match="--calibration-split: expected sequences beside those"):
        calibration_clips([], protocol)


@pytest.fixture(scope="module")
def benchmarked(davis, tiny_osmn, tmp_path_factory) -> tuple[Path, str]:
    """Where the float files of an OSMN are that were timed at 72 x 80, and what was printed."""
    folder = tmp_path_factory.mktemp("benchmarked")
    tiny_osmn.save_to_preset(str(folder / "tiny"))
    kept = folder / "kept" / "none"
    kept.mkdir(parents=True)
    (kept / "step.tflite").write_bytes(b"of an export before")
    arguments = ["--preset", str(folder / "tiny"), "--split", "scored", "--network-size", "72x80"]
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        more = ["--quantize", "none", "--repeat", "1", "--out", str(kept.parent)]
        assert main(["benchmark", "litert", str(davis), *arguments, *more]) == 0
    return kept, output.getvalue()


def test_table_of_a_small_network(benchmarked) -> None:
    folder, output = benchmarked
    lines = [line.split() for line in output.splitlines()]
    assert lines[0] == ["form", "J", "lost", "IoU", "MB", "ms,", "min", "median", "CPU", "ms", "scored"]
    assert lines[1][:5] == ["keras", lines[1][1], "0.00", "100.00", "-"]
    assert lines[2][0] == "none"
    assert float(lines[2][3]) > 99.0
    size = sum(path.stat().st_size for path in folder.glob("*.tflite"))
    assert float(lines[2][4]) == pytest.approx(size / 1e6, abs=0.06)
    assert 0 < float(lines[2][5]) <= float(lines[2][6])
    assert lines[3][1] == "cores,"


def test_files_of_a_network_without_state(benchmarked, tiny_osmn) -> None:
    """The release's decoder, at a size that has to be padded."""
    network = ExportedNetwork(benchmarked[0])
    assert (network.metadata.network_size, network.metadata.state) == ((72, 80), {})
    guide = np.random.default_rng(0).uniform(0, 255, (32, 32, 3)).astype(np.float32)
    mask = box_mask(72, 80, (20, 50, 30, 60))
    frame = random_frames(72, 80)
    inputs = {"frame": frame[None], "visual_guide": guide[None], "spatial_guide": spatial_guide(mask[None])}
    expected = numpy(tiny_osmn(tensors(inputs)))[0, ..., 0]
    network.encode(frame)
    logits, states = network.step([mask], [network.modulate(guide)], [{}])
    assert_close(logits[0], expected, WHOLE_NETWORK)
    assert np.abs(expected).max() > 0.1
    assert states == [{}]


def test_means_and_losses() -> None:
    forms = [
        Form("keras", (0.5, 0.7), (1.0, 1.0), None, (0.1, 0.125), 0.2),
        Form("int8", (0.49, 0.70), (0.98, 0.96), 11_600_000, (0.025, 0.04), 0.05),
    ]
    assert format_table(["a", "longer"], forms).splitlines() == [
        "form           J   lost    IoU     MB  ms, min  median  CPU ms     a  longer",
        "keras      60.00   0.00 100.00      -    100.0   125.0   200.0  50.0    70.0",
        "int8       59.50   0.50  97.00   11.6     25.0    40.0    50.0  49.0    70.0",
    ]

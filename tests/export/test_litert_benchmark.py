"""`osmn benchmark litert` on a small data set and a small network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import BACKEND, TINY, randomise

from osmn_tf.cli import benchmark
from osmn_tf.cli.main import main
from osmn_tf.errors import InputError
from osmn_tf.evaluation.protocols import PROTOCOLS, find_sequences
from osmn_tf.inference.masks import write_mask
from osmn_tf.inference.overlay import write_image
from osmn_tf.models.osmn import OSMN

if BACKEND != "tensorflow":
    pytest.skip("LiteRT files are made with TensorFlow", allow_module_level=True)

from osmn_tf.export.litert_benchmark import Form, calibration_clips


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


def test_table_of_a_small_network(davis, tmp_path, capsys) -> None:
    randomise(OSMN(**TINY), seed=2).save_to_preset(str(tmp_path / "tiny"))
    arguments = ["--preset", str(tmp_path / "tiny"), "--split", "scored", "--quantize", "none", "--repeat", "1"]
    assert main(["benchmark", "litert", str(davis), *arguments, "--out", str(tmp_path / "kept")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["form", "J", "lost", "IoU", "MB", "ms,", "min", "median", "CPU", "ms", "scored"]
    assert lines[1][:5] == ["keras", lines[1][1], "0.00", "100.00", "-"]
    assert lines[2][0] == "none"
    assert float(lines[2][3]) > 99.0
    size = sum(path.stat().st_size for path in (tmp_path / "kept" / "none").glob("*.tflite"))
    assert float(lines[2][4]) == pytest.approx(size / 1e6, abs=0.06)
    assert 0 < float(lines[2][5]) <= float(lines[2][6])
    assert lines[3][1] == "cores,"


def test_means_and_losses() -> None:
    forms = [
        Form("keras", (0.5, 0.7), (1.0, 1.0), None, (0.1, 0.125), 0.2),
        Form("int8", (0.49, 0.70), (0.98, 0.96), 11_600_000, (0.025, 0.04), 0.05),
    ]
    assert benchmark.format_forms(["a", "longer"], forms).splitlines() == [
        "form           J   lost    IoU     MB  ms, min  median  CPU ms     a  longer",
        "keras      60.00   0.00 100.00      -    100.0   125.0   200.0  50.0    70.0",
        "int8       59.50   0.50  97.00   11.6     25.0    40.0    50.0  49.0    70.0",
    ]

"""`osmn segment` with an exported network: without Keras and TensorFlow, and as with any other preset."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from support import is_quotient

import osmn_tf
from osmn_tf.cli.main import main
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.jobs import segment as segment_job
from osmn_tf.masks.drawing import write_image
from osmn_tf.masks.files import read_label_png, write_mask

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"keras", "tensorflow", "jax", "torch", "h5py"}:
            raise ImportError(f"{name} is not to be imported here")

sys.meta_path.insert(0, Blocker())
import osmn_tf.runtime
from osmn_tf.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def video(frames: list[np.ndarray], tmp_path: Path) -> Path:
    """The clip as a folder of images: nothing is lost in them."""
    folder = tmp_path / "clip"
    folder.mkdir()
    for index, frame in enumerate(frames):
        write_image(folder / f"{index:05d}.png", frame)
    return folder


@pytest.fixture
def mask(first_mask: np.ndarray, tmp_path: Path) -> Path:
    write_mask(tmp_path / "first.png", first_mask)
    return tmp_path / "first.png"


@pytest.fixture
def preset(exported: Path, tiny_reconvnet, tmp_path: Path) -> Path:
    """A preset with its LiteRT files."""
    folder = tmp_path / "tiny"
    tiny_reconvnet.save_to_preset(folder)
    shutil.copytree(exported, folder / "litert")
    facts = json.loads((folder / "litert" / "metadata.json").read_text())
    facts["source"] = json.loads((folder / "metadata.json").read_text())
    (folder / "litert" / "metadata.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture
def expected(exported: Path, frames: list[np.ndarray], first_mask: np.ndarray) -> list[np.ndarray]:
    return [mask for _, mask in VideoSegmenter(exported).track(frames, first_mask)]


def read_masks(folder: Path) -> list[np.ndarray]:
    return [read_label_png(path) for path in sorted(folder.glob("*.png"))]


def test_segments_without_keras_and_tensorflow(exported, video, mask, expected, tmp_path) -> None:
    arguments = ["segment", str(video), "--mask", str(mask), "--out", str(tmp_path / "out"), "--no-overlay"]
    command = [sys.executable, "-c", BLOCKED, *arguments, "--preset", str(exported / "step.tflite")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "8 frames in" in done.stdout
    for received, label_mask in zip(read_masks(tmp_path / "out" / "clip"), expected, strict=True):
        np.testing.assert_array_equal(received, label_mask)
    # The folder is the same network as the file in it.
    done = subprocess.run([*command[:-1], str(exported)], capture_output=True, text=True, check=False)
    assert "clip is done already" in done.stdout


def test_a_preset_with_litert_files_needs_no_keras(preset, video, mask, expected, tmp_path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", BLOCKED, *words], capture_output=True, text=True, check=False)

    out = tmp_path / "out"
    words = ["segment", str(video), "--preset", str(preset), "--out", str(out), "--no-overlay"]
    done = run(*words, "--mask", str(mask))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("engine:        LiteRT\n8 frames in")
    for received, label_mask in zip(read_masks(out / "clip"), expected, strict=True):
        np.testing.assert_array_equal(received, label_mask)
    example = Path(osmn_tf.__file__).parent / "examples" / "meadow"
    x, y, width, height = cv2.boundingRect((read_label_png(example / "first_mask.png") == 1).astype(np.uint8))
    box = ["--box", f"{x},{y},{width},{height}", "--end", "2", "--quiet"]
    done = run("segment", str(example / "meadow.mp4"), *box, *words[2:])
    assert (done.returncode, done.stderr) == (0, "")
    assert "engine" not in done.stdout
    for more in (["--finetune", "1"], ["--engine", "keras"], ["--network-size", "32x64"]):
        done = run(*words, "--mask", str(mask), "--force", *more)
        assert done.returncode == 2
        assert "needs the package 'keras', which is not installed: run  pip install 'osmn-tf[tf]'" in done.stderr
        assert done.stderr.count("\n") == 1
    for command in (["presets"], ["segment", "--help"], ["--help"]):
        done = run(*command)
        assert (done.returncode, done.stderr) == (0, "")


def test_both_engines_give_the_same_masks(preset, frames, first_mask) -> None:
    chosen, keras = VideoSegmenter(preset), VideoSegmenter(preset, engine="keras")
    assert type(chosen.predictor) is not type(keras.predictor)
    for (_, mask), (_, other) in zip(chosen.track(frames, first_mask), keras.track(frames, first_mask), strict=True):
        assert (mask == other).mean() > 0.999


def test_an_interrupted_run_continues(exported, video, mask, expected, tmp_path, monkeypatch) -> None:
    out = tmp_path / "out"
    arguments = ["segment", str(video), "--mask", str(mask), "--out", str(out), "--quiet", "--preset", str(exported)]
    monkeypatch.setattr(segment_job, "SNAPSHOT_INTERVAL", 3)
    steps: list[int] = []
    step = VideoSegmenter.step

    def failing(self: VideoSegmenter, frame: np.ndarray) -> np.ndarray:
        steps.append(1)
        if len(steps) == 6:
            raise OSError(5, "Input/output error")
        return step(self, frame)

    monkeypatch.setattr(VideoSegmenter, "step", failing)
    assert main(arguments) == 1
    kept = len(read_masks(out / "clip"))
    assert 3 <= kept < 8
    before, steps[:] = len(steps), [1] * 6
    assert main(arguments) == 0
    assert len(steps) - 6 < before + 3  # it did not begin again
    for received, label_mask in zip(read_masks(out / "clip"), expected, strict=True):
        np.testing.assert_array_equal(received, label_mask)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--quality", "good"], "--finetune: a LiteRT export cannot be trained"),
        (["--finetune", "3"], "--finetune: a LiteRT export cannot be trained"),
        (["--precision", "mixed_bfloat16"], "precision: an exported network computes in what it was exported in"),
        (["--network-size", "32x64"], "runs at no other size, received 32 x 64"),
    ],
)
def test_what_an_exported_network_cannot_do(exported, video, mask, tmp_path, capsys, more, message) -> None:
    out = tmp_path / "out"
    arguments = ["segment", str(video), "--mask", str(mask), "--out", str(out), "--preset", str(exported), *more]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_missing_export(video, mask, tmp_path, capsys) -> None:
    arguments = ["segment", str(video), "--mask", str(mask), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--preset", str(tmp_path / "lost.tflite")]) == 2
    assert f"{tmp_path / 'lost.tflite'} does not exist" in capsys.readouterr().err


@pytest.mark.usefixtures("bfloat16")
def test_benchmark_has_a_row_for_every_network_and_precision(
    exported, tiny_reconvnet, video, mask, tmp_path, capsys
) -> None:
    tiny_reconvnet.save_to_preset(tmp_path / "tiny")
    words = [
        "benchmark",
        "segment",
        str(video),
        "--mask",
        str(mask),
        "--presets",
        str(tmp_path / "tiny"),
        str(exported),
    ]
    assert main([*words, "--precisions", "float32", "mixed_bfloat16", "--frames", "4", "--repeat", "1"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["network", "precision", "network", "ms", "whole", "ms", "ratio", "frames/s", "IoU"]
    assert [row.split()[:2] for row in rows] == [
        ["tiny", "float32"],
        ["tiny", "mixed_bfloat16"],
        [exported.name, "as"],
    ]
    for row in rows:
        alone, whole, ratio, rate, iou = map(float, row.split()[-5:])
        assert alone > 0
        assert is_quotient(ratio, whole, alone)
        assert is_quotient(rate, 1e3, whole)
        assert 0 <= iou <= 1
    assert rows[0].split()[-1] == "1.0000"
    # The same network on another engine, whose sums are rounded in another order: pixels at an edge may change sides.
    assert float(rows[2].split()[-1]) > 0.99


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--repeat", "0"], "repeat, frames: expected at least 1 and 2"),
        (["--frames", "1"], "repeat, frames: expected at least 1 and 2"),
        (["--precisions", "int8"], "precision: expected one of float32"),
        (["--presets", "nothing"], "no preset"),
    ],
)
def test_bad_input_of_the_benchmark(words, message, video, mask, capsys) -> None:
    assert main(["benchmark", "segment", str(video), "--mask", str(mask), *words]) == 2
    assert message in capsys.readouterr().err

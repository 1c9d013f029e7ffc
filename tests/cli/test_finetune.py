"""`--finetune` and `--quality` of `osmn segment`, from end to end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import pytest

import osmn_tf as osmn
from osmn_tf.cli.main import main
from osmn_tf.inference.adaptation.online import OnlineFineTuner
from osmn_tf.inference.adaptation.quality import LARGER, QUALITIES, STEPS
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.jobs import many
from osmn_tf.jobs import segment as segment_job
from osmn_tf.jobs.many import Summary
from osmn_tf.jobs.options import SegmentOptions
from osmn_tf.jobs.rows import Row
from osmn_tf.masks.files import read_label_png

pytestmark = pytest.mark.usefixtures("loaded_once")

RATE = "1e-3"


@pytest.fixture
def segment(tiny_preset: Path, video: Path, mask: Path, tmp_path: Path) -> Callable[..., int]:
    def run(*arguments: object) -> int:
        fixed = ["segment", video, "--mask", mask, "--preset", tiny_preset, "--out", tmp_path / "out", "--no-overlay"]
        return main([str(word) for word in [*fixed, "--no-sheet", "--quiet", *arguments]])

    return run


def masks_in(folder: Path) -> list[np.ndarray]:
    return [read_label_png(path) for path in sorted(folder.glob("*.png"))]


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return len(first) == len(second) and all((a == b).all() for a, b in zip(first, second))


@pytest.fixture(scope="module")
def expected(loaded_once: None, tiny_preset: Path, video: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Masks of the library, with two steps of fine-tuning and without."""
    labels = np.zeros((96, 128), np.uint8)
    labels[30:60, 10:40] = 2
    labels[70:90, 80:120] = 7
    frames = list(osmn.read_video(video))
    segmenter = VideoSegmenter(str(tiny_preset))
    with segmenter.finetune([(frames[0], labels)], 2, float(RATE)):
        tuned = [result for _, result in segmenter.track(frames, labels)]
    return tuned, [result for _, result in segmenter.track(frames, labels)]


def _stop(patch: pytest.MonkeyPatch, owner: type, method: str, call: int, error: type[BaseException]) -> None:
    original, calls = getattr(owner, method), iter(range(1, 1000))

    def stopping(*arguments: object, **keywords: object) -> object:
        if next(calls) == call:
            raise error
        return original(*arguments, **keywords)

    patch.setattr(owner, method, stopping)


class Killed(BaseException):
    """Stands for the end of the process."""


def test_fine_tunes_continues_and_cleans_up(
    segment: Callable[..., int],
    expected: tuple[list[np.ndarray], list[np.ndarray]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    arguments = ("--finetune", 2, "--finetune-rate", RATE)
    with pytest.MonkeyPatch.context() as patch:
        _stop(patch, keras.Model, "train_on_batch", 2, KeyboardInterrupt)
        assert segment(*arguments) == 130
    assert not list(out.rglob("*"))  # interrupted before the first frame: nothing is left

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment_job, "SNAPSHOT_INTERVAL", 4)
        _stop(patch, VideoSegmenter, "step", 6, Killed)
        with pytest.raises(Killed):
            segment(*arguments)
    assert (out / ".clip.osmn.weights.npz").is_file()

    with pytest.MonkeyPatch.context() as patch:
        _stop(patch, OnlineFineTuner, "fit", 1, Killed)  # the weights of the killed run are used
        assert segment(*arguments) == 0
    tuned, plain = expected
    assert same(masks_in(out / "clip"), tuned)
    assert not same(masks_in(out / "clip"), plain)
    assert not list(out.glob(".*.npz"))
    capsys.readouterr()
    assert segment(*arguments) == 0
    assert "done already" in capsys.readouterr().out
    assert segment("--finetune", 3, "--finetune-rate", RATE) == 2
    assert "--force" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "name"),
    [(("--finetune", 1, "--finetune-rate", RATE), ".clip.osmn.weights.npz"), ((), ".clip.osmn.npz")],
)
def test_damaged_state_of_an_interrupted_run(
    arguments: tuple[object, ...],
    name: str,
    segment: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment_job, "SNAPSHOT_INTERVAL", 2)
        _stop(patch, VideoSegmenter, "step", 5, Killed)
        with pytest.raises(Killed):
            segment(*arguments)
    path = tmp_path / "out" / name
    path.write_bytes(path.read_bytes()[:5000])
    assert segment(*arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert name in error
    assert segment(*arguments, "--force") == 0


@pytest.mark.parametrize(
    ("arguments", "steps", "size", "scale"),
    [
        ([], None, None, 1.0),
        (["--quality", "fast"], 0, None, 1.0),
        (["--quality", "good"], 0, None, 1.36),
        (["--quality", "best"], QUALITIES["best"].steps, None, 1.5),
        # In larger frames these networks lose.
        (["--quality", "good", "--preset", "reconvnet_lite"], 12, None, 1.0),
        (["--quality", "good", "--preset", "reconvnet_lite", "--network-size", "96x160"], 12, (96, 160), 1.0),
    ],
)
def test_quality_is_a_number_of_steps_and_a_scale(
    arguments: list[str],
    steps: int | None,
    size: tuple[int, int] | None,
    scale: float,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    asked = []

    def job(options: SegmentOptions, **keywords: object) -> segment_job.Outcome:
        asked.append((options.finetune, options.network.network_size, options.network.scale))
        return segment_job.Outcome("clip", already_done=True)

    monkeypatch.setattr(segment_job, "segment", job)
    assert main(["segment", str(tmp_path), "--mask", "m.png", "--out", str(tmp_path / "out"), *arguments]) == 0
    assert asked == [(steps, size, scale)]


def test_quality_of_rows_is_what_it_is_with_their_own_networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = {}

    def job(rows: Sequence[Row], *_: object) -> Summary:
        for row in rows:
            options = row.options
            asked[row.name] = (str(options.preset), options.finetune, options.network.scale)
        return Summary(rows=len(rows))

    monkeypatch.setattr(many, "segment_many", job)
    rows = [("a", "", "", ""), ("b", "osmn_match_lite", "", ""), ("c", "reconvnet_lite", "", "")]
    rows += [("d", "reconvnet_lite", "1.2", ""), ("e", "reconvnet_lite", "", "3"), ("f", "nosuch", "", "")]
    for name in ("m.png", *(row[0] for row in rows)):
        (tmp_path / name).touch()
    table = tmp_path / "table.csv"
    lines = [",".join(cells) for cells in (("video", "preset", "scale", "finetune"), *rows)]
    table.write_text("\n".join(lines) + "\n")

    def run(*words: str) -> dict[str, tuple[str, int | None, float]]:
        asked.clear()
        command = ["segment", "--list", str(table), "--mask", str(tmp_path / "m.png")]
        assert main([*command, "--out", str(tmp_path / "out"), "--quality", *words]) == 0
        return dict(asked)

    assert run("good") == {
        "a": ("osmn_match_lite", 0, LARGER),
        "b": ("osmn_match_lite", 0, LARGER),
        "c": ("reconvnet_lite", STEPS, 1.0),
        "d": ("reconvnet_lite", STEPS, 1.2),
        "e": ("reconvnet_lite", 3, 1.0),
        "f": ("nosuch", 0, LARGER),
    }
    others = run("good", "--preset", "reconvnet_lite")
    assert [others[name] for name in "abc"] == [
        ("reconvnet_lite", STEPS, 1.0),
        ("osmn_match_lite", 0, LARGER),
        ("reconvnet_lite", STEPS, 1.0),
    ]
    assert [steps for _, steps, _ in run("fast").values()] == [0, 0, 0, 0, 3, 0]
    table.write_text("video,preset,network_size\nc,reconvnet_lite,96x160\n")  # which a scale does not go with
    assert run("good") == {"c": ("reconvnet_lite", STEPS, 1.0)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quality", "good", "--finetune", "5"], "--quality"),
        (["--quality", "best", "--network-size", "96x160"], "(--quality good and best have one), received 96x160"),
        (["--time", "3", "--finetune", "5"], "--time"),
        (["--time", "0"], "--time: expected seconds above 0, received 0.0"),
        (["--finetune", "-1"], "--finetune: expected 0 steps or more"),
        (["--finetune", "1", "--finetune-rate", "0"], "--finetune-rate"),
    ],
)
def test_bad_input(
    arguments: list[str],
    message: str,
    segment: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert segment(*arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

"""The segmentation job: results, what it leaves when it is stopped in any phase, and what it never touches."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from osmn_tf.errors import InputError
from osmn_tf.inference.predictor import PredictorOptions
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.jobs import segment as segment_job
from osmn_tf.jobs.options import SegmentOptions
from osmn_tf.jobs.outputs import outputs
from osmn_tf.masks.files import read_label_png, write_mask
from osmn_tf.video.source import open_source
from tests.jobs.drift import LENGTH, PHASES, SIZE, options_for, run, run_until

ROOT = Path(__file__).parents[2]


def contents(out: Path) -> dict[str, np.ndarray]:
    """Every mask, cut-out and file of tracks below `out`; fails if a file is not whole."""
    found = {}
    for path in sorted(out.rglob("[!.]*.*")):
        if path.suffix == ".mp4":
            assert open_source(path).count_frames() > 0
        elif path.suffix == ".json":
            assert json.loads(path.read_text())["videos"]
            found[path.name] = np.frombuffer(path.read_bytes(), np.uint8)
        elif path.is_file():
            found[path.relative_to(out).as_posix()] = next(iter(open_source(path)))
            if path.parent.name == "frames":
                found[path.relative_to(out).as_posix()] = read_label_png(path)
    return found


@pytest.fixture(scope="session")
def expected(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The results of a run that nothing stops."""
    out = tmp_path_factory.mktemp("expected")
    outcome = run(options_for(frames, out))
    assert (outcome.frames, outcome.resumed, outcome.problem, outcome.interrupted) == (LENGTH, 0, None, False)
    masks = contents(out)
    assert len({mask.tobytes() for name, mask in masks.items() if name.startswith("frames/")}) > LENGTH // 2
    assert 7 in masks["frames/00003.png"]  # by the backward pass
    assert run(dataclasses.replace(options_for(frames, out))).already_done
    return masks


def finishes(frames: Path, out: Path, expected: dict[str, np.ndarray]) -> segment_job.Outcome:
    """The same command makes the same files as a run that nothing has stopped, and leaves no state."""
    contents(out)
    outcome = run(options_for(frames, out))
    assert outcome.problem is None
    received = contents(out)
    assert received.keys() == expected.keys()
    assert "frames_tracks.json" in received
    for name in expected:
        np.testing.assert_array_equal(received[name], expected[name], name)
    assert open_source(out / "frames_overlay.mp4").count_frames() == LENGTH
    hidden = {path.name for path in out.rglob(".*")}
    assert hidden == {".frames.osmn.json", ".osmn_files"}
    return outcome


@pytest.mark.parametrize("phase", [*PHASES, *map(str.upper, PHASES)])
def test_killed(phase: str, frames: Path, expected: dict[str, np.ndarray], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.jobs.drift", str(frames), str(tmp_path), phase]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    outcome = finishes(frames, tmp_path, expected)
    assert outcome.resumed == {"forward": 6, "FORWARD": 6, "finishing": 9, "FINISHING": 9}.get(phase, 0)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is an exception, also where a shell has started the tests in the background, which then ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("phase", PHASES)
def test_interrupted(phase: str, frames: Path, expected: dict[str, np.ndarray], tmp_path: Path) -> None:
    def press() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    if phase == "fine-tuning":
        with pytest.raises(KeyboardInterrupt):
            run_until(options_for(frames, tmp_path), phase, press)
    else:
        outcome = run_until(options_for(frames, tmp_path), phase, press)
        assert outcome.interrupted == (phase != "finishing")  # then there is nothing more to wait for
        assert outcome.frames == {"backward": 0, "forward": 8, "finishing": LENGTH}[phase]
    if phase == "fine-tuning":
        assert not list(tmp_path.rglob("*"))
    if phase == "backward":
        assert {path.name for path in tmp_path.iterdir()} == {".frames.osmn.json", ".frames.osmn.weights.npz"}
    if phase == "forward":
        assert open_source(tmp_path / "frames_overlay.mp4").count_frames() == 8
    if phase != "finishing":
        assert finishes(frames, tmp_path, expected).resumed == (8 if phase == "forward" else 0)


@pytest.mark.parametrize("phase", ["FINE-TUNING", "BACKWARD", "FORWARD", "finishing"])
def test_full_disk(phase: str, frames: Path, expected: dict[str, np.ndarray], tmp_path: Path) -> None:
    def fill() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if phase in ("FINE-TUNING", "BACKWARD"):
        with pytest.raises(InputError, match=r"--out: cannot write the results \(No space left on device"):
            run_until(options_for(frames, tmp_path), phase, fill)
    else:
        outcome = run_until(options_for(frames, tmp_path), phase, fill)
        assert outcome.problem == "cannot write the results (No space left on device)"
    assert not list(tmp_path.rglob("*.part*"))
    assert finishes(frames, tmp_path, expected).resumed == {"FORWARD": 6, "finishing": LENGTH}.get(phase, 0)


def test_speed_leaves_out_the_frames_of_the_interrupted_run(frames: Path, tmp_path: Path) -> None:
    """Time stands still but for a second a frame that is segmented, and a minute a frame that is read again."""
    clock = iter(range(10_000))
    run_until(options_for(frames, tmp_path), "forward", lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment_job.time, "perf_counter", lambda: float(next(clock)))
        outcome = run(options_for(frames, tmp_path))
    assert (outcome.frames, outcome.resumed, outcome.seconds) == (LENGTH, 8, 1.0)


def test_progress_of_every_phase(frames: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    run(options_for(frames, tmp_path), lambda what, done, total, note: seen.append((what, done, total)))
    assert seen == [
        *(("fine-tuning", step, 3) for step in (1, 2, 3)),
        *(("backward", step, 7) for step in range(1, 8)),
        *(("frames", step, LENGTH) for step in range(1, LENGTH + 1)),
    ]


# What is never touched


def snapshot_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("force", [False, True])
def test_the_frames_themselves_are_never_the_results(frames: Path, tmp_path: Path, force: bool) -> None:
    shutil.copytree(frames, tmp_path / "dog")
    before = snapshot_of(tmp_path)
    for out, message in ((tmp_path, "where .* is read"), (tmp_path / "dog", "than that of the frames")):
        with pytest.raises(InputError, match=message):
            run(options_for(tmp_path / "dog", out, force=force))
        assert snapshot_of(tmp_path) == before


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "name", ["frames/00003.png", "frames/notes.txt", "frames_sheet.png", "frames_overlay.mp4", "frames_cutouts/2/x.png"]
)
def test_files_of_the_user_are_never_touched(frames: Path, tmp_path: Path, name: str, force: bool) -> None:
    mine = tmp_path / name
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_bytes(b"mine")
    with pytest.raises(InputError, match=f"{mine.name} is in the way: osmn segment has not written it"):
        run(options_for(frames, tmp_path, force=force))
    assert snapshot_of(tmp_path) == {str(mine): b"mine"}


def test_force_removes_what_another_command_wrote_and_no_more(frames: Path, tmp_path: Path) -> None:
    run(options_for(frames, tmp_path, outputs={"sheet": None}))
    (tmp_path / "frames" / ".DS_Store").write_bytes(b"hidden")
    (tmp_path / "other.png").write_bytes(b"mine")
    options = options_for(frames, tmp_path, outputs={"sheet": None}, end=7)
    with pytest.raises(InputError, match="exists already; use --force"):
        run(options)
    assert run(dataclasses.replace(options, force=True)).frames == 7
    assert sorted(path.name for path in (tmp_path / "frames").iterdir()) == [
        ".DS_Store", ".osmn_files", *(f"{index:05d}.png" for index in range(7))
    ]  # fmt: skip
    assert (tmp_path / "other.png").read_bytes() == b"mine"
    # A result that somebody has replaced by something else is that person's.
    (tmp_path / "frames_sheet.png").write_bytes(b"edited")
    with pytest.raises(InputError, match=r"frames_sheet\.png is in the way"):
        run(dataclasses.replace(options, force=True))
    assert (tmp_path / "frames_sheet.png").read_bytes() == b"edited"


def test_a_result_that_is_given_as_mask_is_not_overwritten(frames: Path, tmp_path: Path) -> None:
    run(options_for(frames, tmp_path))
    given = tmp_path / "frames" / "00004.png"
    with pytest.raises(InputError, match=r"where .*00004\.png is read"):
        run(options_for(frames, tmp_path, masks={4: given}, force=True))
    assert given.is_file()


def test_results_inside_the_folder_of_the_frames(frames: Path, expected: dict[str, np.ndarray], tmp_path: Path) -> None:
    """The record does not look at the folder's own time stamp, which the results change."""
    folder = tmp_path / "frames"
    shutil.copytree(frames, folder)
    options = options_for(folder, folder / "out")
    assert run_until(options, "forward", lambda: os.kill(os.getpid(), signal.SIGINT)).frames == 8
    assert run(options).resumed == 8
    assert run(options).already_done
    np.testing.assert_array_equal(read_label_png(folder / "out/frames/00009.png"), expected["frames/00009.png"])


def test_masks_that_were_removed_are_made_again(frames: Path, expected: dict[str, np.ndarray], tmp_path: Path) -> None:
    options = options_for(frames, tmp_path)
    run(options)
    for number in (2, 5, 6):
        (tmp_path / "frames" / f"{number:05d}.png").unlink()
    assert not run(options).already_done
    made = contents(tmp_path)
    assert made.keys() == expected.keys()
    for name, mask in expected.items():
        np.testing.assert_array_equal(made[name], mask)
    assert run(options).already_done


def test_another_version_of_the_package_begins_again(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(options_for(frames, tmp_path))
    monkeypatch.setattr("osmn_tf.jobs.resume.__version__", "0.0.0")
    with pytest.raises(InputError, match="use --force"):
        run(options_for(frames, tmp_path))


def _video_that_states(count: int, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The frames as a file that is said to have `count` of them."""
    from osmn_tf.video import readers
    from osmn_tf.video.writer import write_video

    video = tmp_path / "clip.mkv"
    write_video(video, open_source(frames), 10)
    original = readers.FileReader.__init__

    def stating(self: readers.FileReader, path: Path, fps: object) -> None:
        original(self, path, fps)
        self.info = dataclasses.replace(self.info, frames=count)

    monkeypatch.setattr(readers.FileReader, "__init__", stating)
    return video


def test_a_mask_beyond_the_estimated_length(frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Matroska file states its duration only, and may be longer than that."""
    video = _video_that_states(4, frames, tmp_path, monkeypatch)
    mask = tmp_path / "mask.png"
    write_mask(mask, np.eye(*SIZE, dtype=np.uint8))
    options = options_for(video, tmp_path / "out", masks={6: mask}, finetune=0, both_ways=False)
    assert run(options).frames == LENGTH
    with pytest.raises(InputError, match="given for frame 12, but the selection has 10 frames"):
        run(dataclasses.replace(options, masks={12: mask}))


@pytest.mark.parametrize("mask", [np.eye(*SIZE), -np.eye(*SIZE, dtype=np.int64), np.ones((*SIZE, 3), np.uint8)])
def test_an_array_that_is_no_mask(mask: np.ndarray, frames: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"masks: expected uint8 \[H, W\] with labels for frame 4, received "):
        run(options_for(frames, tmp_path, masks={4: mask}))


def test_fine_tuning_on_a_frame_beyond_the_end(frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Matroska file may also be shorter than it states: its sound may go on."""
    video = _video_that_states(40, frames, tmp_path, monkeypatch)
    options = options_for(video, tmp_path / "out", masks={12: np.eye(*SIZE, dtype=np.uint8)})
    with pytest.raises(InputError, match="--mask: a mask is given for frame 12, which the video does not have"):
        run(options)
    assert not list((tmp_path / "out").glob("*"))


def test_a_kind_of_result_is_added_by_a_class(frames: Path, tmp_path: Path) -> None:
    from osmn_tf.jobs.outputs import Output

    class Areas(Output):
        title, ending = "areas", "_areas.txt"

        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            self.lines: list[str] = []

        def add(self, index: int, frame: np.ndarray, mask: np.ndarray, scores: object) -> None:
            self.lines.append(f"{index} {np.count_nonzero(mask)}")

        def close(self) -> None:
            self.path.write_text("\n".join(self.lines))

    outputs.register("areas")(Areas)
    try:
        outcome = run(options_for(frames, tmp_path, outputs={"areas": None}))
    finally:
        del outputs._items["areas"]
    assert ("areas", tmp_path / "frames_areas.txt") in outcome.results
    assert len((tmp_path / "frames_areas.txt").read_text().splitlines()) == LENGTH


def test_scores_are_files_and_the_confidence_of_tracks(frames: Path, tmp_path: Path) -> None:
    """An interrupted run has its scores too. The object of label 7 is given in frame 6."""
    kinds = dict.fromkeys(("coco", "scores"))
    options = options_for(frames, tmp_path, both_ways=False, finetune=0, outputs=kinds)
    run_until(options, "forward", lambda: os.kill(os.getpid(), signal.SIGINT))
    assert run(options).resumed == 8
    tracks = {
        track["label"]: track for track in json.loads((tmp_path / "frames_tracks.json").read_text())["annotations"]
    }
    for label, begin in ((2, 0), (7, 6)):
        files = sorted((tmp_path / "frames_scores" / str(label)).glob("*.png"))
        assert [path.stem for path in files] == [f"{index:05d}" for index in range(begin, LENGTH)]
        means = []
        for index, path in enumerate(files, start=begin):
            score = next(iter(open_source(path)))[..., 0] / 255
            mask = read_label_png(tmp_path / "frames" / path.name) == label
            if index == begin:
                np.testing.assert_array_equal(score, mask)
                assert tracks[label]["frame_scores"][index] is None
            else:
                means.append(score[mask].mean())
                assert abs(tracks[label]["frame_scores"][index] - means[-1]) <= 0.5 / 255
        assert abs(tracks[label]["score"] - np.mean(means)) <= 0.5 / 255
        assert 0.6 < tracks[label]["score"] < 1
    assert tracks[2]["score"] != tracks[7]["score"]
    with pytest.raises(InputError, match="--scores: the backward pass keeps none"):
        run(options_for(frames, tmp_path / "both", outputs=kinds))


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preset of an RVOS that takes no masks, with random weights."""
    from support import TINY_RVOS, randomise

    from osmn_tf.models.rvos import RVOS

    folder = tmp_path_factory.mktemp("presets") / "finder"
    randomise(RVOS(**TINY_RVOS, one_shot=False, slots=3), seed=4).save_to_preset(folder)
    return folder


@pytest.mark.usefixtures("loaded_once")
def test_without_a_mask_the_network_finds_the_objects(finder: Path, frames: Path, tmp_path: Path) -> None:
    options = SegmentOptions(frames, preset=finder, out=tmp_path / "out", end=3, outputs={"sheet": None})
    assert segment_job.segment(options).frames == 3
    found = [read_label_png(path) for path in sorted((tmp_path / "out" / frames.stem).glob("*.png"))]
    with VideoSegmenter(finder) as segmenter:
        expected = [mask for _, mask in segmenter.track(open_source(frames, end=3))]
    assert expected[0].any()
    np.testing.assert_array_equal(found, expected)
    limited = dataclasses.replace(options, network=PredictorOptions(objects=1), out=tmp_path / "one")
    segment_job.segment(limited)
    assert max(read_label_png(path).max() for path in (tmp_path / "one" / frames.stem).glob("*.png")) <= 1
    nothing = tmp_path / "nothing"
    with pytest.raises(InputError, match="--mask: this preset takes none, it finds the objects by itself; leave it"):
        segment_job.segment(SegmentOptions(frames, {0: np.ones(SIZE, np.uint8)}, preset=finder, out=nothing))
    with pytest.raises(InputError, match="--both-ways: needs the objects as --mask PNG, --box"):
        segment_job.segment(SegmentOptions(frames, preset=finder, both_ways=True, out=nothing))
    assert not nothing.exists()


def test_cutouts_of_every_kind(frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Object 7 is given in frame 6; from then on it has a file and a layer in every frame."""
    from osmn_tf.jobs.outputs import Look

    exr = pytest.importorskip("OpenEXR", reason="OpenEXR is not installed: pip install 'osmn-tf[exr]'")
    kinds = dict.fromkeys(("cutouts", "exr", "prores", "alpha-webm"))
    look = Look(feather=2)
    options = options_for(frames, tmp_path, both_ways=False, finetune=0, outputs=kinds, look=look)
    outcome = run(options)
    assert outcome.problem is None
    for suffix in ("mov", "webm"):
        assert open_source(tmp_path / f"frames_alpha.{suffix}").count_frames() == LENGTH
    for label, begin in ((2, 0), (7, 6)):
        names = [path.name for path in sorted((tmp_path / "frames_cutouts" / str(label)).glob("*.png"))]
        assert names == [f"{index:05d}.png" for index in range(begin, LENGTH)]
    import cv2

    for index in range(LENGTH):
        mask = read_label_png(tmp_path / "frames" / f"{index:05d}.png")
        with exr.File(str(tmp_path / "frames_exr" / f"{index:05d}.exr")) as file:
            layers = {name: channel.pixels for name, channel in file.channels().items()}
        assert set(layers) == {"RGB", "object_2"} | ({"object_7"} if index >= 6 else set())
        for label in (2, 7):
            if f"object_{label}" in layers:
                alpha = layers[f"object_{label}"][..., 3]
                np.testing.assert_array_equal(alpha > 0.5, mask == label)
                path = tmp_path / "frames_cutouts" / str(label) / f"{index:05d}.png"
                written = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., 3]
                np.testing.assert_allclose(written / 255, alpha, atol=0.6 / 255)
    # Another look is another command.
    with pytest.raises(InputError, match="use --force"):
        run(dataclasses.replace(options, look=Look(matte=True)))
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(InputError, match=r"osmn-tf\[exr\]"):
        run(dataclasses.replace(options, out=tmp_path / "other"))

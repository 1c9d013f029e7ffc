"""`osmn segment` from end to end: results, refusals, interruptions."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from osmn_tf.cli.main import main
from osmn_tf.datasets.examples import example_path
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.jobs import outputs
from osmn_tf.jobs import segment as segment_job
from osmn_tf.masks.files import read_label_png, write_mask
from osmn_tf.video.source import open_source
from tests.cli.conftest import LENGTH, SIZE

pytestmark = pytest.mark.usefixtures("loaded_once")


@pytest.fixture
def segment(tiny_preset: Path, tmp_path: Path) -> Callable[..., int]:
    """Runs `osmn segment ARGUMENTS` with the tiny preset and --out TMP/out."""

    def run(*arguments: object, out: Path = tmp_path / "out", preset: object = tiny_preset) -> int:
        return main(["segment", *map(str, arguments), "--preset", str(preset), "--out", str(out), "--quiet"])

    return run


def masks_in(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: read_label_png(path) for path in sorted(folder.glob("*.png"))}


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all((first[name] == second[name]).all() for name in first)


@pytest.fixture(scope="module")
def reference(tiny_preset: Path, video: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The masks of an uninterrupted run on `video` with the two objects of `mask`."""
    folder = tmp_path_factory.mktemp("reference")
    labels = np.zeros(SIZE, np.uint8)
    labels[30:60, 10:40] = 2
    labels[70:90, 80:120] = 7
    write_mask(folder / "first.png", labels)
    out = folder / "out"
    arguments = ["--mask", str(folder / "first.png"), "--preset", str(tiny_preset), "--out", str(out), "--no-overlay"]
    assert main(["segment", str(video), *arguments, "--quiet"]) == 0
    return masks_in(out / "clip")


def test_writes_everything(segment: Callable[..., int], video: Path, mask: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert segment(video, "--mask", mask, "--coco", out / "clip.json", "--cutouts") == 0
    masks = masks_in(out / "clip")
    assert list(masks) == [f"{index:05d}" for index in range(LENGTH)]
    assert (masks["00000"] == read_label_png(mask)).all()
    assert {int(value) for labels in masks.values() for value in np.unique(labels)} <= {0, 2, 7}

    overlay = open_source(out / "clip_overlay.mp4")
    assert (overlay.count_frames(), overlay.info.fps) == (LENGTH, 10)
    assert (overlay.info.height, overlay.info.width) == SIZE
    assert cv2.imread(str(out / "clip_sheet.png")).shape[1] > 4 * SIZE[1]

    document = json.loads((out / "clip.json").read_text())
    assert {track["label"] for track in document["annotations"]} == {
        int(value) for labels in masks.values() for value in np.unique(labels) if value
    }
    for track in document["annotations"]:
        for name, entry in zip(masks, track["segmentations"]):
            expected = masks[name] == track["label"]
            assert (expected == coco_mask.decode(entry)).all() if entry is not None else not expected.any()

    cutout = cv2.imread(str(out / "clip_cutouts" / "2" / "00000.png"), cv2.IMREAD_UNCHANGED)
    assert ((cutout[..., 3] == 255) == (masks["00000"] == 2)).all()
    assert not list(tmp_path.rglob("*.part*"))


def test_equals_the_library(
    segment: Callable[..., int], video: Path, mask: Path, tiny_preset: Path, reference: dict[str, np.ndarray]
) -> None:
    import osmn_tf as osmn

    segmenter = VideoSegmenter(osmn.load(tiny_preset))
    tracked = [labels for _, labels in segmenter.track(osmn.read_video(video), osmn.read_mask(mask))]
    assert same(reference, {f"{index:05d}": labels for index, labels in enumerate(tracked)})
    assert any((reference["00001"] != labels).any() for labels in reference.values())  # not one mask repeated


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.slow
def test_half_precision_gives_the_same_masks_where_the_network_is_sure(
    segment: Callable[..., int], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Of a trained network. Eight bits move its logits by 0.3: a winner that is ahead by 1.2 stays the winner."""
    import osmn_tf as osmn

    example = example_path()
    words = ("--mask", example / "first_mask.png", "--network-size", "96x160", "--end", 3, "--no-overlay")
    assert segment(example / "meadow.mp4", *words, "--precision", "mixed_bfloat16", preset="reconvnet_lite") == 0
    received = list(masks_in(tmp_path / "out" / "meadow").values())
    request.getfixturevalue("eagerly")  # a second graph takes longer than two frames without
    segmenter = VideoSegmenter(osmn.load("reconvnet_lite"), network_size=(96, 160), keep_scores=True)
    tracked = segmenter.track(open_source(example / "meadow.mp4", end=3), osmn.read_mask(example / "first_mask.png"))
    for index, (_, labels) in enumerate(tracked):
        assert (received[index] == labels).mean() > 0.99
        if index > 0:
            scores = np.stack([np.full(labels.shape, 0.5), *segmenter.scores.values()])
            second, first = np.sort(np.log(scores / (1 - scores)), axis=0)[-2:]
            sure = first - second > 1.2
            assert (sure & (labels > 0)).mean() > 0.02
            np.testing.assert_array_equal(received[index][sure], labels[sure])
    assert len(received) == index + 1 == 3


def test_selected_frames_keep_their_numbers(
    segment: Callable[..., int], video: Path, mask: Path, tmp_path: Path
) -> None:
    assert segment(video, "--mask", f"4:{mask}", "--start", 2, "--end", 9, "--every", 2, "--no-overlay") == 0
    masks = masks_in(tmp_path / "out" / "clip")
    assert list(masks) == ["00002", "00004", "00006", "00008"]
    assert not masks["00002"].any()
    assert (masks["00004"] == read_label_png(mask)).all()


def test_both_ways_reaches_the_frames_before(
    segment: Callable[..., int], video: Path, mask: Path, tmp_path: Path
) -> None:
    assert segment(video, "--mask", f"6:{mask}", "--both-ways") == 0
    masks = masks_in(tmp_path / "out" / "clip")
    assert len(masks) == LENGTH
    assert (masks["00006"] == read_label_png(mask)).all()
    assert masks["00005"].any()


def test_objects_join_later(segment: Callable[..., int], video: Path, mask: Path, tmp_path: Path) -> None:
    labels = read_label_png(mask)
    write_mask(tmp_path / "two.png", np.where(labels == 2, 2, 0).astype(np.uint8))
    write_mask(tmp_path / "seven.png", np.where(labels == 7, 7, 0).astype(np.uint8))
    arguments = ("--mask", tmp_path / "two.png", "--mask", f"5:{tmp_path / 'seven.png'}")
    assert segment(video, *arguments, "--no-overlay") == 0
    masks = masks_in(tmp_path / "out" / "clip")
    assert all(not (masks[f"{index:05d}"] == 7).any() for index in range(5))
    assert (masks["00005"] == 7).sum() == (labels == 7).sum()


def test_box_makes_the_first_mask(segment: Callable[..., int], video: Path, tmp_path: Path) -> None:
    assert segment(video, "--box", "5,25,45,40", "--end", 3) == 0
    first = read_label_png(tmp_path / "out" / "clip_first_mask.png")
    square = np.zeros(SIZE, bool)
    square[30:60, 10:40] = True
    assert ((first == 1) & square).sum() / ((first == 1) | square).sum() > 0.6
    assert (tmp_path / "out" / "clip_first_mask_preview.png").is_file()


def test_a_box_of_the_whole_frame_is_allowed_and_remarked_on(
    segment: Callable[..., int], video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is said of another box, nor by the same command again; of many videos it is in the record too."""
    whole = f"0,0,{SIZE[1]},{SIZE[0]}"
    assert segment(video, "--box", whole, "--end", 2) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("osmn segment:")]
    assert len(lines) == 1
    assert lines[0].startswith(f"osmn segment: note: --box {whole}: it is 100 % of the frame, so nothing outside")
    assert read_label_png(tmp_path / "out" / "clip_first_mask.png")[45, 25] == 1
    assert segment(video, "--box", whole, "--end", 2) == 0
    assert segment(video, "--box", "5,25,45,40", "--end", 2, out=tmp_path / "other") == 0
    assert "note" not in capsys.readouterr().err
    # Other processes do not know the tiny preset's backbone. This one they run without TensorFlow.
    many = {"out": tmp_path / "many", "preset": "osmn_match_lite"}
    assert segment(video, "--box", whole, "--end", 2, "--workers", 1, **many) == 0
    (record,) = map(json.loads, (tmp_path / "many" / "results.jsonl").read_text().splitlines())
    assert record["remarks"] == [lines[0].removeprefix("osmn segment: note: ")]


def test_a_click_makes_the_first_mask(segment: Callable[..., int], video: Path, tmp_path: Path) -> None:
    assert segment(video, "--click", "2:35,45+30,50", "--end", 4, "--no-overlay") == 0
    first = read_label_png(tmp_path / "out" / "clip_first_mask.png")
    square = np.zeros(SIZE, bool)
    square[30:60, 20:50] = True
    assert ((first == 1) & square).sum() / ((first == 1) | square).sum() > 0.6
    masks = masks_in(tmp_path / "out" / "clip")
    assert not masks["00001"].any()
    assert (masks["00002"] == first).all()


def test_folder_of_one_image(segment: Callable[..., int], mask: Path, tmp_path: Path) -> None:
    (tmp_path / "single").mkdir()
    cv2.imwrite(str(tmp_path / "single" / "picture.jpg"), np.full((*SIZE, 3), 90, np.uint8))
    assert segment(tmp_path / "single", "--mask", mask) == 0
    assert list(masks_in(tmp_path / "out" / "single")) == ["picture"]


def _png(path: Path, pixels: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), pixels)
    return path


def _soft(path: Path) -> Path:
    disk = cv2.circle(np.zeros(SIZE, np.uint8), (60, 50), 25, 255, -1)
    return _png(path, cv2.GaussianBlur(disk, (9, 9), 3))


def _coloured(path: Path) -> Path:
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[20:50, 20:50] = (17, 130, 201)
    return _png(path, pixels)


BAD_INPUT: dict[str, tuple[Callable[[Path], tuple[object, ...]], str]] = {
    "missing video": (lambda t: (t / "none.mp4", "--mask", t / "m.png"), "none.mp4"),
    "not a video": (lambda t: ((t / "text.mp4"), "--mask", t / "m.png"), "text.mp4"),
    "missing mask": (lambda t: (t / "v.mp4", "--mask", t / "none.png"), "none.png"),
    "empty mask": (lambda t: (t / "v.mp4", "--mask", _png(t / "e.png", np.zeros(SIZE, np.uint8))), "e.png"),
    "other size": (lambda t: (t / "v.mp4", "--mask", _png(t / "s.png", np.eye(40, dtype=np.uint8))), "--resize-mask"),
    "soft mask": (lambda t: (t / "v.mp4", "--mask", _soft(t / "soft.png")), "soft.png"),
    "coloured mask": (lambda t: (t / "v.mp4", "--mask", _coloured(t / "c.png")), "#c98211"),
    "nothing to fine-tune on": (lambda t: (t / "v.mp4", "--finetune", "1"), "--finetune: needs the objects as --mask"),
    "both ways from nothing": (lambda t: (t / "v.mp4", "--both-ways"), "--both-ways: needs the objects as --mask PNG"),
    "box in no frame": (lambda t: (t / "v.mp4", "--box", "90:1,1,9,9"), "frame 90"),
    "end of nothing": (lambda t: (t / "v.mp4", "--mask", t / "m.png", "--until", "3:5"), "objects 2, 7"),
    "end at the beginning": (lambda t: (t / "v.mp4", "--mask", t / "m.png", "--until", "2:0"), "--until 2:0"),
    "end unreadable": (lambda t: (t / "v.mp4", "--mask", t / "m.png", "--until", "2"), "LABEL:N"),
    "opacity": (lambda t: (t / "v.mp4", "--mask", t / "m.png", "--opacity", "2"), "--opacity"),
    "device": (lambda t: (t / "v.mp4", "--mask", t / "m.png", "--device", "tpu"), "--device"),
    "box outside": (lambda t: (t / "v.mp4", "--box", "100,10,80,20"), "100,10,80,20"),
    "box unreadable": (lambda t: (t / "v.mp4", "--box", "1,2,3"), "1,2,3"),
    "click outside": (lambda t: (t / "v.mp4", "--click", "900,10"), "900,10"),
    "click unreadable": (lambda t: (t / "v.mp4", "--click", "1;2"), "X,Y"),
    "late mask": (lambda t: (t / "v.mp4", "--mask", f"70:{t / 'm.png'}"), "70"),
    "frame twice": (lambda t: (t / "v.mp4", "--mask", t / "m.png", "--mask", f"0:{t / 'm.png'}"), "already"),
    "network size": (lambda t: (t / "v.mp4", "--mask", t / "m.png", "--network-size", "big"), "288x512"),
    "overlay format": (lambda t: (t / "v.mp4", "--mask", t / "m.png", "--overlay", t / "out" / "o.txt"), "o.txt"),
    "bad range": (lambda t: (t / "v.mp4", "--mask", t / "m.png", "--start", 5, "--end", 3), "end"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_one_line_and_writes_nothing(
    name: str,
    segment: Callable[..., int],
    video: Path,
    mask: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "v.mp4").symlink_to(video)
    (tmp_path / "m.png").symlink_to(mask)
    (tmp_path / "text.mp4").write_text("no video")
    arguments, word = BAD_INPUT[name]
    assert segment(*arguments(tmp_path)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("osmn segment: error: ")
    assert word in error
    assert not list((tmp_path / "out").rglob("*")) if (tmp_path / "out").exists() else True


def test_unknown_preset_lists_the_known_ones(
    segment: Callable[..., int], video: Path, mask: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert segment(video, "--mask", mask, preset="reconvnet_light") == 2
    assert "reconvnet_lite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_damaged_weights(
    segment: Callable[..., int],
    video: Path,
    mask: Path,
    tiny_preset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in tiny_preset.iterdir():
        (broken / path.name).write_bytes(path.read_bytes()[:20000] if path.suffix == ".h5" else path.read_bytes())
    assert segment(video, "--mask", mask, preset=broken) == 2
    assert "model.weights.h5" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_output_cannot_be_written(
    segment: Callable[..., int], video: Path, mask: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert segment(video, "--mask", mask, out=tmp_path / "file") == 2
    assert "--out" in capsys.readouterr().err
    assert segment(video, "--mask", mask, out=Path("/proc/results")) == 2
    assert "/proc/results" in capsys.readouterr().err


def test_mask_of_another_size_is_resized_on_request(segment: Callable[..., int], video: Path, tmp_path: Path) -> None:
    pixels = np.zeros((SIZE[0] * 2, SIZE[1] * 2), np.uint8)
    pixels[60:120, 20:80] = 255
    large = _png(tmp_path / "large.png", pixels)
    assert segment(video, "--mask", large, "--resize-mask", "--end", 2, "--no-overlay") == 0
    first = masks_in(tmp_path / "out" / "clip")["00000"]
    assert (first[30:60, 10:40] == 1).all()
    assert (first == 1).sum() == 900


def test_existing_results_are_safe(
    segment: Callable[..., int], video: Path, mask: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "out" / "clip" / "00003.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    for force in ([], ["--force"]):
        assert segment(video, "--mask", mask, *force) == 2
        assert "osmn segment has not written it" in capsys.readouterr().err
        assert mine.read_bytes() == b"mine"
    mine.unlink()
    assert segment(video, "--mask", mask, "--end", 3, "--no-overlay") == 0
    assert segment(video, "--mask", mask, "--end", 2, "--no-overlay") == 2
    assert "use --force" in capsys.readouterr().err
    assert segment(video, "--mask", mask, "--end", 2, "--no-overlay", "--force") == 0
    assert len(masks_in(tmp_path / "out" / "clip")) == 2


def test_same_command_again_does_nothing(
    segment: Callable[..., int], video: Path, mask: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert segment(video, "--mask", mask, "--end", 3) == 0
    stamp = (tmp_path / "out" / "clip" / "00002.png").stat().st_mtime_ns
    assert segment(video, "--mask", mask, "--end", 3) == 0
    assert "done already" in capsys.readouterr().out
    assert (tmp_path / "out" / "clip" / "00002.png").stat().st_mtime_ns == stamp


def test_truncated_video_keeps_what_was_decoded(
    segment: Callable[..., int], video: Path, mask: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, frame in enumerate(open_source(video)):
        cv2.imwrite(str(folder / f"{index:05d}.jpg"), frame[..., ::-1])
    damaged = folder / "00007.jpg"
    damaged.write_bytes(damaged.read_bytes()[:600])
    assert segment(folder, "--mask", mask) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "00007.jpg" in error
    assert "kept 7 masks" in error
    assert len(masks_in(tmp_path / "out" / "frames")) == 7
    assert open_source(tmp_path / "out" / "frames_overlay.mp4").count_frames() == 7


def test_a_box_in_a_later_frame_and_an_object_that_ends(
    segment: Callable[..., int], video: Path, mask: Path, tmp_path: Path
) -> None:
    """The square of the video is in the box at frame 4; its label goes on behind those of the mask."""
    words = ("--mask", mask, "--box", "4:25,25,45,40", "--until", "2:6", "--no-overlay", "--no-sheet")
    assert segment(video, *words) == 0
    masks = list(masks_in(tmp_path / "out" / "clip").values())
    assert [8 in labels for labels in masks[:5]] == [False] * 4 + [True]
    square = np.zeros(SIZE, bool)
    square[30:60, 30:60] = True
    found = masks[4] == 8
    assert (found & square).sum() / (found | square).sum() > 0.6
    assert ((read_label_png(tmp_path / "out" / "clip_first_mask.png") == 8) == found).all()
    assert 2 in masks[5]
    assert not any(2 in labels for labels in masks[6:])


def test_opacity_of_the_overlay(segment: Callable[..., int], video: Path, mask: Path, tmp_path: Path) -> None:
    words = (video, "--mask", mask, "--end", 1, "--no-sheet")
    assert segment(*words, "--opacity", 1, out=tmp_path / "full") == 0
    assert segment(*words, "--opacity", 0, out=tmp_path / "none") == 0
    full, none = (open_source(tmp_path / name / "clip_overlay.mp4")[0].astype(int) for name in ("full", "none"))
    inside = (slice(36, 54), slice(16, 34))
    assert np.ptp(full[inside].mean(axis=2)) < 20 < np.abs(full - none)[inside].mean()
    assert segment(*words, "--opacity", 1, out=tmp_path / "none") == 2  # another look is another command


def test_threads_and_device(video: Path, mask: Path, tmp_path: Path) -> None:
    from tiny_network import TinyNet

    TinyNet().save_to_preset(tmp_path / "tiny")
    code = """
import sys
from osmn_tf.cli.main import main
code = main(sys.argv[1:])
import keras, os
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
    assert tf.config.threading.get_intra_op_parallelism_threads() == 1
assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1"
sys.exit(code)
"""
    words = ["--plugin", str(Path(__file__).parents[1] / "tiny_network.py"), "segment", str(video)]
    words += ["--mask", str(mask), "--preset", str(tmp_path / "tiny"), "--out", str(tmp_path / "o"), "--end", "2"]
    words += ["--threads", "1", "--device", "cpu", "--quiet", "--no-overlay", "--no-sheet"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(masks_in(tmp_path / "o" / "clip")) == 2


class Killed(BaseException):
    """Stands for the end of the process."""


def _stop_at(monkeypatch: pytest.MonkeyPatch, frame: int, action: Callable[[], None]) -> None:
    original, calls = VideoSegmenter.step, iter(range(1, 1000))

    def step(self: VideoSegmenter, image: np.ndarray) -> np.ndarray:
        if next(calls) == frame:
            action()
        return original(self, image)

    monkeypatch.setattr(VideoSegmenter, "step", step)


def test_ctrl_c_keeps_what_is_done_and_continues(
    segment: Callable[..., int],
    video: Path,
    mask: Path,
    tmp_path: Path,
    reference: dict[str, np.ndarray],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _stop_at(patch, 5, lambda: os.kill(os.getpid(), signal.SIGINT))
        assert segment(video, "--mask", mask) == 130
    assert "the same command continues" in capsys.readouterr().err
    masks = masks_in(tmp_path / "out" / "clip")
    assert len(masks) == 6
    assert same(masks, {name: reference[name] for name in masks})
    with pytest.MonkeyPatch.context() as patch:
        _stop_at(patch, 7, lambda: pytest.fail("frames were segmented again"))
        assert segment(video, "--mask", mask) == 0
    assert same(masks_in(tmp_path / "out" / "clip"), reference)
    assert open_source(tmp_path / "out" / "clip_overlay.mp4").count_frames() == LENGTH
    assert not list((tmp_path / "out").glob(".*.npz"))


def test_killed_run_continues_from_its_last_snapshot(
    segment: Callable[..., int], video: Path, mask: Path, tmp_path: Path, reference: dict[str, np.ndarray]
) -> None:
    def kill() -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment_job, "SNAPSHOT_INTERVAL", 4)
        _stop_at(patch, 6, kill)
        with pytest.raises(Killed):
            segment(video, "--mask", mask)
    assert not list((tmp_path / "out").glob("*.mp4"))
    with pytest.MonkeyPatch.context() as patch:
        _stop_at(patch, 9, lambda: pytest.fail("more than the last four frames were segmented again"))
        assert segment(video, "--mask", mask) == 0
    assert same(masks_in(tmp_path / "out" / "clip"), reference)


def test_full_disk_keeps_what_is_done_and_continues(
    segment: Callable[..., int],
    video: Path,
    mask: Path,
    tmp_path: Path,
    reference: dict[str, np.ndarray],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(path: Path, labels: np.ndarray) -> None:
        if path.stem == "00004":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_mask(path, labels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outputs, "write_mask", full)
        assert segment(video, "--mask", mask) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "No space left on device" in error
    assert not list(tmp_path.rglob("*.part*"))
    assert segment(video, "--mask", mask) == 0
    assert same(masks_in(tmp_path / "out" / "clip"), reference)


def test_presets_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0
    assert "reconvnet_lite: " in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["segment", "--help"], ["evaluate", "--help"], ["--version"]])
def test_help_needs_no_backend(arguments: list[str]) -> None:
    code = (
        "import sys; from osmn_tf.cli.main import main\ntry: main(sys.argv[1:])\nexcept SystemExit as e: c = e.code\n"
    )
    code += "sys.exit(c or any(m in sys.modules for m in ('tensorflow', 'keras')))"
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_console_script_hides_the_backend_chatter(video: Path, mask: Path, tmp_path: Path) -> None:
    arguments = ["segment", str(video), "--mask", str(mask), "--out", str(tmp_path / "o")]
    result = subprocess.run(
        [sys.executable, "-m", "osmn_tf.cli.main", *arguments, "--end", "2"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "overlay:" in result.stdout

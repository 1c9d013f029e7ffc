"""Sound, colour tags and alpha of the videos that are written, read back by ffmpeg where it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from osmn_tf.errors import InputError
from osmn_tf.video.readers import Colors
from osmn_tf.video.source import open_source
from osmn_tf.video.writer import VideoWriter, write_video

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None, reason="ffmpeg is not installed"
)
SIZE, RATE, COUNT = (48, 64), Fraction(30000, 1001), 60
BT709 = Colors(primaries=1, transfer=1, matrix=1)


def pictures(count: int = COUNT) -> list[np.ndarray]:
    """Smooth and colourful, so that 4:2:0 and the quantiser take little from it."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] / 64
    return [
        np.stack([200 * x + 20, 120 * y + index, 60 + 0 * x], axis=-1).round().astype(np.uint8)
        for index in range(count)
    ]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds in BT.709 with a tone of AAC that is silent but from second 1.0 to 1.5."""
    folder = tmp_path_factory.mktemp("clip")
    with VideoWriter(folder / "silent.mp4", RATE, SIZE, colors=BT709) as silent:
        for frame in pictures():
            silent.write(frame)
    return with_tone(folder / "silent.mp4", folder / "clip.mp4", "aac", 48000, "fltp")


def with_tone(silent: Path, path: Path, codec: str, rate: int, form: str) -> Path:
    """The frames with a tone."""
    with av.open(str(silent)) as source, av.open(str(path), "w") as target:
        video = target.add_stream_from_template(source.streams.video[0])
        audio = target.add_stream(codec, rate=rate, layout="mono")
        for packet in source.demux(source.streams.video[0]):
            if packet.pts is not None:
                packet.stream = video
                target.mux(packet)
        time = np.arange(2 * rate) / rate
        wave = np.where((time >= 1) & (time < 1.5), 0.5 * np.sin(2 * np.pi * 440 * time), 0).astype(np.float32)
        if form == "s16":
            wave = (32767 * wave).astype(np.int16)
        size = audio.codec_context.frame_size or 1024
        for begin in range(0, len(wave), size):
            block = av.AudioFrame.from_ndarray(wave[None, begin : begin + size], format=form, layout="mono")
            block.sample_rate, block.pts, block.time_base = rate, begin, Fraction(1, rate)
            target.mux(audio.encode(block))
        target.mux(audio.encode(None))
    return path


def loud(path: Path) -> tuple[float, float]:
    """When the tone begins and ends, in seconds."""
    times = []
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        for frame in container.decode(stream):
            level = np.abs(frame.to_ndarray().astype(np.float32)).max(axis=0)
            level /= 32768 if frame.format.name.startswith("s16") else 1
            begin = float(frame.time)
            times += [begin + index / frame.sample_rate for index in np.flatnonzero(level > 0.2)]
    return min(times), max(times)


@pytest.mark.parametrize("name", ["o.mp4", "o.mkv", "o.webm", "o.mov"])
def test_sound_goes_with_the_frames(name: str, clip: Path, tmp_path: Path) -> None:
    """Copied, or encoded anew as Opus for WebM: within a block of AAC (21 ms) and the delay of Opus."""
    source = open_source(clip, start=15, end=55)
    with VideoWriter(tmp_path / name, source.fps, source.size, sound=source.sound()) as target:
        for frame in source:
            target.write(frame)
    began, ended = loud(tmp_path / name)
    shift = float(15 / RATE)
    assert abs(began - (1 - shift)) < 0.04
    assert abs(ended - (min(1.5, float(55 / RATE)) - shift)) < 0.04
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.audio[0].codec_context.name == ("opus" if name == "o.webm" else "aac")
        last = max(float((p.pts + p.duration) * p.time_base) for p in container.demux(audio=0) if p.pts is not None)
    assert abs(last - float(40 / RATE)) < 0.05


def test_sources_without_sound(clip: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "silent.mp4", pictures(4), 25)
    assert open_source(tmp_path / "silent.mp4").sound() is None
    assert open_source(clip, every=2).sound() is None
    assert open_source(clip).sound() is not None


def test_an_error_or_the_end_of_the_sound_does_not_end_the_video(clip: Path, tmp_path: Path) -> None:
    sound = open_source(clip).sound()
    with VideoWriter(tmp_path / "long.mp4", RATE, SIZE, sound=sound) as target:
        for frame in pictures(COUNT + 30):
            target.write(frame)
    assert open_source(tmp_path / "long.mp4").count_frames() == COUNT + 30


@pytest.mark.parametrize("rate", [11024, 192000])
def test_sound_at_a_rate_that_aac_does_not_have(rate: int, clip: Path, tmp_path: Path) -> None:
    """As cameras of Canon's had it, and recorders of music have it."""
    source = open_source(with_tone(clip, tmp_path / "clip.mkv", "pcm_s16le", rate, "s16"))
    with VideoWriter(tmp_path / "o.mp4", source.fps, source.size, sound=source.sound()) as target:
        for frame in source:
            target.write(frame)
    began, ended = loud(tmp_path / "o.mp4")
    assert abs(began - 1) < 0.04
    assert abs(ended - 1.5) < 0.04


def test_a_clock_that_begins_anew_in_the_sound(tmp_path: Path) -> None:
    """As where two files of a DVD were joined."""
    with av.open(str(tmp_path / "silent.vob"), "w") as target:
        video = target.add_stream("mpeg2video", rate=RATE)
        video.height, video.width, video.pix_fmt = *SIZE, "yuv420p"
        for frame in pictures():
            target.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        target.mux(video.encode(None))
    part = with_tone(tmp_path / "silent.vob", tmp_path / "part.vob", "ac3", 48000, "fltp")
    (tmp_path / "both.vob").write_bytes(2 * part.read_bytes())
    source = open_source(tmp_path / "both.vob")
    with VideoWriter(tmp_path / "o.mp4", source.fps, source.size, sound=source.sound()) as target:
        for frame in source:
            target.write(frame)
    assert open_source(tmp_path / "o.mp4").count_frames() == source.count_frames() > COUNT
    began, ended = loud(tmp_path / "o.mp4")
    assert abs(ended - began - 0.5) < 0.04


def probe(path: Path) -> dict[str, object]:
    command = ["ffprobe", "-v", "error", "-select_streams", "v", "-show_streams", "-count_frames", "-of", "json", path]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["streams"][0]


def decode(path: Path, form: str, decoder: str | None = None) -> np.ndarray:
    """All frames as ffmpeg decodes them, [T, H, W, C]."""
    command = ["ffmpeg", "-v", "error", *(["-c:v", decoder] if decoder else []), "-i", str(path)]
    command += ["-vsync", "0", "-f", "rawvideo", "-pix_fmt", form, "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, *SIZE, len(form.replace("24", "")))


@needs_ffmpeg
@pytest.mark.parametrize("name", ["o.mp4", "o.webm"])
def test_colours_and_rate_are_the_source_s(name: str, clip: Path, tmp_path: Path) -> None:
    source = open_source(clip)
    assert source.info.colors == BT709
    with VideoWriter(tmp_path / name, source.fps, source.size, colors=source.info.colors) as target:
        for frame in pictures():
            target.write(frame)
    facts = probe(tmp_path / name)
    assert [facts[key] for key in ("color_space", "color_primaries", "color_transfer", "color_range")] == [
        "bt709", "bt709", "bt709", "tv"
    ]  # fmt: skip
    assert (facts["r_frame_rate"], facts["nb_read_frames"]) == ("30000/1001", str(COUNT))
    error = np.abs(decode(tmp_path / name, "rgb24").astype(int) - np.stack(pictures()))
    assert error.mean() < 3
    # The matrix of BT.601 would move a saturated red by more than ten levels.
    assert error[:, :, -8:].mean() < 4


@pytest.mark.parametrize("matrix", [1, 5, 6, 7, 9])
def test_every_matrix_is_undone_by_the_reader(matrix: int, tmp_path: Path) -> None:
    colors = Colors(primaries=9 if matrix == 9 else 1, transfer=16 if matrix == 9 else 1, matrix=matrix)
    frame = np.full((*SIZE, 3), (200, 40, 30), np.uint8)
    with VideoWriter(tmp_path / "a.mp4", 25, SIZE, colors=colors) as target:
        for _ in range(3):
            target.write(frame)
    source = open_source(tmp_path / "a.mp4")
    assert source.info.colors == colors
    assert np.abs(source[1].astype(int) - frame).max() <= 5


def moving_alpha() -> np.ndarray:
    """uint8 [T, H, W]: an opaque square and a translucent one."""
    alpha = np.zeros((COUNT, *SIZE), np.uint8)
    for index in range(COUNT):
        alpha[index, 8:24, index // 2 : index // 2 + 16] = 255
        alpha[index, 30:40, 20:44] = 128
    return alpha


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "codec", "decoder", "most"), [("a.mov", "prores", None, 1), ("a.webm", "vp9", "libvpx-vp9", 12)]
)
def test_ffmpeg_reads_the_alpha(name: str, codec: str, decoder: str | None, most: int, tmp_path: Path) -> None:
    """ProRes keeps alpha but for rounding; VP9 is lossy, and keeps which side of one half it is on."""
    alpha, frames = moving_alpha(), np.stack(pictures())
    with VideoWriter(tmp_path / name, RATE, SIZE, colors=BT709, alpha=True) as target:
        for frame, share in zip(frames, alpha):
            target.write(np.dstack([frame, share]))
    facts = probe(tmp_path / name)
    assert (facts["codec_name"], facts["color_space"], facts["nb_read_frames"]) == (codec, "bt709", str(COUNT))
    if codec == "prores":
        assert facts["pix_fmt"].startswith("yuva444p")
        assert (facts["profile"], facts["color_primaries"], facts["color_transfer"]) == ("4444", "bt709", "bt709")
    else:
        assert {key.lower(): value for key, value in facts["tags"].items()}["alpha_mode"] == "1"
    read = decode(tmp_path / name, "rgba", decoder)
    error = np.abs(read[..., 3].astype(int) - alpha)
    assert np.percentile(error, 99) <= most
    np.testing.assert_array_equal(read[..., 3] > 64, alpha > 64)
    assert np.abs(read[..., :3].astype(int) - frames)[alpha == 255].mean() < 3


def test_alpha_needs_a_codec_and_a_channel_for_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends in \.mov, \.webm"):
        VideoWriter(tmp_path / "a.mp4", 25, SIZE, alpha=True)
    with (
        pytest.raises(InputError, match=r"expected uint8 \[48, 64, 4\]"),
        VideoWriter(tmp_path / "a.webm", 25, SIZE, alpha=True) as target,
    ):
        target.write(pictures(1)[0])
    assert not list(tmp_path.iterdir())

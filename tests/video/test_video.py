from __future__ import annotations

import itertools
import os
import struct
import threading
import time
import wave
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from osmn_tf import InputError
from osmn_tf.video import source as video_io
from osmn_tf.video import writer
from osmn_tf.video.source import TruncatedVideoError, VideoWriter, open_source, read_video, write_video


def make_frames(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Frames that tell their number: a bright column moves right, over a fixed coloured gradient."""
    y, x = np.mgrid[:height, :width]
    ground = np.stack([255 * x // width, 255 * y // height, np.full_like(x, 90)], axis=-1).astype(np.uint8)
    frames = []
    for index in range(count):
        frame = ground.copy()
        frame[:, (2 * index) % width : (2 * index) % width + 2] = 255
        frames.append(frame)
    return frames


def encode(
    path: Path,
    frames: list[np.ndarray],
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    times: list[int] | None = None,
    movflags: str = "",
) -> Path:
    """Encodes with key frames every 12 frames; `times` are milliseconds for a variable frame rate."""
    with av.open(str(path), "w", options={"movflags": movflags} if movflags else {}) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        stream.codec_context.gop_size = 12
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=stream.pix_fmt)
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def close_to(first: np.ndarray, second: np.ndarray, tolerance: float = 12) -> bool:
    return first.shape == second.shape and float(np.abs(first.astype(int) - second).mean()) < tolerance


def read_until_error(items: Iterable[Any]) -> tuple[list[Any], BaseException | None]:
    received = []
    try:
        for item in items:
            received.append(item)
    except Exception as error:
        return received, error
    return received, None


def save_jpegs(folder: Path, frames: list[np.ndarray], pattern: str = "{:05d}.jpg") -> Path:
    folder.mkdir()
    for index, frame in enumerate(frames):
        assert cv2.imwrite(str(folder / pattern.format(index)), frame[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    return folder


# name -> (file, codec, options)
CONTAINERS = {
    "mp4": ("clip.mp4", "libx264", {}),
    "mov": ("clip.mov", "mpeg4", {}),
    "avi": ("clip.avi", "mpeg4", {}),
    "avi-h264": ("clip.avi", "libx264", {}),
    "avi-mjpeg": ("clip.avi", "mjpeg", {}),
    "mkv": ("clip.mkv", "libx264", {}),
    "mkv-open-gop": ("clip.mkv", "libx264", {"x264-params": "open-gop=1:bframes=3"}),
    "webm-vp9": ("clip.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    # Alternate reference frames: packets that never become frames.
    "webm-vp8": ("clip.webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16", "b": "300k", "cpu-used": "8"}),
    "gif": ("clip.gif", "gif", {}),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_reads_the_usual_containers(tmp_path: Path, kind: str) -> None:
    name, codec, options = CONTAINERS[kind]
    frames = make_frames(40)
    source = open_source(encode(tmp_path / name, frames, codec, options))
    assert (source.info.height, source.info.width, source.info.fps) == (48, 64, 25)
    assert source.info.frames == 40
    assert source.name == "clip"
    assert source.frame_name(7) == "00007"
    decoded = list(source)
    assert len(decoded) == 40
    assert all(frame.dtype == np.uint8 for frame in decoded)
    tolerance = 45 if codec == "gif" else 12  # 8 colours
    for index, (frame, original) in enumerate(zip(decoded, frames, strict=True)):
        assert close_to(frame, original, tolerance), index
    assert len(list(source)) == 40, "a source can be read again"
    assert source.count_frames() == 40
    assert np.array_equal(source[13], decoded[13])
    with pytest.raises(IndexError, match="has no frame 40"):
        source[40]


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("chunk_bytes", [1, 1 << 30])
def test_reversed_is_the_reverse(tmp_path: Path, kind: str, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_io, "_CHUNK_BYTES", chunk_bytes)  # 1: chunks of 8 frames
    name, codec, options = CONTAINERS[kind]
    source = open_source(encode(tmp_path / name, make_frames(29), codec, options))
    forward = list(source)
    backward = list(reversed(source))
    assert len(backward) == 29
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward[::-1], strict=True))


def test_reversed_reads_chunks_from_key_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work does not grow with the square of the length, and no more than a chunk is held."""
    monkeypatch.setattr(video_io, "_CHUNK_BYTES", 1)
    source = open_source(encode(tmp_path / "clip.mp4", make_frames(120)))
    reader = source._reader
    decoded = 0
    original = reader._decode

    def counting(container: object) -> Iterator[object]:
        nonlocal decoded
        for frame in original(container):
            decoded += 1
            yield frame

    monkeypatch.setattr(reader, "_decode", counting)
    assert sum(1 for _ in reversed(source)) == 120
    # 120 for the index, and 15 chunks that start at most 12 frames behind a key frame. From the start: 120 + 960.
    assert decoded < 120 + 15 * (8 + 12)


def test_selection(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", make_frames(30))
    everything = list(open_source(path))
    source = open_source(path, start=4, end=21, every=5)
    assert source.info.frames == 4
    assert source.info.fps == 5
    chosen = list(source)
    assert [source.number(i) for i in range(4)] == [4, 9, 14, 19]
    assert [source.frame_name(i) for i in range(4)] == ["00004", "00009", "00014", "00019"]
    for frame, index in zip(chosen, [4, 9, 14, 19], strict=True):
        assert np.array_equal(frame, everything[index])
    assert all(np.array_equal(a, b) for a, b in zip(reversed(source), chosen[::-1], strict=True))
    assert np.array_equal(source[2], everything[14])
    part = source.select(1, 3)
    assert [part.frame_name(i) for i in range(2)] == ["00009", "00014"]
    assert [int(frame.sum()) for frame in part] == [int(everything[i].sum()) for i in (9, 14)]
    assert list(source.select(end=0)) == []
    assert list(reversed(source.select(end=0))) == []
    assert open_source(path, end=99).count_frames() == 30
    assert len(list(open_source(path, start=25, end=99))) == 5


def test_selection_that_is_wrong(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", make_frames(5))
    with pytest.raises(InputError, match="start: expected 0 or more, received -1"):
        open_source(path, start=-1)
    with pytest.raises(InputError, match=r"end: expected more than start \(3\), received 3"):
        open_source(path, start=3, end=3)
    with pytest.raises(InputError, match="every: expected 1 or more, received 0"):
        open_source(path, every=0)
    with pytest.raises(InputError, match="fps: expected a positive number, received 0"):
        open_source(path, fps=Fraction(0))
    with pytest.raises(InputError, match=r"start: expected less than the number of frames of .*, received 5"):
        list(open_source(path, start=5))
    folder = save_jpegs(tmp_path / "seq", make_frames(5))
    with pytest.raises(InputError, match=r"start: expected less than the 5 frames of .*seq, received 7"):
        open_source(folder, start=7)


def test_variable_frame_rate_keeps_every_frame(tmp_path: Path) -> None:
    frames = make_frames(20)
    times = [index * 40 + (300 if index >= 10 else 0) for index in range(20)]
    source = open_source(encode(tmp_path / "vfr.mkv", frames, times=times))
    decoded = list(source)
    assert len(decoded) == 20
    assert all(close_to(a, b) for a, b in zip(decoded, frames, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(decoded, list(reversed(source))[::-1], strict=True))


def test_ntsc_rate_survives_writing_and_reading(tmp_path: Path) -> None:
    for fps in (Fraction(30000, 1001), Fraction(25), Fraction(12), 23.976):
        for suffix in ("mp4", "webm"):
            write_video(tmp_path / f"a.{suffix}", make_frames(30), fps)
            assert float(open_source(tmp_path / f"a.{suffix}").info.fps) == pytest.approx(float(fps), rel=2e-3)
    write_video(tmp_path / "a.mp4", make_frames(3), Fraction(30000, 1001))
    assert open_source(tmp_path / "a.mp4").info.fps == Fraction(30000, 1001)


# (a, b, c, d) of the display matrix -> what is shown
ORIENTATIONS = {
    (1, 0, 0, 1): lambda x: x,
    (0, 1, -1, 0): lambda x: np.rot90(x, -1),  # a phone held upright: shown turned clockwise
    (-1, 0, 0, -1): lambda x: np.rot90(x, 2),
    (0, -1, 1, 0): lambda x: np.rot90(x, 1),
    (-1, 0, 0, 1): lambda x: x[:, ::-1],
    (1, 0, 0, -1): lambda x: x[::-1],
    (0, 1, 1, 0): lambda x: x.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda x: np.rot90(x.transpose(1, 0, 2), 2),
}


@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_display_rotation_is_applied(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    path = encode(tmp_path / "phone.mp4", make_frames(3))
    plain = list(open_source(path))
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd") + 44  # ISO/IEC 14496-12, 8.3.2: the matrix of a version 0 track header
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    source = open_source(path)
    expected = [ORIENTATIONS[matrix](frame) for frame in plain]
    assert (source.info.height, source.info.width) == expected[0].shape[:2]
    for frame, wanted in zip(source, expected, strict=True):
        assert frame.flags.c_contiguous
        assert np.array_equal(frame, wanted)


# Damage


@pytest.mark.parametrize("keep", [0.5, 0.8, 0.97])
@pytest.mark.parametrize("kind", ["mp4", "avi", "avi-h264", "avi-mjpeg", "mkv", "webm-vp9", "webm-vp8", "gif"])
def test_file_truncated_in_the_middle(tmp_path: Path, kind: str, keep: float) -> None:
    name, codec, options = CONTAINERS[kind]
    noise = np.random.default_rng(0).integers(0, 40, (50, 48, 64, 3), dtype=np.uint8)
    frames = [frame // 2 + extra for frame, extra in zip(make_frames(50), noise, strict=True)]
    quality = {"libx264": {"crf": "5"}, "mpeg4": {"b": "3M", "qmin": "1"}}.get(codec, {})
    movflags = "+faststart" if kind == "mp4" else ""
    path = encode(tmp_path / name, frames, codec, options | quality, movflags=movflags)
    whole = list(open_source(path))
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    received, error = read_until_error(open_source(path))
    assert isinstance(error, TruncatedVideoError), "the end of a cut-off file was taken for the end of the video"
    assert f"{name}: breaks off after {len(received)} frames" in str(error)
    assert error.frames == len(received)
    assert 0 < len(received) <= 50
    assert len(received) >= 50 * keep - 16
    for index, (frame, wanted) in enumerate(zip(received, whole, strict=False)):
        assert np.array_equal(frame, wanted), index


def test_truncated_file_backwards(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", make_frames(50), movflags="+faststart")
    whole = list(open_source(path))
    path.write_bytes(path.read_bytes()[: int(0.7 * path.stat().st_size)])
    source = open_source(path)
    with pytest.raises(TruncatedVideoError):
        source.count_frames()
    with pytest.raises(TruncatedVideoError):
        next(reversed(source))
    backward = list(reversed(source.select(end=10)))
    assert all(np.array_equal(a, b) for a, b in zip(backward, whole[9::-1], strict=True))
    # A selection that ends before the damage is complete.
    assert len(list(open_source(path, end=10))) == 10


def test_no_video_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.mp4: there is no such video file"):
        open_source(tmp_path / "none.mp4")
    with pytest.raises(InputError, match=r"x\.mp4: cannot be read \(File name too long\)"):  # as below a closed folder
        open_source(tmp_path / ("x" * 300 + ".mp4"))
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(InputError, match=r"empty\.mp4: expected a video, but the file is empty"):
        open_source(tmp_path / "empty.mp4")
    (tmp_path / "text.mp4").write_text("not a video\n" * 50)
    with pytest.raises(InputError, match=r"text\.mp4: expected a video"):
        open_source(tmp_path / "text.mp4")
    (tmp_path / "notes.txt").write_text("not a video\n" * 50)
    with pytest.raises(InputError, match=r"notes\.txt: expected a video"):
        open_source(tmp_path / "notes.txt")
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(b"\1\2" * 800)
    with pytest.raises(InputError, match=r"sound\.wav: expected a video, but it has no video stream"):
        open_source(tmp_path / "sound.wav")
    path = encode(tmp_path / "no_index.mp4", make_frames(10))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"no_index\.mp4: expected a video"):
        open_source(path)
    path = encode(tmp_path / "zeros.mp4", make_frames(10), movflags="+faststart")
    data = bytearray(path.read_bytes())
    start = data.find(b"mdat") + 4
    data[start:] = bytes(len(data) - start)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"zeros\.mp4: expected a video, but its first frame cannot be decoded"):
        open_source(path)


def test_every_message_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no")
    for path in (tmp_path / "none", tmp_path / "text.mp4", tmp_path):
        with pytest.raises(InputError) as caught:
            open_source(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


# Folders


def test_folder(tmp_path: Path) -> None:
    frames = make_frames(12)
    folder = save_jpegs(tmp_path / "bear", frames)
    (folder / "notes.txt").touch()
    (folder / "._00003.jpg").touch()
    source = open_source(folder)
    assert source.info == video_io.VideoInfo(frames=12, fps=Fraction(24), height=48, width=64)
    assert source.name == "bear"
    assert all(close_to(a, b, 4) for a, b in zip(source, frames, strict=True))
    assert all(close_to(a, b, 4) for a, b in zip(reversed(source), frames[::-1], strict=True))
    part = open_source(folder, start=3, every=4, fps=Fraction(8))
    assert [part.frame_name(i) for i in range(3)] == ["00003", "00007", "00011"]
    assert part.info.fps == 2
    assert len(list(part)) == 3
    assert close_to(part[1], frames[7], 4)
    assert len(list(read_video(folder))) == 12
    assert (part.fps, part.size, len(part), bool(part)) == (2, (48, 64), 3, True)


def test_folder_in_natural_order(tmp_path: Path) -> None:
    frames = make_frames(12)
    source = open_source(save_jpegs(tmp_path / "seq", frames, "frame{}.png"))
    assert [source.frame_name(i) for i in (0, 2, 9, 10, 11)] == ["frame0", "frame2", "frame9", "frame10", "frame11"]
    assert all(np.array_equal(a, b) for a, b in zip(source, frames, strict=True))


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "bmp", "webp", "tif"])
def test_image_formats(tmp_path: Path, suffix: str) -> None:
    frames = make_frames(2)
    folder = save_jpegs(tmp_path / "seq", frames, "{}." + suffix)
    assert all(close_to(a, b, 4) for a, b in zip(open_source(folder), frames, strict=True))
    assert close_to(next(iter(open_source(folder / f"1.{suffix}"))), frames[1], 4)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.6, 0.98])
def test_damaged_frame_in_a_folder(tmp_path: Path, suffix: str, keep: float) -> None:
    noisy = [np.random.default_rng(i).integers(0, 256, (48, 64, 3), dtype=np.uint8) for i in range(5)]
    folder = save_jpegs(tmp_path / "seq", noisy, "{:05d}." + suffix)
    file = folder / f"00003.{suffix}"
    file.write_bytes(file.read_bytes()[: int(keep * file.stat().st_size)])
    received, error = read_until_error(open_source(folder))
    assert isinstance(error, TruncatedVideoError)
    assert f"seq: breaks off after 3 frames ({file}: " in str(error)
    assert len(received) == error.frames == 3


def test_frames_of_different_size(tmp_path: Path) -> None:
    folder = save_jpegs(tmp_path / "seq", [*make_frames(3), make_frames(1, 48, 80)[0]])
    with pytest.raises(InputError, match=r"00003\.jpg: expected a frame of 64x48 like 00000\.jpg, but it is 80x48"):
        open_source(folder)
    folder = save_jpegs(tmp_path / "bmp", [*make_frames(3), make_frames(1, 48, 80)[0]], "{}.bmp")
    with pytest.raises(InputError, match=r"3\.bmp: expected a frame of 64x48 like 0\.bmp, but it is 80x48"):
        list(open_source(folder))


def test_folders_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: expected a folder of frames .*, but it has no images"):
        open_source(tmp_path / "empty")
    folder = save_jpegs(tmp_path / "twice", make_frames(2))
    cv2.imwrite(str(folder / "00001.png"), make_frames(1)[0])
    with pytest.raises(InputError, match=r"two frames have the same name: 00001\.(jpg|png) and 00001\.(jpg|png)"):
        open_source(folder)
    folder = tmp_path / "first"
    folder.mkdir()
    (folder / "0.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(InputError, match=r"0\.jpg: the JPEG file is truncated"):
        open_source(folder)


def test_jpeg_with_data_behind_its_end_and_a_thumbnail(tmp_path: Path) -> None:
    """Cameras append data to a JPEG; a thumbnail in its header has an end marker of its own."""
    folder = save_jpegs(tmp_path / "seq", make_frames(2))
    data = (folder / "00001.jpg").read_bytes()
    thumbnail = b"Exif\0\0" + data
    with_thumbnail = data[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + data[2:]
    (folder / "00001.jpg").write_bytes(with_thumbnail + b"trailing data")
    assert len(list(open_source(folder))) == 2
    (folder / "00001.jpg").write_bytes(with_thumbnail[:-100])
    with pytest.raises(TruncatedVideoError, match=r"00001\.jpg: the JPEG file is truncated"):
        list(open_source(folder))


# Threads


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


def test_early_end_stops_the_thread(tmp_path: Path) -> None:
    source = open_source(encode(tmp_path / "clip.mp4", make_frames(60)))
    iterator = iter(source)
    next(iterator)
    assert threads("osmn-frames")
    iterator.close()
    assert not threads("osmn-frames")
    for _ in source:
        break

    def interrupted() -> None:
        for _ in source:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    deadline = time.monotonic() + 60
    while threads("osmn-frames") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not threads("osmn-frames")


def test_reads_only_a_few_frames_ahead() -> None:
    made = 0

    def produce() -> Iterator[int]:
        nonlocal made
        while made < 1000:
            made += 1
            yield made

    iterator = video_io._prefetch(produce())
    assert next(iterator) == 1
    time.sleep(0.3)
    assert made <= 1 + video_io._MOST_WAITING
    assert list(itertools.islice(iterator, 10)) == list(range(2, 12))
    iterator.close()


def test_errors_come_out_in_order() -> None:
    def produce() -> Iterator[int]:
        yield 1
        yield 2
        raise ZeroDivisionError

    received, error = read_until_error(video_io._prefetch(produce()))
    assert received == [1, 2]
    assert isinstance(error, ZeroDivisionError)
    assert not threads("osmn-frames")


# Writing


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "h264"), ("mov", "h264"), ("mkv", "h264"), ("webm", "vp9")])
def test_written_videos(tmp_path: Path, suffix: str, codec: str) -> None:
    frames = make_frames(30)
    path = tmp_path / f"out.{suffix}"
    assert write_video(path, frames, 12) == 30
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == codec or stream.codec_context.codec.canonical_name == codec
        assert stream.pix_fmt == "yuv420p"
        assert stream.average_rate == 12
    decoded = list(open_source(path))
    assert len(decoded) == 30
    assert all(close_to(a, b, 8) for a, b in zip(decoded, frames, strict=True))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_mp4_starts_with_its_index(tmp_path: Path) -> None:
    """A browser can start to play before it has the whole file."""
    write_video(tmp_path / "a.mp4", make_frames(10), 24)
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_colours_survive(tmp_path: Path, suffix: str) -> None:
    for color in ((255, 0, 0), (0, 200, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 128, 128)):
        frame = np.full((64, 64, 3), color, np.uint8)
        write_video(tmp_path / f"a.{suffix}", [frame] * 3, 24)
        decoded = list(open_source(tmp_path / f"a.{suffix}"))[1]
        assert np.abs(decoded.reshape(-1, 3).mean(axis=0) - color).max() < 5


@pytest.mark.parametrize("size", [(47, 63), (48, 63), (1, 1), (2, 3)])
@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_odd_sizes_are_padded(tmp_path: Path, size: tuple[int, int], suffix: str) -> None:
    frames = make_frames(4, *size)
    write_video(tmp_path / f"a.{suffix}", frames, 24)
    decoded = list(open_source(tmp_path / f"a.{suffix}"))
    assert decoded[0].shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    if size[0] > 40:
        assert close_to(decoded[2][: size[0], : size[1]], frames[2], 8)


def test_nothing_is_left_of_a_video_that_failed(tmp_path: Path) -> None:
    frames = make_frames(4)
    path = tmp_path / "a.mp4"

    def fail_with(error: type[BaseException]) -> None:
        with VideoWriter(path, 24, (48, 64)) as writer:
            writer.write(frames[0])
            raise error

    for error in (ZeroDivisionError, KeyboardInterrupt):
        with pytest.raises(error):
            fail_with(error)
    with pytest.raises(InputError, match=r"a\.mp4: expected at least one frame"), VideoWriter(path, 24, (48, 64)):
        pass
    with pytest.raises(InputError, match="at least one frame"):
        write_video(path, [], 24)
    with pytest.raises(InputError, match=r"frame: expected uint8 \[48, 64, 3\], received uint8 \[48, 80, 3\]"):
        write_video(path, [frames[0], make_frames(1, 48, 80)[0]], 24)
    with pytest.raises(InputError, match="received float32"):
        write_video(path, [frames[0].astype(np.float32)], 24)
    assert list(tmp_path.iterdir()) == []
    assert not threads("osmn-encoder")


def test_ctrl_c_while_the_end_of_a_video_waits_for_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = VideoWriter(tmp_path / "a.mp4", 24, (48, 64))
    video.write(make_frames(1)[0])
    submit = video._pool.submit

    def interrupted(job: object) -> None:
        monkeypatch.setattr(video._pool, "submit", submit)
        raise KeyboardInterrupt

    monkeypatch.setattr(video._pool, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        video.close()
    assert list(tmp_path.iterdir()) == []
    assert not threads("osmn-encoder")


def test_an_old_video_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    writer = VideoWriter(path, 24, (48, 64))
    writer.write(make_frames(1)[0])
    assert path.read_bytes() == b"old"
    writer.abort()
    writer.abort()
    assert path.read_bytes() == b"old"
    write_video(path, make_frames(2), 24)
    assert len(list(open_source(path))) == 2
    assert len(list(tmp_path.iterdir())) == 1


def test_writer_copies_the_frame(tmp_path: Path) -> None:
    buffer = np.zeros((48, 64, 3), np.uint8)
    with VideoWriter(tmp_path / "a.mp4", 24, (48, 64)) as writer:
        for value in range(0, 250, 25):
            buffer[:] = value
            writer.write(buffer)
    means = [frame.mean() for frame in open_source(tmp_path / "a.mp4")]
    assert means == pytest.approx(list(range(0, 250, 25)), abs=4)
    with pytest.raises(InputError, match="closed already"):
        writer.write(buffer)
    writer.close()


def test_writer_arguments(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.wmv: expected a video file name that ends in \.mp4"):
        VideoWriter(tmp_path / "a.wmv", 24, (48, 64))
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="fps: expected a positive number"):
            VideoWriter(tmp_path / "a.mp4", fps, (48, 64))
    with pytest.raises(InputError, match="size: expected"):
        VideoWriter(tmp_path / "a.mp4", 24, (0, 64))
    with pytest.raises(InputError, match=r"a\.mp4: cannot write the video \(No such file or directory\)"):
        VideoWriter(tmp_path / "absent" / "a.mp4", 24, (48, 64))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real_data
def test_davis_sequence_there_and_back(tmp_path: Path) -> None:
    root = os.environ.get("OSMN_DATA_ROOT")
    if not root:
        pytest.skip("OSMN_DATA_ROOT is not set")
    source = open_source(Path(root, "davis/JPEGImages/480p/bear"), end=8)
    assert (source.info.height, source.info.width) == (480, 854)
    frames = list(source)
    write_video(tmp_path / "bear.mp4", frames, source.info.fps)
    for decoded, original in zip(open_source(tmp_path / "bear.mp4"), frames, strict=True):
        error = decoded.astype(float) - original
        assert abs(error.mean()) < 2
        assert 10 * np.log10(255**2 / np.mean(error**2)) > 30  # PSNR in dB


def test_metadata_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "latin.mp4"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "RESUME"
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in make_frames(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    content = path.read_bytes()
    assert b"RESUME" in content
    path.write_bytes(content.replace(b"RESUME", "RÉSUMÉ".encode("latin-1")))
    assert len(list(open_source(path))) == 3


def test_a_name_with_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a relative path: FFmpeg would take it for an address."""
    monkeypatch.chdir(tmp_path)
    write_video("2024-01-01T10:30.mp4", make_frames(3), 10)
    source = open_source("2024-01-01T10:30.mp4")
    assert (source.count_frames(), source.sound()) == (3, None)


def test_pyav_without_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(writer._CODECS, ".mp4", ("libx999", {}))
    with pytest.raises(InputError, match=r"clip\.mp4: this installation of PyAV has no encoder libx999") as caught:
        write_video(tmp_path / "clip.mp4", make_frames(2), 10)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())

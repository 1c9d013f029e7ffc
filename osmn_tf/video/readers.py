"""Decoders of video files and of folders of images, frame by frame and by index. `source` is the way to use them."""

from __future__ import annotations

import abc
import collections
import dataclasses
import itertools
import os
import struct
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.files import natural
from osmn_tf.video.images import IMAGE_SUFFIXES, read_image, stored_size

DEFAULT_FOLDER_FPS = Fraction(24)  # the rate of the DAVIS videos
FAR_AWAY = 1 << 40  # index of a frame that no video has
_MOST_THREADS = 4
_MATRICES = (1, 5, 6, 7, 9)  # that FFmpeg converts from and to; the others say nothing, or are not of Y, Cb and Cr


class TruncatedVideoError(InputError):
    """The source breaks off or is damaged behind its first frames. Everything before was delivered.

    Attributes:
        frames: how many frames of the source, counted from its first, could be decoded.
    """

    def __init__(self, path: object, frames: int, reason: str) -> None:
        super().__init__(f"{path}: breaks off after {frames} frames ({reason})")
        self.frames = frames


@dataclasses.dataclass(frozen=True)
class Colors:
    """How a video's numbers are to be shown, in the numbering of ITU-T H.273.

    Attributes:
        primaries: of the colours, 1: BT.709.
        transfer: from numbers to light.
        matrix: from RGB to luma and chroma.
    """

    primaries: int
    transfer: int
    matrix: int


@dataclasses.dataclass(frozen=True)
class Sound:
    """A piece of the sound that belongs to the frames.

    Attributes:
        path: the file.
        begin: seconds in the file's own time, of the first frame.
        end: seconds; None: to its end.
    """

    path: Path
    begin: float
    end: float | None


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What is known about a source before it is read.

    Attributes:
        frames: the number of frames, or None where the file does not say. A video file's header may be wrong about it;
            `FrameSource.count_frames` is not.
        fps: frames per second (the average, where the rate varies), divided by `every`.
        height: pixels, as displayed (rotation applied).
        width: pixels, as displayed.
        colors: of a video file that says so; None otherwise.
    """

    frames: int | None
    fps: Fraction
    height: int
    width: int
    colors: Colors | None = None


class Reader(abc.ABC):
    """A video file or folder, whole. `exact`: `info.frames` is certain. `files`: what is read."""

    path: Path
    files: list[Path]
    name: str
    info: VideoInfo
    exact: bool

    @abc.abstractmethod
    def read(self, selection: range) -> Iterator[np.ndarray]:
        """The frames with these indices (ascending); ends early at the end of the video."""

    @abc.abstractmethod
    def count(self, end: int) -> int:
        """The exact number of frames, looking no further than `end`."""

    @abc.abstractmethod
    def frame_name(self, index: int) -> str:
        """See `FrameSource.frame_name`."""

    def sound(self, selection: range) -> Sound | None:
        """See `FrameSource.sound`."""
        return None


# Folders of images


class FolderReader(Reader):
    exact = True

    def __init__(self, path: Path, fps: Fraction | None, files: list[Path] | None = None) -> None:
        self.path = path
        self.name = path.resolve().name if files is None else path.stem
        if files is None:
            try:
                entries = list(path.iterdir())
            except OSError as error:
                raise InputError(f"{path}: cannot read the folder ({error.strerror or error})") from error
            files = sorted(
                (entry for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES and entry.name[0] != "."),
                key=lambda path: (natural(path.stem), path.suffix),
            )
        if not files:
            raise InputError(f"{path}: expected a folder of frames ({', '.join(IMAGE_SUFFIXES)}), but it has no images")
        self.files = files
        stems: dict[str, Path] = {}
        for file in files:
            if file.stem in stems:
                raise InputError(f"{path}: two frames have the same name: {stems[file.stem].name} and {file.name}")
            stems[file.stem] = file
        height, width = read_image(files[0]).shape[:2]
        self.info = VideoInfo(len(files), fps or DEFAULT_FOLDER_FPS, height, width)
        # A look at the headers finds a frame of another size before the work starts. Orientation tags may swap the
        # sides, so that only a look at the decoded frame decides about those.
        first = stored_size(files[0])
        for file in files[1:]:
            size = stored_size(file)
            if first is not None and size is not None and sorted(size) != sorted(first):
                raise self._wrong_size(file, size, first)

    def _wrong_size(self, file: Path, size: tuple[int, int], expected: tuple[int, int]) -> InputError:
        return InputError(
            f"{file}: expected a frame of {expected[1]}x{expected[0]} like {self.files[0].name}, but it is "
            f"{size[1]}x{size[0]} (width x height)"
        )

    def read(self, selection: range) -> Iterator[np.ndarray]:
        for index in selection[: len(range(selection.start, len(self.files), selection.step))]:
            file = self.files[index]
            try:
                frame = read_image(file)
            except InputError as error:
                raise TruncatedVideoError(self.path, index, str(error)) from error
            expected = (self.info.height, self.info.width)
            if frame.shape[:2] != expected:
                raise self._wrong_size(file, (frame.shape[0], frame.shape[1]), expected)
            yield frame

    def count(self, end: int) -> int:
        return len(self.files)

    def frame_name(self, index: int) -> str:
        return self.files[index].stem


# Video files


def _is_cut_off(path: Path) -> bool:
    """Whether a container (mp4/mov, avi, mkv/webm, gif) says that it is longer than the file is."""
    length = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
        if head[:4] == b"RIFF":
            return struct.unpack("<I", head[4:8])[0] + 8 > length
        if head[:4] == b"GIF8":
            file.seek(max(0, length - 64))
            return not file.read().rstrip(b"\0").endswith(b";")
        if head[:4] == b"\x1a\x45\xdf\xa3":
            return _matroska_end(head) > length
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            position = 0
            while position + 8 <= length:
                file.seek(position)
                box = file.read(16)
                size = struct.unpack(">I", box[:4])[0]
                if size == 1 and len(box) == 16:
                    size = struct.unpack(">Q", box[8:])[0]
                if size < 8:  # 0: up to the end of the file
                    return False
                position += size
            return position > length
    return False


def _matroska_end(head: bytes) -> int:
    """Where the segment of a Matroska file ends, by its header; 0 where that is left open (live recordings)."""

    def number(position: int) -> tuple[int, int]:
        """An EBML variable-length size and the position behind it."""
        width = 9 - head[position].bit_length()
        value = int.from_bytes(head[position : position + width], "big") & ((1 << (7 * width)) - 1)
        return (-1 if value == (1 << (7 * width)) - 1 else value), position + width

    try:
        size, position = number(4)
        position += size
        if head[position : position + 4] != b"\x18\x53\x80\x67":
            return 0
        size, position = number(position + 4)
    except IndexError:
        return 0
    return 0 if size < 0 else position + size


@dataclasses.dataclass(frozen=True)
class _Index:
    """Where the frames of a video file are, in the order in which they are shown.

    `numbers`: timestamp -> index, empty if the timestamps do not identify the frames. `keys`: (index, timestamp) of the
    key frames. `end`: no frame from here on was looked at. `error`: why it breaks off, if it does.
    """

    count: int
    numbers: dict[int, int]
    keys: list[tuple[int, int]]
    end: int
    error: TruncatedVideoError | None


class FileReader(Reader):
    exact = False

    def __init__(self, path: Path, fps: Fraction | None) -> None:
        import av

        self.path = path
        self.files = [path]
        self.name = path.stem
        self._index: _Index | None = None
        self._lock = threading.Lock()
        if path.stat().st_size == 0:
            raise InputError(f"{path}: expected a video, but the file is empty")
        with self._open() as container:
            stream = self._stream(container)
            rate = next((r for r in (fps, stream.average_rate, stream.guessed_rate) if r), Fraction(25))
            frames = stream.frames or None
            if frames is None and container.duration and container.format.name == "matroska,webm":
                frames = max(1, round(container.duration * rate / av.time_base))
            try:
                first = next(self._decode(container))
            except (StopIteration, TruncatedVideoError) as error:
                raise InputError(f"{path}: expected a video, but its first frame cannot be decoded") from error
        self._matrix = _display_matrix(first)
        height, width = (first.width, first.height) if self._swaps_sides else (first.height, first.width)
        self._began = float(first.pts * first.time_base) if first.pts is not None else 0.0
        self.info = VideoInfo(frames, Fraction(rate), height, width, _colors(first))

    def sound(self, selection: range) -> Sound | None:
        if selection.step != 1:
            return None
        with self._open() as container:
            if not container.streams.audio or container.streams.audio[0].codec_context is None:
                return None
        begin, end = (self._began + float(index / self.info.fps) for index in (selection.start, selection.stop))
        return Sound(self.path, begin, None if selection.stop >= FAR_AWAY else end)

    @property
    def _swaps_sides(self) -> bool:
        return self._matrix is not None and self._matrix[0] == 0

    def _open(self) -> Any:
        import av

        try:
            # FFmpeg takes what is before a colon for a protocol, unless the path begins with a slash. What is said
            # about a video may be in any encoding, and is not read here.
            return av.open(os.path.abspath(self.path), metadata_errors="replace")
        except (av.error.FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise InputError(f"{self.path}: expected a video file or a folder of frames ({reason})") from error

    def _stream(self, container: Any) -> Any:
        """The first video stream that is no cover picture of a piece of music."""
        import av

        for stream in container.streams.video:
            # FFmpeg shows any text file as a film of a terminal.
            if not stream.disposition & av.stream.Disposition.attached_pic and container.format.name != "tty":
                if stream.codec_context is None:
                    raise InputError(f"{self.path}: its video is in a codec that FFmpeg does not know")
                return stream
        raise InputError(f"{self.path}: expected a video, but it has no video stream")

    def _decode(self, container: Any) -> Iterator[Any]:
        """The decoded frames (av.VideoFrame) from the container's position on."""
        import av

        stream = self._stream(container)
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = min(_MOST_THREADS, os.cpu_count() or 1)
        count = 0
        damage = "the rest of the file is missing" if _is_cut_off(self.path) else ""
        # In a file that is cut off the last frames are in doubt: as many as the stream reorders may belong behind a
        # frame that is missing, and the last frame of a GIF may be half a frame.
        waiting: collections.deque[Any] = collections.deque()
        packets = container.demux(stream)
        ended = False
        while not ended:
            try:
                packet = next(packets)
                if packet.is_corrupt:
                    ended, damage = True, "the rest of the file is missing"
                    waiting.extend(stream.codec_context.decode(None))
                else:
                    waiting.extend(packet.decode())
            except StopIteration:
                ended = True
            except av.error.FFmpegError as error:
                ended, damage = True, f"the next frame cannot be decoded: {error.strerror}"
            doubtful = max(stream.codec_context.reorder_depth, container.format.name == "gif") if damage else 0
            while len(waiting) > doubtful:
                count += 1
                yield waiting.popleft()
        if damage:
            raise TruncatedVideoError(self.path, count, damage)

    def _to_rgb(self, frame: Any) -> np.ndarray:
        import cv2

        pixels = frame.to_ndarray(format="rgb24")
        if self._matrix is not None:
            a, b, c, d = self._matrix
            if self._swaps_sides:
                pixels = cv2.transpose(pixels)
            if a + c < 0:
                pixels = cv2.flip(pixels, 1)
            if b + d < 0:
                pixels = cv2.flip(pixels, 0)
        return pixels

    def _checked(self, frame: Any, index: int) -> np.ndarray:
        pixels = self._to_rgb(frame)
        if pixels.shape[:2] != (self.info.height, self.info.width):
            size = f"{pixels.shape[1]}x{pixels.shape[0]}"
            raise TruncatedVideoError(self.path, index, f"the size of the frames changes to {size}")
        return pixels

    def read(self, selection: range) -> Iterator[np.ndarray]:
        if not selection:
            return
        delivered = False
        if self._index is not None and self._index.numbers and selection[-1] < self._index.count:
            # An index is there, made from the whole video: start from the key frame before the first frame wanted.
            for index, frame in self._seek(selection):
                delivered = True
                yield self._checked(frame, index)
        if delivered:
            return
        with self._open() as container:
            for index, frame in enumerate(self._decode(container)):
                if index in selection:
                    yield self._checked(frame, index)
                if index >= selection[-1]:
                    return

    def _seek(self, selection: range) -> Iterator[tuple[int, Any]]:
        """The selected frames with their indices; nothing at all if the container does not find the way."""
        if self._index is None:
            return
        key = max((entry for entry in self._index.keys if entry[0] <= selection[0]), default=None)
        if key is None:
            return
        expected = -1
        with self._open() as container:
            container.seek(key[1], stream=self._stream(container))
            for frame in self._decode(container):
                index = self._index.numbers.get(frame.pts, -1)
                if expected < 0 and index > selection[0]:
                    return
                if index < selection[0]:
                    continue
                if expected >= 0 and index != expected:
                    raise TruncatedVideoError(self.path, expected, "a frame is missing when read again")
                expected = index + 1
                if index in selection:
                    yield index, frame
                if index >= selection[-1]:
                    return
        if expected >= 0:
            raise TruncatedVideoError(self.path, expected, "a frame is missing when read again")

    def count(self, end: int) -> int:
        with self._lock:
            if self._index is None or (self._index.end < end and self._index.error is None):
                self._index = self._make_index(end)
            index = self._index
        if index.error is not None and end > index.count:
            raise index.error
        return index.count

    def _make_index(self, end: int) -> _Index:
        """Decodes the video up to frame `end`, because only the decoder knows which packets become frames."""
        times: list[int | None] = []
        keys: list[tuple[int, int]] = []
        error = None
        with self._open() as container:
            try:
                for index, frame in enumerate(itertools.islice(self._decode(container), end)):
                    times.append(frame.pts)
                    if frame.key_frame and frame.pts is not None:
                        keys.append((index, frame.pts))
            except TruncatedVideoError as broken:
                error = broken
        numbers = {time: index for index, time in enumerate(times) if time is not None}
        reached_end = len(times) < end
        return _Index(
            count=len(times),
            numbers=numbers if len(numbers) == len(times) else {},
            keys=keys,
            end=FAR_AWAY if reached_end else end,
            error=error,
        )

    def frame_name(self, index: int) -> str:
        return f"{index:05d}"


def _colors(frame: Any) -> Colors | None:
    """What a decoded frame says of its colours, where it says how they were coded."""
    matrix = int(frame.colorspace)
    if matrix not in _MATRICES:
        return None
    return Colors(int(frame.color_primaries), int(frame.color_trc), matrix)


def _display_matrix(frame: Any) -> tuple[int, int, int, int] | None:
    """The signs of (a, b, c, d) by which a frame is shown at x' = a x + c y, y' = b x + d y; None if it is as it is.

    Only turns by 90 degrees and mirroring; a matrix of another kind is ignored, as players do.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    values = np.frombuffer(bytes(data), np.int32)
    a, b, c, d = (int(np.sign(values[i])) for i in (0, 1, 3, 4))
    is_turn = (a == d == 0 and b != 0 and c != 0) or (b == c == 0 and a != 0 and d != 0)
    return (a, b, c, d) if is_turn and (a, b, c, d) != (1, 0, 0, 1) else None

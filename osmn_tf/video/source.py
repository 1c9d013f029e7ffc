"""Videos and folders of frames in, videos out.

Frames are uint8 RGB [H, W, 3] throughout. Decoding and encoding run in a background thread behind a short queue, so
that they overlap with the network; memory does not grow with the length of the video.
"""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.video.images import IMAGE_SUFFIXES
from osmn_tf.video.readers import (
    FAR_AWAY,
    FileReader,
    FolderReader,
    Reader,
    Sound,
    TruncatedVideoError,
    VideoInfo,
)
from osmn_tf.video.writer import VideoWriter, write_video

__all__ = [
    "FrameSource",
    "TruncatedVideoError",
    "VideoInfo",
    "VideoWriter",
    "open_source",
    "read_video",
    "write_video",
]

T = TypeVar("T")

# A reversed pass holds at most this many bytes of frames (and those that wait) at a time.
_CHUNK_BYTES = 128 << 20
_MOST_WAITING = 5  # frames that are decoded ahead


def open_source(
    path: str | os.PathLike[str], *, start: int = 0, end: int | None = None, every: int = 1, fps: Fraction | None = None
) -> FrameSource:
    """Opens a video file (mp4, mov, avi, mkv, webm, gif, ...), a folder of images, or one image.

    Args:
        path: the file or folder. A folder's images are taken in natural order (frame9 before frame10).
        start: index of the first frame, from 0.
        end: index behind the last frame. None, or an index beyond the end: all frames.
        every: take every n-th frame from `start` on.
        fps: the frame rate; by default the file's own, and 24 for a folder.

    Raises:
        InputError: there is no such file, nothing in it can be decoded, images differ in size, or a number is wrong.

    Example:
        >>> import osmn_tf as osmn
        >>> from osmn_tf.datasets.examples import example_path
        >>> some = osmn.open_source(example_path() / "meadow.mp4", start=10, end=20, every=2)
        >>> len(list(some)), some.fps, some.frame_name(1)
        (5, Fraction(12, 1), '00012')
    """
    path = Path(path)
    if start < 0:
        raise InputError(f"start: expected 0 or more, received {start}")
    if end is not None and end <= start:
        raise InputError(f"end: expected more than start ({start}), received {end}")
    if every < 1:
        raise InputError(f"every: expected 1 or more, received {every}")
    if fps is not None and fps <= 0:
        raise InputError(f"fps: expected a positive number, received {fps}")
    try:
        is_there = path.exists()
    except OSError as error:  # a folder above it is closed
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not is_there:
        raise InputError(f"{path}: there is no such video file or folder of frames")
    reader: Reader
    if path.is_dir():
        reader = FolderReader(path, fps)
    elif path.suffix.lower() in IMAGE_SUFFIXES:
        reader = FolderReader(path, fps, files=[path])
    else:
        reader = FileReader(path, fps)
    source = FrameSource(reader, range(start, FAR_AWAY if end is None else end, every))
    if reader.exact and source.info.frames == 0:
        raise InputError(f"start: expected less than the {reader.info.frames} frames of {path}, received {start}")
    return source


def read_video(path: str | os.PathLike[str]) -> FrameSource:
    """All frames of a video file or of a folder of images; `open_source` takes some of them.

    Returns:
        A `FrameSource`: iteration gives uint8 RGB [H, W, 3], decoded in the background; `fps`, `size` and `len()`.

    Raises:
        InputError: at once, if `path` cannot be read; as `TruncatedVideoError` after the last good frame, if it breaks
            off.

    Example:
        >>> import osmn_tf as osmn
        >>> from osmn_tf.datasets.examples import example_path
        >>> video = osmn.read_video(example_path() / "meadow.mp4")
        >>> video.fps, video.size, len(video)
        (Fraction(24, 1), (480, 854), 60)
        >>> for frame in video:
        ...     break
        >>> frame.shape, frame.dtype
        ((480, 854, 3), dtype('uint8'))
    """
    return open_source(path)


class FrameSource:
    """The selected frames of a video file or folder. Made by `open_source`.

    Iteration gives uint8 RGB [H, W, 3] and can be repeated. A source that breaks off yields what could be decoded and
    then raises `TruncatedVideoError`. Frame i of the source is frame `start + i * every` of the file.

    Attributes:
        name: the name of the sequence: of the folder, or of the file without its suffix.
        path: the file or folder.
        files: what is read of it: the file, or the images of the folder.
        info: number of frames, rate and size of the selection; the number is None where a file does not say.
    """

    def __init__(self, reader: Reader, selection: range) -> None:
        self._reader = reader
        self._selection = selection
        self.name = reader.name
        self.path = reader.path
        self.files = tuple(reader.files)
        total = reader.info.frames
        self.info = dataclasses.replace(
            reader.info,
            frames=None if total is None else len(self._selection_within(total)),
            fps=reader.info.fps / selection.step,
        )

    @property
    def fps(self) -> Fraction:
        """Frames per second of the selection."""
        return self.info.fps

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, as displayed."""
        return self.info.height, self.info.width

    def sound(self) -> Sound | None:
        """The sound of these frames, for `VideoWriter`; None where there is none, or frames are left out."""
        return self._reader.sound(self._selection)

    def __len__(self) -> int:
        """As `count_frames`: exact, so a video file is decoded to find out, once. `info.frames` costs nothing."""
        return self.count_frames()

    def __bool__(self) -> bool:
        return True

    def _selection_within(self, total: int) -> range:
        chosen = self._selection
        return range(chosen.start, max(chosen.start, min(chosen.stop, total)), chosen.step)

    def __iter__(self) -> Generator[np.ndarray, None, None]:
        return _prefetch(self._forward())

    def _forward(self) -> Generator[np.ndarray, None, None]:
        empty = True
        for frame in self._reader.read(self._selection):
            empty = False
            yield frame
        if empty and self._selection:
            start = self._selection.start
            raise InputError(f"start: expected less than the number of frames of {self.path}, received {start}")

    def __reversed__(self) -> Generator[np.ndarray, None, None]:
        """The frames from the last to the first, in bounded memory: chunks are decoded again from a key frame.

        A video file is decoded once beforehand to find out where its frames are.
        """
        return _prefetch(self._backward())

    def _backward(self) -> Generator[np.ndarray, None, None]:
        if not self._selection:
            return
        count = self.count_frames()
        height, width = self.info.height, self.info.width
        length = max(8, _CHUNK_BYTES // (3 * height * width))
        for stop in range(count, 0, -length):
            chunk = self._selection[max(0, stop - length) : stop]
            yield from reversed(list(self._reader.read(chunk)))

    def __getitem__(self, index: int) -> np.ndarray:
        """Frame `index` (0 or more): uint8 RGB [H, W, 3]. A video file is decoded up to it.

        Raises:
            IndexError: the source has no such frame.
        """
        if index < 0:
            raise IndexError(f"frame index: expected 0 or more, received {index}")
        if index < len(self._selection):
            chosen = self._selection[index]
            for frame in self._reader.read(range(chosen, chosen + 1)):
                return frame
        raise IndexError(f"frame index: {self.path} has no frame {index}")

    def count_frames(self) -> int:
        """The exact number of frames. A video file is decoded to find out, once.

        Raises:
            TruncatedVideoError: the source breaks off within the selection.
        """
        return len(self._selection_within(self._reader.count(self._selection.stop)))

    def select(self, start: int = 0, end: int | None = None, every: int = 1) -> FrameSource:
        """Some of these frames as a source of its own, by index within this source. Names and numbers stay."""
        return FrameSource(self._reader, self._selection[start:end:every])

    def number(self, index: int) -> int:
        """The index that frame `index` of this source has in the file or folder."""
        return self._selection.start + index * self._selection.step

    def frame_name(self, index: int) -> str:
        """The name of frame `index` for result files: the image's own without suffix, or '00042' in a video file."""
        return self._reader.frame_name(self.number(index))


def _prefetch(items: Generator[T, None, None]) -> Generator[T, None, None]:
    """Runs `items` in a thread, a few items ahead. Errors come out where they belong; closing stops the thread."""
    end: Any = object()
    pool = ThreadPoolExecutor(1, "osmn-frames")
    try:
        waiting = collections.deque(pool.submit(next, items, end) for _ in range(_MOST_WAITING))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, items, end))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
        items.close()

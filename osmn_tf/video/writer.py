"""Videos that browsers and notebooks play."""

from __future__ import annotations

import collections
import contextlib
import itertools
import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.files import atomic_path
from osmn_tf.video.readers import Colors, Sound

_MOST_PENDING = 4  # frames that wait
_MOST_THREADS = 4
# (codec, options). x264 superfast takes 6 ms per 854x480 frame on one core, veryfast 12 ms for a tenth fewer bytes.
_H264 = ("libx264", {"preset": "superfast", "crf": "20"})
_VP9 = ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "crf": "32", "b": "0"})
_CODECS = {".mp4": _H264, ".m4v": _H264, ".mov": _H264, ".mkv": _H264, ".webm": _VP9}
# ProRes 4444 keeps 10 bits a colour and 16 of alpha; VP9 carries alpha as a second stream, in 8 bits.
_PRORES = ("prores_ks", {"profile": "4444", "alpha_bits": "16", "vendor": "apl0"})
_ALPHA_CODECS = {".mov": _PRORES, ".webm": _VP9}
_BT601 = 6  # SMPTE 170M, in the numbering of ITU-T H.273
_LIMITED_RANGE = 1
# swscale's own number for what H.273 calls SMPTE 170M.
_SWSCALE = {6: 5}
# What each container holds as it is; other sound is encoded anew, by the last.
_SOUND = {
    ".mp4": ("aac", "mp3", "ac3", "eac3", "alac", "aac"),
    ".m4v": ("aac", "mp3", "ac3", "eac3", "alac", "aac"),
    ".mov": ("aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le", "aac"),
    ".mkv": ("aac", "mp3", "ac3", "eac3", "alac", "flac", "opus", "vorbis", "pcm_s16le", "pcm_s24le", "aac"),
    ".webm": ("opus", "vorbis", "libopus"),
}


class VideoWriter:
    """Writes a video that browsers and notebooks play: H.264 in .mp4 (.m4v, .mov, .mkv) or VP9 in .webm.

    Frames are encoded in a background thread. The file appears under its name, complete, when the writer is closed;
    leaving a `with` block by an error removes it. An odd width or height is padded by one line, since the codecs'
    4:2:0 chroma needs even sides.

    Args:
        path: the file; its folder must exist.
        fps: frames per second.
        size: (height, width) of the frames.
        colors: how they are coded and tagged, as a source's `info.colors`; None: BT.601.
        sound: that goes with them, as a source's `sound()`; it is copied where the container holds it, encoded anew
            elsewhere, and ends with the last frame.
        alpha: the frames are RGBA with straight alpha: ProRes 4444 in .mov, VP9 with alpha in .webm.

    Raises:
        InputError: the suffix is another, or the file cannot be written; from `write`, a frame is of another shape.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fps: Fraction | float,
        size: tuple[int, int],
        *,
        colors: Colors | None = None,
        sound: Sound | None = None,
        alpha: bool = False,
    ) -> None:
        import av

        self.path = Path(path)
        self.frames = 0
        suffix = self.path.suffix.lower()
        codecs = _ALPHA_CODECS if alpha else _CODECS
        if suffix not in codecs:
            raise InputError(f"{path}: expected a video file name that ends in {', '.join(codecs)}")
        if not (fps > 0 and math.isfinite(fps)):
            raise InputError(f"fps: expected a positive number, received {fps}")
        if len(size) != 2 or min(size) < 1:
            raise InputError(f"size: expected (height, width), received {size}")
        self._size = (int(size[0]), int(size[1]))
        # 1001 keeps 30000/1001 and its like; the denominators of some variable rates are beyond what mp4 can hold.
        rate = Fraction(fps).limit_denominator(1001) or Fraction(1, 1001)
        codec, options = codecs[suffix]
        self._alpha = alpha
        self._rate = rate
        self._colors = colors
        self._format = "yuv420p"
        if alpha:
            self._format = "yuva444p10le" if suffix == ".mov" else "yuva420p"
        self._file = atomic_path(self.path)
        self._closed = False
        self._encoded = 0
        self._pool = ThreadPoolExecutor(1, "osmn-encoder")
        self._pending: collections.deque[Future[None]] = collections.deque()
        temporary = self._file.__enter__()
        try:
            temporary.touch()  # the container is opened at the first frame only; a wrong folder is known now
            movflags = {"movflags": "+faststart"} if suffix in (".mp4", ".m4v", ".mov") else {}
            self._container = av.open(os.path.abspath(temporary), "w", options=movflags)
            stream: Any = self._container.add_stream(codec, rate=rate, options=dict(options))
            stream.height, stream.width = (side + side % 2 for side in self._size)
            stream.pix_fmt = self._format
            context = stream.codec_context
            context.thread_count = min(_MOST_THREADS, os.cpu_count() or 1)
            context.gop_size = max(1, round(2 * rate))  # a key frame every two seconds, so that players can jump
            tags = colors or Colors(_BT601, _BT601, _BT601)
            context.colorspace, context.color_primaries, context.color_trc = tags.matrix, tags.primaries, tags.transfer
            context.color_range = _LIMITED_RANGE
            if alpha and suffix == ".webm":
                stream.metadata["alpha_mode"] = "1"
            self._sound = _SoundWriter(self._container, sound, _SOUND[suffix]) if sound is not None else None
        except av.codec.codec.UnknownCodecError as error:
            self._discard()
            raise InputError(
                f"{path}: this installation of PyAV has no encoder {codec}: run  pip install --only-binary av av"
            ) from error
        except (av.error.FFmpegError, OSError) as error:
            self._discard()
            raise InputError(f"{path}: cannot write the video ({getattr(error, 'strerror', None) or error})") from error
        self._stream = stream

    def _encode(self, frame: np.ndarray) -> None:
        import av
        import cv2

        height, width = self._size
        if height % 2 or width % 2:
            frame = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self._alpha or self._colors is not None:
            matrix = self._colors.matrix if self._colors is not None else _BT601
            image = av.VideoFrame.from_ndarray(frame, format="rgba" if self._alpha else "rgb24")
            image = image.reformat(format=self._format, dst_colorspace=_SWSCALE.get(matrix, matrix))
        else:
            planes: Any = cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420)
            image = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        if self._colors is not None:  # ProRes takes them from the frames
            image.color_primaries, image.color_trc = self._colors.primaries, self._colors.transfer
        self._container.mux(self._stream.encode(image))
        self._encoded += 1
        if self._sound is not None:
            self._sound.advance(float(self._encoded / self._rate))

    def _finish(self) -> None:
        self._container.mux(self._stream.encode())
        if self._sound is not None:
            self._sound.finish(float(self._encoded / self._rate))
        self._container.close()

    def _wait(self, most: int) -> None:
        """Until at most so many jobs are left to the background thread. Raises `InputError` if one has failed."""
        try:
            while self._pending and (len(self._pending) > most or self._pending[0].done()):
                self._pending.popleft().result()
        except Exception as error:
            self.abort()
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{self.path}: cannot write the video ({reason})") from error

    def write(self, frame: np.ndarray) -> None:
        """Appends a frame, uint8 RGB [H, W, 3] (with `alpha` RGBA). It is copied, so the array may be used again."""
        if self._closed:
            raise InputError(f"{self.path}: the video is closed already")
        channels = 4 if self._alpha else 3
        if frame.dtype != np.uint8 or frame.shape != (*self._size, channels):
            raise InputError(
                f"frame: expected uint8 [{self._size[0]}, {self._size[1]}, {channels}], received {frame.dtype} "
                f"{list(frame.shape)}"
            )
        self._wait(_MOST_PENDING)
        self._pending.append(self._pool.submit(self._encode, np.array(frame, order="C")))
        self.frames += 1

    def close(self) -> None:
        """Finishes the file. Raises `InputError` if nothing was written to it, or if writing failed."""
        if self._closed:
            return
        if self.frames == 0:
            self.abort()
            raise InputError(f"{self.path}: expected at least one frame to make a video of, received none")
        try:
            self._pending.append(self._pool.submit(self._finish))
            self._wait(0)
        except BaseException:  # Ctrl-C while the last frames are encoded
            self.abort()
            raise
        self._closed = True
        self._pool.shutdown()
        self._file.__exit__(None, None, None)

    def abort(self) -> None:
        """Drops everything that was written."""
        if not self._closed:
            self._closed = True
            self._discard()

    def _discard(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        sound: _SoundWriter | None = getattr(self, "_sound", None)
        if sound is not None:
            sound.close()
        container = getattr(self, "_container", None)
        if container is not None:
            with contextlib.suppress(Exception):  # the file goes anyway
                container.close()
        dropped = RuntimeError("dropped")
        with contextlib.suppress(RuntimeError):
            self._file.__exit__(RuntimeError, dropped, None)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class _SoundWriter:
    """Brings the sound of another file into a container, in step with the frames."""

    def __init__(self, container: Any, sound: Sound, codecs: tuple[str, ...]) -> None:
        import av

        self._begin, self._length = sound.begin, None if sound.end is None else sound.end - sound.begin
        self._container = container
        self._input = av.open(os.path.abspath(sound.path), metadata_errors="replace")
        source = self._input.streams.audio[0]
        *copied, encoder = codecs
        self._copies = source.codec_context.name in copied
        if self._copies:
            self._stream = container.add_stream_from_template(source)
        else:
            rate = source.codec_context.sample_rate
            if encoder == "libopus" or rate not in (av.codec.Codec(encoder, "w").audio_rates or ()):
                rate = 48_000
            self._stream = container.add_stream(encoder, rate=rate)
            layout = "mono" if source.codec_context.channels == 1 else "stereo"
            self._stream.layout = layout
            self._stream.codec_context.open()
            self._resampler = av.AudioResampler(
                self._stream.format, layout, rate, frame_size=self._stream.codec_context.frame_size or None
            )
        self._samples = 0
        self._next: tuple[float, Any] | None = None  # a packet whose time has not come
        self._ended = False
        self._packets = self._pieces(source)

    def _pieces(self, source: Any) -> Iterator[tuple[float, Any]]:
        """(seconds from the first frame, packet of the output)."""
        rate = None if self._copies else self._stream.codec_context.sample_rate
        latest: int | None = None
        for packet in self._input.demux(source):
            if packet.pts is None:
                continue
            time = float(packet.pts * packet.time_base) - self._begin
            if self._length is not None and time >= self._length:
                break
            if self._copies:
                if time < 0:
                    continue
                shift = round(self._begin / packet.time_base)
                packet.pts -= shift
                packet.dts = packet.pts if packet.dts is None else packet.dts - shift
                # The clock of a recording may begin anew, and no container takes times that go back.
                if latest is not None and packet.dts <= latest:
                    continue
                latest = packet.dts
                packet.stream = self._stream
                yield time, packet
                continue
            for frame in packet.decode():
                if float(frame.time) - self._begin >= 0:
                    yield from self._encoded(frame, rate)
        if not self._copies:
            yield from self._encoded(None, rate)
            for packet in self._stream.encode(None):
                yield float(packet.pts * packet.time_base), packet

    def _encoded(self, frame: Any, rate: Any) -> Iterator[tuple[float, Any]]:
        for resampled in self._resampler.resample(frame):
            resampled.pts, resampled.time_base = self._samples, Fraction(1, rate)
            self._samples += resampled.samples
            for packet in self._stream.encode(resampled):
                yield float(packet.pts * packet.time_base), packet

    def advance(self, seconds: float) -> None:
        """Writes what sounds before `seconds`."""
        import av

        while not self._ended:
            if self._next is None:
                try:
                    self._next = next(self._packets, None)
                except av.error.FFmpegError:  # damaged from here on
                    self._next = None
                self._ended = self._next is None
            if self._next is None or self._next[0] >= seconds:
                return
            self._container.mux(self._next[1])
            self._next = None

    def finish(self, seconds: float) -> None:
        """Writes the rest of what sounds before `seconds`, the end of the last frame."""
        self.advance(seconds)
        self.close()

    def close(self) -> None:
        """Lets go of the other file."""
        self._input.close()


def write_video(path: str | os.PathLike[str], frames: Iterable[np.ndarray], fps: Fraction | float) -> int:
    """Writes frames, uint8 RGB [H, W, 3], as a video (see `VideoWriter`) and returns their number.

    Raises:
        InputError: there are no frames, their shapes differ, or the file cannot be written.

    Example:
        >>> import numpy as np, osmn_tf as osmn
        >>> frames = [np.full((48, 64, 3), 20 * i, np.uint8) for i in range(5)]
        >>> osmn.write_video("grey.mp4", frames, fps=25)
        5
        >>> osmn.read_video("grey.mp4").size
        (48, 64)
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise InputError(f"{path}: expected at least one frame to make a video of, received none")
    with VideoWriter(path, fps, (first.shape[0], first.shape[1])) as writer:
        for frame in itertools.chain([first], frames):
            writer.write(frame)
    return writer.frames

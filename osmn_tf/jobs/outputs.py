"""The kinds of result files. Each is one class: a new kind is a new class under `@outputs.register`."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.files import OwnFolder
from osmn_tf.masks.coco import TrackWriter
from osmn_tf.masks.contact_sheet import ContactSheet
from osmn_tf.masks.drawing import OPACITY, draw_overlay, write_image
from osmn_tf.masks.exr import check_exr, write_layers
from osmn_tf.masks.files import write_mask
from osmn_tf.masks.labels import VOID, labels_of
from osmn_tf.masks.matting import cutout, feather, guided_matte
from osmn_tf.registry import Registry
from osmn_tf.video.readers import Colors, Sound
from osmn_tf.video.writer import VideoWriter


@dataclasses.dataclass(frozen=True)
class Look:
    """How the pictures among the results look.

    Attributes:
        opacity: of the colours in the overlay, 0..1.
        feather: pixels on each side of an object's outline over which a cut-out fades; 0: not at all.
        matte: let the alpha of cut-outs follow the edges of the frame (`osmn_tf.masks.matting.guided_matte`).
        premultiplied: multiply the colours of cut-outs with alpha. (EXR files always have it so.)

    Raises:
        InputError: a number is out of its range.
    """

    opacity: float = OPACITY
    feather: float = 0.0
    matte: bool = False
    premultiplied: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.opacity <= 1:
            raise InputError(f"--opacity: expected 0..1, received {self.opacity}")
        if not self.feather >= 0:  # NaN is not
            raise InputError(f"--feather: expected 0 or more pixels, received {self.feather}")
        if self.feather and self.matte:
            raise InputError("--feather, --matte: expected one of them, received both")

    def alpha(self, frame: np.ndarray, inside: np.ndarray) -> np.ndarray:
        """How much of each pixel is an object's: float32 [H, W] of the mask bool [H, W]."""
        return guided_matte(frame, inside) if self.matte else feather(inside, self.feather)


@dataclasses.dataclass(frozen=True)
class Video:
    """What the results are of.

    Attributes:
        name: of the video, and so of its results.
        size: (height, width).
        fps: frames per second.
        frame_name: index -> name of a frame.
        given: indices of the frames whose masks were given.
        look: see `Look`.
        colors, sound: of the source, for videos.
    """

    name: str
    size: tuple[int, int]
    fps: Fraction
    frame_name: Callable[[int], str]
    given: Collection[int] = ()
    look: Look = dataclasses.field(default_factory=Look)
    colors: Colors | None = None
    sound: Sound | None = None

    def writer(self, path: Path, alpha: bool = False) -> VideoWriter:
        """Of a video that shows, sounds and runs as the source."""
        return VideoWriter(path, self.fps, self.size, colors=self.colors, sound=self.sound, alpha=alpha)


@dataclasses.dataclass(frozen=True)
class Scores:
    """How sure the network is of a frame.

    Attributes:
        confidence: label -> mean score within its mask, 0..1, of the objects that were found and not given.
        maps: label -> float32 [H, W] in 0..1; None where an interrupted run has done the frame, or nobody asks.
    """

    confidence: Mapping[int, float] = dataclasses.field(default_factory=dict)
    maps: Mapping[int, np.ndarray] | None = None


class Output(abc.ABC):
    """One kind of result of one video, while it is being made.

    Args:
        path: the file, or the folder of the files.
        video: see `Video`.

    Attributes:
        title: what it is, for people.
        is_folder: whether `path` is a folder with files of every frame, rather than one file over the whole video.
        ending: of the default name, behind the video's.
        suffixes: that a name may have; none: any.
        uses_scores: whether it shows how sure the network is; keeping that takes time.
    """

    title: ClassVar[str]
    is_folder: ClassVar[bool] = False
    ending: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    uses_scores: ClassVar[bool] = False

    def __init__(self, path: Path, video: Video) -> None:
        self.path, self.video = path, video

    @classmethod
    def check(cls, path: Path) -> None:
        """Raises `InputError` if such a result cannot be written under this name."""
        if cls.suffixes and path.suffix.lower() not in cls.suffixes:
            raise InputError(
                f"--{cls.title}: expected a file that ends in {' or '.join(cls.suffixes)}, received {path}"
            )

    @abc.abstractmethod
    def add(self, index: int, frame: np.ndarray, mask: np.ndarray, scores: Scores) -> None:
        """Adds the next frame.

        Args:
            index: in the video, from 0.
            frame: uint8 RGB [H, W, 3]; it is not changed later.
            mask: uint8 label mask [H, W].
            scores: see `Scores`; empty unless an output of the job uses them.
        """

    def close(self) -> None:  # noqa: B027 (files of every frame are whole already)
        """Writes what is written at the end, also of a part of a video."""

    def abort(self) -> None:  # noqa: B027 (as above)
        """Drops what `close` would write. Does nothing behind `close`."""


outputs: Registry[type[Output]] = Registry("kind of result", "osmn_tf.jobs")


class _Folder(Output):
    """Files of every frame; those of an object have no gaps from its first frame on."""

    is_folder = True

    def __init__(self, path: Path, video: Video) -> None:
        super().__init__(path, video)
        self._folder = OwnFolder(path)
        self._seen: set[int] = set()

    def _alphas(self, frame: np.ndarray, mask: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """(label, alpha float32 [H, W]) of each object that was seen, ascending; 0 where it is not in this frame."""
        self._seen |= set(labels_of(mask))
        return ((label, self.video.look.alpha(frame, mask == label)) for label in sorted(self._seen))


class _Film(Output):
    """A video."""

    alpha: ClassVar[bool] = False

    def __init__(self, path: Path, video: Video) -> None:
        super().__init__(path, video)
        self._writer = video.writer(path, self.alpha)

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        self._writer.abort()


@outputs.register("masks")
class MaskFiles(_Folder):
    """NAME/00000.png: a palette PNG for every frame, the format of DAVIS."""

    title, ending = "masks", ""

    def add(self, index: int, frame: np.ndarray, mask: np.ndarray, scores: Scores) -> None:
        write_mask(self._folder.file(f"{self.video.frame_name(index)}.png"), mask)


@outputs.register("overlay")
class OverlayVideo(_Film):
    """NAME_overlay.mp4: the video with the objects coloured in."""

    title, ending, suffixes = "overlay", "_overlay.mp4", (".mp4", ".webm")

    def add(self, index: int, frame: np.ndarray, mask: np.ndarray, scores: Scores) -> None:
        self._writer.write(draw_overlay(frame, mask, opacity=self.video.look.opacity))


@outputs.register("sheet")
class Sheet(Output):
    """NAME_sheet.png: a contact sheet."""

    title, ending = "contact sheet", "_sheet.png"

    def __init__(self, path: Path, video: Video) -> None:
        super().__init__(path, video)
        self._sheet = ContactSheet()

    def add(self, index: int, frame: np.ndarray, mask: np.ndarray, scores: Scores) -> None:
        self._sheet.add(frame, mask, self.video.frame_name(index), given=index in self.video.given)

    def close(self) -> None:
        write_image(self.path, self._sheet.image())


@outputs.register("coco")
class CocoTracks(Output):
    """COCO run-length masks, a track an object, as YouTube-VIS has them."""

    title, ending, uses_scores = "COCO tracks", "_tracks.json", True

    def __init__(self, path: Path, video: Video) -> None:
        super().__init__(path, video)
        self._tracks = TrackWriter(video.name, video.size)

    def add(self, index: int, frame: np.ndarray, mask: np.ndarray, scores: Scores) -> None:
        self._tracks.add(index, mask, self.video.frame_name(index), scores.confidence)

    def close(self) -> None:
        self._tracks.save(self.path)


@outputs.register("cutouts")
class Cutouts(_Folder):
    """NAME_cutouts/LABEL/00000.png: every object by itself on a transparent ground, from its first frame on."""

    title, ending = "cut-outs", "_cutouts"

    def add(self, index: int, frame: np.ndarray, mask: np.ndarray, scores: Scores) -> None:
        for label, alpha in self._alphas(frame, mask):
            path = self._folder.file(f"{label}/{self.video.frame_name(index)}.png")
            write_image(path, cutout(frame, alpha, self.video.look.premultiplied))


@outputs.register("exr")
class ExrLayers(_Folder):
    """NAME_exr/00000.exr: the frame, and every object as a layer "object_LABEL", premultiplied, in linear light."""

    title, ending = "EXR layers", "_exr"

    @classmethod
    def check(cls, path: Path) -> None:
        super().check(path)
        check_exr()

    def add(self, index: int, frame: np.ndarray, mask: np.ndarray, scores: Scores) -> None:
        layers = {f"object_{label}": alpha for label, alpha in self._alphas(frame, mask)}
        path = self._folder.file(f"{self.video.frame_name(index)}.exr")
        write_layers(path, frame, layers, self.video.fps)


class _AlphaVideo(_Film):
    """All objects on a transparent ground."""

    alpha = True

    def add(self, index: int, frame: np.ndarray, mask: np.ndarray, scores: Scores) -> None:
        look = self.video.look
        alpha = look.alpha(frame, (mask > 0) & (mask != VOID))
        self._writer.write(cutout(frame, alpha, look.premultiplied, bleed=True))


@outputs.register("prores")
class ProRes(_AlphaVideo):
    """NAME_alpha.mov: all objects on a transparent ground, as ProRes 4444 with alpha."""

    title, ending, suffixes = "ProRes 4444", "_alpha.mov", (".mov",)


@outputs.register("alpha-webm")
class AlphaWebm(_AlphaVideo):
    """NAME_alpha.webm: all objects on a transparent ground, as VP9 with alpha, which browsers show."""

    title, ending, suffixes = "WebM with alpha", "_alpha.webm", (".webm",)


@outputs.register("scores")
class SoftScores(_Folder):
    """NAME_scores/LABEL/00000.png: how sure the network is of an object at every pixel, 255 for 1, unmerged."""

    title, ending, uses_scores = "scores", "_scores", True

    def add(self, index: int, frame: np.ndarray, mask: np.ndarray, scores: Scores) -> None:
        # Those of frames that an interrupted run has done are there.
        for label, score in (scores.maps or {}).items():
            path = self._folder.file(f"{label}/{self.video.frame_name(index)}.png")
            write_image(path, np.round(255 * score).astype(np.uint8))

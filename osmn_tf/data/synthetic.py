"""Endless labelled clips: cut-out objects that move over other pictures.

Every clip is a function of the seed and its number alone. Objects (cut from photographs with masks, or drawn) move
along smooth affine paths and bend elastically over a background with a moving camera; unlabelled look-alikes stand
by, other things pass in front, the light changes, and fast motion blurs. It is a generator of the kind that MaskTrack
(Perazzi et al., CVPR 2017) and Lucid Data Dreaming (Khoreva et al., 2017) train on, extended to whole clips.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator

import cv2
import numpy as np

from osmn_tf.data import drawing
from osmn_tf.datasets.index import ImageDataset
from osmn_tf.errors import InputError
from osmn_tf.masks.labels import VOID

_CONTROL = 4  # control points per axis of an elastic deformation
_FIELD = 24  # the control points are interpolated to this many samples per axis, which removes kinks
_SPRITE_SIZE = 160
_SPRITES_PER_KIND = 6
_BACKDROPS = 6
_ATTEMPTS = 8


@dataclasses.dataclass(frozen=True)
class ClipOptions:
    """How wild the clips are.

    Attributes:
        max_objects: labelled objects per clip, 1..max_objects.
        object_size: range of the longer side of an object, as a fraction of the clip's height.
        motion: typical speed of an object, as a fraction of the clip's width per frame.
        camera_motion: the same for the background; it turns and grows in proportion.
        rotation: typical turn over the whole clip, in degrees.
        growth: typical relative change of an object's size over the whole clip.
        elastic: typical displacement of an elastic deformation, as a fraction of the object's size.
        distractors: probability that an unlabelled object of the same kind is in the picture.
        twins: probability that such a distractor is the very same object once more.
        occluders: probability that an unlabelled thing passes in front of an object.
        light: typical relative change of the illumination.
        shadows: probability that soft shadows move over the picture.
        blur: exposure time in frames: length of the motion blur relative to the motion.
        noise: standard deviation of the sensor noise, in grey values.
        min_area: every labelled object covers at least this fraction of the first frame.
    """

    max_objects: int = 3
    object_size: tuple[float, float] = (0.3, 0.85)
    motion: float = 0.02
    camera_motion: float = 0.008
    rotation: float = 12.0
    growth: float = 0.15
    elastic: float = 0.012
    distractors: float = 0.5
    twins: float = 0.0
    occluders: float = 0.35
    light: float = 0.12
    shadows: float = 0.35
    blur: float = 0.4
    noise: float = 2.5
    min_area: float = 0.003

    def __post_init__(self) -> None:
        for field in ("motion", "camera_motion", "rotation", "growth", "elastic", "light", "blur", "noise"):
            if getattr(self, field) < 0:
                raise InputError(f"{field}: expected 0 or more, received {getattr(self, field)}")


class _Path:
    """A smooth random function of the frame number: constant velocity plus one slow wave, `value` at the frame `at`."""

    def __init__(
        self, rng: np.random.Generator, length: int, value: float, velocity: float, wave: float, at: float = 0.0
    ) -> None:
        self._velocity, self._wave = velocity, wave
        self._frequency = 2 * math.pi * rng.uniform(0.5, 1.2) / max(length, 8)
        self._phase = rng.uniform(0, 2 * math.pi)
        self._offset = 0.0
        self._offset = value - self(at)

    def __call__(self, t: float) -> float:
        return self._offset + self._velocity * t + self._wave * math.sin(self._frequency * t + self._phase)


@dataclasses.dataclass(frozen=True)
class _Sprite:
    """An object: uint8 RGBA, its kind, and whether the lower border of its picture cuts it off."""

    pixels: np.ndarray
    kind: str
    cut_below: bool = False


@dataclasses.dataclass
class _Layer:
    """A sprite and its motion. `x`, `y` place its centre on the canvas; `label` 0 is unlabelled."""

    sprite: np.ndarray
    label: int
    x: _Path
    y: _Path
    angle: _Path
    log_scale: _Path
    bend: np.ndarray  # float32 [2 phases, _CONTROL, _CONTROL, 2], pixels of the sprite
    bend_speed: float

    def matrix(self, t: float) -> np.ndarray:
        """Sprite coordinates to canvas coordinates at time `t`, [3, 3]."""
        height, width = self.sprite.shape[:2]
        scale, angle = math.exp(self.log_scale(t)), self.angle(t)
        a, b = scale * math.cos(angle), scale * math.sin(angle)
        cx, cy = (width - 1) / 2, (height - 1) / 2
        return np.array([[a, -b, self.x(t) - a * cx + b * cy], [b, a, self.y(t) - b * cx - a * cy], [0, 0, 1]])


class SyntheticClips:
    """Clips by number, endlessly: `clips[i]` for any i >= 0, the same at every call and in every process.

    Args:
        images: where objects and backgrounds come from; None for drawn ones, which need no data. Distractors come from
            the same set (the part of an item's name before the "/").
        size: height and width of the frames.
        length: frames per clip.
        seed: another seed gives other clips.
        options: see `ClipOptions`.

    Raises:
        InputError: the size or length is too small, or options are out of range.
    """

    def __init__(
        self,
        images: ImageDataset | None,
        size: tuple[int, int] = (256, 448),
        length: int = 5,
        seed: int = 0,
        options: ClipOptions | None = None,
    ) -> None:
        options = ClipOptions() if options is None else options
        if min(size) < 32:
            raise InputError(f"size: expected at least 32 x 32 pixels, received {size[0]} x {size[1]}")
        if length < 1:
            raise InputError(f"length: expected at least one frame, received {length}")
        if not 1 <= options.max_objects <= 254:
            raise InputError(f"max_objects: expected 1..254, received {options.max_objects}")
        if not 0 < options.object_size[0] <= options.object_size[1]:
            raise InputError(f"object_size: expected a range of positive numbers, received {options.object_size}")
        self.images, self.size, self.length, self.seed, self.options = images, size, length, seed, options
        self._kinds: dict[str, list[int]] = {}
        for index, item in enumerate(images.items if images is not None else ()):
            self._kinds.setdefault(item.name.split("/")[0], []).append(index)
        noise = np.random.default_rng(seed).normal(0, 1, (size[0] + 64, size[1] + 64, 3))
        self._noise = (noise * options.noise).astype(np.int16)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All clips, without end."""
        return (self[index] for index in itertools.count())

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Clip number `index`.

        Returns:
            frames uint8 RGB [T, H, W, 3] and masks uint8 [T, H, W] with objects 1..n, all of them visible in frame 0.

        Raises:
            DamagedFileError: too many images are damaged.
            IndexError: `index` is negative.
        """
        if index < 0:
            raise IndexError(index)
        for attempt in range(_ATTEMPTS):
            # The last attempt takes drawn objects, which have no empty masks.
            frames, masks = self._render(np.random.default_rng([self.seed, index, attempt]), attempt == _ATTEMPTS - 1)
            labels = self._visible(masks[0])
            if labels:
                lookup = np.zeros(256, np.uint8)
                lookup[labels] = np.arange(1, len(labels) + 1)
                return frames, lookup[masks]
        raise InputError(
            f"min_area: no object of clip {index} covers {self.options.min_area:.2%} of the first frame; lower it, or "
            f"raise object_size"
        )

    def _visible(self, mask: np.ndarray) -> list[int]:
        counts = np.bincount(mask.ravel(), minlength=256)
        return [label for label in range(1, 255) if counts[label] >= max(self.options.min_area * mask.size, 1)]

    def _render(self, rng: np.random.Generator, drawn: bool) -> tuple[np.ndarray, np.ndarray]:
        height, width = self.size
        options, length = self.options, self.length
        background = self._background(rng)
        brightness = float(background[::8, ::8].mean())
        layers = self._cast(rng, None if drawn else self.images, brightness)
        speed = options.camera_motion * width
        camera = _Layer(
            background,
            0,
            _Path(rng, length, width / 2, rng.normal(0, speed), rng.normal(0, speed)),
            _Path(rng, length, height / 2, rng.normal(0, speed / 2), rng.normal(0, speed / 2)),
            _Path(rng, length, 0.0, 0.0, rng.normal(0, 2 * options.camera_motion)),
            _Path(rng, length, 0.0, rng.normal(0, 2 * options.camera_motion) / length, 0.0),
            np.zeros((2, _CONTROL, _CONTROL, 2), np.float32),
            0.0,
        )
        gain = _Path(rng, length, 0.0, rng.normal(0, options.light) / length, rng.normal(0, options.light) / 2)
        tint = rng.normal(0, options.light / 3, 3) / length
        shadow = self._moving_shadow(rng) if rng.random() < options.shadows else None
        blur = options.blur * rng.uniform(0, 1.5)
        soften = rng.uniform(0.3, 0.9) if rng.random() < 0.5 else 0.0

        frames = np.empty((length, height, width, 3), np.uint8)
        masks = np.zeros((length, height, width), np.uint8)
        for t in range(length):
            view = camera.matrix(t)
            frame = cv2.warpAffine(
                background, view[:2], (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
            )
            for layer in layers:
                _composite(frame, masks[t], layer, t, blur)
            levels = np.arange(256)[:, None] * np.exp(gain(t) + tint * t)
            frame = cv2.LUT(frame, np.clip(levels, 0, 255).astype(np.uint8)[:, None])
            if shadow is not None:
                frame = self._shaded(frame, shadow, t)
            if soften:
                frame = cv2.GaussianBlur(frame, (3, 3), soften)
            dy, dx = rng.integers(0, 64, 2)
            cv2.add(frame, self._noise[dy : dy + height, dx : dx + width], dst=frames[t], dtype=cv2.CV_8U)
        return frames, masks

    def _background(self, rng: np.random.Generator) -> np.ndarray:
        """A picture a quarter larger than the frames, so that the camera can move."""
        height, width = math.ceil(self.size[0] * 1.25), math.ceil(self.size[1] * 1.25)
        if self.images is None:
            picture = _backdrop(int(rng.integers(_BACKDROPS)), (height, width))
        else:
            picture, _ = self.images.load(int(rng.integers(len(self.images))))
            scale = max(height / picture.shape[0], width / picture.shape[1]) * rng.uniform(1.0, 1.3)
            size = max(round(picture.shape[1] * scale), width), max(round(picture.shape[0] * scale), height)
            top, left = int(rng.integers(size[1] - height + 1)), int(rng.integers(size[0] - width + 1))
            # Only the part that is seen is resized.
            move = np.array([[scale, 0, -left], [0, scale, -top]])
            picture = cv2.warpAffine(
                picture, move, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
            )
        return picture[:, ::-1].copy() if rng.random() < 0.5 else picture

    def _moving_shadow(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A soft field of light and shade, and its speed in cells per frame."""
        return rng.uniform(0.7, 1.12, (8, 12)).astype(np.float32), rng.normal(0, 0.25, 2)

    def _shaded(self, frame: np.ndarray, shadow: tuple[np.ndarray, np.ndarray], t: int) -> np.ndarray:
        cells, speed = shadow
        height, width = self.size
        move = np.array([[1, 0, 1 + speed[0] * t], [0, 1, 1 + speed[1] * t]])
        small = cv2.warpAffine(
            cells, move, (6, 4), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101
        )
        field = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
        return cv2.multiply(frame, cv2.merge([field] * 3), dtype=cv2.CV_8U)

    def _cast(self, rng: np.random.Generator, images: ImageDataset | None, brightness: float) -> list[_Layer]:
        """The layers from back to front, for a background of this mean grey value."""
        options, length = self.options, self.length
        layers: list[_Layer] = []
        for label in range(1, int(rng.integers(1, options.max_objects + 1)) + 1):
            sprite = self._sprite(rng, images, None, brightness)
            layers.append(self._place(rng, sprite, label))
            if rng.random() < options.distractors / options.max_objects:
                twin = options.twins > 0 and rng.random() < options.twins
                other = sprite if twin else self._sprite(rng, images, sprite.kind, brightness)
                layers.insert(int(rng.integers(len(layers) + 1)), self._place(rng, other, 0))
        if rng.random() < options.occluders:
            target = layers[int(rng.integers(len(layers)))]
            occluder = self._place(rng, self._sprite(rng, images, None, brightness), 0)
            # It meets its target after the first frame, and comes from outside of it.
            meeting = rng.uniform(0.35, 1.0) * length
            direction, speed = rng.uniform(0, 2 * math.pi), rng.uniform(0.6, 1.2) * self.size[1] / length
            at = target.x(meeting), target.y(meeting)
            occluder.x = _Path(rng, length, at[0], speed * math.cos(direction), 0.0, meeting)
            occluder.y = _Path(rng, length, at[1], speed * math.sin(direction) / 2, 0.0, meeting)
            layers.append(occluder)
        return layers

    def _place(self, rng: np.random.Generator, sprite: _Sprite, label: int) -> _Layer:
        (height, width), options, length = self.size, self.options, self.length
        extent = max(sprite.pixels.shape[:2])
        speed = options.motion * width * rng.uniform(0, 2)
        direction = rng.uniform(0, 2 * math.pi)
        x, y = rng.uniform(0.15, 0.85) * width, rng.uniform(0.25, 0.75) * height
        turn, rise, tilt = math.radians(options.rotation), speed / 2, math.radians(6)
        if sprite.cut_below:
            # What its own picture cuts off stands at the lower border here too, upright.
            y = height - sprite.pixels.shape[0] * rng.uniform(0.3, 0.45)
            turn, rise, tilt = turn / 4, rise / 4, tilt / 4
        growth = options.growth
        bend = rng.normal(0, options.elastic * extent, (2, _CONTROL, _CONTROL, 2)).astype(np.float32)
        return _Layer(
            sprite.pixels,
            label,
            _Path(rng, length, x, speed * math.cos(direction), rng.normal(0, speed)),
            _Path(rng, length, y, rise * math.sin(direction), rng.normal(0, rise)),
            _Path(rng, length, rng.normal(0, tilt), rng.normal(0, turn) / length, rng.normal(0, turn) / 3),
            _Path(rng, length, 0.0, rng.normal(0, growth) / length, rng.normal(0, growth) / 3),
            bend,
            rng.uniform(0.1, 0.6),
        )

    def _sprite(
        self, rng: np.random.Generator, images: ImageDataset | None, kind: str | None, brightness: float
    ) -> _Sprite:
        """An object (of a kind, if given) at its size in the picture, its light brought nearer to `brightness`."""
        target = rng.uniform(*self.options.object_size) * self.size[0]
        if images is None:
            kind = kind or drawing.KINDS[int(rng.integers(len(drawing.KINDS)))]
            sprite = _drawn_sprite(kind, int(rng.integers(_SPRITES_PER_KIND)))
        else:
            members = range(len(images)) if kind is None else self._kinds[kind]
            index = members[int(rng.integers(len(members)))]
            sprite = _cut_out(rng, *images.load(index), images.items[index].name.split("/")[0])
        pixels = sprite.pixels
        scale = min(target / max(pixels.shape[:2]), 2.0)
        size = max(round(pixels.shape[1] * scale), 4), max(round(pixels.shape[0] * scale), 4)
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        own = float(cv2.mean(pixels, mask=pixels[..., 3])[1])
        towards = rng.uniform(0, 0.5) * math.log((brightness + 20) / (own + 20))
        levels = np.tile(np.arange(256.0)[:, None], (1, 4))
        levels[:, :3] *= np.exp(towards + rng.normal(0, 0.08) + rng.normal(0, 0.03, 3))
        pixels = cv2.LUT(pixels, np.clip(levels, 0, 255).astype(np.uint8)[:, None])
        if rng.random() < 0.5:
            pixels = pixels[:, ::-1].copy()
        return dataclasses.replace(sprite, pixels=pixels)


def _cut_out(rng: np.random.Generator, image: np.ndarray, mask: np.ndarray, kind: str) -> _Sprite:
    """One object of an image with a soft edge; the whole foreground where no object is of a useful size."""
    counts = np.bincount(mask.ravel(), minlength=256)[1:VOID]
    usable = np.flatnonzero((counts > 0.01 * mask.size) & (counts < 0.7 * mask.size)) + 1
    inside = mask == usable[int(rng.integers(len(usable)))] if len(usable) else (mask > 0) & (mask != VOID)
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return _Sprite(np.zeros((8, 8, 4), np.uint8), kind)
    margin = 3
    top, bottom = max(rows[0] - margin, 0), rows[-1] + 1 + margin
    left, right = max(columns[0] - margin, 0), columns[-1] + 1 + margin
    colour = np.pad(image[top:bottom, left:right], ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    alpha = np.pad(inside[top:bottom, left:right].astype(np.uint8) * 255, margin)
    # Annotations run along or just outside the outline: half a pixel less keeps the old background out.
    alpha = cv2.GaussianBlur(alpha, (0, 0), 1.2)
    alpha = cv2.LUT(alpha, np.clip((np.arange(256) - 90) * 1.8, 0, 255).astype(np.uint8))
    return _Sprite(np.dstack([colour, alpha]), kind, cut_below=bool(inside[-2:].any()))


@functools.lru_cache(maxsize=len(drawing.KINDS) * _SPRITES_PER_KIND)
def _drawn_sprite(kind: str, variant: int) -> _Sprite:
    sprite = drawing.draw_random(np.random.default_rng([variant, *kind.encode()]), kind, _SPRITE_SIZE)
    rows, columns = np.flatnonzero(sprite[..., 3].any(1)), np.flatnonzero(sprite[..., 3].any(0))
    sprite = sprite[max(rows[0] - 2, 0) : rows[-1] + 3, max(columns[0] - 2, 0) : columns[-1] + 3]
    sprite = np.ascontiguousarray(sprite)
    sprite.flags.writeable = False  # it is shared
    return _Sprite(sprite, kind)


@functools.lru_cache(maxsize=_BACKDROPS)
def _backdrop(variant: int, shape: tuple[int, int]) -> np.ndarray:
    picture = drawing.draw_backdrop(np.random.default_rng([variant, 1]), shape)
    picture.flags.writeable = False
    return picture


def _composite(frame: np.ndarray, mask: np.ndarray, layer: _Layer, t: int, blur: float) -> None:
    """Draws a layer over `frame` [H, W, 3] and its label into `mask` [H, W], in place."""
    height, width = mask.shape
    sprite_height, sprite_width = layer.sprite.shape[:2]
    forward = layer.matrix(t)
    corners = forward[:2] @ np.array(
        [[0, sprite_width, 0, sprite_width], [0, 0, sprite_height, sprite_height], [1, 1, 1, 1]], np.float64
    )
    speed = np.array([layer.x(t + 0.5) - layer.x(t - 0.5), layer.y(t + 0.5) - layer.y(t - 0.5)]) * blur
    margin = 2 + np.abs(speed).max() / 2 + 2 * float(np.abs(layer.bend).max())
    left, top = np.maximum(np.floor(corners.min(1) - margin), 0).astype(int)
    right, bottom = np.minimum(np.ceil(corners.max(1) + margin), (width, height)).astype(int)
    if right <= left or bottom <= top:
        return
    backward = np.linalg.inv(forward)
    columns, rows = np.arange(left, right, dtype=np.float32), np.arange(top, bottom, dtype=np.float32)[:, None]
    x = np.float32(backward[0, 0]) * columns + (np.float32(backward[0, 1]) * rows + np.float32(backward[0, 2]))
    y = np.float32(backward[1, 0]) * columns + (np.float32(backward[1, 1]) * rows + np.float32(backward[1, 2]))
    phase = layer.bend_speed * t
    control = layer.bend[0] * math.cos(phase) + layer.bend[1] * math.sin(phase)
    field = cv2.resize(control, (_FIELD, _FIELD), interpolation=cv2.INTER_CUBIC)
    bend = cv2.remap(
        field,
        x * np.float32((_FIELD - 1) / sprite_width),
        y * np.float32((_FIELD - 1) / sprite_height),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    patch = cv2.remap(
        layer.sprite, x + bend[..., 0], y + bend[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    reach = math.hypot(*speed)
    if reach > 1.5:
        patch = cv2.filter2D(patch, -1, _line_kernel(speed), borderType=cv2.BORDER_REPLICATE)
    alpha = patch[..., 3]
    area = frame[top:bottom, left:right]
    weight = cv2.merge([alpha, alpha, alpha])
    over = cv2.multiply(patch[..., :3], weight, scale=1 / 255)
    under = cv2.multiply(area, cv2.bitwise_not(weight), scale=1 / 255)
    cv2.add(over, under, dst=area)
    frame[top:bottom, left:right] = area
    mask[top:bottom, left:right][alpha > 127] = layer.label


def _line_kernel(motion: np.ndarray) -> np.ndarray:
    """Point spread of a uniform motion (x, y) during the exposure: float32, odd sides, sum 1."""
    half = math.ceil(float(np.abs(motion).max()) / 2)
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    steps = np.linspace(-0.5, 0.5, 4 * half + 1)
    np.add.at(
        kernel, (np.round(half + steps * motion[1]).astype(int), np.round(half + steps * motion[0]).astype(int)), 1
    )
    return kernel / kernel.sum()

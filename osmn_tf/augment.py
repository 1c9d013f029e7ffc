"""Random transformations of images and clips with their masks, as batched `keras.ops`.

Nothing here has a state: every function takes `seeds`, int32 [N, 2], one pair per example, and gives the same result
for the same seeds on every backend, in any batch and on any number of workers. The random numbers come from an integer
hash, since the generators of TensorFlow, JAX and PyTorch differ.

Images are bilinear, masks nearest; both use the same coordinates. A clip gets one transformation that changes smoothly
over its frames. Source of the guides' jitter: the OSMN release (Yang et al., CVPR 2018) in training.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from keras import ops

from osmn_tf.errors import InputError
from osmn_tf.guides import VGG_MEAN_RGB, mask_statistics

Tensor = Any

# Streams of random numbers: what is drawn for one purpose does not move what is drawn for another.
_AFFINE, _COLOUR, _BLUR, _NOISE, _ELASTIC, _VISUAL, _SPATIAL, _GUIDE_COLOUR = range(8)
_SPOIL, _PROMPT = 9, 10  # 8 is the fine-tuner's; prompts take 11 too

# Of the frame's height: what surely belongs to the object that was clicked (`osmn_tf.masks.prompts` has it too).
CLICK_RADIUS = 0.04

_GRID = 5  # control points per axis of an elastic deformation


@dataclasses.dataclass(frozen=True)
class AugmentOptions:
    """Ranges of the transformations. Zeros (and `scale=(1, 1)`) switch them off.

    Attributes:
        shift: largest shift, as a fraction of height and width.
        scale: range of the magnification, drawn uniformly on a logarithmic scale.
        rotation: largest rotation in degrees.
        flip: probability of a horizontal flip.
        elastic: standard deviation of the control points' displacement, as a fraction of the height.
        brightness: largest offset in grey values.
        contrast: largest relative change of contrast.
        saturation: largest relative change of saturation.
        hue: largest turn of the hue in degrees.
        blur: largest standard deviation of a Gaussian blur in pixels (half of the examples stay sharp).
        noise: largest standard deviation of white noise, in grey values.
        border: what is seen outside of the picture: "reflect" (it is mirrored) or "mean" (a plain colour). Either way
            it is unlabelled, 255: a mirrored object is not the object.
    """

    shift: float = 0.1
    scale: tuple[float, float] = (0.8, 1.25)
    rotation: float = 12.0
    flip: float = 0.5
    elastic: float = 0.0
    brightness: float = 25.0
    contrast: float = 0.2
    saturation: float = 0.25
    hue: float = 8.0
    blur: float = 0.0
    noise: float = 0.0
    border: str = "reflect"

    def __post_init__(self) -> None:
        if self.border not in ("reflect", "mean"):
            raise InputError(f"border: expected 'reflect' or 'mean', received {self.border!r}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise InputError(f"scale: expected a range of positive numbers, received {self.scale}")
        for field in ("shift", "rotation", "elastic", "brightness", "contrast", "saturation", "hue", "blur", "noise"):
            if getattr(self, field) < 0:
                raise InputError(f"{field}: expected 0 or more, received {getattr(self, field)}")
        if not 0 <= self.flip <= 1:
            raise InputError(f"flip: expected a probability, received {self.flip}")

    @property
    def moves(self) -> bool:
        """Whether the geometry may change."""
        return bool(self.shift or self.rotation or self.flip or self.elastic or tuple(self.scale) != (1.0, 1.0))

    @property
    def colours(self) -> bool:
        """Whether the colours may change."""
        return bool(self.brightness or self.contrast or self.saturation or self.hue)


NO_AUGMENTATION = AugmentOptions(0.0, (1.0, 1.0), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""Leaves everything as it is."""


def _signed(value: int) -> int:
    """A 32-bit constant as the int32 with the same bits."""
    return value - (1 << 32) if value >= 1 << 31 else value


def _scramble(x: Tensor) -> Tensor:
    """Hash of int32 values with good avalanche (the constants of Ettinger's "lowbias32"; multiplication wraps)."""

    def fold(x: Tensor, bits: int) -> Tensor:
        # The shift of int32 copies the sign: mask it off.
        return ops.bitwise_xor(x, ops.bitwise_and(ops.right_shift(x, bits), (1 << (32 - bits)) - 1))

    x = fold(x, 16) * _signed(0x7FEB352D)
    x = fold(x, 15) * _signed(0x846CA68B)
    return fold(x, 16)


def uniform(seeds: Tensor, count: int, stream: int = 0) -> Tensor:
    """Random numbers in [0, 1) that depend on the seeds alone.

    Args:
        seeds: int32 [N, 2].
        count: numbers per example.
        stream: another stream gives independent numbers.

    Returns:
        float32 [N, count], multiples of 2**-24.
    """
    seeds = ops.cast(seeds, "int32")
    state = _scramble(seeds[:, 0:1] + _signed(0x9E3779B9))
    state = _scramble(ops.bitwise_xor(state, seeds[:, 1:2]) + stream)
    counter = ops.reshape(ops.arange(count, dtype="int32"), (1, count))
    bits = _scramble(ops.bitwise_xor(state, _scramble(counter + _signed(0x85EBCA6B))))
    return ops.cast(ops.bitwise_and(ops.right_shift(bits, 8), (1 << 24) - 1), "float32") * (2.0**-24)


def _between(u: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * u


def _normal(seeds: Tensor, count: int, stream: int) -> Tensor:
    """Standard normal numbers, float32 [N, count] (Box and Muller)."""
    u = uniform(seeds, 2 * count, stream)
    radius = ops.sqrt(-2.0 * ops.log(u[:, :count] + 2.0**-25))
    return radius * ops.cos(2 * math.pi * u[:, count:])


def affine_parameters(
    seeds: Tensor, length: int, options: AugmentOptions, motion: Tensor | None = None
) -> dict[str, Tensor]:
    """A smooth sequence of affine maps for every example.

    Args:
        seeds: int32 [N, 2].
        length: number of frames.
        options: ranges.
        motion: float [N], how far the map moves in the course of the clip, in units of the ranges; 0 (default) is one
            map for all frames.

    Returns:
        float32 [N, length] each: "y" and "x" (shift as a fraction of the height and width), "log_scale", "angle"
        (radians), and "flip" (-1 or 1, [N, 1]).
    """
    u = uniform(seeds, 18, _AFFINE)
    time = ops.reshape(ops.arange(length, dtype="float32"), (1, length)) / max(length - 1, 1)
    ranges = {
        "y": (-options.shift, options.shift),
        "x": (-options.shift, options.shift),
        "log_scale": (math.log(options.scale[0]), math.log(options.scale[1])),
        "angle": (-math.radians(options.rotation), math.radians(options.rotation)),
    }
    parameters = {}
    for number, (name, (low, high)) in enumerate(ranges.items()):
        start, velocity, wave, phase = (u[:, 4 * number + k, None] for k in range(4))
        value = _between(start, low, high) + 0.0 * time
        if motion is not None:
            turn = 2 * math.pi * phase
            path = (2 * velocity - 1) * time + 0.3 * (2 * wave - 1) * (ops.sin(4.0 * time + turn) - ops.sin(turn))
            value = value + ops.cast(motion, "float32")[:, None] * (high - low) / 2 * path
        parameters[name] = value
    parameters["flip"] = 1.0 - 2.0 * ops.cast(u[:, 16:17] < options.flip, "float32")
    return parameters


def affine_coordinates(parameters: dict[str, Tensor], height: Any, width: Any) -> Tensor:
    """Where every pixel of the result comes from: float32 [N, T, H, W, 2] (y, x) in pixels."""
    grow = ops.exp(-parameters["log_scale"])
    cos, sin = grow * ops.cos(parameters["angle"]), grow * ops.sin(parameters["angle"])
    cy, cx = (ops.cast(height, "float32") - 1) / 2, (ops.cast(width, "float32") - 1) / 2
    shift_y, shift_x = parameters["y"] * ops.cast(height, "float32"), parameters["x"] * ops.cast(width, "float32")
    y = (ops.arange(height, dtype="float32") - cy)[None, None, :, None] - shift_y[..., None, None]
    x = (ops.arange(width, dtype="float32") - cx)[None, None, None, :] - shift_x[..., None, None]
    cos, sin = cos[..., None, None], sin[..., None, None]
    source_y = cos * y - sin * x + cy
    source_x = (sin * y + cos * x) * parameters["flip"][..., None, None] + cx
    return ops.stack([source_y, source_x], axis=-1)


def _spline_basis(length: Any, points: int) -> Tensor:
    """Cubic B-splines of `points` control points along an axis: float32 [length, points]."""
    position = ops.arange(length, dtype="float32") / ops.cast(length, "float32") * (points - 1)
    distance = ops.abs(position[:, None] - ops.reshape(ops.arange(points, dtype="float32"), (1, points)))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = ops.maximum(2 - distance, 0.0) ** 3 / 6
    return ops.where(distance < 1, near, far)


def elastic_displacement(seeds: Tensor, height: Any, width: Any, strength: float) -> Tensor:
    """A smooth random displacement: float32 [N, H, W, 2] in pixels.

    Args:
        seeds: int32 [N, 2].
        height: of the picture.
        width: of the picture.
        strength: standard deviation of the control points as a fraction of the height.
    """
    control = ops.reshape(_normal(seeds, 2 * _GRID * _GRID, _ELASTIC), (-1, 2, _GRID, _GRID))
    field = ops.matmul(ops.matmul(_spline_basis(height, _GRID), control), ops.transpose(_spline_basis(width, _GRID)))
    return ops.transpose(field, (0, 2, 3, 1)) * strength * ops.cast(height, "float32")


def _mirror(position: Tensor, length: Any) -> Tensor:
    """Reflects positions into 0..length-1 (the border pixels are not repeated)."""
    period = ops.maximum(2 * ops.cast(length - 1, "float32"), 1.0)
    position = ops.mod(ops.abs(position), period)
    return ops.minimum(position, period - position)


def _gather(flat: Tensor, base: Tensor, row: Tensor, column: Tensor, width: Any) -> Tensor:
    index = base + ops.cast(row, "int32") * width + ops.cast(column, "int32")
    return ops.cast(ops.take(flat, index, axis=0), "float32")


def warp(
    images: Tensor,
    coordinates: Tensor,
    *,
    nearest: bool = False,
    fill: float | tuple[float, ...] | None = None,
) -> Tensor:
    """Samples images at given positions.

    Args:
        images: [N, H, W, C], any dtype.
        coordinates: float [N, H', W', 2] (y, x) in pixels.
        nearest: nearest neighbour (for labels) instead of bilinear interpolation.
        fill: value outside of the image, one number or one per channel; None: the image is mirrored there (the border
            pixels are not repeated).

    Returns:
        float32 [N, H', W', C].
    """
    count, height, width, channels = (ops.shape(images)[axis] for axis in range(4))
    y, x = coordinates[..., 0], coordinates[..., 1]
    inside = None
    if fill is not None:
        last_y, last_x = ops.cast(height, "float32") - 0.5, ops.cast(width, "float32") - 0.5
        inside = ops.logical_and(ops.logical_and(y >= -0.5, y < last_y), ops.logical_and(x >= -0.5, x < last_x))
        y = ops.clip(y, 0.0, ops.cast(height - 1, "float32"))
        x = ops.clip(x, 0.0, ops.cast(width - 1, "float32"))
    else:
        y, x = _mirror(y, height), _mirror(x, width)
    flat = ops.reshape(images, (-1, channels))
    base = (ops.arange(count, dtype="int32") * (height * width))[:, None, None]
    if nearest:
        result = _gather(flat, base, ops.floor(y + 0.5), ops.floor(x + 0.5), width)
    else:
        top, left = ops.floor(y), ops.floor(x)
        bottom = ops.minimum(top + 1, ops.cast(height - 1, "float32"))
        right = ops.minimum(left + 1, ops.cast(width - 1, "float32"))
        down, across = (y - top)[..., None], (x - left)[..., None]
        upper = _gather(flat, base, top, left, width) * (1 - across) + _gather(flat, base, top, right, width) * across
        lower = (
            _gather(flat, base, bottom, left, width) * (1 - across) + _gather(flat, base, bottom, right, width) * across
        )
        result = upper * (1 - down) + lower * down
    if inside is None:
        return result
    return ops.where(inside[..., None], result, ops.convert_to_tensor(fill, dtype="float32"))


def colour_matrices(seeds: Tensor, options: AugmentOptions, strength: float = 1.0, stream: int = _COLOUR) -> Tensor:
    """Random change of brightness, contrast, saturation and hue as one affine map of RGB: float32 [N, 4, 3].

    A pixel [r, g, b, 1] times the matrix is the new pixel. Contrast turns about the middle grey 128; hue and saturation
    turn and stretch the chroma plane of YIQ, which keeps the luma.
    """
    u = 2 * uniform(seeds, 4, stream) - 1
    gain = 1 + strength * options.contrast * u[:, 0]
    offset = strength * options.brightness * u[:, 1] + 128 * (1 - gain)
    saturation = 1 + strength * options.saturation * u[:, 2]
    hue = strength * math.radians(options.hue) * u[:, 3]
    to_yiq = ops.convert_to_tensor(
        [[0.299, 0.595716, 0.211456], [0.587, -0.274453, -0.522591], [0.114, -0.321263, 0.311135]], dtype="float32"
    )
    to_rgb = ops.convert_to_tensor(
        [[1.0, 1.0, 1.0], [0.95629572, -0.27212210, -1.10698902], [0.62102442, -0.64738060, 1.70461500]],
        dtype="float32",
    )
    zero, one = ops.zeros_like(hue), ops.ones_like(hue)
    cos, sin = saturation * ops.cos(hue), saturation * ops.sin(hue)
    turn = ops.stack(
        [ops.stack([one, zero, zero], 1), ops.stack([zero, cos, sin], 1), ops.stack([zero, -sin, cos], 1)], axis=1
    )
    linear = ops.matmul(ops.matmul(to_yiq, turn), to_rgb) * gain[:, None, None]
    return ops.concatenate([linear, ops.tile(offset[:, None, None], (1, 1, 3))], axis=1)


def apply_colour(images: Tensor, matrices: Tensor) -> Tensor:
    """Applies `colour_matrices` [N, 4, 3] to float images [N, ..., 3]; float32, clipped to 0..255."""
    shape = ops.shape(images)
    flat = ops.reshape(ops.cast(images, "float32"), (shape[0], -1, 3))
    changed = ops.matmul(flat, matrices[:, :3]) + matrices[:, 3:]
    return ops.reshape(ops.clip(changed, 0.0, 255.0), shape)


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of float images [N, H, W, C], seven taps per axis, with sigma float [N] in pixels (0: sharp)."""
    offsets = ops.reshape(ops.arange(-3, 4, dtype="float32"), (1, 7))
    weights = ops.exp(-(offsets**2) / (2 * ops.maximum(sigma[:, None], 1e-3) ** 2))
    weights = weights / ops.sum(weights, axis=1, keepdims=True)
    height, width = ops.shape(images)[1], ops.shape(images)[2]
    padded = ops.pad(images, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="reflect")
    rows = sum(padded[:, k : k + height] * weights[:, k, None, None, None] for k in range(7))
    return sum(rows[:, :, k : k + width] * weights[:, k, None, None, None] for k in range(7))


def add_noise(images: Tensor, seeds: Tensor, deviation: Tensor) -> Tensor:
    """Adds white noise to float images [N, H, W, C]; `deviation` float [N] is its standard deviation.

    The noise is the sum of four uniform numbers, near enough to normal and much cheaper.
    """
    seeds = ops.cast(seeds, "int32")
    shape = ops.shape(images)
    pixels = ops.reshape(ops.arange(shape[1] * shape[2] * shape[3], dtype="int32"), (1, -1))
    state = _scramble(ops.bitwise_xor(_scramble(seeds[:, 0:1] + _NOISE), seeds[:, 1:2]))
    bits = _scramble(ops.bitwise_xor(pixels * _signed(0x9E3779B1), state))
    total = sum(ops.cast(ops.bitwise_and(ops.right_shift(bits, 8 * k), 255), "float32") for k in range(4))
    noise = (total - 4 * 127.5) / math.sqrt(4 * (256**2 - 1) / 12)
    return images + ops.reshape(noise, shape) * deviation[:, None, None, None]


def augment_clips(
    frames: Tensor, masks: Tensor, seeds: Tensor, options: AugmentOptions, motion: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Transforms clips and their masks together.

    Args:
        frames: [N, T, H, W, 3], uint8 or float, 0..255.
        masks: uint8 [N, S, H, W], labels. S >= T: the frames belong to the last T masks, those before are only masks.
        seeds: int32 [N, 2].
        options: what may happen.
        motion: float [N], how far the geometry moves in the course of the clip (see `affine_parameters`).

    Returns:
        frames float32 [N, T, H, W, 3] in 0..255 and masks uint8 [N, S, H, W].
    """
    count, height, width = ops.shape(masks)[0], ops.shape(masks)[2], ops.shape(masks)[3]
    length, before = frames.shape[1], masks.shape[1] - frames.shape[1]
    images = ops.reshape(frames, (-1, height, width, 3))
    labels = ops.reshape(masks, (-1, height, width, 1))
    if options.moves:
        parameters = affine_parameters(seeds, masks.shape[1], options, motion)
        coordinates = affine_coordinates(parameters, height, width)
        if options.elastic:
            coordinates = coordinates + elastic_displacement(seeds, height, width, options.elastic)[:, None]
        shape = (-1, height, width, 2)
        images = warp(
            images, ops.reshape(coordinates[:, before:], shape), fill=VGG_MEAN_RGB if options.border == "mean" else None
        )
        labels = warp(labels, ops.reshape(coordinates, shape), nearest=True, fill=255.0)
    else:
        images = ops.cast(images, "float32")
    if options.colours:
        by_clip = ops.reshape(images, (count, -1, width, 3))
        images = ops.reshape(apply_colour(by_clip, colour_matrices(seeds, options)), (-1, height, width, 3))
    if options.blur or options.noise:
        u = uniform(seeds, 2, _BLUR)
        if options.blur:
            sigma = options.blur * ops.maximum(2 * u[:, 0] - 1, 0.0)
            images = blur(images, ops.repeat(sigma, length, axis=0))
        if options.noise:
            frame_seeds = ops.repeat(ops.cast(seeds, "int32"), length, axis=0)
            number = ops.tile(ops.arange(length, dtype="int32"), (count,))[:, None] * _signed(0xC2B2AE35)
            deviation = ops.repeat(options.noise * u[:, 1], length, axis=0)
            images = ops.clip(add_noise(images, frame_seeds + number, deviation), 0.0, 255.0)
    images = ops.reshape(images, (count, length, height, width, 3))
    return images, ops.cast(ops.reshape(labels, ops.shape(masks)), "uint8")


def visual_guide_margins(seeds: Tensor) -> Tensor:
    """Training jitter of the visual guide's box: U(-0.1, 0.1) per side, float32 [N, 4], for `visual_guide`."""
    return _between(uniform(seeds, 6, _VISUAL)[:, :4], -0.1, 0.1)


def jitter_visual_guide(
    guides: Tensor,
    seeds: Tensor,
    *,
    rotation: float = 10.0,
    flip: float = 0.5,
    background: tuple[float, float, float] = VGG_MEAN_RGB,
) -> Tensor:
    """Training jitter of the visual guide's picture: rotation U(-rotation, rotation) degrees, flip.

    Args:
        guides: float [N, S, S, 3], as `osmn_tf.guides.visual_guide` gives them.
        seeds: int32 [N, 2].
        rotation: largest rotation in degrees.
        flip: probability of a horizontal flip.
        background: RGB colour that comes in at the corners.
    """
    u = uniform(seeds, 6, _VISUAL)[:, 4:]
    zero = ops.zeros_like(u[:, :1])
    parameters = {
        "y": zero,
        "x": zero,
        "log_scale": zero,
        "angle": _between(u[:, :1], -math.radians(rotation), math.radians(rotation)),
        "flip": 1.0 - 2.0 * ops.cast(u[:, 1:2] < flip, "float32"),
    }
    side = ops.shape(guides)[1]
    return warp(guides, affine_coordinates(parameters, side, side)[:, 0], fill=background)


def spatial_guide_jitter(seeds: Tensor, length: int = 1) -> tuple[Tensor, Tensor]:
    """Training jitter of the spatial guide, for `osmn_tf.guides.spatial_guide`: the centre moves by U(-0.2, 0.2) sigma,
    and sigma is multiplied by U(1 / 1.4, 1.4).

    Args:
        seeds: int32 [N, 2].
        length: guides per example (frames of a clip), each with its own jitter.

    Returns:
        centre_shift and sigma_scale, float32 [N, length, 2] (y, x).
    """
    u = ops.reshape(uniform(seeds, 4 * length, _SPATIAL), (-1, length, 4))
    return _between(u[..., :2], -0.2, 0.2), _between(u[..., 2:], 1 / 1.4, 1.4)


def jitter_guide_colour(images: Tensor, seeds: Tensor, options: AugmentOptions, strength: float = 0.4) -> Tensor:
    """Gives guide images [N, H, W, 3] the colours of their clip (same seeds) and then a weaker change of their own."""
    images = apply_colour(images, colour_matrices(seeds, options))
    return apply_colour(images, colour_matrices(seeds, options, strength, _GUIDE_COLOUR))


def spoil_masks(masks: Tensor, seeds: Tensor, probability: float = 0.8) -> Tensor:
    """Makes true masks wrong as a network's own predictions are.

    A mask is moved, grown or shrunk, gets a hole, spills over onto what is beside it, or is lost: everything by
    chance, at a quarter of the resolution (its outline becomes as coarse as a prediction's).

    Args:
        masks: [N, H, W], any dtype; non-zero is the object.
        seeds: int32 [N, 2].
        probability: that a mask is spoiled at all; one in 25 of these is lost altogether.

    Returns:
        uint8 [N, H, W] of 0 and 1.
    """
    step = 4
    height, width = masks.shape[1], masks.shape[2]
    rows, columns = -(-height // step), -(-width // step)
    occupied = ops.cast(ops.not_equal(masks, 0), "float32")[..., None]
    padding = ((0, 0), (0, rows * step - height), (0, columns * step - width), (0, 0))
    small = ops.average_pool(ops.pad(occupied, padding), step, step, data_format="channels_last")
    u = uniform(seeds, 20, _SPOIL)

    def column(index: int) -> Tensor:
        return u[:, index, None, None]

    centre, sigma, _ = mask_statistics(small[..., 0] > 0.5)
    sigma = ops.maximum(sigma, 2.0)
    cy, cx, sy, sx = (x[:, axis, None, None] for x in (centre, sigma) for axis in (0, 1))

    # Moved and stretched about the centre, by up to a quarter of sigma and by a tenth.
    y = ops.arange(rows, dtype="float32")[None, :, None] - cy - _between(column(0), -0.25, 0.25) * sy
    x = ops.arange(columns, dtype="float32")[None, None, :] - cx - _between(column(1), -0.25, 0.25) * sx
    y = y * _between(column(2), 0.9, 1.1) + cy + 0.0 * x
    x = x * _between(column(3), 0.9, 1.1) + cx + 0.0 * y
    moved = warp(small, ops.stack([y, x], axis=-1))

    # The threshold of a blurred mask moves the outline: by some pixels, but never by more than a small object has.
    soft = moved
    for _ in range(2):
        soft = ops.average_pool(soft, 5, 1, padding="same", data_format="channels_last")
    strong = column(4) < 0.35
    soft = ops.where(strong, soft[..., 0], moved[..., 0])
    threshold = ops.where(strong, _between(column(5), 0.15, 0.7), _between(column(5), 0.35, 0.65))
    spoiled = soft > threshold

    def ellipse(first: int, reach: float, largest: float) -> Tensor:
        """An ellipse near the object, in units of its size."""
        top = cy + _between(column(first), -reach, reach) * sy
        left = cx + _between(column(first + 1), -reach, reach) * sx
        dy = (ops.arange(rows, dtype="float32")[None, :, None] - top) / (sy * _between(column(first + 2), 0.3, largest))
        dx = (ops.arange(columns, dtype="float32")[None, None, :] - left) / (
            sx * _between(column(first + 3), 0.3, largest)
        )
        return dy**2 + dx**2 < 1

    hole = ops.logical_and(column(14) < 0.3, ellipse(6, 1.6, 1.0))
    spill = ops.logical_and(column(15) < 0.35, ellipse(10, 3.5, 1.5))
    spoiled = ops.logical_or(ops.logical_and(spoiled, ops.logical_not(hole)), spill)
    spoiled = ops.logical_and(spoiled, column(16) >= 0.04)
    large = ops.image.resize(
        ops.cast(spoiled, "float32")[..., None],
        (rows * step, columns * step),
        interpolation="bilinear",
        data_format="channels_last",
    )
    wrong = large[:, :height, :width, 0] > 0.5
    return ops.cast(ops.where(column(17) < probability, wrong, occupied[..., 0] > 0), "uint8")


def prompt_masks(masks: Tensor, seeds: Tensor) -> Tensor:
    """Boxes and clicks on objects, as a user would draw them, in the form in which a network is shown them.

    A box becomes the ellipse inside it (three of five), a click a disc around it (`osmn_tf.masks.prompts`): one, two or
    three of them, rather inside of the object than at its outline.

    Args:
        masks: [N, H, W], any dtype; non-zero is the object. An empty mask gives something, but nothing of use.
        seeds: int32 [N, 2].

    Returns:
        uint8 [N, H, W] of 0 and 1.
    """
    occupied = ops.not_equal(masks, 0)
    height, width = masks.shape[1], masks.shape[2]
    u = uniform(seeds, 8, _PROMPT)
    y = ops.arange(height, dtype="float32")[None, :, None] + 0.5
    x = ops.arange(width, dtype="float32")[None, None, :] + 0.5

    def sides(seen: Tensor, length: int, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """Centre and half the side of a box around what is seen along an axis, not drawn exactly: [N, 1, 1]."""
        start = ops.cast(ops.argmax(seen, axis=1), "float32")
        stop = float(length) - ops.cast(ops.argmax(ops.flip(seen, axis=1), axis=1), "float32")
        side = stop - start
        start, stop = start + (first - 0.5) * 0.12 * side, stop + (last - 0.5) * 0.12 * side
        return ((start + stop) / 2)[:, None, None], ops.maximum((stop - start) / 2, 1.0)[:, None, None]

    centre_y, half_y = sides(ops.cast(ops.any(occupied, axis=2), "int32"), height, u[:, 0], u[:, 1])
    centre_x, half_x = sides(ops.cast(ops.any(occupied, axis=1), "int32"), width, u[:, 2], u[:, 3])
    ellipse = ((y - centre_y) / half_y) ** 2 + ((x - centre_x) / half_x) ** 2 <= 1

    step = 4
    rows, columns = -(-height // step), -(-width // step)
    padding = ((0, 0), (0, rows * step - height), (0, columns * step - width), (0, 0))
    inside = ops.average_pool(
        ops.pad(ops.cast(occupied, "float32")[..., None], padding), step, step, data_format="channels_last"
    )
    inside = inside * ops.average_pool(inside, 7, 1, padding="same", data_format="channels_last")
    chances = uniform(seeds, 3 * rows * columns, _PROMPT + 1)
    discs = ops.zeros_like(occupied)
    for click in range(3):
        chance = chances[:, click * rows * columns : (click + 1) * rows * columns]
        place = ops.cast(ops.argmax(ops.reshape(inside, (-1, rows * columns)) ** 2 * chance, axis=1), "float32")
        click_y = (ops.floor(place / columns) + 0.5) * step
        click_x = (ops.mod(place, float(columns)) + 0.5) * step
        near = (y - click_y[:, None, None]) ** 2 + (x - click_x[:, None, None]) ** 2 <= (CLICK_RADIUS * height) ** 2
        discs = ops.logical_or(discs, ops.logical_and(near, (u[:, 4] * 3 >= click)[:, None, None]))
    return ops.cast(ops.where((u[:, 5] < 0.6)[:, None, None], ellipse, discs), "uint8")

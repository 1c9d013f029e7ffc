"""Drawn objects and landscapes: pictures with known masks that belong to nobody.

They make the shipped example, and stand in for photographs where there are none (tests, first trials). Objects are
sprites: uint8 RGBA [H, W, 4], straight (not premultiplied) alpha, with their colours continued a little beyond the
outline so that interpolation leaves no dark fringe. Shape gives the shading: an outline is inflated to a relief, and
the relief is lit from the upper left.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

_LIGHT = np.array([-0.45, -0.75, 0.62], np.float32) / np.linalg.norm([-0.45, -0.75, 0.62])
"""Direction towards the light: x right, y down, z towards the viewer."""

_SUPERSAMPLING = 3

Colour = tuple[float, float, float]
"""RGB, 0..255."""


def fractal_noise(
    rng: np.random.Generator, shape: tuple[int, int], cell: tuple[float, float] | float, octaves: int = 5
) -> np.ndarray:
    """Sum of smooth random fields, each half as coarse and half as strong as the one before.

    Args:
        rng: source of randomness.
        shape: height and width.
        cell: size of the coarsest structure in pixels, (vertical, horizontal) or one number.
        octaves: number of fields.

    Returns:
        float32 [H, W] in 0..1.
    """
    height, width = shape
    cell_y, cell_x = (cell, cell) if isinstance(cell, int | float) else cell
    noise = np.zeros(shape, np.float32)
    for octave in range(octaves):
        rows = max(2, math.ceil(height / cell_y * 2**octave) + 1)
        columns = max(2, math.ceil(width / cell_x * 2**octave) + 1)
        if rows > 2 * height or columns > 2 * width:
            break
        field = rng.random((rows, columns), dtype=np.float32)
        noise += cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
    return (noise - noise.min()) / max(float(np.ptp(noise)), 1e-6)


def relief(coverage: np.ndarray, radius: float) -> np.ndarray:
    """Inflates an outline: height 0 at the edge, rising as a quarter circle to `radius` at that distance from it.

    Args:
        coverage: float32 [H, W], above 0.5 inside.
        radius: in pixels.

    Returns:
        float32 [H, W], heights in pixels.
    """
    distance = cv2.distanceTransform((coverage > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    inward = 1 - np.minimum(distance / radius, 1)
    return cv2.GaussianBlur(radius * np.sqrt(1 - inward**2), (0, 0), max(radius / 8, 0.8))


def shade(
    colour: np.ndarray, height: np.ndarray, *, ambient: float = 0.5, diffuse: float = 0.62, gloss: float = 0.25
) -> np.ndarray:
    """Lights a coloured relief (Lambert's cosine law plus a Blinn-Phong highlight).

    Args:
        colour: float32 [H, W, 3], 0..255.
        height: float32 [H, W] in pixels.
        ambient: light from everywhere.
        diffuse: strength of the light from the upper left.
        gloss: strength of the white highlight.

    Returns:
        float32 [H, W, 3], 0..255.
    """
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    normal = np.stack([-slope_x, -slope_y, np.ones_like(height)], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    cosine = np.maximum(normal @ _LIGHT, 0)
    half = _LIGHT + np.array([0, 0, 1], np.float32)
    highlight = np.maximum(normal @ (half / np.linalg.norm(half)), 0) ** 40
    lit = colour * (ambient + diffuse * cosine)[..., None] + 255 * gloss * highlight[..., None]
    return np.clip(lit, 0, 255)


class _Canvas:
    """A square sheet, `_SUPERSAMPLING` times finer than the sprite, in coordinates 0..1 (x right, y down)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.side = size * _SUPERSAMPLING
        self.colour = np.zeros((self.side, self.side, 3), np.float32)
        self.coverage = np.zeros((self.side, self.side), np.float32)

    def polygon(self, points: np.ndarray | list[tuple[float, float]]) -> np.ndarray:
        """Coverage 0/1 of a polygon, float32 [side, side]."""
        area = np.zeros((self.side, self.side), np.uint8)
        fixed = np.round(np.asarray(points) * self.side * 256).astype(np.int32)
        cv2.fillPoly(area, [fixed], 1, shift=8)
        return area.astype(np.float32)

    def smooth(self, points: list[tuple[float, float]]) -> np.ndarray:
        """Coverage of the closed Catmull-Rom curve through `points`."""
        p = np.asarray(points)
        before, after, beyond = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
        t = np.linspace(0, 1, 16, endpoint=False)[:, None, None]
        curve = 0.5 * (
            2 * p
            + (after - before) * t
            + (2 * before - 5 * p + 4 * after - beyond) * t**2
            + (3 * p - before - 3 * after + beyond) * t**3
        )
        return self.polygon(curve.transpose(1, 0, 2).reshape(-1, 2))

    def ellipse(self, centre: tuple[float, float], radii: tuple[float, float], degrees: float = 0.0) -> np.ndarray:
        angle = np.linspace(0, 2 * np.pi, 96, endpoint=False)
        turn = math.radians(degrees)
        x, y = radii[0] * np.cos(angle), radii[1] * np.sin(angle)
        return self.polygon(
            np.stack(
                [
                    centre[0] + x * math.cos(turn) - y * math.sin(turn),
                    centre[1] + x * math.sin(turn) + y * math.cos(turn),
                ],
                axis=-1,
            )
        )

    def paint(self, area: np.ndarray, colour: np.ndarray | Colour, *, opacity: float = 1.0) -> None:
        """Adds a flat part on top."""
        self._blend(self._window(area), area, colour, opacity)

    def solid(
        self, area: np.ndarray, colour: np.ndarray | Colour, radius: float, *, gloss: float = 0.25, ambient: float = 0.5
    ) -> None:
        """Adds an inflated, lit part on top; `radius` in units of the sheet."""
        window = self._window(area)
        pigment = np.broadcast_to(np.asarray(colour, np.float32), self.colour.shape)[window]
        lit = shade(pigment, relief(area[window], radius * self.side), gloss=gloss, ambient=ambient)
        self._blend(window, area, lit, 1.0)

    def _window(self, area: np.ndarray) -> tuple[slice, slice]:
        """The part of the sheet where there is something, with a margin: most parts are small."""
        x, y, width, height = cv2.boundingRect((area > 0).astype(np.uint8))
        margin = 4
        return slice(max(y - margin, 0), y + height + margin), slice(max(x - margin, 0), x + width + margin)

    def _blend(
        self, window: tuple[slice, slice], area: np.ndarray, colour: np.ndarray | Colour, opacity: float
    ) -> None:
        pigment = np.asarray(colour, np.float32)
        if pigment.shape == self.colour.shape:
            pigment = pigment[window]
        weight = (area[window] * np.float32(opacity))[..., None]
        self.colour[window] += (pigment - self.colour[window]) * weight
        self.coverage[window] = np.maximum(self.coverage[window], area[window])

    def sprite(self) -> np.ndarray:
        """uint8 RGBA [size, size, 4]."""
        known = self.coverage[..., None]
        # Continue the colours outwards: weighted mean of the neighbourhood, where nothing is painted.
        weight = cv2.GaussianBlur(self.coverage, (0, 0), 4.0)[..., None]
        outside = cv2.GaussianBlur(self.colour * known, (0, 0), 4.0) / np.maximum(weight, 1e-3)
        colour = np.where(known > 0, self.colour, outside)
        stacked = np.concatenate([np.clip(colour, 0, 255), known * 255], axis=-1)
        small = cv2.resize(stacked, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return np.round(small).astype(np.uint8)


def _mottled(rng: np.random.Generator, side: int, colour: Colour, strength: float, cell: float) -> np.ndarray:
    """A colour with a grain of relative strength `strength`: float32 [side, side, 3]."""
    grain = fractal_noise(rng, (side, side), cell) - 0.5
    return np.asarray(colour, np.float32) * (1 + 2 * strength * grain[..., None])


def draw_ball(rng: np.random.Generator, size: int, *, colours: list[Colour], roll: float = 0.0) -> np.ndarray:
    """A ball with six meridian panels, rolled by `roll` radians about the viewing axis and seen from the side.

    Args:
        rng: for the grain of the surface.
        size: of the sprite; the ball fills 92% of it.
        colours: of the panels, repeated in turn.
        roll: radians.

    Returns:
        uint8 RGBA [size, size, 4].
    """
    canvas = _Canvas(size)
    grid = (np.arange(canvas.side, dtype=np.float32) + 0.5) / canvas.side * 2 - 1
    x, y = np.meshgrid(grid / 0.92, grid / 0.92)
    z = np.sqrt(np.maximum(1 - x**2 - y**2, 0))
    # The pole leans towards the viewer, so that the panels are seen as bent wedges.
    u, v = x * math.cos(roll) + y * math.sin(roll), -x * math.sin(roll) + y * math.cos(roll)
    lean = 0.9
    pole, front = v * math.cos(lean) + z * math.sin(lean), -v * math.sin(lean) + z * math.cos(lean)
    longitude = (np.arctan2(front, u) / (2 * np.pi) + 0.5) * 6
    palette = np.array([colours[i % len(colours)] for i in range(6)], np.float32)
    colour = palette[np.minimum(longitude.astype(int), 5)]
    colour[np.abs(pole) > 0.965] = (245, 245, 240)
    seam = np.abs(longitude - np.round(longitude)) * np.sqrt(np.maximum(1 - pole**2, 0)) < 0.012
    colour[seam] *= 0.72
    colour *= 1 + 0.12 * (fractal_noise(rng, (canvas.side,) * 2, canvas.side / 3)[..., None] - 0.5)
    inside = (x**2 + y**2 <= 1).astype(np.float32)
    lit = shade(colour, z * canvas.side * 0.46, gloss=0.45, ambient=0.42, diffuse=0.72)
    bounce = np.clip(y, 0, 1)[..., None] * np.array([22, 30, 8], np.float32)  # light from the grass below
    canvas.paint(inside, np.clip(lit + bounce * (1 - z[..., None]), 0, 255))
    return canvas.sprite()


def draw_car(rng: np.random.Generator, size: int, *, colour: Colour, wheel_angle: float = 0.0) -> np.ndarray:
    """A painted toy car from the side, driving to the right.

    Args:
        rng: for dirt and paint.
        size: of the sprite; the car is about 0.94 wide and 0.42 high, wheels at the height 0.72.
        colour: of the body.
        wheel_angle: turn of the wheels in radians.

    Returns:
        uint8 RGBA [size, size, 4].
    """
    canvas = _Canvas(size)
    side = canvas.side
    body = canvas.smooth(
        [(0.03, 0.56), (0.06, 0.50), (0.20, 0.475), (0.30, 0.37), (0.38, 0.335), (0.56, 0.335), (0.64, 0.375),
         (0.74, 0.48), (0.90, 0.52), (0.965, 0.57), (0.97, 0.66), (0.92, 0.69), (0.50, 0.695), (0.07, 0.69),
         (0.03, 0.65)]
    )  # fmt: skip
    paint = _mottled(rng, side, colour, 0.07, side / 4)
    rows = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
    paint = paint * (1.12 - 0.85 * np.clip(rows - 0.45, 0, 0.3))
    canvas.solid(body, paint, 0.07, gloss=0.4)
    trim = canvas.polygon([(0.0, 0.635), (1.0, 0.635), (1.0, 0.66), (0.0, 0.66)]) * body
    canvas.paint(trim, (235, 228, 210), opacity=0.9)
    sill = canvas.polygon([(0.0, 0.672), (1.0, 0.672), (1.0, 0.7), (0.0, 0.7)]) * body
    canvas.paint(sill, (40, 38, 38), opacity=0.9)
    glass = np.array([74, 98, 116], np.float32) + (0.48 - rows) * np.array([420, 450, 470], np.float32)
    sheen = fractal_noise(rng, (side, side), (side / 6, side / 3))[..., None] * 40
    for window in (
        [(0.255, 0.475), (0.325, 0.385), (0.39, 0.365), (0.45, 0.362), (0.45, 0.475)],
        [(0.475, 0.475), (0.475, 0.362), (0.55, 0.364), (0.61, 0.395), (0.685, 0.475)],
    ):
        canvas.paint(canvas.polygon(window), np.clip(glass + sheen, 0, 255))
        band = canvas.polygon([(window[0][0] + 0.08, 0.36), (window[0][0] + 0.11, 0.36), (window[0][0] + 0.05, 0.48),
                               (window[0][0] + 0.02, 0.48)]) * canvas.polygon(window)  # fmt: skip
        canvas.paint(band, (240, 246, 250), opacity=0.35)
    for x in (0.245, 0.463, 0.70):
        seam = canvas.polygon([(x, 0.478), (x + 0.004, 0.478), (x + 0.004, 0.665), (x, 0.665)])
        canvas.paint(seam * body, np.asarray(colour) * 0.45, opacity=0.8)
    for x in (0.42, 0.652):
        canvas.solid(canvas.ellipse((x, 0.53), (0.02, 0.006)), (225, 225, 225), 0.006)
    canvas.solid(canvas.ellipse((0.945, 0.585), (0.018, 0.028)), (255, 244, 200), 0.02, gloss=0.8, ambient=0.75)
    canvas.solid(canvas.ellipse((0.045, 0.585), (0.013, 0.026)), (200, 30, 24), 0.015, gloss=0.5)
    canvas.solid(canvas.polygon([(0.93, 0.655), (0.985, 0.655), (0.985, 0.685), (0.93, 0.685)]), (190, 190, 188), 0.015)
    canvas.solid(canvas.polygon([(0.015, 0.655), (0.07, 0.655), (0.07, 0.685), (0.015, 0.685)]), (190, 190, 188), 0.015)
    for x in (0.225, 0.775):
        canvas.paint(canvas.ellipse((x, 0.67), (0.102, 0.102)) * body, (24, 22, 22))
        canvas.solid(
            canvas.ellipse((x, 0.68), (0.088, 0.088)),
            _mottled(rng, side, (46, 45, 46), 0.2, side / 30),
            0.03,
            gloss=0.05,
        )
        canvas.solid(canvas.ellipse((x, 0.68), (0.053, 0.053)), (200, 200, 204), 0.02, gloss=0.5)
        for spoke in range(5):
            angle = wheel_angle + spoke * 2 * math.pi / 5
            hole = (x + 0.031 * math.cos(angle), 0.68 + 0.031 * math.sin(angle))
            canvas.paint(canvas.ellipse(hole, (0.011, 0.011)), (60, 60, 64))
        canvas.paint(canvas.ellipse((x, 0.68), (0.012, 0.012)), np.asarray(colour) * 0.9)
    return canvas.sprite()


def draw_bird(
    rng: np.random.Generator,
    size: int,
    *,
    back: Colour,
    breast: Colour,
    flap: float = 0.5,
    beak: Colour = (238, 168, 40),
) -> np.ndarray:
    """A flying bird from the side, heading right.

    Args:
        rng: for the plumage.
        size: of the sprite.
        back: colour of back, wings and tail.
        breast: colour of the underside.
        flap: position of the wings, -1 (down) .. 1 (up).
        beak: colour of the beak.

    Returns:
        uint8 RGBA [size, size, 4].
    """
    canvas = _Canvas(size)
    side = canvas.side
    rows = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
    feathers = _mottled(rng, side, back, 0.22, side / 14)

    def wing(root: float, lift: float, tone: float) -> None:
        tip_y = 0.52 - 0.40 * lift
        tip_x = root - 0.10 - 0.06 * (1 - abs(lift))
        outline = canvas.smooth(
            [(root + 0.10, 0.50), (root + 0.07, 0.5 - 0.20 * lift), (tip_x + 0.06, tip_y + 0.01), (tip_x, tip_y),
             (tip_x - 0.06, tip_y + 0.10 * lift), (root - 0.20, 0.52 - 0.16 * lift), (root - 0.14, 0.52)]
        )  # fmt: skip
        canvas.solid(outline, feathers * tone, 0.03, gloss=0.05)
        for i in range(6):
            share = (i + 1) / 7
            start = (root + 0.06 - 0.2 * share, 0.5)
            end = (tip_x + 0.05 - 0.14 * share, tip_y + 0.14 * lift * share)
            quill = canvas.polygon([start, end, (end[0] + 0.006, end[1] + 0.004), (start[0] + 0.006, start[1])])
            canvas.paint(quill * outline, np.asarray(back) * 0.45 * tone, opacity=0.6)

    wing(0.53, flap * 0.9, 0.68)
    tail = canvas.smooth(
        [(0.32, 0.50), (0.18, 0.47), (0.05, 0.50), (0.06, 0.545), (0.10, 0.575), (0.20, 0.575), (0.33, 0.57)]
    )
    canvas.solid(tail, feathers * 0.8, 0.03, gloss=0.05)
    body = canvas.smooth(
        [(0.24, 0.52), (0.38, 0.455), (0.56, 0.435), (0.70, 0.415), (0.78, 0.37), (0.86, 0.365), (0.905, 0.41),
         (0.89, 0.465), (0.82, 0.52), (0.72, 0.60), (0.56, 0.645), (0.40, 0.62)]
    )  # fmt: skip
    split = np.clip((rows - 0.50) * 14, 0, 1)
    pigment = feathers * (1 - split) + _mottled(rng, side, breast, 0.12, side / 18) * split
    canvas.solid(body, pigment, 0.10, gloss=0.08)
    canvas.solid(canvas.polygon([(0.89, 0.405), (0.985, 0.435), (0.885, 0.455)]), beak, 0.02)
    canvas.paint(canvas.ellipse((0.845, 0.405), (0.017, 0.017)), (250, 246, 235))
    canvas.paint(canvas.ellipse((0.848, 0.405), (0.012, 0.012)), (16, 14, 14))
    wing(0.50, flap, 0.95)
    return canvas.sprite()


def draw_fish(rng: np.random.Generator, size: int, *, colour: Colour, swing: float = 0.0) -> np.ndarray:
    """A banded fish from the side, heading right.

    Args:
        rng: for scales and bands.
        size: of the sprite.
        colour: of the body and fins.
        swing: position of the tail, -1..1.

    Returns:
        uint8 RGBA [size, size, 4].
    """
    canvas = _Canvas(size)
    side = canvas.side
    skin = _mottled(rng, side, colour, 0.12, side / 8)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    scales = 0.5 + 0.5 * np.sin(x * 110 + 3 * np.sin(y * 55)) * np.sin(y * 110)
    shift = 0.08 * swing
    for fin in (
        [
            (0.26, 0.50),
            (0.10, 0.34 + shift),
            (0.03, 0.30 + shift),
            (0.07, 0.5 + shift),
            (0.03, 0.70 + shift),
            (0.11, 0.66 + shift),
        ],
        [(0.40, 0.34), (0.46, 0.18), (0.60, 0.16), (0.74, 0.26), (0.70, 0.36)],
        [(0.44, 0.66), (0.46, 0.80), (0.58, 0.80), (0.62, 0.66)],
    ):
        canvas.solid(canvas.smooth(fin), skin * (0.75 + 0.25 * np.sin(90 * (x + 0.4 * y)))[..., None], 0.02, gloss=0.1)
    body = canvas.smooth(
        [(0.22, 0.50), (0.34, 0.37), (0.52, 0.29), (0.70, 0.31), (0.86, 0.42), (0.95, 0.52), (0.86, 0.61), (0.70, 0.70),
         (0.52, 0.71), (0.34, 0.62)]
    )  # fmt: skip
    pigment = skin * (0.9 + 0.16 * scales)[..., None]
    for centre, width in ((0.42, 0.035), (0.72, 0.045)):
        edge = np.abs(x - centre - 0.05 * np.sin(y * 9 + centre * 5)) / width
        band = np.clip((1.2 - edge) * 6, 0, 1)[..., None]
        rim = np.clip((1.5 - edge) * 6, 0, 1)[..., None]
        pigment = pigment * (1 - rim) + 25 * rim
        pigment = pigment * (1 - band) + np.array([245, 242, 235], np.float32) * band
    canvas.solid(body, pigment, 0.16, gloss=0.35)
    canvas.paint(canvas.ellipse((0.86, 0.475), (0.028, 0.028)), (245, 240, 225))
    canvas.paint(canvas.ellipse((0.865, 0.475), (0.017, 0.017)), (14, 14, 18))
    gill = canvas.ellipse((0.79, 0.53), (0.012, 0.06), 8)
    canvas.paint(gill, np.asarray(colour) * 0.6, opacity=0.6)
    return canvas.sprite()


def draw_stone(rng: np.random.Generator, size: int, *, colour: Colour) -> np.ndarray:
    """A rough stone: a random outline with a random relief. Returns uint8 RGBA [size, size, 4]."""
    canvas = _Canvas(size)
    angles = np.linspace(0, 2 * np.pi, 9, endpoint=False)
    radii = 0.36 + 0.10 * rng.random(9)
    area = canvas.smooth(
        [(0.5 + r * math.cos(a), 0.5 + 0.8 * r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]
    )
    height = relief(area, 0.2 * canvas.side) + 0.10 * canvas.side * fractal_noise(rng, area.shape, canvas.side / 4, 6)
    canvas.paint(area, shade(_mottled(rng, canvas.side, colour, 0.25, canvas.side / 10), height, gloss=0.0))
    return canvas.sprite()


def draw_tree(rng: np.random.Generator, size: int, *, colour: Colour) -> np.ndarray:
    """A leafy tree with its foot at the middle of the lower edge. Returns uint8 RGBA [size, size, 4]."""
    canvas = _Canvas(size)
    side = canvas.side
    trunk = canvas.smooth([(0.47, 1.02), (0.48, 0.8), (0.485, 0.5), (0.515, 0.5), (0.52, 0.8), (0.54, 1.02)])
    canvas.solid(trunk, _mottled(rng, side, (92, 72, 54), 0.3, side / 20), 0.03, gloss=0.0)
    dome = np.zeros((side, side), np.float32)
    for _ in range(26):
        angle, reach = rng.uniform(0, 2 * math.pi), rng.uniform(0, 1) ** 0.5
        centre = (0.5 + 0.27 * reach * math.cos(angle), 0.42 + 0.25 * reach * math.sin(angle))
        dome = np.maximum(dome, canvas.ellipse(centre, (rng.uniform(0.07, 0.14), rng.uniform(0.06, 0.11))))
    leaves = fractal_noise(rng, (side, side), side / 9, 5)
    crown = ((cv2.GaussianBlur(dome, (0, 0), side / 60) + 0.55 * (leaves - 0.5)) > 0.5).astype(np.float32)
    height = relief(crown, 0.22 * side) + 0.09 * side * leaves
    canvas.paint(crown, shade(_mottled(rng, side, colour, 0.3, side / 12), height, ambient=0.42, gloss=0.0))
    return canvas.sprite()


def _vivid(rng: np.random.Generator) -> Colour:
    """A clear random colour."""
    hue, saturation, value = rng.uniform(0, 360), rng.uniform(0.55, 0.95), rng.uniform(0.6, 0.95)
    pixel = np.array([[[hue, saturation, value]]], np.float32)
    red, green, blue = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0] * 255
    return float(red), float(green), float(blue)


def _earthen(rng: np.random.Generator) -> Colour:
    """A muted random colour."""
    grey = rng.uniform(90, 190)
    red, green, blue = grey * rng.uniform(0.8, 1.2, 3)
    return min(float(red), 255.0), min(float(green), 255.0), min(float(blue), 255.0)


_KINDS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "ball": lambda rng, size: draw_ball(
        rng, size, colours=[_vivid(rng), (245, 243, 236), _vivid(rng)], roll=rng.uniform(0, 2 * math.pi)
    ),
    "car": lambda rng, size: draw_car(rng, size, colour=_vivid(rng), wheel_angle=rng.uniform(0, 2 * math.pi)),
    "bird": lambda rng, size: draw_bird(rng, size, back=_vivid(rng), breast=_vivid(rng), flap=rng.uniform(-0.8, 1)),
    "fish": lambda rng, size: draw_fish(rng, size, colour=_vivid(rng), swing=rng.uniform(-1, 1)),
    "stone": lambda rng, size: draw_stone(rng, size, colour=_earthen(rng)),
}

KINDS = tuple(_KINDS)
"""The kinds of objects that `draw_random` knows."""


def draw_random(rng: np.random.Generator, kind: str, size: int) -> np.ndarray:
    """An object of a kind in random colours and posture: uint8 RGBA [size, size, 4]."""
    return _KINDS[kind](rng, size)


def draw_ground(rng: np.random.Generator, shape: tuple[int, int], near: Colour, far: Colour) -> np.ndarray:
    """A meadow seen from above its far end (top) to the viewer (bottom): tufts of grass, larger towards the viewer.

    Returns:
        float32 RGB [H, W, 3], 0..255.
    """
    height, width = shape
    depth = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    patches = fractal_noise(rng, shape, (height / 5, width / 8))[..., None]
    colour = (np.asarray(far, np.float32) * (1 - depth) + np.asarray(near, np.float32) * depth) * (0.72 + 0.5 * patches)
    ground = np.clip(colour, 0, 255).astype(np.uint8)
    count = width * height // 22
    rows = np.sort(rng.random(count) ** 0.75) * height
    columns = rng.random(count) * width
    lean, tone, tint = rng.normal(0, 0.35, count), rng.uniform(0.6, 1.45, count), rng.normal(0, 9, (count, 3))
    for y, x, bend, brightness, hue in zip(rows, columns, lean, tone, tint, strict=True):
        length = 2 + 13 * (y / height) ** 1.5
        base = colour[min(int(y), height - 1), min(int(x), width - 1)] * brightness + hue
        end = (int((x + bend * length) * 16), int((y - length) * 16))
        cv2.line(
            ground, (int(x * 16), int(y * 16)), end, np.clip(base, 0, 255).tolist(), 1 + int(y > 0.8 * height),
            cv2.LINE_AA, 4,
        )  # fmt: skip
    return ground.astype(np.float32)


def draw_sky(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A blue sky with clouds, paler towards the horizon at the bottom. Returns float32 RGB [H, W, 3], 0..255."""
    height, width = shape
    rise = np.linspace(1, 0, height, dtype=np.float32)[:, None, None]
    blue = np.array([96, 150, 205], np.float32) * rise + np.array([200, 218, 228], np.float32) * (1 - rise)
    clouds = fractal_noise(rng, shape, (height / 2.2, width / 4), 6)
    clouds = cv2.GaussianBlur(np.clip((clouds - 0.48) * 2.4, 0, 1), (0, 0), 1.0)
    # Thick parts are lit from above: compare the cloud with itself a little higher up.
    drop = max(height // 12, 1)
    lit = clouds - cv2.GaussianBlur(np.roll(clouds, drop, axis=0), (0, 0), drop / 2)
    white = np.array([247, 246, 243], np.float32) + 26 * np.clip(lit, -1, 0.3)[..., None]
    thickness = (0.9 * clouds)[..., None]
    return np.clip(blue * (1 - thickness) + white * thickness, 0, 255)


def draw_backdrop(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A quick random landscape: sky, hills and a meadow. Returns uint8 RGB [H, W, 3]."""
    height, width = shape
    horizon = int(height * rng.uniform(0.3, 0.6))
    hue = rng.uniform(0.75, 1.25, 3)
    picture = np.empty((height, width, 3), np.float32)
    picture[:horizon] = draw_sky(rng, (horizon, width))
    picture[horizon:] = draw_ground(
        rng,
        (height - horizon, width),
        tuple(np.array([86, 118, 48]) * hue),
        tuple(np.array([150, 160, 98]) * hue),
    )
    line = horizon - height * 0.15 * fractal_noise(rng, (2, width), (2, width / 3), 6)[0]
    hills = (np.arange(height)[:, None] >= line) & (np.arange(height)[:, None] < horizon)
    slope = np.array([84, 110, 104], np.float32) * (0.8 + 0.4 * fractal_noise(rng, shape, height / 10)[..., None])
    picture[hills] = slope[hills]
    return np.clip(cv2.GaussianBlur(picture, (0, 0), 0.8), 0, 255).astype(np.uint8)

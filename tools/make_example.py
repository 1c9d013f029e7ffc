"""Draws the shipped example: a toy car, a beach ball and a bird in a meadow, with exact masks.

    python tools/make_example.py [OUT_DIR]

The ball rolls in front of the car, and the bird leaves the picture and comes back. Everything is drawn by
`osmn_tf.data.drawing`, so the clip is free of other people's rights. The result is the same at every run (up to the
version of the video encoder).
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from osmn_tf.data import drawing
from osmn_tf.files import ensure_directory
from osmn_tf.masks.files import write_mask
from osmn_tf.video.source import VideoWriter

WIDTH, HEIGHT, FRAMES, RATE = 854, 480, 60, 24
HORIZON = 190
PANORAMA = WIDTH + 400
EXPOSURE = 0.35  # of the time between frames
CAR, BALL, BIRD = 1, 2, 3


@dataclasses.dataclass(frozen=True)
class Thing:
    """A sprite with the position of its centre on the screen (x, y), its tilt in radians and its speed (pixels per
    frame)."""

    label: int
    sprite: np.ndarray
    centre: tuple[float, float]
    tilt: float
    speed: tuple[float, float]


def smooth_step(value: float) -> float:
    value = min(max(value, 0.0), 1.0)
    return value * value * (3 - 2 * value)


class Scene:
    """The landscape, in layers that the camera passes at different speeds."""

    def __init__(self) -> None:
        rng = np.random.default_rng(20)
        self.sky = drawing.draw_sky(rng, (HORIZON + 60, PANORAMA))
        self.hills = self._draw_hills(rng)
        self.trees = self._draw_trees(rng)
        self.ground = self._draw_ground(rng)
        self.verge = 9 * drawing.fractal_noise(rng, (2, PANORAMA), (2, 60), 6)[0] - 4  # rows by which the meadow rises
        self.noise = np.random.default_rng(3).normal(0, 2.2, (HEIGHT + 64, WIDTH + 64, 3)).astype(np.float32)
        y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
        self.vignette = (1 - 0.13 * (x**2 + y**2)).astype(np.float32)[..., None]

    def _draw_hills(self, rng: np.random.Generator) -> np.ndarray:
        """Two ridges: float32 [H, W, 4], colour premultiplied with alpha."""
        layer = np.zeros((HORIZON + 60, PANORAMA, 4), np.float32)
        rows = np.arange(len(layer))[:, None]
        for height, haze, base in ((95, 0.62, (70, 104, 82)), (55, 0.34, (78, 110, 60))):
            ridge = HORIZON - height * (0.25 + 0.75 * drawing.fractal_noise(rng, (2, PANORAMA), (2, 330), 6)[0])
            relief = drawing.fractal_noise(rng, layer.shape[:2], (26, 70), 6) * 30
            pigment = np.broadcast_to(np.array(base, np.float32), (*layer.shape[:2], 3))
            colour = drawing.shade(pigment, relief, gloss=0.0) * (1 - haze) + np.array([176, 200, 214]) * haze
            inside = np.clip(rows - ridge, 0, 1)[..., None]
            layer = layer * (1 - inside) + np.dstack([colour, np.ones_like(inside)]) * inside
        return layer

    def _draw_trees(self, rng: np.random.Generator) -> np.ndarray:
        """Trees before the hills: float32 [H, W, 4], colour premultiplied with alpha."""
        layer = np.zeros((HORIZON + 60, PANORAMA, 4), np.float32)
        positions = np.sort(rng.uniform(-60, PANORAMA, 26))
        for x in rng.permutation(positions):
            size = int(rng.uniform(50, 125))
            colour = tuple(np.array([66, 96, 42]) * rng.uniform(0.8, 1.25) + rng.normal(0, 7, 3))
            tree = drawing.draw_tree(rng, size, colour=colour).astype(np.float32)
            top = HORIZON + int(rng.uniform(2, 14)) - size
            left = int(x)
            first, last = max(left, 0), min(left + size, PANORAMA)
            if last <= first:
                continue
            part = tree[:, first - left : last - left]
            alpha = part[..., 3:] / 255
            hazy = part[..., :3] * 0.86 + np.array([176, 200, 214]) * 0.14
            spot = layer[top : top + size, first:last]
            spot[:] = spot * (1 - alpha) + np.dstack([hazy, np.ones_like(alpha)]) * alpha
        return layer

    def _draw_ground(self, rng: np.random.Generator) -> np.ndarray:
        """A meadow with a dirt road and flowers: float32 [H, W, 3]."""
        height = HEIGHT - HORIZON + 30
        meadow = drawing.draw_ground(rng, (height, PANORAMA), near=(88, 122, 46), far=(158, 172, 98))
        rows = np.arange(height, dtype=np.float32)[:, None]
        edge = 9 * (drawing.fractal_noise(rng, (height, PANORAMA), (14, 40), 6) - 0.5)
        middle, half = 168, 30
        road = np.clip((half - np.abs(rows - middle + edge)) / 5, 0, 1)[..., None]
        pebbles = drawing.fractal_noise(rng, (height, PANORAMA), (5, 9), 4)
        dust = drawing.fractal_noise(rng, (height, PANORAMA), (30, 160), 5)
        earth = np.array([186, 158, 120], np.float32) * (0.72 + 0.28 * dust + 0.22 * pebbles)[..., None]
        tracks = np.exp(-(((np.abs(rows - middle) - 13) / 5) ** 2))[..., None]
        meadow = meadow * (1 - road) + earth * (1 - 0.16 * tracks) * road
        for _ in range(420):
            y = int(rng.uniform(40, height - 4))
            x = int(rng.uniform(0, PANORAMA))
            if abs(y - middle) < half + 8:
                continue
            size = 1.0 + 3.0 * y / height
            colour = ((246, 244, 236), (244, 208, 60), (214, 84, 70), (170, 120, 210))[int(rng.integers(4))]
            cv2.ellipse(
                meadow, (x * 16, y * 16), (int(size * 16), int(size * 11)), 0, 0, 360, colour, -1, cv2.LINE_AA, 4
            )
            cv2.circle(meadow, (x * 16, y * 16), int(size * 5), (222, 160, 40), -1, cv2.LINE_AA, 4)
        return meadow

    def background(self, t: float) -> np.ndarray:
        """The landscape at frame `t`, float32 RGB [HEIGHT, WIDTH, 3]."""
        pan, rise = camera(t)
        frame = np.zeros((HEIGHT, WIDTH, 3), np.float32)

        def shifted(layer: np.ndarray, share: float, height: int) -> np.ndarray:
            move = np.array([[1, 0, -60 - share * pan], [0, 1, rise - 8]])
            return cv2.warpAffine(
                layer, move, (WIDTH, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
            )

        top = HORIZON + 30
        frame[:top] = shifted(self.sky, 0.08, top)
        for layer, share in ((self.hills, 0.25), (self.trees, 0.45)):
            part = shifted(layer, share, top)
            frame[:top] = frame[:top] * (1 - part[..., 3:]) + part[..., :3]
        # The nearer the ground, the faster it passes.
        rows = np.arange(HORIZON - 20, HEIGHT, dtype=np.float32)[:, None] + np.zeros((1, WIDTH), np.float32)
        down = rows - HORIZON - (rise - 8)
        x = np.arange(WIDTH, dtype=np.float32)[None] + 60 + pan * parallax(rows)
        ground = cv2.remap(self.ground, x.astype(np.float32), down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        uneven = np.interp(x.ravel(), np.arange(len(self.verge)), self.verge).reshape(x.shape)
        visible = np.clip((down + uneven) / 2, 0, 1)[..., None]
        frame[HORIZON - 20 :] = frame[HORIZON - 20 :] * (1 - visible) + ground * visible
        return frame

    def render(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Frame uint8 RGB [HEIGHT, WIDTH, 3] and mask uint8 [HEIGHT, WIDTH]."""
        frame, mask = self.background(t), np.zeros((HEIGHT, WIDTH), np.uint8)
        things, shadows = actors(t)
        for (x, y), (rx, ry), strength in shadows:
            dark = np.zeros((HEIGHT, WIDTH), np.float32)
            cv2.ellipse(
                dark, (int(x * 16), int(y * 16)), (int(rx * 16), int(ry * 16)), 0, 0, 360, 1.0, -1, cv2.LINE_8, 4
            )
            frame *= 1 - strength * cv2.GaussianBlur(dark, (0, 0), ry / 2)[..., None]
        for thing in things:
            colour, alpha = smeared(thing)
            frame = frame * (1 - alpha) + colour
            mask[alpha[..., 0] > 0.5] = thing.label
        frame = cv2.GaussianBlur(frame, (0, 0), 0.55) * self.vignette
        frame *= 1 + 0.03 * math.sin(t / 9)
        dy, dx = np.random.default_rng(t).integers(0, 64, 2)
        frame += self.noise[dy : dy + HEIGHT, dx : dx + WIDTH]
        return np.clip(np.round(frame), 0, 255).astype(np.uint8), mask


def camera(t: float) -> tuple[float, float]:
    """Pan in pixels (at the front) and rise in pixels, of a camera held by hand."""
    return 2.6 * t + 3 * math.sin(t / 7), 3.0 * math.sin(t / 11) + 1.2 * math.sin(t / 4.3)


def parallax(row: np.ndarray | float) -> np.ndarray | float:
    """Share of the pan at a row of the screen, below the horizon."""
    return 0.45 + 0.55 * (row - HORIZON) / (HEIGHT - HORIZON)


def actors(t: float) -> tuple[list[Thing], list[tuple[tuple[float, float], tuple[float, float], float]]]:
    """What is on stage at frame `t` from back to front, and the shadows: centre, radii, strength."""
    _, rise = camera(t)
    car_x = lambda t: 190 + 4.2 * t + 14 * math.sin(t / 10)  # noqa: E731
    ball_x = lambda t: 770 - 9.6 * t  # noqa: E731
    things, shadows = [], []

    bird, bird_at, speed, tilt = bird_pose(t)
    things.append(Thing(BIRD, bird, (bird_at[0], bird_at[1] + rise), tilt, speed))

    wheel_y = 366 + rise
    size = 330
    bounce = 1.3 * math.sin(t / 1.7) + 0.8 * math.sin(t / 0.9)
    wheel_radius = 0.088 * size
    travelled = car_x(t) + 2.6 * t * parallax(wheel_y)
    car = drawing.draw_car(np.random.default_rng(1), size, colour=(206, 44, 36), wheel_angle=travelled / wheel_radius)
    # In the sprite, the wheels stand at 0.768 of its height.
    things.append(
        Thing(
            CAR,
            car,
            (car_x(t), wheel_y - 0.268 * size + bounce),
            0.006 * math.sin(t / 2.3),
            (car_x(t + 0.5) - car_x(t - 0.5), 0),
        )
    )
    shadows.append(((car_x(t) + 8, wheel_y + 1), (0.46 * size, 11), 0.62))

    diameter = 118
    hop = 26 * abs(math.sin(t * math.pi / 15)) * math.exp(-t / 60)
    ball_y = 436 + rise
    rolled = (ball_x(t) + 2.6 * t * parallax(ball_y)) / (diameter / 2)
    ball = drawing.draw_ball(
        np.random.default_rng(2), diameter, colours=[(34, 92, 190), (246, 242, 232), (246, 190, 36)], roll=rolled
    )
    things.append(Thing(BALL, ball, (ball_x(t), ball_y - hop - 0.46 * diameter), 0.0, (-9.6, 0)))
    shadows.append(((ball_x(t) + 10, ball_y), (0.42 * diameter * (1 - hop / 120), 10), 0.6 * (1 - hop / 80)))
    return things, shadows


def bird_pose(t: float) -> tuple[np.ndarray, tuple[float, float], tuple[float, float], float]:
    """Sprite, position, speed and tilt of the bird, which flies out to the right and returns on another line."""
    flap = math.sin(t * 2 * math.pi / 9 + 1.0)
    sprite = drawing.draw_bird(
        np.random.default_rng(5),
        215,
        back=(238, 160, 28),
        breast=(250, 226, 130),
        beak=(200, 60, 30),
        flap=0.15 + 0.8 * flap,
    )
    if t < 34:
        x = 450 + 12 * t + 0.25 * t * t
        return sprite, (x, 124 - 1.2 * t - 7 * flap), (12 + 0.5 * t, -1.2), -0.07
    back = t - 36
    x = 985 - 16 * back + 0.09 * back * back
    return sprite[:, ::-1].copy(), (x, 92 + 1.2 * back - 7 * flap), (-16 + 0.18 * back, 1.6), -0.05


def smeared(thing: Thing) -> tuple[np.ndarray, np.ndarray]:
    """The thing on the screen during the exposure: premultiplied colour [H, W, 3] and alpha [H, W, 1], float32."""
    side = len(thing.sprite)
    sprite = thing.sprite.astype(np.float32)
    sprite[..., 3] /= 255
    sprite[..., :3] *= sprite[..., 3:]
    total = np.zeros((HEIGHT, WIDTH, 4), np.float32)
    steps = np.linspace(-0.5, 0.5, 7) * EXPOSURE
    for step in steps:
        move = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), -math.degrees(thing.tilt), 1.0)
        move[0, 2] += thing.centre[0] + step * thing.speed[0] - (side - 1) / 2
        move[1, 2] += thing.centre[1] + step * thing.speed[1] - (side - 1) / 2
        total += cv2.warpAffine(sprite, move, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
    total /= len(steps)
    return total[..., :3], total[..., 3:]


def main() -> None:
    package = Path(__file__).resolve().parents[1] / "osmn_tf"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=package / "examples" / "meadow")
    out = parser.parse_args().out
    ensure_directory(out / "masks", "OUT_DIR")
    scene = Scene()
    with VideoWriter(out / "meadow.mp4", RATE, (HEIGHT, WIDTH)) as writer:
        for t in tqdm(range(FRAMES), unit="frame"):
            frame, mask = scene.render(t)
            writer.write(frame)
            write_mask(out / "masks" / f"{t:05d}.png", mask)
            if t == 0:
                write_mask(out / "first_mask.png", mask)


if __name__ == "__main__":
    main()

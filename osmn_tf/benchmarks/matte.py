"""How close the edges of cut-outs are to the truth, on drawn scenes whose alpha is known."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np

from osmn_tf.data import drawing
from osmn_tf.errors import InputError
from osmn_tf.masks import matting

BAND = 1 / 30
"""Pixels closer to the true outline than this share of the frame's height are measured."""
NETWORK_SIZE = (256, 448)
_FIRST_SEED = 1000  # the matte's numbers were chosen on scenes below


@dataclasses.dataclass(frozen=True)
class Scene:
    """A drawn object over a landscape, with blur of lens and motion.

    Attributes:
        frame: uint8 RGB [H, W, 3], with noise.
        alpha: float32 [H, W], the truth.
        colours: float32 RGB [H, W, 3], the object's own, times alpha.
    """

    frame: np.ndarray
    alpha: np.ndarray
    colours: np.ndarray

    def mask(self, size: tuple[int, int] = NETWORK_SIZE) -> np.ndarray:
        """bool [H, W]: the best that a network of this size can give, enlarged as its scores are."""
        small = cv2.resize(self.alpha, (size[1], size[0]), interpolation=cv2.INTER_AREA)
        logits = np.clip(12 * (small - 0.5), -6, 6)
        height, width = self.alpha.shape
        return cv2.resize(logits, (width, height), interpolation=cv2.INTER_LINEAR) > 0


def draw_scene(seed: int, size: tuple[int, int] = (720, 1280)) -> Scene:
    """A scene of `size` = (height, width); the same seed gives the same one."""
    rng = np.random.default_rng(seed)
    ground = drawing.draw_backdrop(rng, size)
    side = int(size[0] * rng.uniform(0.4, 0.7))
    sprite = drawing.draw_random(rng, drawing.KINDS[seed % len(drawing.KINDS)], side).astype(np.float32)
    top, left = rng.integers(0, size[0] - side + 1), rng.integers(0, size[1] - side + 1)
    layer: Any = np.zeros((*size, 4), np.float32)
    share = sprite[..., 3:] / 255
    layer[top : top + side, left : left + side] = np.concatenate([sprite[..., :3] * share, share], axis=-1)
    path, angle = rng.uniform(0, size[0] / 30), rng.uniform(0, np.pi)
    reach = int(np.ceil(path / 2))
    if reach > 0:
        kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
        for t in np.linspace(-0.5, 0.5, 16 * reach):
            row, column = reach + t * path * np.sin(angle), reach + t * path * np.cos(angle)
            kernel[round(row), round(column)] += 1
        layer = cv2.filter2D(layer, -1, kernel / kernel.sum())
    layer = cv2.GaussianBlur(layer, (0, 0), rng.uniform(0.6, 2.0) * size[0] / 720)
    noise = rng.normal(0, 2, (*size, 3))
    frame = layer[..., :3] + ground * (1 - layer[..., 3:]) + noise
    return Scene(np.clip(np.round(frame), 0, 255).astype(np.uint8), layer[..., 3], layer[..., :3])


@dataclasses.dataclass(frozen=True)
class Row:
    """One way to make alpha, in the band around the outline, averaged over the scenes.

    Attributes:
        way: its name.
        absolute: mean absolute error of alpha, percent.
        squared: mean squared error of alpha, times 1000.
        gradient: mean absolute error of alpha's gradient, percent a pixel.
        colour: mean absolute error, in levels of 0..255, of the object put on grey instead of its ground.
        milliseconds: of processor time an object, for alpha and colours.
    """

    way: str
    absolute: float
    squared: float
    gradient: float
    colour: float
    milliseconds: float


def measure(
    scenes: int = 20, size: tuple[int, int] = (720, 1280), feathers: tuple[float, ...] = (2, 3, 5)
) -> list[Row]:
    """Compares the hard mask, feathered ones and the guided matte.

    Args:
        scenes: how many.
        size: (height, width) of the frames.
        feathers: radii in pixels.

    Raises:
        InputError: there is no scene.
    """
    if scenes < 1:
        raise InputError(f"scenes: expected 1 or more, received {scenes}")
    drawn = [draw_scene(_FIRST_SEED + index, size) for index in range(scenes)]
    ways: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
        "hard": lambda frame, mask: mask.astype(np.float32)
    }
    for radius in feathers:
        ways[f"feather {radius:g}"] = functools.partial(_feathered, radius)
    ways["matte"] = matting.guided_matte
    return [Row(way, *np.mean(list(_errors(drawn, make)), axis=0)) for way, make in ways.items()]


def _feathered(radius: float, frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return matting.feather(mask, radius)


def _errors(
    scenes: list[Scene], make: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Iterator[tuple[float, float, float, float, float]]:
    for scene in scenes:
        mask = scene.mask()
        began = time.process_time()
        alpha = make(scene.frame, mask)
        colours = matting.foreground(scene.frame, alpha)
        seconds = time.process_time() - began
        reach = 2 * round(BAND * alpha.shape[0]) + 1
        brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
        band = cv2.morphologyEx((scene.alpha > 0.5).astype(np.uint8), cv2.MORPH_GRADIENT, brush) > 0
        error = np.abs(alpha - scene.alpha)[band]
        slope = np.abs(_gradient(alpha) - _gradient(scene.alpha))[band]
        received = colours * alpha[..., None] + 128 * (1 - alpha[..., None])
        expected = scene.colours + 128 * (1 - scene.alpha[..., None])
        colour = np.abs(received - expected)[band]
        yield 100 * error.mean(), 1e3 * (error**2).mean(), 100 * slope.mean(), colour.mean(), 1e3 * seconds


def _gradient(alpha: np.ndarray) -> np.ndarray:
    """Its length at every pixel, per pixel."""
    return np.hypot(cv2.Sobel(alpha, cv2.CV_32F, 1, 0), cv2.Sobel(alpha, cv2.CV_32F, 0, 1)) / 8

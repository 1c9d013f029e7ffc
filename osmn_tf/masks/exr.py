"""OpenEXR files with a layer an object, as compositing programs read them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from osmn_tf.errors import InputError, import_extra
from osmn_tf.files import atomic_path
from osmn_tf.masks.matting import foreground


def check_exr() -> Any:
    """The package that writes EXR files.

    Raises:
        MissingDependencyError: it is not installed.
    """
    return import_extra("OpenEXR", "OpenEXR", "exr", "writing EXR files")


def to_linear(pixels: np.ndarray) -> np.ndarray:
    """sRGB's numbers, uint8 of any shape, as light: float32 in 0..1 (IEC 61966-2-1)."""
    values = np.arange(256, dtype=np.float64) / 255
    table = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)
    return table[pixels]


def write_layers(
    path: str | os.PathLike[str],
    frame: np.ndarray,
    layers: Mapping[str, np.ndarray],
    fps: Fraction | None = None,
) -> None:
    """Writes a frame and its objects as one EXR file, complete or not at all: half floats, linear light, ZIP.

    The channels R, G and B hold the frame; `NAME.R`, `NAME.G`, `NAME.B` and `NAME.A` an object, premultiplied with its
    alpha, as the format wants it.

    Args:
        path: the file; its folder must exist.
        frame: uint8 RGB [H, W, 3], taken for sRGB.
        layers: name of an object -> its alpha, float32 [H, W] in 0..1.
        fps: frames per second, noted in the file.

    Raises:
        InputError: the arrays are not as above, or a name has a dot in it.
        MissingDependencyError: OpenEXR is not installed.
    """
    exr = check_exr()
    channels: dict[str, np.ndarray] = {"RGB": to_linear(frame).astype(np.float16)}
    for name, alpha in layers.items():
        if not name or "." in name:
            raise InputError(f"layers: expected names without dots, received {name!r}")
        if alpha.shape != frame.shape[:2]:
            raise InputError(f"layers: expected alpha {list(frame.shape[:2])}, received {list(alpha.shape)}")
        colours = to_linear(foreground(frame, alpha)) * alpha[..., None]
        channels[name] = np.concatenate([colours, alpha[..., None]], axis=-1).astype(np.float16)
    header: dict[str, Any] = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    if fps is not None:
        header["framesPerSecond"] = fps
    with atomic_path(path) as temporary:
        exr.File(header, channels).write(str(temporary))

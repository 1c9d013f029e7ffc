"""Presets: a network with its weights as a folder.

`config.json` (class and constructor arguments), `model.weights.h5` (Keras weights, see `STORED_DTYPES`) and
`metadata.json` (data, recipe, licence, measured scores, SHA-256 of the weights). Presets ship under `saved_models/`.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osmn_tf.errors import InputError, check_backend, first_line
from osmn_tf.files import atomic_path, ensure_directory, file_digest, write_text
from osmn_tf.models import hub
from osmn_tf.precision import computing_in
from osmn_tf.version import __version__

if TYPE_CHECKING:
    import keras

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.weights.h5"
METADATA_FILE = "metadata.json"

DEFAULT_PRESET = "osmn_match_lite"
"""What a command runs unless it is told otherwise."""
STORED_DTYPES = ("float32", "float16", "bfloat16")
"""What weights may be rounded to in a preset's file. Those of bfloat16 (8 significant bits) are in it as float32, which
packs to somewhat less than float16 (11 bits) does, and has no range to leave."""
_WORTH_PACKING, _LARGE = 2**12, 2**25  # bytes of a weight; the index of a packed one takes two thousand
_FEW = 0.01  # of a file may be in it twice: to write the file a second time takes longer than that is worth
_WORTH_ROUNDING = 2000  # numbers in a kernel: all others together are a small part of a file
PROMPT_NETWORK = "osmn_prompt_lite"
"""Folder beside the shipped presets; see `prompt_network`."""
FINDING_PRESET = "rvos_lite"
"""See `finding_network`."""


def _shipped_folders() -> list[Path]:
    """Where shipped presets are: inside an installed package, or beside it in a clone."""
    package = Path(__file__).resolve().parent.parent
    return [folder for folder in (package / "saved_models", package.parent / "saved_models") if folder.is_dir()]


def prompt_network() -> Path:
    """The LiteRT files of the network that makes first masks out of boxes and clicks.

    Raises:
        InputError: this installation came without them.
    """
    for folder in _shipped_folders():
        if (folder / PROMPT_NETWORK).is_dir():
            return folder / PROMPT_NETWORK
    raise InputError(f"box, click: {PROMPT_NETWORK}, which makes masks of them, is not installed; give a mask")


def finding_network() -> Path:
    """The preset that finds what stands out in a frame.

    Raises:
        InputError: this installation came without it.
    """
    found = list_presets().get(FINDING_PRESET)
    if found is None:
        raise InputError(
            f"mask: {FINDING_PRESET}, which finds objects where none are given, is not installed; give a mask"
        )
    return found


def list_presets() -> dict[str, Path]:
    """Names and folders of the presets that ship with this installation.

    Example:
        >>> import osmn_tf as osmn
        >>> "osmn_match_lite" in osmn.list_presets()
        True
    """
    found: dict[str, Path] = {}
    for folder in _shipped_folders():
        for config in sorted(folder.glob(f"*/{CONFIG_FILE}")):
            found.setdefault(config.parent.name, config.parent)
    return found


def find_preset(name: str | os.PathLike[str]) -> Path:
    """The folder of a preset, or a `.keras` file, given its name, its path, or where it is to be fetched from.

    Raises:
        InputError: there is no such preset; the message lists those that ship. Or it cannot be fetched.
        MissingDependencyError: the package that asks its hub is not installed.
    """
    presets = list_presets()
    if str(name) in presets:
        return presets[str(name)]
    if hub.is_remote(name):
        return hub.fetch(str(name))
    path = Path(name)
    if (path / CONFIG_FILE).is_file():
        return path
    known = ", ".join(presets) or "none"
    if path.suffix == ".keras":
        if path.is_file():
            return path
        raise InputError(f"preset: the file {name} does not exist; shipped presets: {known}")
    if path.is_dir():
        raise InputError(f"preset: the folder {path} has no {CONFIG_FILE}; shipped presets: {known}")
    raise InputError(f"preset: no preset, folder or .keras file named '{name}'; shipped presets: {known}")


def read_metadata(name: str | os.PathLike[str]) -> dict[str, Any]:
    """The metadata of a preset (empty where it has none: the folder, or a `.keras` file)."""
    return _read_json(find_preset(name) / METADATA_FILE, required=False)


def matches(path: Path) -> bool:
    """Whether the network of a preset's folder matches (`osmn_tf.layers.matching`); False of a `.keras` file."""
    if not path.is_dir():
        return False
    arguments = _read_json(path / CONFIG_FILE).get("config")
    return isinstance(arguments, dict) and arguments.get("matching") is not None


def _read_json(path: Path, required: bool = True) -> dict[str, Any]:
    if not required and not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"preset: {path} is not readable JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"preset: {path} should hold a JSON object, but holds a {type(content).__name__}")
    return content


def load(name: str | os.PathLike[str], precision: str | None = None) -> keras.Model:
    """Loads a network with its weights.

    Args:
        name: a shipped preset ("osmn_match_lite"), a preset folder or a `.keras` file; or one that is fetched and
            kept: "hf://owner/name", "kaggle://owner/model/framework/variation", "https://.../name.zip#sha256=..."
            (`osmn_tf.models.hub.fetch`).
        precision: what it computes in, "float32", "mixed_bfloat16" or "mixed_float16" (Keras's dtype policies; its
            weights are float32 in all of them); default: Keras's global policy.

    Returns:
        A network of one of the registered classes (`osmn_tf.models.registry`).

    Raises:
        InputError: it does not exist, its files are damaged, incomplete or do not fit together, or there is no such
            precision.
        MissingDependencyError: Keras or its backend is not installed.

    Example:
        >>> import osmn_tf as osmn
        >>> network = osmn.load("osmn_match_lite")
        >>> type(network).__name__, network.network_size
        ('OSMN', (352, 608))
    """
    if precision is None:
        return _load(find_preset(name))
    with computing_in(precision):
        return _load(find_preset(name))


def _load(path: Path) -> keras.Model:
    check_backend("loading a network into Keras")
    import keras

    from osmn_tf.models.registry import NETWORKS, network_name

    names = NETWORKS.names()  # imports the classes, so that Keras knows them too
    if path.is_file():
        try:
            model = keras.saving.load_model(path, compile=False)
        except Exception as error:
            raise InputError(f"preset: {path} is not a readable .keras file ({first_line(error)})") from error
        if network_name(model) is None:
            raise InputError(f"preset: {path} holds a {type(model).__name__}, expected one of {', '.join(names)}")
        return model

    config = _read_json(path / CONFIG_FILE)
    if config.get("class") not in names or not isinstance(config.get("config"), dict):
        raise InputError(
            f"preset: {path / CONFIG_FILE} needs 'class' ({' or '.join(names)}) and its arguments as 'config'"
        )
    # Before the network is built, which takes longer.
    _check_weight_file(path / WEIGHTS_FILE, read_metadata(path).get("sha256"))
    try:
        model = NETWORKS.get(config["class"])(**config["config"])
    except (TypeError, ValueError) as error:
        raise InputError(f"preset: {path / CONFIG_FILE}: {first_line(error)}") from error
    load_weights(model, path / WEIGHTS_FILE)
    return model


def _check_weight_file(path: Path, digest: str | None = None) -> None:
    if not path.is_file():
        raise InputError(f"preset: the weight file {path} is missing")
    if digest is not None and file_digest(path) != digest:
        raise InputError(f"preset: {path} is damaged (its SHA-256 is not the one in {METADATA_FILE})")


def load_weights(model: keras.Model, path: Path) -> None:
    """Loads a `.weights.h5` file strictly: every weight of the model, nothing else.

    Raises:
        InputError: the file is missing, damaged, or has missing, unused or misshapen weights.
    """
    import h5py

    _check_weight_file(path)
    try:
        with h5py.File(path, "r") as file:
            stored = _datasets(file)
            if len(stored) != len(model.weights):
                raise InputError(f"preset: {path} holds {len(stored)} weights, the network has {len(model.weights)}")
        with warnings.catch_warnings():
            # Keras warns of groups that it did not find before it raises what went wrong.
            warnings.simplefilter("ignore", UserWarning)
            model.load_weights(path)
    except InputError:
        raise
    except Exception as error:  # in a damaged file h5py and Keras run into anything: a missing attribute, a wrong type
        raise InputError(f"preset: {path} does not fit the network or is damaged ({first_line(error)})") from error


def _datasets(group: Any, prefix: str = "") -> list[str]:
    """Paths of the weights in a Keras weight file; also of those that are in it once for several."""
    import h5py

    names: list[str] = []
    for name in group:
        item = group[name]  # `items` has None, and no error, for a link that leads nowhere
        place = f"{prefix}/{name}"
        names += [place] if isinstance(item, h5py.Dataset) else _datasets(item, place)
    return names


def save_preset(
    model: keras.Model,
    directory: str | os.PathLike[str],
    metadata: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    significant_bits: int | None = None,
) -> None:
    """Writes `model` as a preset folder.

    Args:
        directory: created if needed; the files of a preset in it are replaced.
        metadata: what should be known of the weights: data and their terms, recipe, licence, scores.
        dtype: what the stored weights are rounded to: "float32", "float16" for files of half the size, or "bfloat16"
            for files of two fifths (the model still computes in its own precision).
        significant_bits: that large kernels keep in the file, 1 to 24: the fewer, the better they pack; None: those of
            `dtype`.

    Raises:
        InputError: the folder cannot be written, `dtype` is none of `STORED_DTYPES` or too small for a weight, or the
            bits are out of range.
    """
    from osmn_tf.models.registry import network_name

    if dtype not in STORED_DTYPES:
        raise InputError(f"dtype: expected one of {', '.join(STORED_DTYPES)}, received {dtype!r}")
    if significant_bits is not None and not 1 <= significant_bits <= 24:
        raise InputError(f"significant_bits: expected 1..24, received {significant_bits}")
    name = network_name(model)
    if name is None:
        raise InputError(f"model: a {type(model).__name__} cannot be a preset: its class is not a registered network")
    folder = ensure_directory(directory, "directory")
    config = {key: value for key, value in model.get_config().items() if key != "trainable"}
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        _write_weights(model, temporary, dtype, significant_bits)
    document = {"class": name, "config": config}
    write_text(folder / CONFIG_FILE, json.dumps(document, indent=2) + "\n")
    facts = {
        **(metadata or {}),
        "parameters": int(model.count_params()),
        "weights_dtype": dtype,
        **({} if significant_bits is None else {"significant_bits": significant_bits}),
        "sha256": file_digest(folder / WEIGHTS_FILE),
        "osmn_tf_version": __version__,
    }
    write_text(folder / METADATA_FILE, json.dumps(facts, indent=2) + "\n")


def _write_weights(model: keras.Model, path: Path, dtype: str, significant_bits: int | None) -> None:
    """Writes a Keras weight file: what Keras saves, in `dtype`, without the optimizer's state of a compiled model.

    Large weights that are equal (two trunks that began alike and were frozen) are in it once. Those with fewer bits
    than float32 are compressed; of float32 itself that would take off a seventh, in a hundred times the time.
    """
    import h5py
    import numpy as np

    keras_path = path.with_name(f"{path.stem}.weights.h5")  # Keras insists on the ending
    try:
        model.save_weights(keras_path)
        if dtype == "float32" and significant_bits is None and _is_lean(keras_path):
            os.replace(keras_path, path)
            return
        # The newer forms of the format have smaller groups, but HDF5 crashes where these are damaged.
        with h5py.File(keras_path, "r") as source, h5py.File(path, "w") as target:
            target.attrs.update(source.attrs)
            worth_packing = dtype != "float32" or significant_bits is not None
            written: dict[tuple[str, tuple[int, ...], bytes], str] = {}

            def copy(name: str, item: Any) -> None:
                if name.split("/")[0] == "optimizer":
                    return
                if isinstance(item, h5py.Dataset):
                    values = np.asarray(_rounded(item[()], dtype, significant_bits))
                    known = (values.dtype.str, values.shape, hashlib.sha256(values.tobytes()).digest())
                    if known in written:
                        target[name] = target[written[known]]
                        return
                    written[known] = name
                    packed = {}
                    if worth_packing and values.nbytes > _WORTH_PACKING:
                        # In one piece: h5py's own pieces pack worse. But a piece is held once more meanwhile.
                        pieces = values.shape if values.nbytes < _LARGE else True
                        packed = {"compression": "gzip", "shuffle": True, "chunks": pieces}
                    target.create_dataset(name, data=values, **packed)
                else:
                    target.require_group(name).attrs.update(item.attrs)

            source.visititems(copy)
    finally:
        keras_path.unlink(missing_ok=True)


def _is_lean(path: Path) -> bool:
    """Whether a Keras weight file has nothing of an optimizer, and hardly anything twice."""
    import h5py

    alike: dict[tuple[Any, ...], list[Any]] = {}
    total = repeated = 0
    with h5py.File(path, "r") as file:
        if "optimizer" in file:
            return False
        for name in _datasets(file):
            item = file[name]
            alike.setdefault((item.shape, item.dtype), []).append(item)
            total += item.nbytes
        for items in alike.values():
            if len(items) > 1:  # the others need not be read
                digests = {hashlib.sha256(item[()]).digest() for item in items}
                repeated += (len(items) - len(digests)) * items[0].nbytes
        return repeated < _FEW * total


def _rounded(values: Any, dtype: str, significant_bits: int | None) -> Any:
    """A float32 array as it is stored; anything else as it is. Raises `InputError` where it would become infinite."""
    import ml_dtypes
    import numpy as np

    if values.dtype != np.float32:
        return values
    if significant_bits is not None and values.ndim > 1 and values.size > _WORTH_ROUNDING:
        fractions, exponents = np.frexp(values)
        values = np.ldexp(np.rint(np.ldexp(fractions, significant_bits)), exponents - significant_bits)
    if dtype == "float32":
        return values
    if dtype == "bfloat16":
        return values.astype(ml_dtypes.bfloat16).astype(np.float32)
    largest, limit = float(np.abs(values).max(initial=0)), float(np.finfo(np.float16).max)
    if largest > limit:
        raise InputError(f"dtype: float16 ends at {limit:g}, and a weight is {largest:g}; expected bfloat16 or float32")
    return values.astype(np.float16)

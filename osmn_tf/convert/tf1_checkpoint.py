"""Checkpoints of the original releases: recognise them, turn them into presets, and write them.

Values are read with `tf.train.load_checkpoint`, tensor by tensor: no TensorFlow 1 graph, no more memory than the
network itself and its largest tensor.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from osmn_tf.backbones.vgg16 import VGG16, shift_mean
from osmn_tf.convert.forms import Form, all_forms, parameter_count, recognise, training_state
from osmn_tf.convert.preset_folder import check_destination, write_preset
from osmn_tf.convert.vgg16_forms import VGG16_CONFIG
from osmn_tf.errors import InputError, MissingDependencyError, first_line, name_some
from osmn_tf.files import ensure_directory
from osmn_tf.layers.upsampling import bilinear_kernel
from osmn_tf.models.presets import file_digest
from osmn_tf.models.registry import NETWORKS, network_name

try:
    import tensorflow as tf
except ImportError as error:
    raise MissingDependencyError("tensorflow", "tf", "reading or writing a TensorFlow checkpoint") from error

BILINEAR_TOLERANCE = 1e-6
_READING_ERRORS = (tf.errors.OpError, IndexError, RuntimeError, ValueError)
_VERIFICATION_SIZE = (96, 160)
_MAX_NAMES = 5  # in an error message


@dataclass(frozen=True)
class Inspection:
    """What a file of weights is and what an import does with each of its tensors.

    Attributes:
        source: the checkpoint, as TensorFlow names it (without the ending of its files), or the weight file.
        files: the files that hold it.
        key, title, network, config, complete: see `osmn_tf.convert.forms.Form`.
        step: training step, where the checkpoint has one.
        parameters: numbers in the tensors that are used or checked.
        used: name -> paths of the network's weights that receive it.
        skipped: name -> reason.
    """

    source: Path
    files: tuple[Path, ...]
    key: str
    title: str
    network: str
    config: Mapping[str, Any]
    complete: bool
    step: int | None
    parameters: int
    used: Mapping[str, tuple[str, ...]]
    skipped: Mapping[str, str]


@dataclass(frozen=True)
class ImportReport:
    """Result of `import_checkpoint`.

    Attributes:
        inspection: what was imported.
        preset: its folder.
        verification_seconds: time of the step that was run with the imported network.
    """

    inspection: Inspection
    preset: Path
    verification_seconds: float


class Checkpoint:
    """A TensorFlow checkpoint on disk, opened and checked for completeness.

    Args:
        path: the checkpoint as TensorFlow names it ("osmn.ckpt-300000"), one of its files, a file of the older
            one-file format ("vgg_16.ckpt"), or a folder whose `checkpoint` file names the latest one.

    Raises:
        InputError: there is none, or its files are incomplete or damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.prefix = _resolve(Path(path))
        index = Path(f"{self.prefix}.index")
        shards = _shards(self.prefix) if index.is_file() else []
        self.files: tuple[Path, ...] = (index, *shards) if shards else (self.prefix,)
        try:
            self._reader = tf.train.load_checkpoint(str(self.prefix))
            self.shapes = {name: tuple(s) for name, s in self._reader.get_variable_to_shape_map().items()}
            self.types = {name: t.name for name, t in self._reader.get_variable_to_dtype_map().items()}
        except _READING_ERRORS as error:
            raise InputError(f"{self.prefix}: not a readable TensorFlow checkpoint ({first_line(error)})") from error
        if shards:
            self._check_sizes(shards)

    def _check_sizes(self, shards: list[Path]) -> None:
        # What is said of a tensor that lies beyond the end of a file names neither the file nor what it lacks.
        types = {name: tf.as_dtype(kind) for name, kind in self.types.items()}
        expected = sum(types[name].size * math.prod(shape) for name, shape in self.shapes.items())
        received = sum(shard.stat().st_size for shard in shards)
        if received < expected:
            raise InputError(
                f"{name_some(shards, _MAX_NAMES)}: truncated: expected at least {expected} bytes, received {received}"
            )

    @property
    def step(self) -> int | None:
        """The training step that is stored, or that the name ends with, or None."""
        for name in self.shapes:
            if name.rsplit("/", 1)[-1] == "global_step" and not self.shapes[name]:
                return int(self._get(name))
        number = self.prefix.name.rpartition("-")[2]
        return int(number) if number.isdecimal() and "-" in self.prefix.name else None

    def read(self, name: str) -> np.ndarray:
        """The values of a float32 tensor, not copied.

        Raises:
            InputError: they are damaged or not finite.
        """
        return np.asarray(self.tensor(name))

    def tensor(self, name: str) -> Any:
        """As `read`, as TensorFlow's tensor: what a variable can take over without a copy."""
        tensor = self._get(name)
        if not np.isfinite(_largest(np.asarray(tensor))):
            raise InputError(f"{self.prefix}: {name} holds values that are not finite: its training had diverged")
        return tensor

    def _get(self, name: str) -> Any:
        try:
            # The operation behind `tf.train.load_checkpoint`, whose own reading copies into NumPy arrays.
            (tensor,) = tf.raw_ops.RestoreV2(
                prefix=str(self.prefix),
                tensor_names=[name],
                shape_and_slices=[""],
                dtypes=[tf.as_dtype(self.types[name])],
            )
            return tensor
        except _READING_ERRORS as error:
            raise InputError(f"{self.prefix}: {name} cannot be read, damaged file ({first_line(error)})") from error


def _shards(prefix: Path) -> list[Path]:
    """The data files of a checkpoint, whose names say how many there are.

    Raises:
        InputError: one is missing.
    """
    found = sorted(prefix.parent.glob(f"{_escaped(prefix.name)}.data-?????-of-?????"))
    if not found:
        raise InputError(f"{prefix}: all of its data files are missing: {prefix}.data-00000-of-...")
    count = found[0].name[-5:]
    shards = [Path(f"{prefix}.data-{shard:05d}-of-{count}") for shard in range(int(count))]
    missing = [str(shard) for shard in shards if shard not in found]
    if missing:
        raise InputError(
            f"{prefix}: {len(missing)} of its {len(shards)} data files are missing: {name_some(missing, _MAX_NAMES)}"
        )
    return shards


def _largest(values: np.ndarray) -> float:
    """Largest absolute value; infinite where one is not a number."""
    with np.errstate(invalid="ignore"):
        low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    return np.inf if np.isnan(low) or np.isnan(high) else max(high, -low)


def _resolve(path: Path) -> Path:
    """The checkpoint's name without the endings of its files."""
    if path.is_dir():
        latest = tf.train.latest_checkpoint(str(path))
        if latest is None:
            raise InputError(f"{path}: a folder without a usable 'checkpoint' file; name the checkpoint itself")
        return Path(latest)
    name = path.name
    for ending in (".index", ".meta"):
        name = name.removesuffix(ending)
    stem, separator, shard = name.rpartition(".data-")
    if separator and shard.replace("-of-", "").isdecimal():
        name = stem
    prefix = path.with_name(name)
    if Path(f"{prefix}.index").is_file():
        return prefix
    if any(prefix.parent.glob(f"{_escaped(prefix.name)}.data-*")):
        raise InputError(f"{prefix}: its file {prefix.name}.index is missing")
    if not prefix.is_file():
        raise InputError(f"{path}: no such checkpoint (expected {prefix.name}.index and {prefix.name}.data-...)")
    return prefix


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


# What is it? ------------------------------------------------------------------------------------------------------


def inspect(path: str | os.PathLike[str], network: str | None = None) -> Inspection:
    """Says what a checkpoint, or a weight file of `keras.applications.VGG16`, is.

    Args:
        network: what it is to become, where there is a choice: an OSVOS parent may begin an "OSMN".

    Raises:
        InputError: it is unreadable, of something else, or lacks, adds or reshapes a tensor (the message says which).
    """
    if _is_keras_file(path):
        return _inspect_keras_vgg16(path)
    checkpoint = Checkpoint(path)
    form = _recognised(checkpoint, network)
    if network is not None and form.network != network:
        raise InputError(f"--network: {form.title} becomes an {form.network}, received {network}")
    return _inspect_checkpoint(checkpoint, form)


def _recognised(checkpoint: Checkpoint, network: str | None = None) -> Form:
    names = checkpoint.shapes.keys()
    state = training_state(names)
    form = recognise((name for name in names if name not in state), network)
    if form is None:
        objects = any(name.endswith("/.ATTRIBUTES/VARIABLE_VALUE") for name in names)
        kind = "an object-based checkpoint of TensorFlow 2" if objects else f"{len(names)} variables"
        known = "; ".join(form.title for form in all_forms())
        raise InputError(
            f"{checkpoint.prefix}: a checkpoint of something else: {kind} such as {', '.join(sorted(names)[:3])}; "
            f"expected one of: {known}"
        )
    return form


def _inspect_checkpoint(checkpoint: Checkpoint, form: Form) -> Inspection:
    shapes = checkpoint.shapes
    state = training_state(shapes)
    expected = form.tensors
    missing = sorted(name for name, spec in expected.items() if name not in shapes and not spec.optional)
    unexpected = sorted(name for name in shapes if name not in expected and name not in state)
    misshapen = [
        f"{name} has shape {list(shapes[name])}, expected {['any' if n is None else n for n in spec.shape]}"
        for name, spec in expected.items()
        if name in shapes and not spec.fits(shapes[name])
    ]
    mistyped = [
        f"{name} has type {checkpoint.types[name]}, expected float32"
        for name in expected
        if name in shapes and checkpoint.types[name] != "float32"
    ]
    problems = []
    if missing:
        problems.append(f"{len(missing)} missing ({name_some(missing, _MAX_NAMES)})")
    if unexpected:
        problems.append(f"{len(unexpected)} unexpected ({name_some(unexpected, _MAX_NAMES)})")
    if misshapen or mistyped:
        problems.append(name_some(misshapen + mistyped, _MAX_NAMES))
    if problems:
        raise InputError(f"{checkpoint.prefix}: looks like {form.title}, but of its tensors " + "; ".join(problems))

    present = {name: spec for name, spec in sorted(expected.items()) if name in shapes}
    skipped = {name: spec.unused for name, spec in present.items() if not spec.targets and not spec.bilinear}
    skipped |= {name: "fixed bilinear kernel, value checked" for name, spec in present.items() if spec.bilinear}
    return Inspection(
        source=checkpoint.prefix,
        files=checkpoint.files,
        key=form.key,
        title=form.title,
        network=form.network,
        config=form.config,
        complete=form.complete,
        step=checkpoint.step,
        parameters=parameter_count(shapes[name] for name in present),
        used={name: spec.targets for name, spec in present.items() if name not in skipped},
        skipped={**skipped, **dict(sorted(state.items()))},
    )


def _is_keras_file(path: str | os.PathLike[str]) -> bool:
    return str(path) == "imagenet" or Path(path).suffix.lower() in (".h5", ".hdf5")


def _inspect_keras_vgg16(path: str | os.PathLike[str]) -> Inspection:
    """For a weight file of `keras.applications.VGG16`, or for "imagenet", which Keras downloads."""
    import h5py

    convolutions: dict[tuple[str, tuple[int, ...]], str] = {
        (f"block{block}_conv{index}", (3, 3, width, filters)): f"conv{block}_{index}"
        for block, index, width, filters in VGG16().convolutions()
    }
    fc1, fc2 = (7 * 7 * 512, VGG16.hidden), (VGG16.hidden, VGG16.hidden)
    top: dict[tuple[str, tuple[int, ...]], str] = {("fc1", fc1): "fc6", ("fc2", fc2): "fc7"}
    has_top = True
    files: tuple[Path, ...] = ()
    if str(path) != "imagenet":
        files = (Path(path),)
        if not files[0].is_file():
            raise InputError(f"{path}: no such file")
        stored: list[tuple[int, ...]] = []
        try:
            with h5py.File(path, "r") as file:
                file.visititems(lambda _, item: stored.append(tuple(item.shape)) if hasattr(item, "shape") else None)
        except OSError as error:
            raise InputError(f"{path}: not a readable HDF5 file ({first_line(error)})") from error
        wanted = sorted(shape for _, shape in convolutions)
        if sorted(shape for shape in stored if len(shape) == 4) != wanted:
            raise InputError(f"{path}: expected the {len(wanted)} convolutions of keras.applications.VGG16")
        has_top = fc1 in stored
    layers: dict[tuple[str, tuple[int, ...]], str] = {**convolutions, **(top if has_top else {})}
    used: dict[str, tuple[str, ...]] = {}
    for (theirs, _), ours in layers.items():
        prefixes = ("modulator",) if ours.startswith("fc") else ("seg", "modulator")
        for part in ("kernel", "bias"):
            used[f"{theirs}/{part}"] = tuple(f"{prefix}_{ours}/{part}" for prefix in prefixes)
    last = "the classifier's own last layer"
    return Inspection(
        source=Path(path),
        files=files,
        key="keras_vgg16",
        title="VGG-16 classifier of keras.applications" + ("" if has_top else ", without the top"),
        network="OSMN",
        config=VGG16_CONFIG,
        complete=False,
        step=None,
        parameters=parameter_count(shape for _, shape in layers) + sum(shape[-1] for _, shape in layers),
        used=used,
        skipped={"predictions/kernel": last, "predictions/bias": last} if has_top else {},
    )


# In ---------------------------------------------------------------------------------------------------------------


def initialise_vgg16(
    model: keras.Model, path: str | os.PathLike[str], prefixes: Collection[str] = ("seg", "modulator")
) -> None:
    """Copies a VGG-16 classifier into the trunks of `model`, and its fc6 and fc7 into the visual modulator's.

    Channel order and mean colour of the source are converted to the network's own (BGR, minus 104, 117, 123).

    Args:
        model: an `OSMN` or `ReConvNet` on VGG-16, with the "fc" visual head.
        path: TF-Slim's `vgg_16.ckpt`, a weight file of `keras.applications.VGG16`, or "imagenet".
        prefixes: "seg" for the segmentation network, "modulator" for the visual modulator.

    Raises:
        InputError: the file is unreadable or something else, or the network is on another backbone.
    """
    if model.backbone != "vgg16" or model.visual_head != "fc":
        raise InputError("model: expected one with backbone='vgg16' and visual_head='fc'")
    inspection = inspect(path)
    if inspection.key not in ("slim_vgg16", "keras_vgg16"):
        raise InputError(f"{path}: expected a VGG-16 classifier, received {inspection.title}")
    if inspection.key == "slim_vgg16":
        checkpoint = Checkpoint(path)
        _load(model, checkpoint, _recognised(checkpoint), prefixes)
        return
    parts = {"seg": model, "modulator": model.visual_modulator}
    try:
        VGG16().load_classifier({prefix: parts[prefix] for prefix in prefixes}, str(path))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not the weights of keras.applications.VGG16 ({first_line(error)})") from error


def _load(model: keras.Model, checkpoint: Checkpoint, form: Form, prefixes: Collection[str] | None = None) -> None:
    """Copies the tensors of `form` into `model`, which has been checked to fit.

    Args:
        prefixes: take only weights whose names begin so.
    """
    weights = {weight.path: weight for weight in model.weights}
    adapted = _adapted_first_layer(checkpoint, form)
    loaded: set[str] = set()
    for name, spec in form.tensors.items():
        targets = [path for path in spec.targets if prefixes is None or path.split("_")[0] in prefixes]
        if spec.bilinear and name not in checkpoint.shapes:
            for path in targets:
                weights[path].assign(bilinear_kernel(*(int(n or 1) for n in spec.shape[1:3])))
            loaded.update(targets)
        if name not in checkpoint.shapes or not (targets or spec.bilinear):
            continue
        values = adapted[name] if name in adapted else checkpoint.tensor(name)
        if spec.bilinear:
            values = _checked_bilinear(np.asarray(values), f"{checkpoint.prefix}: {name}")
        elif keras.backend.backend() != "tensorflow":
            values = np.asarray(values)
        for path in targets:
            weights[path].assign(values)
        loaded.update(targets)
    left_out = sorted(weights.keys() - loaded)
    if form.complete and left_out:
        raise RuntimeError(f"{form.key} does not say where these weights come from: {left_out}")


def _adapted_first_layer(checkpoint: Checkpoint, form: Form) -> dict[str, np.ndarray]:
    """The first convolution's tensors for BGR and this package's mean colour, where the source has others."""
    mean_bgr = form.mean_bgr
    if mean_bgr is None:
        return {}
    if form.mean_rgb_tensor in checkpoint.shapes:
        red, green, blue = checkpoint.read(str(form.mean_rgb_tensor)).tolist()
        mean_bgr = (blue, green, red)
    kernel_name, bias_name = f"{form.first_layer}/weights", f"{form.first_layer}/biases"
    kernel = checkpoint.read(kernel_name)
    if form.rgb:
        kernel = np.ascontiguousarray(kernel[:, :, ::-1])
    return {kernel_name: kernel, bias_name: shift_mean(kernel, checkpoint.read(bias_name), mean_bgr)}


def _checked_bilinear(values: np.ndarray, what: str) -> np.ndarray:
    exact = bilinear_kernel(values.shape[0], values.shape[2])
    difference = float(np.abs(values - exact).max())
    if difference > BILINEAR_TOLERANCE:
        raise InputError(f"{what} should hold the fixed bilinear filter, but differs from it by up to {difference:.3g}")
    return exact


def _unfilled(next_creator: Callable[..., tf.Variable], **kwargs: Any) -> tf.Variable:
    """A variable creator that leaves float variables unfilled: no time and no memory for values to be replaced."""
    initial = kwargs["initial_value"]
    if callable(initial):
        with tf.Graph().as_default():
            symbol = initial()
        if symbol.dtype == tf.float32:
            shape = symbol.shape.as_list()
            kwargs["initial_value"] = lambda: tf.raw_ops.Empty(shape=shape, dtype=tf.float32, init=False)
    return next_creator(**kwargs)


def _build(inspection: Inspection, modulator_weights: str | os.PathLike[str] | None) -> keras.Model:
    with tf.variable_creator_scope(_unfilled) if inspection.complete else contextlib.nullcontext():
        model = NETWORKS.get(inspection.network)(**inspection.config)
    if inspection.key in ("slim_vgg16", "keras_vgg16"):
        initialise_vgg16(model, inspection.source)
    else:
        checkpoint = Checkpoint(inspection.source)
        _load(model, checkpoint, _recognised(checkpoint, inspection.network))
    if modulator_weights is not None:
        initialise_vgg16(model, modulator_weights, ("modulator",))
    return model


def import_checkpoint(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    modulator_weights: str | os.PathLike[str] | None = None,
    force: bool = False,
    dtype: str = "float32",
    network: str | None = None,
) -> ImportReport:
    """Turns a checkpoint into a preset, and runs one step of it before the preset appears.

    A checkpoint of OSMN or of OSVOS becomes a preset that gives the original's outputs. A classifier, or with `network`
    an OSVOS parent, initialises an OSMN for training: what it lacks has its usual initial values (scales of exactly 1).

    Args:
        path: see `Checkpoint`; or a `.h5` of `keras.applications.VGG16`, or "imagenet".
        out: the preset's folder. `import.json` in it lists every tensor used and skipped.
        modulator_weights: for an OSVOS parent, which has no visual modulator: a VGG-16 classifier to begin with.
        force: replace a preset that is at `out`.
        dtype: of the stored weights, see `osmn_tf.models.presets.save_preset`.
        network: as `inspect`; `modulator_weights` are for an "OSMN".

    Raises:
        InputError: as `inspect`; `out` exists; the network gives values that are not finite. Nothing is written then.
    """
    inspection = inspect(path, network)
    if modulator_weights is not None:
        if inspection.key == "osvos":
            raise InputError("--modulator-weights: an OSVOS has no modulators; give --network OSMN with it")
        if inspection.key != "osvos_as_osmn":
            raise InputError(f"--modulator-weights: only for OSVOS parents; {inspection.title} has its own")
        inspect(modulator_weights)
    out = Path(out)
    check_destination(out, force)
    with ThreadPoolExecutor(1) as pool:
        checksum = pool.submit(lambda: {file.name: file_digest(file) for file in inspection.files})
        model = _build(inspection, modulator_weights)
        seconds = _verify(model, inspection)
        metadata = _metadata(inspection, checksum.result(), modulator_weights)
    record = {
        "source": inspection.source.name,
        "used": {name: list(targets) for name, targets in inspection.used.items()},
        "skipped": dict(inspection.skipped),
    }
    write_preset(model, out, metadata, record, dtype)
    return ImportReport(inspection, out, seconds)


def _verify(model: keras.Model, inspection: Inspection) -> float:
    """Segments two frames and returns the seconds that the second one, a whole step with compilation, took."""
    from osmn_tf.inference.segmenter import VideoSegmenter

    height, width = _VERIFICATION_SIZE
    frames = np.random.default_rng(0).integers(0, 256, (2, height, width, 3)).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 4 : width // 2] = 1
    segmenter = VideoSegmenter(model, _VERIFICATION_SIZE, keep_scores=True)
    if segmenter.predictor.adapts_itself:
        segmenter.finetune([(frames[0], mask)], 0)  # as it was imported
    segmenter.start(frames[0], mask)
    start = time.perf_counter()
    segmenter.step(frames[1])
    seconds = time.perf_counter() - start
    if not np.isfinite(segmenter.scores[1]).all():
        raise InputError(f"{inspection.source}: the imported network gives values that are not finite")
    return seconds


def _metadata(
    inspection: Inspection, checksum: Mapping[str, str], modulator_weights: str | os.PathLike[str] | None
) -> dict[str, Any]:
    name = inspection.source.name
    at_step = "" if inspection.step is None else f" at step {inspection.step}"
    description = f"{inspection.title}, imported from {name}{at_step}"
    facts: dict[str, Any] = {
        "description": description,
        "source": name,
        "format": inspection.key,
        "step": inspection.step,
        "checksum": dict(checksum),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "licence": "that of the checkpoint, which does not state it",
    }
    if not inspection.complete:
        facts["description"] = f"initialisation for training, not trained to segment by guides: {description}"
        facts["initialisation_only"] = True
    if modulator_weights is not None:
        facts["modulator_weights"] = Path(modulator_weights).name
    return facts


# Out --------------------------------------------------------------------------------------------------------------


def export_checkpoint(
    model: keras.Model, prefix: str | os.PathLike[str], step: int = 0, force: bool = False
) -> list[str]:
    """Writes a checkpoint with the original release's names, which the original code restores.

    Args:
        model: an OSMN or OSVOS of one of the releases' forms.
        prefix: where to; `PREFIX.index` and `PREFIX.data-00000-of-00001` appear.
        step: stored as `global_step`.
        force: replace a checkpoint of that name.

    Returns:
        The names of the tensors written.

    Raises:
        InputError: the network has no counterpart in the release, or the files exist or cannot be written.
    """
    form = _release_form(model)
    prefix = Path(prefix)
    ensure_directory(prefix.resolve().parent, "--out")
    # The index last: without it there is no checkpoint.
    finals = [Path(f"{prefix}.data-00000-of-00001"), Path(f"{prefix}.index")]
    existing = [path for path in finals if path.exists()]
    if existing and not force:
        raise InputError(f"--out: {existing[0]} exists already; use --force to replace it, or another --out")
    weights = {weight.path: weight for weight in model.weights}
    tensors = {name: tf.convert_to_tensor(weights[spec.targets[0]].value) for name, spec in form.tensors.items()}
    tensors["global_step"] = tf.constant(step, tf.int64)
    temporary = prefix.with_name(f".{prefix.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        temporary.mkdir()
        tf.raw_ops.SaveV2(
            prefix=str(temporary / prefix.name),
            tensor_names=list(tensors),
            shape_and_slices=[""] * len(tensors),
            tensors=list(tensors.values()),
        )
        for final in finals:
            os.replace(temporary / final.name, final)
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f"--out: cannot write {prefix} ({first_line(error)})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return list(tensors)


def _release_form(model: keras.Model) -> Form:
    """The form of the release that `model` has.

    Raises:
        InputError: none; the message says why.
    """
    forms = [form for form in all_forms() if form.complete]
    networks = sorted({form.network for form in forms})
    if network_name(model) not in networks:
        raise InputError(
            f"model: expected one of {', '.join(networks)}, received a {type(model).__name__}, which the release does "
            "not have"
        )
    config = model.get_config()

    def differing(form: Form) -> list[str]:
        return [key for key, value in form.config.items() if key != "network_size" and config.get(key) != value]

    form = min((form for form in forms if form.network == network_name(model)), key=lambda form: len(differing(form)))
    differences = [f"{key}={config.get(key)!r} instead of {form.config[key]!r}" for key in differing(form)]
    if not differences:
        weights = {weight.path: tuple(weight.shape) for weight in model.weights}
        expected = {path: spec.shape for spec in form.tensors.values() for path in spec.targets}
        differences = [
            f"{path} is {weights.get(path)}"
            for path in weights.keys() | expected.keys()
            if weights.get(path) != expected.get(path)
        ][:_MAX_NAMES]
    if differences:
        raise InputError(f"model: not of the release's form ({form.title}): {', '.join(differences)}")
    return form

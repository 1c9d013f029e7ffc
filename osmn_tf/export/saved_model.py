"""SavedModels that need TensorFlow only, in the versioned folders that TensorFlow Serving reads."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from osmn_tf.errors import InputError
from osmn_tf.export.graph import SegmenterModule
from osmn_tf.export.osvos_graphs import OSVOSModule
from osmn_tf.export.rvos_graph import RVOSModule
from osmn_tf.export.serving import WARM_UP_FILE, check_serving_protos, warm_up_inputs, write_warm_up
from osmn_tf.export.session_record import DIGEST_BYTES, SessionRecord
from osmn_tf.export.signatures import SignatureModule
from osmn_tf.export.steps import square_step, step_of
from osmn_tf.export.two_sizes import TwoSizes
from osmn_tf.files import ensure_directory, file_digest, write_text
from osmn_tf.inference.modulated import ModulatedStep
from osmn_tf.inference.osvos import OSVOSStep
from osmn_tf.inference.predictor import PredictorOptions
from osmn_tf.inference.rvos import RVOSStep
from osmn_tf.runtime.saved_model import EXTRA_ASSETS, METADATA_FILE
from osmn_tf.version import __version__

if TYPE_CHECKING:
    from osmn_tf.models.osmn import OSMN

MODULES: dict[type, type[SegmenterModule]] = {
    ModulatedStep: SegmenterModule,
    RVOSStep: RVOSModule,
    OSVOSStep: OSVOSModule,
}
"""What a predictor computes -> its functions behind the signatures."""

STATE_DTYPES = ("float32", "float16", "bfloat16")


def export_saved_model(
    model: OSMN,
    out_dir: str | os.PathLike[str],
    *,
    name: str | None = None,
    version: int = 1,
    network_size: tuple[int, int] | None = None,
    merge: str = "argmax",
    exclusive: bool = True,
    recover: bool = True,
    search_window: bool | None = None,
    state_dtype: str | None = None,
    warm_up: bool = True,
    metadata: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Path:
    """Writes `out_dir/name/version/`, which `tf.saved_model.load` and TensorFlow Serving load without this package.

    Everything from decoding to the label mask is in the graph, and the server keeps no state: what a video's session
    needs (N objects, in `labels`' order) goes to the client and comes back with the next frame. Frames have any size,
    the same for all of a video. Signatures:

    * `modulate`: frame uint8 [H, W, 3], mask uint8 [H, W] (value k is object k, 0 and 255 are none) -> labels
      int32 [N], modulation float32 [N, M], guide_masks uint8 [N, h, w] and the recurrent state [N, ...] by its names.
    * `step`: frame and what `modulate` gave -> mask uint8 [H, W], and guide_masks and state for the next frame.
    * `step_scores`: `step`, with scores float32 [N, H, W] in 0..1, unmerged.
    * `segment_clip`: frames uint8 [T, H, W, 3], mask uint8 [H, W] of the first -> masks uint8 [T, H, W].
    * `modulate_encoded`, `step_encoded`, `segment_clip_encoded`: the same with JPEG or PNG frames (`frame_bytes`), PNG
      masks (`mask_bytes`; greyscale labels or DAVIS's palette in, greyscale out) and the session as `session_bytes`,
      string [N] (see `osmn_tf.export.session_record`).

    Args:
        model: an `OSMN`, a `ReConvNet`, an `OSVOS` that has learnt its object (`osmn_tf.export.osvos_graphs`), or an
            `RVOS` that takes masks (`osmn_tf.export.rvos_graph`).
        out_dir: created if needed.
        name: of the served model; default: the model's.
        version: positive; TensorFlow Serving serves the highest.
        network_size, merge, exclusive, recover, search_window: as `VideoSegmenter`; its defaults give its masks. A
            network that matches sees videos that are not wide as squares, unless a size is given; sessions of the two
            sizes have other shapes.
        state_dtype: "float32", "float16" or "bfloat16" for the recurrent state on its way; default: the network's
            compute dtype. The network computes in its own precision.
        warm_up: write requests that TensorFlow Serving plays when it loads the model.
        metadata: what is known of the weights, for the metadata file.
        force: replace an existing folder of this version.

    Returns:
        The version's folder. Beside the SavedModel it has `assets.extra/osmn_tf.json` (configuration, signatures,
        state, checksums of the files) and `assets.extra/tf_serving_warmup_requests`.

    Raises:
        InputError: an argument is none of its choices, the folder exists, or Keras runs on another backend.
        MissingDependencyError: `warm_up` without TensorFlow Serving's messages.
    """
    if keras.backend.backend() != "tensorflow":
        raise InputError(f"export: a SavedModel needs Keras on TensorFlow, the backend is {keras.backend.backend()}")
    name = model.name if name is None else name
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise InputError(f"name: expected letters, digits, '_', '-' and '.', received {name!r}")
    if version < 1:
        raise InputError(f"version: expected 1 or more, received {version}")
    state_dtype = model.compute_dtype if state_dtype is None else state_dtype
    if state_dtype not in STATE_DTYPES:
        raise InputError(f"state_dtype: expected one of {', '.join(STATE_DTYPES)}, received {state_dtype!r}")
    if warm_up:
        check_serving_protos()
    options = PredictorOptions(network_size, merge, exclusive, recover, search_window=search_window)
    step = step_of(model, options, MODULES)
    parent = ensure_directory(out_dir, "out_dir") / name
    folder = parent / str(version)
    if folder.exists() and not force:
        raise InputError(f"out_dir: {folder} exists; give another version, or force to replace it")

    settings = {
        "network_size": list(step.network_size),
        "merge": merge,
        "exclusive": exclusive,
        "recover": recover,
        "search_window": search_window,
        "state_dtype": state_dtype,
    }
    record = make_record(step, state_dtype, _digest(model, settings))
    sessions = _describe_sessions(record)
    own = MODULES[type(step)](step, record)
    module: SignatureModule = own
    if (other := square_step(step, options, MODULES)) is not None:
        size = list(other.network_size)
        square = make_record(other, state_dtype, _digest(model, {**settings, "network_size": size}))
        module = TwoSizes(own, SegmenterModule(other, square))
        sessions["square"] = {"network_size": size, **_describe_sessions(square)}
    signatures = module.signatures()
    # TensorFlow Serving looks into the folder of versions at any moment: it must find complete ones only.
    temporary = parent / f".{version}.{uuid.uuid4().hex[:8]}.part"
    try:
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        with _quiet_tensorflow():
            tf.saved_model.save(module, str(temporary), signatures=signatures, options=options)
        extra = temporary / EXTRA_ASSETS
        extra.mkdir()
        if warm_up:
            write_warm_up(extra / WARM_UP_FILE, name, warm_up_inputs(signatures, record))
        document = {
            "name": name,
            "version": version,
            "class": type(model).__name__,
            "config": model.get_config(),
            "settings": settings,
            "modulation": record.modulation,
            **sessions,
            "signatures": {key: _describe(function) for key, function in signatures.items()},
            "preset": dict(metadata or {}),
            "versions": {"osmn_tf": __version__, "tensorflow": tf.__version__, "keras": keras.__version__},
            "sha256": {
                path.relative_to(temporary).as_posix(): file_digest(path)
                for path in sorted(temporary.rglob("*"))
                if path.is_file()
            },
        }
        write_text(extra / METADATA_FILE, json.dumps(document, indent=2) + "\n")
        _swap(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _swap(new: Path, folder: Path) -> None:
    """Puts a version's folder in place. One that was there goes when the new one is in its place, not before."""
    if not folder.exists():
        os.replace(new, folder)
        return
    old = new.with_suffix(".old")
    os.replace(folder, old)
    try:
        os.replace(new, folder)
    except BaseException:
        os.replace(old, folder)
        raise
    shutil.rmtree(old)


@contextlib.contextmanager
def _quiet_tensorflow() -> Iterator[None]:
    """Keeps TensorFlow from announcing the temporary folder; warnings are shown."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(level)


def make_record(step: ModulatedStep | RVOSStep | OSVOSStep, state_dtype: str, digest: bytes) -> SessionRecord:
    """The layout of the sessions of a network and how it is used."""
    state, module = step.network.initial_state(1, *step.network_size), MODULES[type(step)]
    return SessionRecord(
        digest=digest,
        modulation=module.modulation_size(step),
        network_size=step.network_size,
        state={name: tuple(int(side) for side in value.shape[1:]) for name, value in state.items()},
        state_dtype=state_dtype,
        mask_bits=module.mask_bits,
    )


def _describe_sessions(record: SessionRecord) -> dict[str, Any]:
    """Shapes and lengths of what a client carries, at one network size."""
    return {
        "state": {name: ["N", *shape] for name, shape in record.state.items()},
        "session": {
            "digest": record.digest.hex(),
            "bytes_per_object": record.length,
            "state_bytes_per_object": record.state_bytes,
        },
    }


def _digest(model: OSMN, settings: Mapping[str, Any]) -> bytes:
    """What tells sessions of this network, with these weights and settings, from those of any other."""
    digest = hashlib.sha256(json.dumps([model.get_config(), settings], sort_keys=True).encode())
    for variable in model.variables:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).tobytes())
    return digest.digest()[:DIGEST_BYTES]


def _describe(function: Any) -> dict[str, dict[str, Any]]:
    """Names, dtypes and shapes of a signature; None in a shape is any size."""

    def describe(spec: Any) -> dict[str, Any]:
        return {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}

    return {
        "inputs": {name: describe(spec) for name, spec in function.structured_input_signature[1].items()},
        "outputs": {name: describe(spec) for name, spec in function.structured_outputs.items()},
    }

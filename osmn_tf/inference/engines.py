"""Which engine runs a network: LiteRT or Keras.

A preset folder may hold, in `litert/`, what `osmn export --format litert` has made of it. LiteRT starts in a tenth of
the time and needs neither Keras nor its backend, so it runs wherever nothing is asked for that only Keras can do.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from pathlib import Path
from typing import Any

from osmn_tf.errors import InputError, MissingDependencyError, check_backend, is_installed
from osmn_tf.inference.predictor import NetworkSource, PredictorOptions
from osmn_tf.resampling import name_sizes

LITERT_FOLDER = "litert"

# By name, since that room is behind this one.
_RUNTIME = "osmn_tf.runtime.predictor"


def find_litert(preset: Path | None) -> Path | None:
    """The folder of a preset's LiteRT files; None where it has none."""
    folder = preset / LITERT_FOLDER if preset is not None else None
    return folder if folder is not None and folder.is_dir() else None


def choose_engine(source: NetworkSource, options: PredictorOptions, adapts: bool = False) -> NetworkSource:
    """What runs a network, as `options.engine` says.

    "auto" takes a preset's LiteRT files where they are of its weights, ai-edge-litert is installed, and nothing needs
    Keras: fine-tuning, another network size or scale than theirs, a precision that is not theirs. `KERAS_BACKEND` says
    which backend Keras has where it runs; it does not ask for Keras.

    Args:
        source: as it was found.
        options: how the network is used.
        adapts: whether it is going to be fine-tuned.

    Returns:
        `source`, or the LiteRT files beside it, which are opened with the same options.

    Raises:
        InputError: the network does not run on this engine, or what is asked for needs another.
        MissingDependencyError: neither engine that could run it is installed, or the one that was asked for is not.
    """
    wanted = options.engine
    if wanted not in ("auto", source.engine) and (wanted != "litert" or source.litert is None):
        has = "has no LiteRT files" if source.engine == "keras" else "does not run on Keras"
        if source.engine is None:
            has = "has no choice of engine"
        raise InputError(f"engine: {source.kind} {has}, received {wanted!r}")
    if source.engine != "keras" or (source.litert is None and source.path is None):
        return source
    reason = "a preset without LiteRT files"
    if source.litert is not None and wanted != "keras":
        exported = importlib.import_module(_RUNTIME).find(str(source.litert))
        if exported is None:
            raise InputError(f"preset: {source.litert} is not what 'osmn export --format litert' writes")
        found = needs_keras(source, exported.facts, options, adapts)
        if found is None and (wanted == "litert" or is_installed("ai_edge_litert") or not is_installed("keras")):
            if not is_installed("ai_edge_litert"):
                raise MissingDependencyError("ai-edge-litert", "runtime", "running a preset's LiteRT files")
            return _beside(source, exported)
        if found is not None and wanted == "litert":
            raise InputError(f"engine: {found} needs Keras, received 'litert'")
        reason = found or reason
    elif adapts:
        reason = "fine-tuning"
    if wanted == "keras" and source.litert is not None:
        reason = "running a network with Keras, not with --engine litert,"
    check_backend(reason)
    return source


def needs_keras(source: NetworkSource, exported: Any, options: PredictorOptions, adapts: bool) -> str | None:
    """Why a preset's LiteRT files do not do; None where they do.

    Args:
        source: the preset.
        exported: `osmn_tf.runtime.network.Metadata` of its files.
        options, adapts: as `choose_engine`.
    """
    if adapts:
        return "fine-tuning"
    if options.scale != 1 and options.size_of(exported.network_size) not in exported.sizes:
        return f"{options.scale:g} times the network size"
    if options.network_size is not None and tuple(options.network_size) not in exported.sizes:
        return f"another network size than {name_sizes(exported.sizes)}"
    if options.precision is not None and (options.precision, exported.quantization) != ("float32", "none"):
        return f"the precision {options.precision}"
    # The weights were replaced, and the files beside them were not.
    if exported.weights != source.facts.get("sha256"):
        return f"a preset whose {LITERT_FOLDER}/ is of other weights"
    return None


def _beside(source: NetworkSource, exported: NetworkSource) -> NetworkSource:
    """A preset that its LiteRT files run."""
    return dataclasses.replace(
        exported,
        kind=source.kind,
        litert=source.litert,
        open=lambda options: exported.open(dataclasses.replace(options, precision=None)),
    )

"""Finds the networks that Keras runs: models, shipped presets, preset folders and `.keras` files."""

from __future__ import annotations

import dataclasses
from typing import Any

from osmn_tf.errors import InputError
from osmn_tf.inference.engines import find_litert
from osmn_tf.inference.predictor import NetworkSource, Predictor, PredictorOptions, predictors
from osmn_tf.models.presets import find_preset, list_presets, load, matches, read_metadata


def find_shipped(x: Any) -> NetworkSource | None:
    """A shipped preset: its name comes before a folder that is called so."""
    return find(x) if isinstance(x, str) and x in list_presets() else None


def find(x: Any) -> NetworkSource | None:
    """See `osmn_tf.inference.predictor.find_network`.

    Raises:
        InputError: there is no preset or file of this name.
    """
    if not isinstance(x, str):
        return NetworkSource("a network", None, True, None, lambda options: _predictor_of(x, options), "keras")
    path = find_preset(x)
    litert = find_litert(path)
    facts = read_metadata(path) if litert is not None else None

    def open_(options: PredictorOptions) -> Predictor:
        return _load(x, options)

    return NetworkSource("a preset", path, True, None, open_, "keras", litert, facts, matches(path))


def _load(name: str, options: PredictorOptions) -> Predictor:
    network = load(name, options.precision)
    return _predictor_of(network, dataclasses.replace(options, precision=None))


def _predictor_of(network: Any, options: PredictorOptions) -> Predictor:
    options.refuse("is not applicable to a network that Keras runs", "threads")
    options.refuse("a network that is loaded computes in what it was made with", "precision")
    from osmn_tf.models.registry import registered_names

    known = predictors.names()
    for name in registered_names(network):
        if name in known:
            return predictors.get(name)(network, options)
    raise InputError(
        f"network: expected one that has a predictor ({', '.join(known)}), or the name, path or address of one,"
        f" received {type(network).__name__}"
    )

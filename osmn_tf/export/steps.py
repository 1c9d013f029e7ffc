"""What is computed of a network, for the formats that export it."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Container
from typing import Any

from osmn_tf.errors import InputError
from osmn_tf.inference.modulated import ModulatedStep
from osmn_tf.inference.predictor import PredictorOptions, open_predictor
from osmn_tf.resampling import narrowest, square_size


def step_of(network: Any, options: PredictorOptions, kinds: Container[type]) -> Any:
    """The step that the network's predictor runs.

    Args:
        network: a network.
        options: how it is used.
        kinds: classes of steps that the format knows.

    Raises:
        InputError: the network is of another family, or as `VideoSegmenter`.
    """
    step = getattr(open_predictor(network, options), "step", None)
    if type(step) not in kinds:
        raise InputError(
            f"model: expected an OSMN, a ReConvNet, an OSVOS or an RVOS, received a {type(network).__name__}"
        )
    return step


def square_step(step: Any, options: PredictorOptions, kinds: Container[type]) -> ModulatedStep | None:
    """What is computed of videos that are not wide (`osmn_tf.resampling.fitted_size`).

    Args:
        step: what is computed of the others.
        options, kinds: as `step_of`.

    Returns:
        None where it is the same: the network does not match, is not wide itself, or its size was asked for.
    """
    if not _matches(step) or options.network_size is not None or not narrowest(step.network_size):
        return None
    return _of_size(step, square_size(step.network_size), options, kinds)


def scaled_steps(step: Any, options: PredictorOptions, kinds: Container[type], scale: float) -> list[ModulatedStep]:
    """What is computed where frames are seen `scale` times as large, of wide videos and of others.

    Raises:
        InputError: the network does not match, or its size was asked for.
    """
    if not _matches(step) or options.network_size is not None:
        raise InputError(
            "scales: expected a network that matches, and no network size with them, received"
            f" {f'{scale:g}' if options.network_size is None else options.network_size}"
        )
    size = PredictorOptions(scale=scale).size_of(step.network_size)
    if size == step.network_size:
        raise InputError(f"scales: expected others than 1, received {scale:g}")
    scaled = _of_size(step, size, options, kinds)
    square = square_step(scaled, options, kinds)
    return [scaled] if square is None else [scaled, square]


def _matches(step: Any) -> bool:
    return isinstance(step, ModulatedStep) and step.network.matching is not None


def _of_size(step: Any, size: tuple[int, int], options: PredictorOptions, kinds: Container[type]) -> ModulatedStep:
    found: ModulatedStep = step_of(step.network, dataclasses.replace(options, network_size=size), kinds)
    return found


class TracedOnce(abc.ABC):
    """The graphs of a LiteRT export: shapes, files and calibration need the same ones."""

    @abc.abstractmethod
    def inputs(self, graph: str) -> dict[str, Any]:
        """Name -> `tf.TensorSpec` of a graph's inputs."""

    @abc.abstractmethod
    def function(self, graph: str) -> Any:
        """The graph as a `tf.function` with named arguments."""

    def traced(self, graph: str) -> Any:
        """The concrete function of a graph."""
        if graph not in self._traced:
            self._traced[graph] = self.function(graph).get_concrete_function(**self.inputs(graph))
        return self._traced[graph]

    @functools.cached_property
    def _traced(self) -> dict[str, Any]:
        return {}

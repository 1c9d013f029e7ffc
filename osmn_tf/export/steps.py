"""What is computed of a network, for the formats that export it."""

from __future__ import annotations

import dataclasses
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
    if not isinstance(step, ModulatedStep) or step.network.matching is None:
        return None
    if options.network_size is not None or not narrowest(step.network_size):
        return None
    square: ModulatedStep = step_of(
        step.network, dataclasses.replace(options, network_size=square_size(step.network_size)), kinds
    )
    return square

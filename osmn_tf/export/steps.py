"""What is computed of a network, for the formats that export it."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from osmn_tf.errors import InputError
from osmn_tf.inference.predictor import PredictorOptions, open_predictor


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

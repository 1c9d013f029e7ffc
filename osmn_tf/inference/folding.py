"""Networks for inference in which batch normalisation costs nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from osmn_tf.layers.normalization import BatchNorm

Tensor = Any


@dataclasses.dataclass(frozen=True)
class _Unconvolved:
    """A convolution that its batch normalisation will carry out."""

    convolution: layers.Conv2D | layers.DepthwiseConv2D
    features: Tensor


class FoldedNetwork:
    """A functional network, run for inference with every `BatchNorm` folded into the convolution before it.

    With stored statistics, batch normalisation multiplies each channel by a constant and adds another one. The first
    goes into the convolution's kernel and the second becomes its bias, which TensorFlow computes together with the
    activation in one pass over the features, instead of three more. Kernels are folded at every call from the
    network's own weights (a few millions of products, where the features have hundreds): there is no second set of
    weights, and fine-tuning or loading others is seen.

    Args:
        network: a functional model; a `BatchNorm` in it follows a convolution without bias, whose output goes nowhere
            else.

    Raises:
        ValueError: a `BatchNorm` follows something else.
    """

    def __init__(self, network: keras.Model) -> None:
        self.network = network
        self._folded: dict[int, layers.Layer] = {}  # by the identity of both layers, which the network keeps alive
        for layer in network.layers:
            if not isinstance(layer, BatchNorm):
                continue
            convolution = layer.input._keras_history.operation
            if not isinstance(convolution, layers.Conv2D | layers.DepthwiseConv2D) or convolution.use_bias:
                raise ValueError(f"{layer.name}: expected a convolution without bias before it, not {convolution.name}")
            self._folded[id(convolution)] = self._folded[id(layer)] = layer

    def __call__(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """What `network(inputs, training=False)` gives, up to rounding."""
        # `keras.models.clone_model`, the public way to replace operations, would add nodes to the network's own layers.
        standardized = self.network._standardize_inputs(inputs)
        return self.network._run_through_graph(standardized, operation_fn=self._inference_form)

    def _inference_form(self, operation: Any) -> Callable[..., Any]:
        normalisation = self._folded.get(id(operation))
        if normalisation is None:
            return _without_training(operation)
        if normalisation is operation:
            return lambda source, mask=None: _convolve_and_normalise(source, normalisation)
        return lambda features: _Unconvolved(operation, features)


def _without_training(operation: Any) -> Callable[..., Any]:
    if getattr(operation, "_call_has_training_arg", False):
        return lambda *args, **kwargs: operation(*args, **{**kwargs, "training": False})
    return operation


def _convolve_and_normalise(source: _Unconvolved, normalisation: BatchNorm) -> Tensor:
    convolution = source.convolution
    depthwise = isinstance(convolution, layers.DepthwiseConv2D)
    scale = normalisation.gamma * ops.rsqrt(normalisation.moving_variance + normalisation.epsilon)
    shift = normalisation.beta - normalisation.moving_mean * scale
    # Depthwise kernels are [k, k, C, 1], the others [k, k, C, F].
    kernel = convolution.kernel * (scale[:, None] if depthwise else scale)
    convolve = ops.depthwise_conv if depthwise else ops.conv
    dtype = convolution.compute_dtype
    output = convolve(
        ops.cast(source.features, dtype),
        ops.cast(kernel, dtype),
        strides=convolution.strides,
        padding=convolution.padding,
    )
    return output + ops.cast(shift, dtype)

"""Networks for inference in which batch normalisation costs nothing, and matching of several objects little."""

from __future__ import annotations

import inspect
from typing import Any

import keras
from keras import layers, ops, tree

from osmn_tf.layers.matching import Matching

Tensor = Any


class FoldedNetwork:
    """A functional network, run for inference with batch normalisation folded into the convolution before it. Earlier
    frames that objects have in common are matched with once (`Matching.call_at_once`).

    With stored statistics, batch normalisation multiplies each channel by a constant and adds another one. The first
    goes into the convolution's kernel and the second into its bias, which TensorFlow computes together with the
    activation in one pass over the features, instead of three more. Kernels are folded at every call from the
    network's own weights (a few millions of products, where the features have hundreds): there is no second set of
    weights, and fine-tuning or loading others is seen.

    Only what gives the same numbers is folded: a linear convolution whose output goes nowhere else. Any other
    batch normalisation runs as it is.

    Args:
        network: a functional model.
    """

    def __init__(self, network: keras.Model) -> None:
        self.network = network
        folded = _foldable(network)
        convolutions = {id(convolution) for convolution in folded.values()}

        def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
            if id(operation) in convolutions:
                return args[0]  # for its batch normalisation to convolve
            if id(operation) in folded:
                return _FoldedConvolution(folded[id(operation)], operation)(args[0])
            if isinstance(operation, Matching):
                return _MatchingAtOnce(operation)(args[0])
            return _Inference(operation)(*args, **kwargs)

        # The network's own layers are wrapped, since calling them would add nodes to the graph that they are in.
        self._graph = keras.models.clone_model(network, clone_function=lambda layer: layer, call_function=call)

    def __call__(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """What `network(inputs, training=False)` gives, up to rounding."""
        return self._graph.call(inputs, training=False)


def _foldable(network: keras.Model) -> dict[int, layers.Layer]:
    """id of each batch normalisation that can be folded -> the convolution before it."""
    producers = {id(x): operation for operation in network.operations for x in tree.flatten(operation.output)}
    readers = [id(x) for x in network.outputs]
    for operation in network.operations:
        if not isinstance(operation, layers.InputLayer):
            readers += [id(x) for x in tree.flatten(operation.input)]
    found: dict[int, layers.Layer] = {}
    for layer in network.operations:
        if isinstance(layer, layers.BatchNormalization):
            convolution = producers[id(layer.input)]
            linear = type(convolution) in (layers.Conv2D, layers.DepthwiseConv2D) and (
                convolution.activation is keras.activations.linear and convolution.data_format == "channels_last"
            )
            if linear and layer.axis in (-1, 3) and readers.count(id(layer.input)) == 1:
                found[id(layer)] = convolution
    return found


class _Inference(keras.Operation):
    """An operation of the network as it runs when it does not train."""

    def __init__(self, operation: Any) -> None:
        super().__init__(name=operation.name)
        self.operation = operation
        self._mode = {"training": False} if "training" in inspect.signature(operation.call).parameters else {}

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return self.operation(*args, **{**kwargs, **self._mode})

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        return _specs(self.operation)


class _MatchingAtOnce(keras.Operation):
    """Matching of the objects of one video."""

    def __init__(self, matching: Matching) -> None:
        super().__init__(name=matching.name)
        self.matching = matching

    def call(self, inputs: Any) -> Any:
        return self.matching.call_at_once(inputs)

    def compute_output_spec(self, inputs: Any) -> Any:
        return _specs(self.matching)


class _FoldedConvolution(keras.Operation):
    """A convolution and the batch normalisation behind it, in one."""

    def __init__(self, convolution: layers.Layer, normalisation: layers.BatchNormalization) -> None:
        super().__init__(name=normalisation.name)
        self.convolution, self.normalisation = convolution, normalisation

    def call(self, features: Tensor) -> Tensor:
        convolution, normalisation = self.convolution, self.normalisation
        scale = ops.rsqrt(normalisation.moving_variance + normalisation.epsilon)
        if normalisation.scale:
            scale = normalisation.gamma * scale
        shift = -normalisation.moving_mean * scale
        if normalisation.center:
            shift = normalisation.beta + shift
        if convolution.use_bias:
            shift = shift + convolution.bias * scale
        depthwise = isinstance(convolution, layers.DepthwiseConv2D)
        # Depthwise kernels are [k, k, C, 1], the others [k, k, C, F].
        kernel = convolution.kernel * (ops.reshape(scale, convolution.kernel.shape[2:]) if depthwise else scale)
        convolve = ops.depthwise_conv if depthwise else ops.conv
        dtype = convolution.compute_dtype
        output = convolve(
            ops.cast(features, dtype),
            ops.cast(kernel, dtype),
            strides=convolution.strides,
            padding=convolution.padding,
            data_format="channels_last",
            dilation_rate=convolution.dilation_rate,
        )
        # Of a vector this is a BiasAdd, unlike `+`: TensorFlow runs it in one with the convolution and the activation.
        return ops.add(output, ops.cast(shift, dtype))

    def compute_output_spec(self, features: Tensor) -> Any:
        return _specs(self.normalisation)


def _specs(operation: Any) -> Any:
    """What an operation gives, without computing its shapes anew."""
    return tree.map_structure(lambda x: keras.KerasTensor(x.shape, dtype=x.dtype), operation.output)

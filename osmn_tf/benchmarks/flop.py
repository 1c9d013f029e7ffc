"""How many floating-point operations a network takes."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def forward_flop(network: keras.Model, inputs: dict[str, Any]) -> float | None:
    """Floating-point operations of a forward pass, as the backend's compiler counts them (None for PyTorch)."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        variables = [variable.value for variable in network.variables]

        def forward(values: list[Any], arguments: dict[str, Any]) -> Any:
            with keras.StatelessScope(state_mapping=list(zip(network.variables, values))):
                return network(arguments, training=False)

        cost = jax.jit(forward).lower(variables, inputs).cost_analysis()
        return None if cost is None else float(cost["flops"])
    if backend == "tensorflow":
        import tensorflow as tf
        from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

        tensors = {name: ops.convert_to_tensor(value) for name, value in inputs.items()}
        function = tf.function(lambda arguments: network(arguments, training=False), autograph=False)
        graph = convert_variables_to_constants_v2(function.get_concrete_function(tensors)).graph
        options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
        options["output"] = "none"
        logger = tf.get_logger()
        level = logger.level
        logger.setLevel("ERROR")  # the profiler warns of its own use of old functions
        try:
            return float(tf.compat.v1.profiler.profile(graph, options=options).total_float_ops)
        finally:
            logger.setLevel(level)
    return None

"""Compiles a function that calls Keras models, whatever the backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import tree


def compile_function(function: Callable[..., Any], models: Sequence[keras.Model]) -> Callable[..., Any]:
    """`function` compiled for the active backend: `tf.function`, `jax.jit`, or PyTorch without gradients.

    Args:
        function: takes and returns nested structures of tensors; must not change the models' variables.
        models: the models that `function` calls. Their weights are read at every call, so later changes are seen.

    Returns:
        A function that takes tensors or NumPy arrays and returns tensors. It compiles anew for new shapes.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        concrete: dict[Any, Any] = {}

        def by_signature(*arguments: Any) -> Any:
            # `tf.function` would find the right trace by itself, but warns of retracing when objects come and go.
            tensors = tree.map_structure(tf.convert_to_tensor, arguments)
            key = tuple((tuple(x.shape), x.dtype) for x in tree.flatten(tensors))
            if key not in concrete:
                concrete[key] = tf.function(function, autograph=False).get_concrete_function(*tensors)
            return concrete[key](*tensors)

        return by_signature
    if backend == "jax":
        import jax

        variables = [variable for model in models for variable in model.variables]

        @jax.jit
        def stateless(values: list[Any], *arguments: Any) -> Any:
            # Weights are arguments: as constants they would be compiled in, and changes to them missed.
            with keras.StatelessScope(state_mapping=list(zip(variables, values))):
                return function(*arguments)

        return lambda *arguments: stateless([variable.value for variable in variables], *arguments)
    if backend == "torch":
        import torch

        def without_gradients(*arguments: Any) -> Any:
            with torch.no_grad():
                return function(*tree.map_structure(keras.ops.convert_to_tensor, arguments))

        return without_gradients
    raise ValueError(f"unsupported Keras backend: {backend}")

"""Compiles a function that calls Keras models, whatever the backend."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import keras
from keras import tree


class CompiledGraphs:
    """Compiled forms of functions for the shapes they were called with. The least recently used go first.

    Args:
        limit: how many are kept.
    """

    def __init__(self, limit: int = 32) -> None:
        self.limit = limit
        self._graphs: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.RLock()  # two sessions of a server may ask for the same graph

    def __len__(self) -> int:
        return len(self._graphs)

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The graph of this key, made where it is not there."""
        with self._lock:
            if key not in self._graphs:
                graph = make()
                while len(self._graphs) >= self.limit:
                    self._graphs.popitem(last=False)
                self._graphs[key] = graph
            self._graphs.move_to_end(key)
            return self._graphs[key]


def compile_function(
    function: Callable[..., Any], models: Sequence[keras.Model], graphs: CompiledGraphs | None = None
) -> Callable[..., Any]:
    """`function` compiled for the active backend: `tf.function`, `jax.jit`, or PyTorch without gradients.

    Args:
        function: takes and returns nested structures of tensors; must not change the models' variables.
        models: the models that `function` calls. Their weights are read at every call, so later changes are seen.
        graphs: where the compiled forms are kept, perhaps among those of other functions.

    Returns:
        A function that takes tensors or NumPy arrays, and anything hashable by keyword, and returns tensors. It
        compiles anew for new shapes and for new values of the keywords; on TensorFlow not at all while
        `tf.config.run_functions_eagerly` is on.
    """
    kept = CompiledGraphs() if graphs is None else graphs
    owner = object()

    def signature(arguments: Any, constants: dict[str, Any]) -> Hashable:
        shapes = tuple((tuple(x.shape), x.dtype) for x in tree.flatten(arguments))
        return owner, shapes, tuple(sorted(constants.items()))

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        def by_signature(*arguments: Any, **constants: Any) -> Any:
            # `tf.function` would find the right trace by itself, but keeps all of them, and warns of retracing when
            # objects come and go.
            tensors = tree.map_structure(tf.convert_to_tensor, arguments)
            if tf.config.functions_run_eagerly():  # `get_concrete_function` does not ask
                return function(*tensors, **constants)

            def compiled() -> Any:
                # A partial function's keywords would belong to the signature that the graph is called by.
                bound = lambda *inputs: function(*inputs, **constants)  # noqa: E731
                return tf.function(bound, autograph=False).get_concrete_function(*tensors)

            return kept.get(signature(tensors, constants), compiled)(*tensors)

        return by_signature
    if backend == "jax":
        import jax

        variables = [variable for model in models for variable in model.variables]

        def with_weights(*arguments: Any, **constants: Any) -> Any:
            def stateless(values: list[Any], *arguments: Any) -> Any:
                # Weights are arguments: as constants they would be compiled in, and changes to them missed.
                with keras.StatelessScope(state_mapping=list(zip(variables, values))):
                    return function(*arguments, **constants)

            compiled = kept.get(signature(arguments, constants), lambda: jax.jit(stateless))
            return compiled([variable.value for variable in variables], *arguments)

        return with_weights
    if backend == "torch":
        import torch

        def without_gradients(*arguments: Any, **constants: Any) -> Any:
            with torch.no_grad():
                return function(*tree.map_structure(keras.ops.convert_to_tensor, arguments), **constants)

        return without_gradients
    raise ValueError(f"unsupported Keras backend: {backend}")

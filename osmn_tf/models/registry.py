"""The networks by name, and the facts that every network states."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any, TypeVar

import keras

from osmn_tf.registry import Registry

NETWORKS: Registry[Any] = Registry("network", "osmn_tf.models")

Cls = TypeVar("Cls", bound=type)


def register_network(name: str) -> Callable[[Cls], Cls]:
    """Makes a network known by name: to presets, configurations, the command line and Keras's own files.

    A decorator of subclasses of `osmn_tf.models.network.Network`. The name is written into presets and `.keras` files
    (as "osmn_tf>NAME") and stays for ever.

    Raises:
        ValueError: another class has this name.
    """

    def decorate(cls: Cls) -> Cls:
        NETWORKS.register(name)(cls)
        keras.saving.register_keras_serializable(package="osmn_tf", name=name)(cls)
        return cls

    return decorate


def registered_names(network: Any) -> list[str]:
    """The names of a network's class and of those that it derives from, its own first: who has nothing for the first
    name (a predictor, a training task) may have it for the second.

    Args:
        network: a class, or a model.
    """
    cls = network if isinstance(network, type) else type(network)
    names = [NETWORKS.name_of(base) for base in cls.__mro__]
    return [name for name in names if name is not None]


def network_name(network: Any) -> str | None:
    """The name of a network's own class, or None where it is not registered.

    Args:
        network: a class, or a model.
    """
    return NETWORKS.name_of(network if isinstance(network, type) else type(network))


def constructor_arguments(name: str) -> dict[str, Any]:
    """The arguments of a network's constructor and their types; `**kwargs` stands for those of the class above.

    Raises:
        InputError: there is no such network.
    """
    hints: dict[str, Any] = {}
    for cls in NETWORKS.get(name).__mro__:
        if NETWORKS.name_of(cls) is None:  # what all networks have in common
            break
        if "__init__" in vars(cls):
            types = typing.get_type_hints(cls.__init__)
            parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
            own = {
                p.name: types.get(p.name, Any) for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
            }
            hints = own | hints
    return hints

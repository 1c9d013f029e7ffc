"""What every network of this package is and states."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import keras

from osmn_tf.errors import InputError
from osmn_tf.models.presets import load, save_preset


class Network(keras.Model):
    """Base of the networks: a Keras model that is built by its constructor and knows how it is used.

    A new network is one file: a subclass with `@register_network("NAME")` and one attribute per constructor argument.
    Its constructor builds all weights.

    Attributes:
        network_size: (H, W) at which videos are segmented unless the segmenter is told otherwise.
        task_name: the training task that trains it (`osmn_tf.training.tasks`); None where there is none.
        untrained: published forms of it, whose speed can be measured without weights: name -> constructor arguments.
    """

    task_name: ClassVar[str | None] = None
    untrained: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    network_size: tuple[int, int]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        unknown = sorted(set(kwargs) - {"inputs", "outputs", "name", "trainable"})
        if unknown:  # Keras would ignore them
            raise TypeError(f"{type(self).__name__} has no argument {', '.join(unknown)}")
        super().__init__(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON has them."""
        parameters = inspect.signature(type(self)).parameters.values()
        values = {each.name: getattr(self, each.name) for each in parameters if each.kind is not each.VAR_KEYWORD}
        arguments = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {"name": self.name, "trainable": self.trainable, **arguments}

    @classmethod
    def from_preset(cls, name: str | os.PathLike[str], precision: str | None = None) -> Self:
        """Loads a network of this class (or of one derived from it) with its weights.

        Args:
            name, precision: as `osmn_tf.load`.

        Raises:
            InputError: as `osmn_tf.load`, or it is a network of another class.

        Example:
            >>> import osmn_tf as osmn
            >>> osmn.OSMN.from_preset("osmn_match_lite").network_size
            (256, 448)
        """
        network = load(name, precision)
        if not isinstance(network, cls):
            raise InputError(f"preset: {name} is a {type(network).__name__}, expected a {cls.__name__}")
        return network

    def save_to_preset(
        self,
        directory: str | os.PathLike[str],
        metadata: Mapping[str, Any] | None = None,
        dtype: str = "float32",
        significant_bits: int | None = None,
    ) -> None:
        """Writes a preset folder that `osmn_tf.load` reads (see `osmn_tf.models.presets.save_preset`)."""
        save_preset(self, directory, metadata, dtype, significant_bits)

"""What every network of this package is and states."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import keras

from osmn_tf.models.presets import save_preset


class Network(keras.Model):
    """Base of the networks: a Keras model that is built by its constructor and knows how it is used.

    A new network is one file: a subclass with `@register_network("NAME")`, one attribute per constructor argument,
    and `get_config`, which returns those arguments. Its constructor builds all weights.

    Attributes:
        network_size: (H, W) at which videos are segmented unless the segmenter is told otherwise.
        task_name: the training task that trains it (`osmn_tf.training.tasks`); None where there is none.
        untrained: published forms of it, whose speed can be measured without weights: name -> constructor arguments.
    """

    task_name: ClassVar[str | None] = None
    untrained: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    network_size: tuple[int, int]

    def save_to_preset(
        self,
        directory: str | os.PathLike[str],
        metadata: Mapping[str, Any] | None = None,
        dtype: str = "float32",
    ) -> None:
        """Writes a preset folder that `osmn_tf.load` reads (see `osmn_tf.models.presets.save_preset`)."""
        save_preset(self, directory, metadata, dtype)

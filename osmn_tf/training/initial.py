"""The weights that a training begins with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import keras
from keras import ops

from osmn_tf.backbones.registry import BACKBONES, Backbone
from osmn_tf.errors import InputError, first_line
from osmn_tf.models import presets
from osmn_tf.models.registry import NETWORKS
from osmn_tf.training import optimization
from osmn_tf.training.config import ModelConfig
from osmn_tf.training.tasks import group_of


def build_network(config: ModelConfig, optional: Mapping[str, tuple[str, ...]]) -> keras.Model:
    """A network with its initial weights, and with the layers frozen that are to stay as they are.

    Args:
        config: see `ModelConfig`.
        optional: groups of layers (see `Task.groups`) that may be missing on either side of `config.initial`.

    Raises:
        InputError: impossible arguments, or weights that are missing or do not fit.
    """
    try:
        model = NETWORKS.get(config.network)(**config.arguments)
    except ValueError as error:
        raise InputError(f"model.arguments.{error}") from error
    if config.initial is not None:
        try:
            if config.initial.endswith(".weights.h5"):
                presets.load_weights(model, Path(config.initial))
            else:
                copy_weights(presets.load(config.initial), model, optional)
        except InputError as error:
            raise InputError(f"model.initial: {error}") from error
    elif config.backbone_weights is not None:
        if not hasattr(model, "load_backbone_weights"):
            raise InputError(f"model.backbone_weights: a {config.network} takes none")
        try:
            if config.backbone_weights == "imagenet" or config.backbone_weights.endswith((".h5", ".npz")):
                model.load_backbone_weights(config.backbone_weights)
            else:
                copy_trunks(presets.load(config.backbone_weights), model)
        except (OSError, ValueError) as error:
            raise InputError(f"model.backbone_weights: {config.backbone_weights}: {first_line(error)}") from error
    optimization.freeze_layers(model, config.freeze)
    return model


def copy_weights(source: keras.Model, target: keras.Model, optional: Mapping[str, tuple[str, ...]]) -> None:
    """Copies all weights by name; an optional group of layers may be missing, as a whole, in one of the two.

    Raises:
        InputError: a weight is missing, left over or has another shape.
    """
    targets = {weight.path: weight for weight in target.weights}
    groups = [{group_of(weight.path, optional) for weight in model.weights} for model in (source, target)]
    one_sided = groups[0] ^ groups[1]
    new = {path for path in targets if group_of(path, optional) not in one_sided}
    for weight in source.weights:
        if group_of(weight.path, optional) in one_sided:
            continue
        found = targets.get(weight.path)
        if found is None or tuple(found.shape) != tuple(weight.shape):
            there = "nothing" if found is None else list(found.shape)
            raise InputError(f"its weight {weight.path} is {list(weight.shape)}, the network has {there}")
        # JAX would share the buffer, and training frees the buffers that it began with.
        found.assign(ops.copy(weight))
        new.discard(weight.path)
    if new:
        raise InputError(f"it has no weight {min(new)} ({len(new)} are missing)")


def copy_trunks(source: keras.Model, target: keras.Model) -> None:
    """Copies the trunks' weights by name, between networks of any kind.

    A visual modulator's trunk begins as the source's own, or, where it has none, as the segmentation network's.

    Raises:
        InputError: the trunks are not of one form.
    """
    trunk = BACKBONES.get(target.backbone)(target.block_channels)
    weights = {weight.path: weight for weight in source.weights}
    targets = {weight.path: weight for weight in target.weights}
    seg, modulator = (_trunk_paths(trunk, prefix) for prefix in ("seg", "modulator"))
    there = {path: path if modulator[0] in weights else other for path, other in zip(modulator, seg)}
    for path in (path for path in (*seg, *modulator) if path in targets):
        found, weight = weights.get(there.get(path, path)), targets[path]
        if found is None or tuple(found.shape) != tuple(weight.shape):
            shape = "nothing" if found is None else list(found.shape)
            raise InputError(f"its trunk has {shape} as {path}, the network {list(weight.shape)}")
        weight.assign(ops.copy(found))  # JAX would share the buffer


def _trunk_paths(trunk: Backbone, prefix: str) -> list[str]:
    images = keras.Input((None, None, 3))
    return [weight.path for weight in keras.Model(images, trunk.features(images, prefix)).weights]

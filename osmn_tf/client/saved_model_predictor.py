"""Runs an exported SavedModel with TensorFlow in this process: what a server does, without one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from osmn_tf.client.predictor import RemotePredictor
from osmn_tf.client.transport import ServerError, Signatures, Tensors, Transport, readable
from osmn_tf.errors import InputError, import_extra
from osmn_tf.runtime.saved_model import find_saved_model, read_metadata


class LocalTransport(Transport):
    """A SavedModel's signatures; see `SavedModelPredictor`."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        path = find_saved_model(folder) or Path(folder)
        self.metadata = metadata = read_metadata(path)
        super().__init__(str(path), str(metadata["name"]))
        self._version = int(metadata["version"])
        tf = import_extra("tensorflow", "tensorflow", "tf", "running a SavedModel")
        try:
            self._loaded = tf.saved_model.load(str(path))  # owns what the signatures use
        except Exception as error:  # damage shows as errors of many kinds
            raise InputError(f"{path}: cannot be loaded as a SavedModel ({readable(str(error))})") from error
        self.signatures = self._loaded.signatures

    def describe(self, version: int | None) -> tuple[int, Signatures]:
        if version not in (None, self._version):
            raise ServerError(f"{self.address}: holds version {self._version}, not {version}")
        signatures = {
            name: {
                key: (spec.dtype.name, tuple(spec.shape.as_list()))
                for key, spec in function.structured_input_signature[1].items()
            }
            for name, function in self.signatures.items()
        }
        return self._version, signatures

    def predict(self, signature: str, inputs: Tensors, version: int) -> Tensors:
        import tensorflow as tf

        try:
            plain = {name: value.tolist() if value.dtype == object else value for name, value in inputs.items()}
            tensors = {name: tf.constant(value) for name, value in plain.items()}
            outputs = self.signatures[signature](**tensors)
        except tf.errors.OpError as error:
            raise ServerError(f"{self.address}: {readable(error.message)}") from error
        return {
            name: np.asarray(value.numpy(), object if value.dtype == tf.string else None)
            for name, value in outputs.items()
        }


class SavedModelPredictor(RemotePredictor):
    """Runs an exported SavedModel in this process, with TensorFlow alone.

    Args:
        folder: `NAME/1`, or `NAME` for the highest version in it.
        encoding: "raw", or "png" or "jpeg" to run what a server would with it.

    Raises:
        InputError: the folder is no SavedModel of `osmn export`, or a file of it is missing or damaged.
        MissingDependencyError: without TensorFlow.
    """

    def __init__(self, folder: str | os.PathLike[str], *, encoding: str = "raw") -> None:
        transport = LocalTransport(folder)
        super().__init__(transport, encoding)
        height, width = transport.metadata["settings"]["network_size"]
        self._network_size = (int(height), int(width))

    @property
    def network_size(self) -> tuple[int, int]:
        guides = self._carried.get("guide_masks")
        return self._network_size if guides is None else guides.shape[1:]

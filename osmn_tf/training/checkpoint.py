"""The state of a training run in one file that is either complete or absent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from osmn_tf.errors import InputError
from osmn_tf.files import atomic_path

_STATE = "state"


class Checkpoint:
    """Saves and restores a compiled model: weights, BatchNorm statistics, seeds of dropout, the optimizer with its
    moments, averages, accumulators and step counter, and what callbacks want to remember.

    Args:
        path: an `.npz` file.
        network: compiled, with its optimizer built.
    """

    def __init__(self, path: Path, network: keras.Model) -> None:
        self.path, self.network = path, network

    def _variables(self) -> list[Any]:
        return [*self.network.variables, *self.network.optimizer.variables]

    def save(self, state: dict[str, Any]) -> None:
        """Replaces the checkpoint.

        Args:
            state: JSON data.
        """
        variables = self._variables()
        document = {"paths": [variable.path for variable in variables], **state}
        arrays: dict[str, Any] = {_STATE: np.array(json.dumps(document))}
        arrays.update((f"v{number}", ops.convert_to_numpy(variable)) for number, variable in enumerate(variables))
        with atomic_path(self.path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)

    def restore(self) -> dict[str, Any]:
        """Restores the checkpoint and returns its state; an empty dict if there is none.

        What a run that was killed while it wrote has left behind is removed.

        Raises:
            InputError: the file is damaged or of another network.
        """
        for unfinished in self.path.parent.glob(f".{self.path.stem}.*.part{self.path.suffix}"):
            unfinished.unlink(missing_ok=True)
        if not self.path.exists():
            return {}
        variables = self._variables()
        try:
            with open(self.path, "rb") as file, np.load(file, allow_pickle=False) as content:
                state = json.loads(str(content[_STATE]))
                shapes = [content[f"v{number}"].shape for number in range(len(state["paths"]))]
                if shapes != [tuple(variable.shape) for variable in variables]:
                    raise InputError(f"--run-dir: {self.path} is a checkpoint of another network or optimizer")
                for number, variable in enumerate(variables):
                    variable.assign(content[f"v{number}"])
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"--run-dir: {self.path} is damaged ({error}); remove it to start anew") from error
        del state["paths"]
        return state

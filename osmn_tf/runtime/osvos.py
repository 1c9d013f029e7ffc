"""Runs an exported OSVOS, which knows one object by its weights: NumPy around one LiteRT graph."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.inference.merging import merge_logits
from osmn_tf.inference.predictor import GUIDE_OPTIONS, Prediction, Predictor, PredictorOptions
from osmn_tf.resampling import resize_frame
from osmn_tf.runtime.frames import resize_planes
from osmn_tf.runtime.network import choose_threads, open_graph, read_metadata
from osmn_tf.runtime.predictor import exported_size


class ExportedOSVOSPredictor(Predictor):
    """Runs an OSVOS that `osmn export --format litert` has written, on its one object and at its size.

    Args:
        path: the exported folder, or the `.tflite` file in it.
        options: see `PredictorOptions`.

    Raises:
        InputError: a file is missing or damaged, or an option is not applicable.
        MissingDependencyError: ai-edge-litert is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], options: PredictorOptions | None = None) -> None:
        options = options or PredictorOptions()
        options.refuse("every frame is segmented on its own, without guides", *GUIDE_OPTIONS)
        height, width = self._size = exported_size(path, options)
        self.merge = options.merge
        folder, metadata = read_metadata(path)
        self._graph = open_graph(
            folder,
            metadata,
            "step",
            {"frame": (1, height, width, 3)},
            {"logits": (1, height, width, 1)},
            choose_threads(options.threads),
        )
        self.forget()

    @property
    def network_size(self) -> tuple[int, int]:
        return self._size

    @property
    def objects(self) -> int:
        return self._objects

    def forget(self) -> None:
        self._objects = 0

    def begin(self, frame: np.ndarray, masks: np.ndarray | None) -> None:
        count = self._objects + len(() if masks is None else masks)
        if count != 1:
            raise InputError(f"mask: an exported OSVOS knows one object, the one that it has learnt; received {count}")
        self._objects = count

    def keep(self, indices: Sequence[int]) -> None:
        self._objects = len(indices)

    def advance(self, frame: np.ndarray) -> Prediction:
        self._graph.write("frame", 0, resize_frame(frame, self._size))
        self._graph.run()
        logits = resize_planes(self._graph.output("logits")[..., 0].copy(), frame.shape[:2])
        return Prediction(merge_logits(logits, self.merge), lambda: logits)

    def snapshot(self) -> dict[str, np.ndarray]:
        return {"objects": np.array(self._objects)}

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> None:
        if int(snapshot.get("objects", 0)) != 1:
            raise InputError("snapshot: it is not of an exported OSVOS")
        self._objects = 1

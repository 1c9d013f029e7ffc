"""Runs an exported RVOS: what `osmn_tf.inference.rvos` computes, with NumPy around LiteRT."""

from __future__ import annotations

import os

import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.inference.merging import merge_logits, to_scores
from osmn_tf.inference.predictor import Prediction, PredictorOptions
from osmn_tf.inference.sequence import Kept, SequencePredictor
from osmn_tf.resampling import resize_frame
from osmn_tf.runtime.frames import resize_planes
from osmn_tf.runtime.network import choose_threads, open_graph, read_metadata
from osmn_tf.runtime.predictor import exported_size

Arrays = dict[str, np.ndarray]


class ExportedRVOS:
    """The two graphs of an exported RVOS.

    Args:
        path: the folder, or one of the `.tflite` files in it.
        threads: per graph; default: `choose_threads()`.

    Raises:
        InputError: a file is missing, damaged, or belongs to another export.
        MissingDependencyError: ai-edge-litert is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None) -> None:
        threads = choose_threads(threads)
        folder, self.metadata = read_metadata(path)
        metadata, sequence = self.metadata, self.metadata.sequence
        if sequence is None:
            raise InputError(f"preset: {path} is not the export of an RVOS")
        self.sequence = sequence
        height, width = metadata.network_size
        state = {name: (metadata.objects, *shape) for name, shape in metadata.state.items()}
        before = {name: (1, *shape) for name, shape in sequence.before.items()}
        masks = {"previous_masks": (metadata.objects, height, width, 1)} if sequence.takes_masks else {}
        inputs = {**metadata.features, **masks, **state, **before}
        outputs = {"logits": (metadata.objects, height, width, 1), **state, **before}
        frames = {"frame": (1, height, width, 3)}
        self._encoder = open_graph(folder, metadata, "encoder", frames, metadata.features, threads)
        self._step = open_graph(folder, metadata, "step", inputs, outputs, threads)

    def initial_state(self, objects: int) -> Arrays:
        """Of objects that begin: zeros."""
        return {name: np.zeros((objects, *shape), np.float32) for name, shape in self.metadata.state.items()}

    def run(self, frame: np.ndarray, masks: np.ndarray, state: Arrays) -> tuple[np.ndarray, Arrays]:
        """One frame with all its objects.

        Args:
            frame: uint8 [h, w, 3] of the network's size.
            masks: float32 [N, h, w], previous masks.
            state: [N, ...] by name.

        Returns:
            Logits float32 [N, h, w], and the new state.
        """
        graph, places = self._step, self.metadata.objects
        self._encoder.write("frame", 0, frame)
        self._encoder.run()
        for name in self.metadata.features:
            graph.write(name, ..., self._encoder.output(name))
        for name in self.sequence.before:
            graph.write(name, ..., 0)
        logits, new = np.empty_like(masks), {name: np.empty_like(value) for name, value in state.items()}
        for first in range(0, len(masks), places):
            some = slice(first, first + places)
            count = len(masks[some])
            if self.sequence.takes_masks:
                graph.write("previous_masks", slice(0, count), masks[some, ..., None])
            for name, value in state.items():
                graph.write(name, slice(0, count), value[some])
            graph.run()
            logits[some] = graph.output("logits")[:count, ..., 0]
            for name in state:
                new[name][some] = graph.output(name)[:count]
            for name in self.sequence.before:
                graph.write(name, ..., graph.output(name).copy())
        return logits, new


class ExportedRVOSPredictor(SequencePredictor):
    """Runs an RVOS that `osmn export --format litert` has written: at the size that it was exported for.

    Args:
        path: the exported folder, or one of the `.tflite` files in it.
        options: see `PredictorOptions`.

    Raises:
        InputError: a file is missing or damaged, or an option is not applicable.
        MissingDependencyError: ai-edge-litert is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], options: PredictorOptions | None = None) -> None:
        options = options or PredictorOptions()
        size = exported_size(path, options)
        self.network = ExportedRVOS(path, options.threads)
        sequence = self.network.sequence
        super().__init__(size, sequence.takes_masks, sequence.slots, options)

    def _step(self, frame: np.ndarray, kept: Kept) -> tuple[Prediction, np.ndarray, Arrays]:
        masks, ranks, state = kept
        logits, state = self.network.run(resize_frame(frame, self.network_size), masks, state)
        full = resize_planes(logits, frame.shape[:2])
        own = to_scores(logits)
        if self.network.sequence.independent:
            own[logits < logits.max(axis=0)] = 0
        return Prediction(merge_logits(full, self.merge, ranks), lambda: full), own, state

    def _initial_state(self, objects: int) -> Arrays:
        return self.network.initial_state(objects)

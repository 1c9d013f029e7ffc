"""Runs an exported network: what `osmn_tf.inference.modulated` computes, with NumPy around LiteRT."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.inference.merging import merge_logits
from osmn_tf.inference.predictor import GuidedPredictor, NetworkSource, Prediction, Predictor, PredictorOptions
from osmn_tf.resampling import fitted_size, name_sizes, resize_frame, resize_mask
from osmn_tf.runtime import guides
from osmn_tf.runtime.frames import resize_planes
from osmn_tf.runtime.network import ExportedNetwork, find_export, read_metadata


def find(x: Any) -> NetworkSource | None:
    """See `osmn_tf.inference.predictor.find_network`.

    Raises:
        InputError: `x` is a `.tflite` file that does not exist, or such files without their metadata.
    """
    folder = find_export(x) if isinstance(x, str) else None
    if folder is None:
        return None

    metadata = read_metadata(folder)[1]

    def load(options: PredictorOptions) -> Predictor:
        if metadata.sequence is not None:
            from osmn_tf.runtime.rvos import ExportedRVOSPredictor

            return ExportedRVOSPredictor(folder, options)
        if metadata.one_object:
            from osmn_tf.runtime.osvos import ExportedOSVOSPredictor

            return ExportedOSVOSPredictor(folder, options)
        return ExportedPredictor(folder, options)

    return NetworkSource(
        "a LiteRT export", folder, False, False, load, engine="litert", facts=metadata, matches=metadata.matches
    )


def exported_size(path: str | os.PathLike[str], options: PredictorOptions) -> tuple[int, int]:
    """(h, w) that an export runs at, of a wide video where the options leave the size to the video.

    Raises:
        InputError: another one is asked for, or another precision, or as `read_metadata`.
    """
    options.refuse("an exported network computes in what it was exported in", "precision")
    metadata = read_metadata(path)[1]
    if options.network_size is None:
        if (size := options.size_of(metadata.network_size)) not in metadata.sizes:
            options.refuse(
                "an exported network runs at the sizes that it was exported for ('osmn export --scales' adds others)",
                "scale",
            )
        return size
    height, width = options.network_size
    if (height, width) not in metadata.sizes:
        raise InputError(
            f"network_size: {path} was exported for {name_sizes(metadata.sizes)} and runs at no other size, received"
            f" {height} x {width}"
        )
    return height, width


@dataclasses.dataclass
class _Object:
    """What is kept of one object from frame to frame."""

    modulation: np.ndarray  # float32 [M]
    guide_mask: np.ndarray  # uint8 [h, w], what the next spatial guide is made of
    state: dict[str, np.ndarray]


class ExportedPredictor(GuidedPredictor):
    """Runs what `osmn export --format litert` has written: at the size that it was exported for, or at the sizes.

    Args:
        path: the exported folder, or one of the `.tflite` files in it.
        options: see `PredictorOptions`.

    Raises:
        InputError: a file is missing or damaged, or an option is not applicable.
        MissingDependencyError: ai-edge-litert is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], options: PredictorOptions | None = None) -> None:
        options = options or PredictorOptions()
        self._own_size = exported_size(path, options)
        self.network = ExportedNetwork(path, options.threads)
        self.network.use(self._own_size)
        self.options = options
        matches = self.network.metadata.matches
        self._search_window = matches if options.search_window is None else options.search_window
        self.forget()

    @property
    def network_size(self) -> tuple[int, int]:
        return self.network.metadata.network_size

    def _fit(self, frame_size: tuple[int, int]) -> None:
        """Chooses the graphs for a video, where there is a choice."""
        size = fitted_size(self._own_size, frame_size)
        if self.options.network_size is None and size in self.network.sizes:
            self.network.use(size)

    @property
    def objects(self) -> int:
        return len(self._objects)

    def forget(self) -> None:
        self._objects: list[_Object] = []

    def keep(self, indices: Sequence[int]) -> None:
        self._objects = [self._objects[index] for index in indices]

    def begin(self, frame: np.ndarray, masks: np.ndarray | None) -> None:
        if not self._objects:
            self._fit(frame.shape[:2])
        metadata = self.network.metadata
        begun = [
            _Object(
                self.network.modulate(guides.visual_guide(frame, mask, metadata.guide_size, metadata.guide_background)),
                resize_mask(mask, self.network_size),
                self.network.initial_state(),
            )
            for mask in (() if masks is None else masks)
        ]
        if metadata.state:
            # The first frame, with the guide of the given mask, starts the state.
            _, states = self._run(frame, begun)
            for an_object, state in zip(begun, states):
                an_object.state = state
        self._objects += begun

    def advance(self, frame: np.ndarray) -> Prediction:
        logits, states = self._run(frame, self._objects)
        if self._search_window:
            for plane, an_object in zip(logits, self._objects):
                guides.search_near(plane, an_object.guide_mask)
        won = logits > 0
        if self.options.exclusive and len(logits) > 1:
            won &= logits >= logits.max(axis=0)
        for an_object, state, own in zip(self._objects, states, won):
            an_object.state = state
            if own.any() or not self.options.recover:
                an_object.guide_mask = own.astype(np.uint8)
        full = resize_planes(logits, frame.shape[:2])
        return Prediction(merge_logits(full, self.options.merge), lambda: full)

    def correct(self, index: int, mask: np.ndarray) -> None:
        self._objects[index].guide_mask = resize_mask(mask, self.network_size)

    def probe(self, frame: np.ndarray, masks: np.ndarray) -> np.ndarray:
        # Of an object that is only roughly where it is said to be, the window would cut off a part.
        window, self._search_window = self._search_window, False
        try:
            return super().probe(frame, masks)
        finally:
            self._search_window = window

    def _run(self, frame: np.ndarray, objects: Sequence[_Object]) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
        """Logits [N, h, w] and new states."""
        self.network.encode(resize_frame(frame, self.network_size))
        return self.network.step(
            [an_object.guide_mask for an_object in objects],
            [an_object.modulation for an_object in objects],
            [an_object.state for an_object in objects],
        )

    # Interruption -----------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, np.ndarray]:
        return {
            "modulation": np.stack([an_object.modulation for an_object in self._objects]),
            "guide_masks": np.stack([an_object.guide_mask for an_object in self._objects]),
            **{
                f"state/{name}": np.stack([an_object.state[name] for an_object in self._objects])
                for name in self.network.metadata.state
            },
        }

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> None:
        if len(shape := np.shape(snapshot.get("guide_masks", ()))) == 3:
            self._fit(shape[1:])  # the masks are of the size chosen for the video
        metadata, count = self.network.metadata, len(snapshot.get("modulation", ()))
        expected = {
            "modulation": (count, metadata.modulation_size),
            "guide_masks": (count, *self.network_size),
            **{f"state/{name}": (count, *shape) for name, shape in metadata.state.items()},
        }
        own = {name: value for name, value in snapshot.items() if name in expected or name.startswith("state/")}
        if {name: value.shape for name, value in own.items()} != expected:
            raise InputError("snapshot: its state is not of this network and network size")
        self._objects = [
            _Object(
                own["modulation"][index].astype(np.float32),
                own["guide_masks"][index].astype(np.uint8),
                {name: own[f"state/{name}"][index].astype(np.float32) for name in metadata.state},
            )
            for index in range(count)
        ]

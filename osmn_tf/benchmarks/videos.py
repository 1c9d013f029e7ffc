"""A sequence of a data set as benchmarks use it: its frames, the masks to give, and J against its annotations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osmn_tf.evaluation.metrics import jaccard
from osmn_tf.evaluation.protocols import Protocol
from osmn_tf.evaluation.protocols import Sequence as Video
from osmn_tf.evaluation.run_preset import frame_files, given_masks
from osmn_tf.masks.files import read_label_png
from osmn_tf.masks.labels import VOID
from osmn_tf.video.images import read_image

Array = NDArray[Any]


class ScoredVideo:
    """Iteration reads the frames, uint8 RGB [H, W, 3], anew each time.

    Attributes:
        given: index of a frame -> its mask, to be given.
        labels: of the objects.
        merged: whether annotations are one object, whatever their labels.
        truth: index of a scored frame -> its annotation, uint8 [H, W].
    """

    def __init__(self, video: Video, protocol: Protocol) -> None:
        self._paths = frame_files(video)
        self.given = given_masks(video, protocol, [path.stem for path in self._paths])
        self.labels = video.labels
        self.merged = bool(video.binary or protocol.merge_objects)
        self.truth: dict[int, Array] = {}
        for index, path in enumerate(self._paths):
            if path.stem in video.frames:
                mask = read_label_png(video.annotations / f"{path.stem}.png")
                if self.merged:
                    mask = ((mask != 0) & ((mask != VOID) | video.binary)).astype(np.uint8)
                self.truth[index] = mask

    def __iter__(self) -> Iterator[Array]:
        return (read_image(path, oriented=False) for path in self._paths)

    def score(self, masks: Sequence[Array]) -> float:
        """Mean J over objects and scored frames."""
        pairs = [(self.truth[index] == label, masks[index] == label) for index in self.truth for label in self.labels]
        return float(np.mean([jaccard(*pair) for pair in pairs]))

    def agreement(self, masks: Sequence[Array], reference: Sequence[Array]) -> float:
        """Mean IoU over objects and all frames without given masks."""
        others = [index for index in range(len(masks)) if index not in self.given]
        pairs = [(reference[i] == label, masks[i] == label) for i in others for label in self.labels]
        return float(np.mean([jaccard(*pair) for pair in pairs]))

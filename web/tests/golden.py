"""Writes golden.json: what the Python runtime makes of made-up inputs, for the page's tests to compare with.

    python web/tests/golden.py        (in a checkout, with the package installed)

The inputs are formulas, the same here and in unit/inputs.ts.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from osmn_tf.inference.predictor import PredictorOptions
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.masks.coco import TrackWriter
from osmn_tf.masks.labels import PALETTE
from osmn_tf.resampling import fitted_size, resize_frame, resize_mask
from osmn_tf.runtime import ExportedPredictor, guides
from osmn_tf.runtime.frames import resize_planes

PATH = Path(__file__).with_name("golden.json")
FRAME = (37, 53)
NETWORK = (24, 32)
GUIDE_SIZE = 40
BACKGROUND = (127.5, 100.0, 90.25)
STEPS = 5
SIZES = ((1920, 1080), (854, 480), (640, 480), (480, 854), (500, 363), (500, 361))  # width, height of videos
LOST = {(3, 1), (4, 1)}  # (step, object): nothing of it is seen


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """uint8 RGB [height, width, 3]."""
    y, x, c = np.mgrid[:height, :width, :3]
    return ((x * 7 + y * 13 + c * 29 + (x * y) % 31 * 5 + seed * 17) % 256).astype(np.uint8)


def labels(height: int, width: int) -> np.ndarray:
    """uint8 [height, width]: object 1 on the left, cut off by the border, and object 2, which is two pieces."""
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), np.uint8)
    mask[(x * 3 + y * 2 < width) & (y > height // 3)] = 1
    mask[(np.abs(x - 2 * width // 3) + np.abs(y - height // 2)) < height // 4] = 2
    mask[-3:-1, -6:-2] = 2
    return mask


def logits(step: int, index: int) -> np.ndarray:
    """float32 [h, w] of what a network could say."""
    y, x = np.mgrid[: NETWORK[0], : NETWORK[1]]
    plane = ((x * 3 + y * 5 + step * 11 + index * 17) % 23 - 14).astype(np.float32) / 2
    return plane - 100 if (step, index) in LOST else plane


class MadeUpNetwork:
    """Says what `logits` says, and remembers the guides that it was given."""

    def __init__(self) -> None:
        self.metadata = SimpleNamespace(
            guide_size=GUIDE_SIZE,
            guide_background=BACKGROUND,
            state={"memory": (2, 2, 1)},
            network_size=NETWORK,
        )
        self.sizes = (NETWORK,)
        self.guides: list[list[np.ndarray]] = []

    def use(self, size: tuple[int, int]) -> None:
        pass

    def modulate(self, guide: np.ndarray) -> np.ndarray:
        return guide.mean(axis=(0, 1))

    def encode(self, frame: np.ndarray) -> None:
        self.frame = frame

    def initial_state(self) -> dict[str, np.ndarray]:
        return {}

    def step(
        self, masks: list[np.ndarray], modulations: list[np.ndarray], states: list[Any]
    ) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
        self.guides.append([guides.spatial_guide(mask)[..., None] for mask in masks])
        step = len(self.guides) - 1
        return np.stack([logits(step, index) for index in range(len(masks))]), states


def track(matches: bool) -> dict[str, Any]:
    """Masks and guides of a made-up network that loses an object and is given no other mask.

    Args:
        matches: the network is one that is looked at near the objects only.
    """
    predictor = ExportedPredictor.__new__(ExportedPredictor)
    network = MadeUpNetwork()
    predictor.network = network  # type: ignore[assignment]
    predictor._own_size = NETWORK
    predictor.options, predictor._search_window = PredictorOptions(), matches
    predictor.forget()
    segmenter = VideoSegmenter(predictor)
    mask = labels(*FRAME)
    masks = [segmenter.start(picture(*FRAME, 0), mask)]
    masks += [segmenter.step(picture(*FRAME, step)) for step in range(1, STEPS)]
    return {
        "masks": [array(mask) for mask in masks],
        "guides": [[array(np.asarray(guide, np.float32)) for guide in step] for step in network.guides],
    }


def array(values: np.ndarray) -> dict[str, Any]:
    """uint8 or float32 of any shape, as text."""
    return {
        "shape": list(values.shape),
        "dtype": str(values.dtype),
        "base64": base64.b64encode(np.ascontiguousarray(values).tobytes()).decode(),
    }


def golden() -> dict[str, Any]:
    """Everything that the file holds."""
    frame, mask = picture(*FRAME, 0), labels(*FRAME)
    lonely = np.zeros((200, 300), np.uint8)
    lonely[101, 203] = 2
    empty = np.zeros(NETWORK, np.uint8)
    point = empty.copy()
    point[5, 30] = 1
    objects = {label: resize_mask(mask == label, NETWORK) for label in (1, 2)}
    tracks = TrackWriter("made up", FRAME)
    tracks.add(0, mask, "00000")
    tracks.add(1, np.where(mask == 2, 2, 0).astype(np.uint8), "00001")
    tracks.add(2, np.zeros_like(mask), "00002")
    return {
        "squares": [[*size, fitted_size((352, 608), size[::-1]) != (352, 608)] for size in SIZES],
        "resize_frame_smaller": array(resize_frame(frame, NETWORK)),
        "resize_frame_larger": array(resize_frame(frame, (50, 70))),
        "resize_plane": array(resize_planes(logits(0, 0)[None], FRAME)[0]),
        "network_mask": {str(label): array(small) for label, small in objects.items()},
        "network_mask_of_a_lost_pixel": array(resize_mask(lonely, NETWORK)),
        "spatial_guide": {
            **{str(label): array(guides.spatial_guide(small)) for label, small in objects.items()},
            "empty": array(guides.spatial_guide(empty)),
            "point": array(guides.spatial_guide(point)),
        },
        "visual_guide": {
            str(label): array(guides.visual_guide(frame, mask == label, GUIDE_SIZE, BACKGROUND)) for label in (1, 2)
        },
        "track": track(False),
        "track_near": {"masks": track(True)["masks"]},
        "coco": tracks.content(),
        "palette": PALETTE.ravel().tolist(),
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(golden(), indent=None, separators=(",", ":")) + "\n", encoding="utf-8")

"""Tracks masks and polygons in CVAT: a tracking function for the auto-annotation of its SDK (extra `[cvat]`).

A CVAT server calls it through an agent, which runs where the network is:

    cvat-cli function create-native "osmn" --function-module osmn_tf.client.cvat -p preset=str:osmn_match_lite
    cvat-cli function run-agent FUNCTION_ID --function-module osmn_tf.client.cvat -p preset=str:osmn_match_lite
"""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import cv2
import numpy as np

from osmn_tf.datasets.annotations.cvat import polygon_mask
from osmn_tf.errors import InputError, MissingDependencyError
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.models.presets import DEFAULT_PRESET

try:
    import cvat_sdk.auto_annotation as sdk
    from cvat_sdk.masks import decode_mask, encode_mask
except ImportError as _error:
    raise MissingDependencyError("cvat-sdk", "cvat", "tracking in CVAT") from _error

_TOLERANCE = 0.5  # pixels by which a polygon may leave the outline
_FINE = 4


@dataclasses.dataclass
class TrackingState:
    """One shape that is tracked.

    Attributes:
        snapshot: of the segmenter, behind the last frame.
        size: (height, width).
    """

    snapshot: dict[str, np.ndarray]
    size: tuple[int, int]


class MaskTracker:
    """A `TrackingFunction` of cvat-sdk: any number of shapes, each with a state of its own, share the network.

    Args:
        network, **options: as `VideoSegmenter` takes them.

    Raises:
        InputError: as `VideoSegmenter`.

    Example:
        >>> from osmn_tf.client.cvat import MaskTracker
        >>> tracker = MaskTracker("osmn_match_lite", engine="litert")
        >>> sorted(tracker.spec.supported_shape_types)
        ['mask', 'polygon']
    """

    def __init__(self, network: Any = DEFAULT_PRESET, **options: Any) -> None:
        self._segmenter = VideoSegmenter(network, **options)
        self._lock = threading.Lock()  # an agent may call from several threads

    @property
    def spec(self) -> sdk.TrackingFunctionSpec:
        return sdk.TrackingFunctionSpec(supported_shape_types={"mask", "polygon"})

    def preprocess_image(self, context: sdk.TrackingFunctionContext, image: Any) -> np.ndarray:
        """uint8 RGB [H, W, 3] of a `PIL.Image.Image`."""
        return np.asarray(image.convert("RGB"))

    def init_tracking_state(
        self, context: sdk.TrackingFunctionShapeContext, pp_image: np.ndarray, shape: sdk.TrackableShape
    ) -> TrackingState:
        """Takes up a shape.

        Raises:
            InputError: nothing of the shape is in the frame.
        """
        size = (pp_image.shape[0], pp_image.shape[1])
        if shape.type == "mask":
            inside = decode_mask(shape.points, image_width=size[1], image_height=size[0])
        else:
            inside = polygon_mask(np.array(shape.points, np.float64).reshape(-1, 2), size)
        if not inside.any():
            raise InputError(f"shape: expected a {shape.type} with a pixel in the frame, received an empty one")
        with self._lock:
            self._segmenter.start(pp_image, inside.astype(np.uint8))
            return TrackingState(self._segmenter.snapshot(), size)

    def track(
        self, context: sdk.TrackingFunctionShapeContext, pp_image: np.ndarray, state: TrackingState
    ) -> sdk.TrackableShape | None:
        """The shape in the next frame; None where nothing of it is found."""
        with self._lock:
            self._segmenter.restore(state.snapshot)
            mask = self._segmenter.step(pp_image)
            state.snapshot = self._segmenter.snapshot()
        if not mask.any():
            return None
        if context.original_shape_type == "mask":
            return sdk.TrackableShape(type="mask", points=encode_mask(mask > 0))
        return sdk.TrackableShape(type="polygon", points=to_polygon(mask > 0))


def to_polygon(inside: np.ndarray) -> list[float]:
    """The outline of the largest part of a mask bool [H, W], without its holes: x, y, x, y, ..., pixel 0 is 0..1."""
    left, top, width, height = cv2.boundingRect(inside.astype(np.uint8))
    part = inside[top : top + height, left : left + width].astype(np.uint8)
    # OpenCV's contours go through the centres of pixels; through those of small ones they are near the outline.
    fine = cv2.resize(part, None, fx=_FINE, fy=_FINE, interpolation=cv2.INTER_NEAREST_EXACT)
    contours, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(contours, key=cv2.contourArea)
    points = cv2.approxPolyDP(largest, _TOLERANCE * _FINE, closed=True)[:, 0]
    return ((points + 0.5) / _FINE + (left, top)).ravel().tolist()


def create(preset: str = DEFAULT_PRESET, **options: Any) -> MaskTracker:
    """What `cvat-cli` makes the function with; see the module."""
    return MaskTracker(preset, **options)

"""First masks where nobody has said what the objects are: of what stands out in a frame.

The shipped RVOS sees the frame a few times, as a video in which nothing moves, and marks what stands out as one. Every
part of it is an object; the network that makes masks of boxes is shown the box around each, and completes it.
"""

from __future__ import annotations

import functools

import numpy as np

from osmn_tf.errors import InputError, check_backend
from osmn_tf.inference.predictor import Predictor, open_predictor
from osmn_tf.inference.prompting import check_frame, object_in_box, open_shipped
from osmn_tf.masks.prompts import check_box
from osmn_tf.models.presets import finding_network

Array = np.ndarray

MOST_OBJECTS = 5
"""How many objects are found where no number is given."""

_PASSES = 3
# Parts of a smaller share of the largest one's area are no objects.
_LEAST = 0.1
# A part of which so much belongs to the object of a larger one is of that object.
_SAME = 0.5


def find_objects(frame: Array, objects: int = MOST_OBJECTS) -> Array:
    """Finds what stands out in a frame. The result is the same in every run.

    Args:
        frame: uint8 RGB [H, W, 3].
        objects: at most so many, 1 to 254; the largest.

    Returns:
        uint8 [H, W]: 0, and 1, 2, ... for the objects from the largest on; all 0 where nothing stands out.

    Raises:
        InputError: the frame has another shape or dtype, the number is out of its range, or this installation came
            without the networks.
        MissingDependencyError: what runs them is not installed.

    Example:
        >>> import osmn_tf as osmn
        >>> from osmn_tf.datasets.examples import example_path
        >>> frame = osmn.read_video(example_path() / "meadow.mp4")[0]
        >>> mask = osmn.find_objects(frame)  # the car, the bird and the ball
        >>> mask.shape, int(mask.max()), int(mask[300, 190])
        ((480, 854), 3, 1)
    """
    check_frame(frame)
    if not 1 <= objects < 255:
        raise InputError(f"objects: expected 1..254, received {objects}")
    result = np.zeros(frame.shape[:2], np.uint8)
    parts = _parts(_standing_out(_open_finder(), frame))
    for part in parts:
        label = int(result.max()) + 1
        if label > objects:
            break
        if np.count_nonzero(result[part]) > _SAME * np.count_nonzero(part):
            continue
        result[_completed(frame, part) & (result == 0)] = label
    return result


def check_finding() -> None:
    """Looks for what finds objects.

    Raises:
        MissingDependencyError: Keras or its backend is not installed.
    """
    check_backend("finding objects where none is marked with a mask, box or click")


@functools.lru_cache(maxsize=1)
def _open_finder() -> Predictor:
    check_finding()
    return open_predictor(str(finding_network()))


def _standing_out(predictor: Predictor, frame: Array) -> Array:
    """bool [H, W]: all that the network finds."""
    predictor.forget()
    predictor.begin(frame, None)
    found = np.zeros(frame.shape[:2], bool)
    for _ in range(_PASSES if predictor.objects else 0):
        found = predictor.advance(frame).winners > 0
    predictor.forget()
    return found


def _parts(found: Array) -> list[Array]:
    """Connected parts bool [H, W], from the largest on, without the small ones."""
    import cv2

    count, parts = cv2.connectedComponents(found.astype(np.uint8))
    areas = {number: np.count_nonzero(parts == number) for number in range(1, count)}
    least = _LEAST * max(areas.values(), default=0)
    return [parts == number for number in sorted(areas, key=lambda each: -areas[each]) if areas[number] >= least]


def _completed(frame: Array, part: Array) -> Array:
    """A part, with what belongs to it inside its box."""
    import cv2

    left, top, width, height = cv2.boundingRect(part.astype(np.uint8))
    box = left, top, width, height
    try:
        check_box(box, part.shape)
    except InputError:  # too small to be completed
        return part
    inside = object_in_box(open_shipped(), frame, box)
    return part if inside is None else part | inside

"""First masks from boxes and clicks, made by a network of the kind that tracks.

The network is shown a rough shape as if it were the object's mask, an ellipse in a box or discs around clicks, and
segments the same picture; what it answers takes the shape's place, some times. Of a box it sees what is around it, at
that part's full resolution, and so of a small object that it has found where the click was. The shipped one was trained
to do this (`configs/osmn_match_prompts.yaml`) from the default preset on, which it no longer equals where several
objects look alike.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.inference.predictor import Predictor, open_predictor
from osmn_tf.masks.prompts import Box, Click, check_box, check_clicks, discs, ellipse
from osmn_tf.models.presets import prompt_network

Array = np.ndarray

_PASSES = 3
# Sides of the part of the frame that the network sees, in sides of the box.
_SURROUNDINGS = 1.6
# Of the frame's area: a part that is larger is not looked at again, since it would hardly have more pixels.
_SMALL_PART = 0.5
# An object may stick out of its box by so much of the box's sides on each side.
_BEYOND_BOX = 0.05
# Of the area of a shape: a smaller answer is none.
_LEAST = 0.05


def mask_from_box(frame: Array, *boxes: Box, network: Any = None) -> Array:
    """Segments the object in each box. The result is the same in every run.

    Each box must hold the whole object and little else. What is outside of it says what the background is: in a box
    that is all of the frame, all that stands out is the object. Objects are cut out one by one; where they overlap, the
    one with the smaller box is in front.

    Args:
        frame: uint8 RGB [H, W, 3].
        *boxes: (left, top, width, height) in pixels, 1 to 254 of them.
        network: what makes the masks, as `open_predictor` takes it: one that was trained with prompts. Default: the
            shipped one.

    Returns:
        uint8 [H, W]: value k is the object in box k, counted from 1.

    Raises:
        InputError: a box is not inside the frame or too small, or nothing was found in it.
        MissingDependencyError: ai-edge-litert is not installed.

    Example:
        >>> import osmn_tf as osmn
        >>> from osmn_tf.datasets.examples import example_path
        >>> frame = osmn.read_video(example_path() / "meadow.mp4")[0]
        >>> mask = osmn.mask_from_box(frame, (31, 222, 320, 145))  # the car
        >>> mask.shape, int(mask[300, 190]), int(mask[10, 10])
        ((480, 854), 1, 0)
    """
    check_frame(frame)
    size = frame.shape[:2]
    if not 1 <= len(boxes) <= 254:
        raise InputError(f"boxes: expected 1 to 254 boxes, received {len(boxes)}")
    for box in boxes:
        check_box(box, size)
    predictor = _opened(network)
    result = np.zeros(size, np.uint8)
    # Large boxes first, so that smaller ones are painted over them.
    for index in sorted(range(len(boxes)), key=lambda i: (-boxes[i][2] * boxes[i][3], i)):
        found = object_in_box(predictor, frame, boxes[index])
        if found is None:
            raise InputError(
                f"box {_name(boxes[index])}: no object stands out from its surroundings; give a mask, or a box that "
                "holds all of the object and a little more"
            )
        result[found] = index + 1
    for index, box in enumerate(boxes):
        if not np.any(result == index + 1):
            raise InputError(
                f"box {_name(box)}: the other boxes' objects cover its object entirely; give a mask instead"
            )
    return result


def mask_from_click(frame: Array, *clicks: Click, background: Sequence[Click] = (), network: Any = None) -> Array:
    """Segments the object that was clicked. The result is the same in every run.

    A click says less than a box, above all how far the object reaches. Where one is not enough, add clicks on other
    parts of the object and on what is not part of it: each changes only the connected part of the mask that it is in,
    and nothing that another click speaks against.

    Args:
        frame: uint8 RGB [H, W, 3].
        *clicks: (x, y) in pixels, one or more on the same object.
        background: (x, y) of points that are not part of it.
        network: what makes the mask, as `open_predictor` takes it: one that was trained with prompts. Default: the
            shipped one.

    Returns:
        uint8 [H, W]: 1 is the object. Parts without a click are not it, unless no part has one.

    Raises:
        InputError: there is no click, one is outside of the frame, or nothing was found around them.
        MissingDependencyError: ai-edge-litert is not installed.

    Example:
        >>> import osmn_tf as osmn
        >>> from osmn_tf.datasets.examples import example_path
        >>> frame = osmn.read_video(example_path() / "meadow.mp4")[0]
        >>> mask = osmn.mask_from_click(frame, (190, 300))  # the car
        >>> int(mask[300, 190]), int(mask[10, 10])
        (1, 0)
    """
    check_frame(frame)
    size = frame.shape[:2]
    check_clicks(clicks, size)
    if background:
        check_clicks(background, size)
    predictor, found = _opened(network), None
    given = [(click, True) for click in clicks] + [(click, False) for click in background]
    for number, (click, is_object) in enumerate(given, start=1):
        if found is not None and found[click[::-1]] == is_object:
            continue  # nothing to correct
        inside, outside = ([at for at, of_object in given[:number] if of_object is kind] for kind in (True, False))
        shapes = np.stack([discs(points, size) for points in (inside, outside) if points])
        answers = _answers(predictor, frame, shapes, np.ones(size, bool))
        if answers is None:
            continue
        answers[0] = _clicked(answers[0], inside)
        answer = _clicked(_closer(predictor, frame, answers)[0], inside)
        if found is None:
            found = answer
            continue
        # The rest of what this click changed is chance: what was right far from it stays.
        change = _parts_at(answer & ~found if is_object else found & ~answer, [click])
        if not any(change[y, x] for x, y in (outside if is_object else inside)):
            found = found ^ change
    if found is None:
        x, y = clicks[0]
        raise InputError(f"click {x},{y}: no object stands out there; draw a box around it")
    return found.astype(np.uint8)


def open_shipped() -> Predictor:
    """The shipped network that makes first masks, opened once in a process.

    Raises:
        InputError: this installation came without it.
        MissingDependencyError: ai-edge-litert is not installed.
    """
    return _opened_once(str(prompt_network()))


@functools.lru_cache(maxsize=2)
def _opened_once(network: str) -> Predictor:
    return open_predictor(network)


def _opened(network: Any) -> Predictor:
    if network is None:
        return open_shipped()
    return _opened_once(network) if isinstance(network, str) else open_predictor(network)


def object_in_box(predictor: Predictor, frame: Array, box: Box) -> Array | None:
    """bool [H, W]: the object in a box, as the network that makes first masks sees it; None where there is none."""
    x, y, width, height = box
    window = _window(box, frame.shape[:2], predictor.network_size)
    around_x, around_y = _BEYOND_BOX * width, _BEYOND_BOX * height
    allowed = np.zeros(frame.shape[:2], bool)
    allowed[
        max(0, round(y - around_y)) : round(y + height + around_y),
        max(0, round(x - around_x)) : round(x + width + around_x),
    ] = True
    answers = _answers_within(predictor, frame, window, ellipse(box, frame.shape[:2])[None], allowed)
    return None if answers is None else answers[0]


def _window(box: Box, size: tuple[int, int], network_size: tuple[int, int] | None) -> tuple[slice, slice]:
    """The part of a frame of `size` = (H, W) around a box, of the network's proportions if the frame has room."""
    x, y, width, height = box
    rows, columns = _SURROUNDINGS * height, _SURROUNDINGS * width
    if network_size is not None:
        aspect = network_size[1] / network_size[0]
        rows, columns = max(rows, columns / aspect), max(columns, rows * aspect)
    rows, columns = min(size[0], round(rows)), min(size[1], round(columns))
    top = int(np.clip(round(y + height / 2 - rows / 2), 0, size[0] - rows))
    left = int(np.clip(round(x + width / 2 - columns / 2), 0, size[1] - columns))
    return slice(top, top + rows), slice(left, left + columns)


def _closer(predictor: Predictor, frame: Array, answers: Array) -> Array:
    """Answers of the whole frame, bool [N, H, W], improved around the first one's object where that is small."""
    import cv2

    size = frame.shape[:2]
    x, y, width, height = cv2.boundingRect(answers[0].astype(np.uint8))
    window = _window((x, y, width, height), size, predictor.network_size)
    if answers[0][window].size > _SMALL_PART * answers[0].size:
        return answers
    closer = _answers_within(predictor, frame, window, answers, np.ones(size, bool))
    return answers if closer is None else closer


def _answers_within(
    predictor: Predictor, frame: Array, window: tuple[slice, slice], shapes: Array, allowed: Array
) -> Array | None:
    """`_answers` of a part of the frame, in the frame's size."""
    part = (slice(None), *window)
    answers = _answers(predictor, np.ascontiguousarray(frame[window]), shapes[part], allowed[window])
    if answers is None:
        return None
    whole = np.zeros_like(shapes)
    whole[part] = answers
    return whole


def _answers(predictor: Predictor, frame: Array, shapes: Array, allowed: Array) -> Array | None:
    """What the network makes of rough shapes, both bool [N, H, W]; None if it finds nothing of the first."""
    masks = shapes
    least = _LEAST * shapes.sum(axis=(1, 2))
    found = False
    for _ in range(_PASSES):
        winners = predictor.probe(frame, masks.astype(np.uint8))
        answers = np.stack([(winners == index + 1) & allowed for index in range(len(masks))])
        enough = answers.sum(axis=(1, 2)) >= np.maximum(least, 1)
        masks = np.where(enough[:, None, None], answers, masks)
        found = found or bool(enough[0])
    return masks if found else None


def _clicked(found: Array, clicks: Sequence[Click]) -> Array:
    """The connected parts of a mask that were clicked; all of it where none was."""
    parts = _parts_at(found, clicks)
    return parts if parts.any() else found


def _parts_at(mask: Array, points: Sequence[Click]) -> Array:
    """The connected parts of a mask, bool [H, W], that hold a point."""
    import cv2

    _, parts = cv2.connectedComponents(mask.astype(np.uint8))
    return np.isin(parts, list({int(parts[y, x]) for x, y in points} - {0}))


def check_frame(frame: Array) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise InputError(f"frame: expected uint8 [H, W, 3], received {frame.dtype} {list(frame.shape)}")


def _name(box: Box) -> str:
    return ",".join(str(value) for value in box)

"""The objects of a video as they are given: by masks, annotations, boxes, clicks or a detector; and where they end."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from osmn_tf.datasets.annotations import is_annotation_file, read_annotations
from osmn_tf.errors import InputError, name_some
from osmn_tf.inference.prompting import mask_from_box, mask_from_click
from osmn_tf.jobs.options import SegmentOptions
from osmn_tf.masks.files import read_mask, resize_mask
from osmn_tf.masks.labels import VOID, labels_of
from osmn_tf.masks.prompts import Box, Click
from osmn_tf.video.readers import TruncatedVideoError
from osmn_tf.video.source import FrameSource, open_source

if TYPE_CHECKING:
    from osmn_tf.datasets.detections import FileDetections


@dataclasses.dataclass(frozen=True)
class GivenObjects:
    """The objects of a job.

    Attributes:
        masks: index among the selected frames -> mask uint8 [H, W] with labels. Empty: they are to be found.
        prompted: index of the first mask that was made from boxes or clicks, if any was.
        absent: label -> indexes among the selected frames in which it is not tracked.
    """

    masks: dict[int, np.ndarray]
    prompted: int | None
    absent: dict[int, list[range]]


def given_objects(options: SegmentOptions, source: FrameSource) -> GivenObjects:
    """Reads, and makes from prompts, the masks of all objects.

    Args:
        options: of the job.
        source: its selected frames.

    Raises:
        InputError: a file is damaged or of another video; a mask is unusable or of a frame that is not selected;
            nothing was found in a box or at a click; or an object ends before it begins.
    """
    annotated = _annotated(options, source)
    masks, prompted = _given_masks(options, source, annotated)
    return GivenObjects(masks, prompted, _absences(options, masks, annotated))


def read_detections_of(options: SegmentOptions, source: FrameSource) -> FileDetections:
    """The instances of all frames of the video, whichever are selected; all of them checked.

    Raises:
        InputError: a file is damaged, or of another video.
    """
    from osmn_tf.datasets.detections import read_detections

    whole = open_source(options.video)
    names = [file.name for file in whole.files] if whole.path.is_dir() else whole.count_frames()
    return read_detections(
        options.detections or "",
        names,
        source.size,
        images=options.detection_images,
        video=source.name,
        min_score=options.min_score,
    )


def _index(number: int, options: SegmentOptions, source: FrameSource, argument: str) -> int:
    """The index among the selected frames that frame `number` of the video has.

    Raises:
        InputError: it is not selected.
    """
    index, remainder = divmod(number - options.start, options.every)
    if index < 0 or remainder:
        raise InputError(f"{argument}: frame {number} is not among those chosen by --start and --every")
    if source.info.frames is not None and index >= source.info.frames:
        # What a file says of its length is an estimate at times.
        with contextlib.suppress(TruncatedVideoError):
            if index >= (count := source.count_frames()):
                kind = argument.removeprefix("--")
                raise InputError(
                    f"{argument}: a {kind} is given for frame {number}, but the selection has {count} frames"
                )
    return index


def frame_of(source: FrameSource, index: int, argument: str) -> np.ndarray:
    """A frame of which something is given, uint8 [H, W, 3].

    Raises:
        InputError: the video ends before it, whatever its file says of its length.
    """
    try:
        return source[index]
    except IndexError:
        kind, number = argument.removeprefix("--"), source.number(index)
        raise InputError(f"{argument}: a {kind} is given for frame {number}, which the video does not have") from None


@dataclasses.dataclass(frozen=True)
class _Annotated:
    """What a file of annotations says of a video.

    Attributes:
        masks: number of a frame -> its mask uint8 [H, W].
        boxes: number of a frame -> label -> box of an object of which there is no mask.
        hidden: label -> numbers of the frames in which the object is not seen.
    """

    masks: Mapping[int, np.ndarray] = dataclasses.field(default_factory=dict)
    boxes: Mapping[int, Mapping[int, Box]] = dataclasses.field(default_factory=dict)
    hidden: Mapping[int, Sequence[range]] = dataclasses.field(default_factory=dict)


def _given_masks(
    options: SegmentOptions, source: FrameSource, annotated: _Annotated
) -> tuple[dict[int, np.ndarray], int | None]:
    """({index among the selected frames: uint8 [H, W]}, the first of them whose mask was made from boxes
    or clicks).

    Raises:
        InputError: a mask is unreadable, unusable or of a frame that is not selected; a box or a click is not inside
            its frame or nothing was found there; or there is none of them where they are needed.
    """
    if not (options.marked or options.detections) and (options.both_ways or options.finetunes):
        what = "--both-ways" if options.both_ways else "--finetune"
        raise InputError(f"{what}: needs the objects as --mask PNG, --box X,Y,W,H or --click X,Y")
    if options.detections and not options.marked:
        return {0: _detected(options, source)}, None
    given: dict[int, np.ndarray] = {}
    boxed: dict[int, Mapping[int, Box]] = {}
    for number, mask in (*options.masks.items(), *annotated.masks.items()):
        index = _index(number, options, source, "--mask")
        if index in given:
            raise InputError(f"--mask {options.annotations}: frame {number} has a mask already")
        boxes = annotated.boxes.get(number, {})
        if not isinstance(mask, np.ndarray):
            mask, boxes = _read_one(number, mask, options, source)
        elif mask.ndim != 2 or mask.dtype not in (np.uint8, np.bool_):
            received = f"{mask.dtype} {list(mask.shape)}"
            raise InputError(f"masks: expected uint8 [H, W] with labels for frame {number}, received {received}")
        given[index] = mask
        if boxes:
            boxed[index] = boxes
    labels = {label for mask in given.values() for label in labels_of(mask)}
    label = max(labels.union(*boxed.values()), default=0)
    for index, boxes in boxed.items():
        _fill_boxes(given[index], boxes, frame_of(source, index, "--mask"), source.number(index))
    prompted: int | None = min(boxed, default=None)
    for argument, number, count, make in _prompts(options):
        index = _index(number, options, source, argument)
        prompted = index if prompted is None else prompted
        if label + count >= VOID:
            raise InputError(f"{argument}: expected at most {VOID - 1} objects, received {label + count}")
        found = make(frame_of(source, index, argument))
        found = np.where(found > 0, found + np.uint8(label), 0).astype(np.uint8)
        label += count
        given[index] = np.where(given[index] > 0, given[index], found) if index in given else found
        if hidden := set(range(label - count + 1, label + 1)) - set(labels_of(given[index])):
            raise InputError(f"{argument}: the objects before it cover all of object {min(hidden)} in frame {number}")
    return given, prompted


def _annotated(options: SegmentOptions, source: FrameSource) -> _Annotated:
    """Of all annotated frames that are selected.

    Raises:
        InputError: the file is damaged, of another video, or has no object in what is selected.
    """
    if options.annotations is None:
        return _Annotated()
    found = _read_annotated(options.annotations, options, source)
    end = math.inf if options.end is None else options.end
    chosen = {
        number: mask
        for number, mask in found.masks.items()
        if options.start <= number < end and (number - options.start) % options.every == 0
    }
    if not chosen:
        there = name_some(list(found.masks))
        raise InputError(f"--mask {options.annotations}: no annotated frame (it has {there}) is among those selected")
    return _Annotated(chosen, found.boxes, found.hidden)


def _fill_boxes(mask: np.ndarray, boxes: Mapping[int, Box], frame: np.ndarray, number: int) -> None:
    """Makes masks of the boxes in a frame, behind the objects in `mask` [H, W], which has them then.

    Raises:
        InputError: nothing is found in a box, or other objects cover what is.
    """
    try:
        found = mask_from_box(frame, *boxes.values())
    except InputError as error:
        raise InputError(f"--mask, frame {number}: {error}") from error
    free = mask == 0
    for place, label in enumerate(boxes, 1):
        mask[free & (found == place)] = label
        if label not in labels_of(mask):
            raise InputError(f"--mask, frame {number}: the other objects cover all of object {label}, which has a box")


def _read_one(
    number: int, path: str | os.PathLike[str], options: SegmentOptions, source: FrameSource
) -> tuple[np.ndarray, Mapping[int, Box]]:
    """The mask of a frame uint8 [H, W], of a PNG or of annotations, and the boxes of these."""
    if not is_annotation_file(path):
        return read_mask(path, size=source.size, resize=options.resize_mask), {}
    found = _read_annotated(path, options, source)
    if number not in found.masks:
        there = name_some(list(found.masks))
        raise InputError(f"--mask {number}:{path}: expected an annotated frame, it has {there}")
    return found.masks[number], found.boxes.get(number, {})


def _read_annotated(path: str | os.PathLike[str], options: SegmentOptions, source: FrameSource) -> _Annotated:
    """Of a file of annotations.

    Raises:
        InputError: the file is damaged, of another video, or has no objects.
    """
    annotations = read_annotations(path, interpolated=False)
    height, width = source.size
    whole = open_source(options.video)
    try:
        numbers = annotations.numbers([file.stem for file in whole.files] if whole.path.is_dir() else None)
    except InputError as error:
        raise InputError(f"--mask {path}: {error}") from error
    if annotations.size != source.size and not options.resize_mask:
        received = f"{annotations.size[1]}x{annotations.size[0]}"
        raise InputError(
            f"--mask {path}: expected annotations of the video's size, {width}x{height}, but they are of {received} "
            "(width x height); give --resize-mask (resize_mask=True) to scale them"
        )
    nothing = np.zeros(annotations.size, np.uint8)
    masks = {number: annotations.masks.get(index, nothing).copy() for index, number in numbers.items()}
    boxes = {numbers[index]: of_frame for index, of_frame in annotations.boxes.items()}
    if annotations.size != source.size:
        scale = width / annotations.size[1], height / annotations.size[0]
        boxes = {number: {label: _scaled(box, scale) for label, box in some.items()} for number, some in boxes.items()}
        masks = {number: resize_mask(mask, source.size) for number, mask in masks.items()}
        masks = {number: mask for number, mask in masks.items() if labels_of(mask) or number in boxes}
    if not masks:
        raise InputError(f"--mask {path}: it has no object in any frame")
    first = annotations.first
    hidden = {
        label: [range(span.start + first, span.stop + first) for span in spans]
        for label, spans in annotations.hidden.items()
    }
    return _Annotated(masks, boxes, hidden)


def _scaled(box: Box, scale: tuple[float, float]) -> Box:
    """A box in a picture of another size."""
    x, y, width, height = box
    left, top = round(x * scale[0]), round(y * scale[1])
    return left, top, round((x + width) * scale[0]) - left, round((y + height) * scale[1]) - top


def _prompts(options: SegmentOptions) -> Iterator[tuple[str, int, int, Callable[[np.ndarray], np.ndarray]]]:
    """Of boxes and of clicks: argument, number of a frame, number of objects, what makes their mask of the frame."""
    for number, boxes in sorted(options.boxes.items()):
        if boxes:
            yield "--box", number, len(boxes), functools.partial(_boxed, boxes)
    for number, objects in sorted(options.clicks.items()):
        for place, clicks in enumerate(objects):
            # What was clicked as another object is not this one.
            others = [click for other, some in enumerate(objects) if other != place for click in some]
            yield "--click", number, 1, functools.partial(_clicked, clicks, others)


def _boxed(boxes: Sequence[Box], frame: np.ndarray) -> np.ndarray:
    return mask_from_box(frame, *boxes)


def _clicked(clicks: Sequence[Click], others: Sequence[Click], frame: np.ndarray) -> np.ndarray:
    return mask_from_click(frame, *clicks, background=others)


def _absences(
    options: SegmentOptions, given: Mapping[int, np.ndarray], annotated: _Annotated
) -> dict[int, list[range]]:
    """{label: indexes among the selected frames in which it is not tracked}: what was said of its end, or else what
    the annotations say; up to the object's next mask.

    Raises:
        InputError: there is no such object, or it ends where it begins or before.
    """
    places: dict[int, list[int]] = {}
    for index in sorted(given):
        for label in labels_of(given[index]):
            places.setdefault(label, []).append(index)

    def indexes(label: int, numbers: range) -> range:
        start, stop = (-(-(number - options.start) // options.every) for number in (numbers.start, numbers.stop))
        return range(start, min((place for place in places.get(label, ()) if place >= start), default=stop))

    absent = {
        label: [indexes(label, span) for span in spans] for label, spans in annotated.hidden.items() if label in places
    }
    for label, number in options.ends.items():
        if given and label not in places:  # without masks nobody knows yet what is going to be found
            known = ", ".join(map(str, sorted(places)))
            raise InputError(f"--until {label}:{number}: expected one of the objects {known}")
        absent[label] = [indexes(label, range(number, sys.maxsize))]
        if -(-(number - options.start) // options.every) <= places.get(label, [0])[0]:
            raise InputError(f"--until {label}:{number}: expected a frame behind the first one of object {label}")
    return {label: [span for span in spans if span] for label, spans in absent.items() if any(spans)}


def _detected(options: SegmentOptions, source: FrameSource) -> np.ndarray:
    """The objects that a detector has found in the first frame: uint8 [H, W], 1 is the one with the best score."""
    number = source.number(0)
    size = source.size
    found = read_detections_of(options, source)(number)
    mask = np.zeros(size, np.uint8)
    # The best one is painted last, over the others.
    for label, instance in reversed(list(enumerate(found[:254], start=1))):
        mask[instance.mask] = label
    if not mask.any():
        raise InputError(
            f"detections: {options.detections} has nothing in frame {number} with a score of {options.min_score:g} or"
            " more"
        )
    return mask

"""What can be said of one video to segment: the options of a job."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from osmn_tf.inference.predictor import PredictorOptions
from osmn_tf.jobs.outputs import Look
from osmn_tf.masks.prompts import Box, Click
from osmn_tf.models.presets import DEFAULT_PRESET


@dataclasses.dataclass(frozen=True)
class SegmentOptions:
    """What to segment, with which network, and which results to write where.

    Attributes:
        video: video file, folder of images, or image.
        masks: number of a frame of the video (from 0) -> its mask, as uint8 [H, W], a file, or a file of annotations
            (`osmn_tf.datasets.annotations`) of which this frame is taken.
        annotations: file of annotations all of whose frames are given, of those that are selected; where it has
            tracks, the frames in which somebody has drawn an object.
        boxes: number of a frame -> boxes around objects in it, (x, y, width, height) in pixels. Their labels go on
            behind those in `masks`, in the order of the frames and of the boxes.
        clicks: number of a frame -> objects that were clicked in it, each by one or more (x, y) in pixels. Their labels
            go on behind those in boxes. With no mask, box or click the objects are those that stand out
            (`VideoSegmenter.start`).
        ends: label of an object -> number of the frame from which on it is not tracked.
        detections: a detector's results (`osmn_tf.datasets.detections`). With masks or boxes they help in every frame
            (`osmn_tf.inference.semantic`); without, the objects are what it has found in the first frame, numbered from
            the best score on.
        detection_images: file with the list of images or videos that they belong to, where it is not in the same file.
        min_score: of the detections that count.
        resize_mask: accept masks of another size than the video's.
        both_ways: also go backward, to the frames before an object's first mask.
        start, end, every: which frames to take, as `open_source`.
        preset: name, folder or file of a preset, folder of an exported network, or address of a server.
        network: how it is used.
        finetune: steps of online fine-tuning on the given masks; None: `time`, or what the network needs.
        finetune_rate: their learning rate; None: the network's own.
        time: seconds of fine-tuning for every object, instead of steps.
        snap: let the masks follow the contours of the frame (`osmn_tf.inference.snapping`), but for those given.
        contours: preset of a network that finds them; None: they are gradients of the colour.
        explain: draw what the detector has found into the overlay and the contact sheet, white where it was taken.
        out: folder of the results.
        outputs: kind of result (`osmn_tf.jobs.outputs`) -> its file or folder; None: named after the video, in `out`.
            "masks" are always written, to OUT/NAME.
        look: how the pictures among them look.
        force: replace the results of another command. What this package has not written is never touched.
    """

    video: str | os.PathLike[str]
    masks: Mapping[int, str | os.PathLike[str] | np.ndarray] = dataclasses.field(default_factory=dict)
    annotations: str | os.PathLike[str] | None = None
    boxes: Mapping[int, Sequence[Box]] = dataclasses.field(default_factory=dict)
    clicks: Mapping[int, Sequence[Sequence[Click]]] = dataclasses.field(default_factory=dict)
    ends: Mapping[int, int] = dataclasses.field(default_factory=dict)
    detections: str | os.PathLike[str] | None = None
    detection_images: str | os.PathLike[str] | None = None
    min_score: float = 0.5
    resize_mask: bool = False
    both_ways: bool = False
    start: int = 0
    end: int | None = None
    every: int = 1
    preset: str | os.PathLike[str] = DEFAULT_PRESET
    network: PredictorOptions = dataclasses.field(default_factory=PredictorOptions)
    finetune: int | None = None
    finetune_rate: float | None = None
    time: float | None = None
    snap: bool = False
    contours: str | os.PathLike[str] | None = None
    explain: bool = False
    out: str | os.PathLike[str] = "osmn_output"
    outputs: Mapping[str, str | os.PathLike[str] | None] = dataclasses.field(
        default_factory=lambda: {"overlay": None, "sheet": None}
    )
    look: Look = dataclasses.field(default_factory=Look)
    force: bool = False

    @property
    def marked(self) -> bool:
        """Whether it is said where objects are: by masks, annotations, boxes or clicks."""
        masks = bool(self.masks) or self.annotations is not None
        return masks or any(self.boxes.values()) or any(self.clicks.values())

    @property
    def mask_files(self) -> list[Path]:
        """The files that masks are read from."""
        given = [*self.masks.values(), *([] if self.annotations is None else [self.annotations])]
        return [Path(mask) for mask in given if not isinstance(mask, np.ndarray)]

    @property
    def detection_files(self) -> list[Path]:
        """The files that detections are read from."""
        return [Path(path) for path in (self.detections, self.detection_images) if path is not None]

    @property
    def finetunes(self) -> bool:
        """Whether fine-tuning is asked for, whatever the network does by itself."""
        return bool(self.finetune) or self.time is not None

"""The report of an evaluation: one HTML page that needs no other file, and the same figures as PNG."""

from __future__ import annotations

import base64
import math
import os
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from osmn_tf import files
from osmn_tf.errors import import_extra
from osmn_tf.evaluation import analysis, figures
from osmn_tf.evaluation.benchmark import Evaluation, MethodScores, ObjectScores, global_row
from osmn_tf.evaluation.facts import published_scores
from osmn_tf.evaluation.metrics import boundary_radius
from osmn_tf.evaluation.protocols import Sequence
from osmn_tf.evaluation.scoring import CLOSE_TOLERANCE, object_masks
from osmn_tf.version import __version__

Array = NDArray[Any]

_WORST_FRAMES = 6
_IMAGE_WIDTH = 480
_RIGHT_COLOR = "#3FA34D"
_LOWER_IS_BETTER = ("J-Decay", "F-Decay", "T-Mean")
_MEANINGS = {
    "J&F-Mean": "mean of J and F",
    "Overall": "mean of the four",
    "J-Mean": "region similarity",
    "J-Recall": "share of frames with J above 0.5",
    "J-Decay": "first quarter minus last quarter",
    "F-Mean": "boundary accuracy",
    "F-Recall": "share of frames with F above 0.5",
    "F-Decay": "first quarter minus last quarter",
    "T-Mean": "change of shape from frame to frame",
    "J-Seen": "categories of the training set",
    "J-Unseen": "other categories",
    "F-Seen": "categories of the training set",
    "F-Unseen": "other categories",
}


_HEADINGS = {
    "overall": "Overall",
    "sequences": "Sequences",
    "time": "Over time",
    "attributes": "Attributes",
    "errors": "Kinds of error",
    "worst": "Worst frames",
}


def check_packages() -> None:
    """Raises `MissingDependencyError` unless what `write_report` needs is installed."""
    for package in ("jinja2", "matplotlib"):
        import_extra(package, package, "report", "a report")


def write_report(evaluation: Evaluation, out: str | os.PathLike[str]) -> Path:
    """Writes `<out>/report.html` and `<out>/figures/*.png`.

    The page holds the table of the methods beside published numbers, J and F per sequence, over normalised time and per
    attribute, the split of the errors, and every method's worst frames.

    Returns:
        The path of the page.

    Raises:
        MissingDependencyError: `check_packages`.
        InputError: a mask of one of the worst frames cannot be read any more.
    """
    check_packages()
    import jinja2

    drawn = figures.draw(evaluation)
    out = files.ensure_directory(out, "--out")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"percent": _percent, "gain": _gain}
    template = environment.from_string(resources.files(__package__).joinpath("report.html").read_text())
    page = template.render(_contents(evaluation), figures={name: figures.to_svg(f) for name, f in drawn.items()})
    files.write_text(out / "report.html", page)
    figures.write_pngs(drawn, out / "figures")
    return out / "report.html"


def _contents(evaluation: Evaluation) -> dict[str, Any]:
    """What the page says; the template says where."""
    protocol, methods = evaluation.protocol, evaluation.methods
    # The hyphen of OSVOS-S does not end a line.
    published = [
        {**entry, "method": entry["method"].replace("-S", "\N{NON-BREAKING HYPHEN}S")}
        for entry in published_scores(protocol.name)
    ]
    by_sequence = [{row.sequence: row for row in analysis.by_sequence(method)} for method in methods]
    by_attribute = [{score.attribute: score for score in analysis.by_attribute(method)} for method in methods]
    with_attributes = protocol.name == "davis-2016"
    attributes = [[scores[name] for scores in by_attribute] for name in sorted(by_attribute[0]) if with_attributes]
    frames = sum(len(sequence.frames) for sequence in evaluation.sequences)
    return {
        "title": f"{protocol.title}, {evaluation.split}",
        "version": __version__,
        "split": evaluation.split,
        "skip": protocol.skip.replace("-", " "),
        "stability": protocol.temporal_stability,
        "close_tolerance": CLOSE_TOLERANCE,
        "headings": {name: title for name, title in _HEADINGS.items() if attributes or name != "attributes"},
        "counts": [
            _count(len(evaluation.sequences), "sequence"),
            _count(len(methods[0].objects), "object"),
            _count(frames, "scored frame"),
        ],
        "methods": [
            {"name": method.name, "color": figures.method_color(index), "worst": _worst(evaluation, method)}
            for index, method in enumerate(methods)
        ],
        "published": published,
        "published_splits": sorted({entry["split"] for entry in published}),
        "overall": _overall(evaluation, published),
        "sequences": [(name, [rows[name] for rows in by_sequence]) for name in analysis.sequence_order(evaluation)],
        "attributes": attributes,
        "colors": {"right": _RIGHT_COLOR} | {figures.ERROR_TITLES[name]: c for name, c in figures.ERROR_COLORS.items()},
    }


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _percent(value: float) -> str:
    return "\N{EN DASH}" if math.isnan(value) else f"{100 * value:.1f}"


def _gain(value: float) -> str:
    return "" if math.isnan(value) else f"({100 * value:+.1f})"


def _overall(evaluation: Evaluation, published: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The overall numbers, a row for each: of the methods, and as published."""
    rows = [global_row(evaluation, method) for method in evaluation.methods]
    if evaluation.protocol.temporal_stability:
        for row, method in zip(rows, evaluation.methods):
            row["T-Mean"] = method.t
    table = []
    for column in rows[0]:
        mine = [row[column] for row in rows]
        best = min if column in _LOWER_IS_BETTER else max
        table.append(
            {
                "title": column.replace("-Mean", "").replace("-", " "),
                "meaning": _MEANINGS[column],
                "mine": mine,
                "best": best((value for value in mine if not math.isnan(value)), default=math.nan),
                "published": [entry.get(column, "\N{EN DASH}") for entry in published],
            }
        )
    return table


def _worst(evaluation: Evaluation, method: MethodScores) -> list[dict[str, Any]]:
    """The method's worst frames with their overlays."""
    by_name = {sequence.name: sequence for sequence in evaluation.sequences}
    return [
        {
            "name": scores.name,
            "frame": scores.frames[index],
            "j": scores.j[index],
            "f": scores.f[index],
            "jpeg": base64.b64encode(_overlay(evaluation, by_name[scores.sequence], method, scores, index)).decode(),
        }
        for scores, index in analysis.worst_frames(method, _WORST_FRAMES)
    ]


def _overlay(
    evaluation: Evaluation, sequence: Sequence, method: MethodScores, scores: ObjectScores, index: int
) -> bytes:
    """A frame with the pixels of the mask and the annotation in the colours of the errors, as JPEG."""
    frame = scores.frames[index]
    truth, guess = object_masks(
        sequence, evaluation.protocol, method.results / sequence.name, frame, scores.label, scores.matched
    )
    image = _frame_image(sequence, frame, truth.shape)
    distance = cv2.distanceTransform((~truth).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Without any annotated pixel the distance has no meaning: all is far.
    close = (distance <= boundary_radius(truth.shape[0], truth.shape[1], CLOSE_TOLERANCE)) & bool(truth.any())
    areas = {
        _RIGHT_COLOR: truth & guess,
        figures.ERROR_COLORS["missed"]: truth & ~guess,
        figures.ERROR_COLORS["false_close"]: guess & ~truth & close,
        figures.ERROR_COLORS["false_far"]: guess & ~truth & ~close,
    }
    for color, area in areas.items():
        bgr = np.array([int(color[i : i + 2], 16) for i in (5, 3, 1)], np.float32)
        image[area] = (0.4 * image[area] + 0.6 * bgr).astype(np.uint8)
    outlines, _ = cv2.findContours(truth.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    width = max(1, round(truth.shape[1] / _IMAGE_WIDTH))
    cv2.drawContours(image, outlines, -1, (255, 255, 255), width, cv2.LINE_AA)
    if image.shape[1] > _IMAGE_WIDTH:
        height = round(image.shape[0] * _IMAGE_WIDTH / image.shape[1])
        image = cv2.resize(image, (_IMAGE_WIDTH, height), interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 82])
    return encoded.tobytes()


def _frame_image(sequence: Sequence, frame: str, size: tuple[int, ...]) -> Array:
    """The video's frame, paled, as uint8 BGR of the annotation's size; plain grey if there is none."""
    plain = np.full((*size, 3), 70, np.uint8)
    if sequence.images is None:
        return plain
    for suffix in (".jpg", ".png", ".jpeg"):
        image = cv2.imread(str(sequence.images / f"{frame}{suffix}"), cv2.IMREAD_COLOR)
        if image is not None:
            if image.shape[:2] != tuple(size):
                image = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)
            grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
            return cv2.addWeighted(image, 0.35, grey, 0.65, 0)
    return plain

"""The report of an evaluation: one HTML page that needs no other file, and the same figures as PNG."""

from __future__ import annotations

import base64
import html
import math
import os
import string
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from osmn_tf import files
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


def write_report(evaluation: Evaluation, out: str | os.PathLike[str]) -> Path:
    """Writes `<out>/report.html` and `<out>/figures/*.png`.

    The page holds the table of the methods beside published numbers, J and F per sequence, over normalised time and per
    attribute, the split of the errors, and every method's worst frames.

    Returns:
        The path of the page.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
        InputError: a mask of one of the worst frames cannot be read any more.
    """
    out = files.ensure_directory(out, "--out")
    drawn = figures.draw(evaluation)
    sections = [
        ("overall", "Overall", _overall(evaluation)),
        ("sequences", "Sequences", _figure(drawn, "sequences") + _sequence_table(evaluation)),
        ("time", "Over time", _time_text() + _figure(drawn, "time")),
    ]
    if "attributes" in drawn:
        sections.append(("attributes", "Attributes", _figure(drawn, "attributes") + _attribute_table(evaluation)))
    sections.append(("errors", "Kinds of error", _errors_text() + _figure(drawn, "errors")))
    sections.append(("worst", "Worst frames", _worst(evaluation)))
    template = string.Template(resources.files(__package__).joinpath("report.html").read_text())
    frames = sum(len(sequence.frames) for sequence in evaluation.sequences)
    objects = len(evaluation.methods[0].objects)
    counts = [_count(len(evaluation.sequences), "sequence"), _count(objects, "object"), _count(frames, "scored frame")]
    page = template.substitute(
        title=html.escape(f"{evaluation.protocol.title}, {evaluation.split}"),
        summary=f"{', '.join(counts)}; frames left out: {evaluation.protocol.skip.replace('-', ' ')}."
        f" All numbers in percent. osmn_tf {__version__}.",
        navigation="".join(f'<a href="#{name}">{title}</a>' for name, title, _ in sections),
        sections="\n".join(f'<section id="{n}"><h2>{title}</h2>{body}</section>' for n, title, body in sections),
    )
    files.write_text(out / "report.html", page)
    figures.write_pngs(drawn, out / "figures")
    return out / "report.html"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _figure(drawn: dict[str, Any], name: str) -> str:
    return f'<div class="figure">{figures.to_svg(drawn[name])}</div>'


def _percent(value: float) -> str:
    return "&ndash;" if math.isnan(value) else f"{100 * value:.1f}"


def _dot(index: int) -> str:
    return f'<span class="dot" style="background:{figures.method_color(index)}"></span>'


def _overall(evaluation: Evaluation) -> str:
    """Methods side by side, published numbers in marked columns."""
    rows = [global_row(evaluation, method) for method in evaluation.methods]
    if evaluation.protocol.temporal_stability:
        for row, method in zip(rows, evaluation.methods):
            row["T-Mean"] = method.t
    published = published_scores(evaluation.protocol.name)
    head = "".join(f"<th>{_dot(i)}{html.escape(m.name)}</th>" for i, m in enumerate(evaluation.methods))
    head += "".join(
        f'<th class="published">{html.escape(entry["method"]).replace("-S", "&#8209;S")}&nbsp;&dagger;</th>'
        for entry in published
    )
    body = []
    for column in rows[0]:
        values = [row[column] for row in rows]
        defined = [value for value in values if not math.isnan(value)]
        best = (min if column in _LOWER_IS_BETTER else max)(defined, default=math.nan)
        cells = "".join(
            f'<td class="best">{_percent(value)}</td>'
            if value == best and len(values) > 1
            else f"<td>{_percent(value)}</td>"
            for value in values
        )
        cells += "".join(f'<td class="published">{entry.get(column, "&ndash;")}</td>' for entry in published)
        name = column.replace("-Mean", "").replace("-", " ").replace("&", "&amp;")
        body.append(f'<tr><td>{name} <span class="meaning">{_MEANINGS[column]}</span></td>{cells}</tr>')
    table = f'<table class="overall"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    return f'<div class="scroll">{table}</div>{_published_note(evaluation, published)}'


def _published_note(evaluation: Evaluation, published: list[dict[str, Any]]) -> str:
    if not published:
        return ""
    splits = sorted({entry["split"] for entry in published})
    sources = "; ".join(f"{html.escape(entry['method'])}: {html.escape(entry['source'])}" for entry in published)
    note = f"&dagger; Published, not measured here, on the split {' and '.join(splits)} ({sources})."
    if splits != [evaluation.split]:
        note += f" <strong>This report is on {html.escape(evaluation.split)}: other sequences, not comparable.</strong>"
    if evaluation.protocol.temporal_stability:
        note += (
            " T (lower is better) is over the sequences without heavy occlusion; its contours are traced by other code."
        )
    return f'<p class="muted">{note}</p>'


def _sequence_table(evaluation: Evaluation) -> str:
    per_method = [{row.sequence: row for row in analysis.by_sequence(m)} for m in evaluation.methods]
    columns = {"j": "J", "f": "F", "missed": "missed", "false_close": "false, close", "false_far": "false, far"}
    groups = "".join(
        f'<th class="group" colspan="{len(columns)}">{_dot(i)}{html.escape(m.name)}</th>'
        for i, m in enumerate(evaluation.methods)
    )
    titles = "".join(
        f"<th{' class=group' if name == 'j' else ''}>{title}</th>"
        for _ in per_method
        for name, title in columns.items()
    )
    body = []
    for sequence in analysis.sequence_order(evaluation):
        first = per_method[0][sequence]
        cells = "".join(
            f"<td{' class=group' if name == 'j' else ''}>{_percent(getattr(rows[sequence], name))}</td>"
            for rows in per_method
            for name in columns
        )
        body.append(f"<tr><td>{html.escape(sequence)}</td><td>{first.objects}</td><td>{first.frames}</td>{cells}</tr>")
    return (
        '<details><summary>Table of the sequences</summary><div class="scroll"><table class="sortable"><thead>'
        f'<tr><th colspan="3"></th>{groups}</tr>'
        f"<tr><th>sequence</th><th>objects</th><th>frames</th>{titles}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div></details>"
    )


def _time_text() -> str:
    return (
        "<p>Mean over the objects (line) and the middle half of them (band). A line that falls is decay:"
        " the method loses the object over time.</p>"
    )


def _errors_text() -> str:
    return (
        "<p>1 &minus; J, split into pixels of the object that were missed and pixels that are falsely in the mask,"
        f" close to the object (within {100 * CLOSE_TOLERANCE:.0f}% of the image diagonal, 20 pixels at 480p) or far"
        " from it: blurred edges are close, other objects are far. Shares of the union of mask and annotation.</p>"
    )


def _attribute_table(evaluation: Evaluation) -> str:
    per_method = [{score.attribute: score for score in analysis.by_attribute(m)} for m in evaluation.methods]
    groups = "".join(
        f'<th class="group" colspan="2">{_dot(i)}{html.escape(m.name)}</th>' for i, m in enumerate(evaluation.methods)
    )
    titles = '<th class="group">J</th><th>F</th>' * len(per_method)
    body = []
    for attribute, first in sorted(per_method[0].items()):
        cells = "".join(
            f'<td class="group" data-value="{scores[attribute].j}">{_percent(scores[attribute].j)}'
            f' <span class="muted">{_gain(scores[attribute].j_gain)}</span></td>'
            f'<td data-value="{scores[attribute].f}">{_percent(scores[attribute].f)}'
            f' <span class="muted">{_gain(scores[attribute].f_gain)}</span></td>'
            for scores in per_method
        )
        body.append(
            f'<tr><td>{attribute}</td><td class="name">{html.escape(first.name)}</td><td>{first.sequences}</td>'
            f"{cells}</tr>"
        )
    return (
        "<details><summary>Table of the attributes</summary>"
        '<p class="muted">Mean over the sequences with the attribute, and what the sequences without it gain.</p>'
        f'<div class="scroll"><table class="sortable"><thead><tr><th colspan="3"></th>{groups}</tr>'
        f'<tr><th>short</th><th class="name">attribute</th><th>sequences</th>{titles}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div></details>"
    )


def _gain(value: float) -> str:
    return "" if math.isnan(value) else f"({100 * value:+.1f})"


def _worst(evaluation: Evaluation) -> str:
    """Overlays of every method's worst frames."""
    colors = {"right": _RIGHT_COLOR, **{figures.ERROR_TITLES[name]: c for name, c in figures.ERROR_COLORS.items()}}
    legend = "".join(
        f'<span><i class="dot" style="background:{color}"></i>{title}</span>' for title, color in colors.items()
    )
    by_name = {sequence.name: sequence for sequence in evaluation.sequences}
    parts = [f'<p class="legend">{legend}<span>white line: annotation</span></p>']
    for number, method in enumerate(evaluation.methods):
        cards = []
        for scores, index in analysis.worst_frames(method, _WORST_FRAMES):
            jpeg = _overlay(evaluation, by_name[scores.sequence], method, scores, index)
            caption = (
                f"{html.escape(scores.name)}, frame {html.escape(scores.frames[index])}:"
                f" J {_percent(scores.j[index])}, F {_percent(scores.f[index])}"
            )
            data = base64.b64encode(jpeg).decode()
            cards.append(
                f'<figure><img alt="{caption}" src="data:image/jpeg;base64,{data}">'
                f"<figcaption>{caption}</figcaption></figure>"
            )
        parts.append(f'<h3>{_dot(number)}{html.escape(method.name)}</h3><div class="frames">{"".join(cards)}</div>')
    return "".join(parts)


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

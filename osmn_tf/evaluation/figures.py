"""The figures of a report, drawn with Matplotlib: the same for the page (SVG) and for papers (PNG)."""

from __future__ import annotations

import io
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from osmn_tf import files
from osmn_tf.evaluation import analysis
from osmn_tf.evaluation.benchmark import Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with any form of colour blindness can tell apart.
METHOD_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6BB1", "#5B5B5B")
ERROR_COLORS = {"missed": "#0072B2", "false_close": "#F0C27B", "false_far": "#D55E00"}
ERROR_TITLES = {
    "missed": "missed",
    "false_close": "false, close to the object",
    "false_far": "false, far from it",
}
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": "#444444",
    "ytick.color": "#222222",
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "svg.fonttype": "none",
    # Names inside the SVG that do not change from run to run.
    "svg.hashsalt": "osmn_tf",
    "figure.constrained_layout.use": True,
}


def method_color(index: int) -> str:
    """The colour of the method with this number in all figures."""
    return METHOD_COLORS[index % len(METHOD_COLORS)]


def draw(evaluation: Evaluation) -> dict[str, Figure]:
    """All figures that the evaluation has data for, by name."""
    import matplotlib
    from matplotlib.figure import Figure

    painters: dict[str, Callable[[Any, Evaluation], bool]] = {
        "sequences": _sequences,
        "time": _time,
        "attributes": _attributes,
        "errors": _errors,
    }
    figures = {}
    with matplotlib.rc_context(_STYLE):
        for name, paint in painters.items():
            figure = Figure()
            if paint(figure, evaluation):
                figures[name] = figure
    return figures


def to_svg(figure: Figure) -> str:
    """A figure as an `<svg>` element that scales to the width of the page."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # Several figures share one page: names that they refer to must differ.
    prefix = f"f{zlib.crc32(svg.encode()):x}-"
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", svg)
    end_of_tag = svg.index(">")
    return re.sub(r'\s(?:width|height)="[^"]*"', "", svg[:end_of_tag]) + svg[end_of_tag:]


def write_pngs(figures: dict[str, Figure], folder: str | os.PathLike[str], dpi: int = 200) -> list[Path]:
    """Writes `<folder>/<name>.png` of every figure and returns the paths."""
    import matplotlib

    folder = files.ensure_directory(folder, "--out")
    paths = []
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        with files.atomic_path(path) as temporary, matplotlib.rc_context(_STYLE):
            # Without the version of Matplotlib, which would change the file without changing the picture.
            figure.savefig(temporary, dpi=dpi, metadata={"Software": None})
        paths.append(path)
    return paths


def _sequences(figure: Any, evaluation: Evaluation) -> bool:
    """Bars of J and F of every sequence, the hardest on top."""
    order = analysis.sequence_order(evaluation)
    methods = evaluation.methods
    thickness = 0.8 / len(methods)
    row_height = max(0.26, 0.13 * len(methods) + 0.1)
    figure.set_size_inches(9.5, 1.0 + row_height * len(order))
    axes = figure.subplots(1, 2, sharey=True)
    positions = np.arange(len(order))
    for axis, measure, title in zip(axes, ("j", "f"), ("J, region similarity", "F, boundary accuracy")):
        for index, method in enumerate(methods):
            values = {row.sequence: getattr(row, measure) for row in analysis.by_sequence(method)}
            offset = (index - (len(methods) - 1) / 2) * thickness
            axis.barh(
                positions + offset,
                [100 * values[name] for name in order],
                height=thickness * 0.92,
                color=method_color(index),
                label=method.name,
            )
        axis.set_title(title)
        axis.set_xlim(0, 100)
        axis.grid(axis="x")
        axis.tick_params(axis="y", length=0)
    axes[0].set_yticks(positions, order)
    axes[0].set_ylim(len(order) - 0.45, -0.55)
    _legend(figure, axes[0], len(methods))
    return True


def _time(figure: Any, evaluation: Evaluation) -> bool:
    """J and F over normalised time, mean and quartiles over the objects."""
    figure.set_size_inches(9.5, 3.6)
    axes = figure.subplots(1, 2, sharey=True)
    for axis, measure, title in zip(axes, ("j", "f"), ("J, region similarity", "F, boundary accuracy")):
        for index, method in enumerate(evaluation.methods):
            course = analysis.over_time(method, measure)
            color = method_color(index)
            axis.fill_between(course.time, 100 * course.lower, 100 * course.upper, color=color, alpha=0.13, lw=0)
            axis.plot(course.time, 100 * course.mean, color=color, lw=2, label=method.name)
        axis.set_title(title)
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 100)
        axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["start", "1/4", "1/2", "3/4", "end"])
        axis.grid(axis="both")
        axis.set_xlabel("time, every sequence stretched to the same length")
    _legend(figure, axes[0], len(evaluation.methods))
    return True


def _attributes(figure: Any, evaluation: Evaluation) -> bool:
    """J of the sequences with each attribute, the hardest attribute first, and what the others gain."""
    per_method = [{score.attribute: score for score in analysis.by_attribute(m)} for m in evaluation.methods]
    if evaluation.protocol.name != "davis-2016" or not per_method[0]:
        return False
    order = sorted(per_method[0], key=lambda name: sum(scores[name].j for scores in per_method))
    thickness = 0.8 / len(per_method)
    figure.set_size_inches(9.5, 3.8)
    axis = figure.subplots()
    positions = np.arange(len(order))
    for index, scores in enumerate(per_method):
        offset = (index - (len(per_method) - 1) / 2) * thickness
        values = np.array([100 * scores[name].j for name in order])
        gains = np.array([100 * scores[name].j_gain for name in order])
        color = method_color(index)
        axis.bar(positions + offset, values, width=thickness * 0.9, color=color, label=evaluation.methods[index].name)
        axis.hlines(
            values + gains,
            positions + offset - thickness * 0.45,
            positions + offset + thickness * 0.45,
            color="#222222",
        )
    axis.set_xticks(positions, [f"{name}\n{per_method[0][name].sequences}" for name in order])
    axis.tick_params(axis="x", length=0)
    axis.set_ylim(0, 100)
    axis.set_xlim(-0.6, len(order) - 0.4)
    axis.grid(axis="y")
    axis.set_title("J of the sequences with an attribute (number of sequences below); line: those without it")
    _legend(figure, axis, len(per_method))
    return True


def _errors(figure: Any, evaluation: Evaluation) -> bool:
    """What 1 - J of every sequence consists of; one panel per method."""
    order = analysis.sequence_order(evaluation)
    columns = min(len(evaluation.methods), 4)
    rows = -(-len(evaluation.methods) // columns)
    figure.set_size_inches(9.5, rows * (1.1 + 0.24 * len(order)))
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    positions = np.arange(len(order))
    for axis, method in zip(axes, evaluation.methods):
        by_name = {row.sequence: row for row in analysis.by_sequence(method)}
        left = np.zeros(len(order))
        for error, color in ERROR_COLORS.items():
            values = np.array([100 * getattr(by_name[name], error) for name in order])
            axis.barh(positions, values, left=left, height=0.72, color=color, label=ERROR_TITLES[error])
            left += values
        axis.set_title(method.name if len(method.name) <= 24 else f"{method.name[:23]}\N{HORIZONTAL ELLIPSIS}")
        axis.set_xlim(0, 100)
        axis.grid(axis="x")
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel("% of the union")
    axes[0].set_yticks(positions, order)
    axes[0].set_ylim(len(order) - 0.45, -0.55)
    for axis in axes[len(evaluation.methods) :]:
        axis.set_visible(False)
    _legend(figure, axes[0], 3)
    return True


def _legend(figure: Any, axis: Any, entries: int) -> None:
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper left", ncols=min(entries, 4))

"""What each part of OSVOS is worth, and what its dial gives: J, F and T against seconds a frame.

The rows of the paper (Maninis et al., 2018, on DAVIS 2016's validation set): ImageNet's weights as they are, trained on
the given frame, from a parent, and with a detector's instances. A detector is simulated: its instances are the
annotations, disturbed. What snapping makes of masks stands beside them.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from osmn_tf import files
from osmn_tf.benchmarks.videos import ScoredVideo
from osmn_tf.datasets.detections import Instance
from osmn_tf.errors import InputError
from osmn_tf.evaluation.metrics import VideoMetric, defined_mean, temporal_stability
from osmn_tf.evaluation.protocols import PROTOCOLS, find_sequences
from osmn_tf.inference.contours import Contours
from osmn_tf.inference.snapping import SnapOptions, check_snapping, snap_mask
from osmn_tf.masks.files import read_label_png

if TYPE_CHECKING:
    from osmn_tf.models.osvos import OSVOS

Array = NDArray[Any]

IMAGENET, ONE_SHOT, PARENT, SEMANTICS = "ImageNet", "+ one-shot", "+ parent", "+ semantics"
STEPS = (IMAGENET, ONE_SHOT, PARENT, SEMANTICS)
DETECTIONS, TRUE_INSTANCES = "the instances alone", "+ semantics, true instances"
SNAPPED = ", snapped"
"""Follows the name of a row in that of its masks after snapping."""
PAPER = {
    IMAGENET: (17.6, 20.3, 46.0),
    ONE_SHOT: (64.6, 66.7, 60.9),
    PARENT: (77.4, 78.1, 33.5),
    PARENT + SNAPPED: (79.8, 80.6, 37.8),
    SEMANTICS: (85.0, 87.3, 20.2),
    SEMANTICS + SNAPPED: (85.6, 87.5, 21.7),
}
"""Row -> J, F and T of the paper, in percent, on DAVIS 2016's validation set."""

_ON_THE_DIAL = " steps"
BOOTSTRAP = 10000  # samples
CONFIDENCE = 0.95


class DisturbedOracle:
    """A detector that knows the annotations, and is wrong as detectors are. A `Detections`.

    Args:
        annotations: uint8 [H, W] with labels, of every frame.
        drop: how often an instance is missed; not in the first frame, where it is selected.
        shift: by how much of its height and width an instance is moved off, in a random direction.
        decoys: whether each instance has another one of the same category and shape beside it.
        seed: of the disturbances.
    """

    def __init__(
        self, annotations: Sequence[Array], drop: float = 0.3, shift: float = 0.1, decoys: bool = True, seed: int = 0
    ) -> None:
        self._annotations, self._drop, self._shift, self._decoys = annotations, drop, shift, decoys
        self._seed = seed

    def __call__(self, index: int, frame: Array) -> list[Instance]:
        """The instances of a frame."""
        mask = self._annotations[index]
        found: list[Instance] = []
        for label in (int(label) for label in np.unique(mask) if label):
            random = np.random.default_rng([self._seed, index, label])
            dropped, angle, side = random.random() < self._drop, random.uniform(0, 2 * math.pi), random.choice([-1, 1])
            pixels = (mask == label).astype(np.uint8)
            _, _, width, height = cv2.boundingRect(pixels)
            dx, dy = self._shift * width * math.cos(angle), self._shift * height * math.sin(angle)
            if index == 0 or not dropped:
                found.append(Instance(1, 0.9, _moved(pixels, dx, dy)))
            if self._decoys:
                found.append(Instance(1, 0.95, _moved(pixels, dx + 1.5 * side * width, dy)))
        return [instance for instance in found if instance.mask.any()]


def _moved(pixels: Array, dx: float, dy: float) -> Array:
    height, width = pixels.shape
    matrix = np.array([[1, 0, round(dx)], [0, 1, round(dy)]], np.float32)
    return cv2.warpAffine(pixels, matrix, (width, height), flags=cv2.INTER_NEAREST).astype(bool)


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One way to segment one sequence.

    Attributes:
        row: what was done.
        sequence: its name.
        j, f, t: mean J and F over scored frames, mean T over all pairs of frames; T is NaN where it is not defined.
        seconds: a frame, with the learning divided by the number of frames; without what is compiled once.
        cpu_seconds: the same of all threads.
    """

    row: str
    sequence: str
    j: float
    f: float
    t: float
    seconds: float
    cpu_seconds: float

    @property
    def j_and_f(self) -> float:
        """The mean of the two."""
        return (self.j + self.f) / 2


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        parent: the network.
        untrained: the same with ImageNet's weights, not trained on objects; None leaves its rows out.
        steps: of learning an object, in the rows of the paper.
        dial: other numbers of steps, for the curve; 0 is the parent as it is.
        seed: of everything that is random.
        contours: snap the masks of the parent's rows and of the curve to these as well; None: not at all.
    """

    parent: OSVOS
    untrained: OSVOS | None
    steps: int = 50
    dial: tuple[int, ...] = ()
    seed: int = 0
    contours: Contours | None = None

    def rows(self) -> dict[str, tuple[OSVOS, int, str]]:
        """Row -> (network, steps, "" or which detector)."""
        rows: dict[str, tuple[OSVOS, int, str]] = {}
        if self.untrained is not None:
            rows[IMAGENET] = self.untrained, 0, ""
            rows[ONE_SHOT] = self.untrained, self.steps, ""
        rows[PARENT] = self.parent, self.steps, ""
        rows[SEMANTICS] = self.parent, self.steps, "disturbed"
        rows[TRUE_INSTANCES] = self.parent, self.steps, "true"
        for steps in sorted(set(self.dial)):
            rows[f"{steps}{_ON_THE_DIAL}"] = self.parent, steps, ""
        return rows

    def snaps(self, row: str) -> bool:
        """Whether the masks of a row are snapped as well: those of the paper's rows from a parent, and of the curve."""
        return self.contours is not None and (row in (PARENT, SEMANTICS) or row.endswith(_ON_THE_DIAL))


def measure(
    plan: Plan,
    root: str | os.PathLike[str],
    *,
    year: int = 2016,
    split: str = "val",
    sequences: Iterable[str] | None = None,
    kept: str | os.PathLike[str] | None = None,
) -> Iterator[Measurement]:
    """Segments every sequence in every way.

    Args:
        plan: see `Plan`.
        root, year, split, sequences: the data set (`protocols.find_sequences`).
        kept: a folder where measurements of the same plan are kept, so that an interrupted run continues.

    Yields:
        What was measured, a sequence at a time.

    Raises:
        InputError: the data set is incomplete, or a number is out of its range.
        MissingDependencyError: snapping's package is not installed.
    """
    if plan.steps < 1 or min(plan.dial, default=0) < 0:
        raise InputError(f"--steps and --dial: expected 1 or more and 0 or more, received {plan.steps} and {plan.dial}")
    folder = None if kept is None else files.ensure_directory(kept, "--out")
    protocol = PROTOCOLS[f"davis-{year}"]
    videos = find_sequences(root, protocol, split=split, sequences=None if sequences is None else list(sequences))
    for video in videos:
        scored: ScoredVideo | None = None
        annotations: list[Array] = []
        contours = None if plan.contours is None else _KnownContours(plan.contours)
        for row, (network, steps, detector) in plan.rows().items():
            snaps = contours if plan.snaps(row) else None
            slug = re.sub(r"\W", "_", row)
            key = f"{slug}-{steps}-{plan.seed}{'' if snaps is None else f'-{snaps.name}'}"
            store = None if folder is None else folder / f"{video.name}-{key}.json"
            done = None if store is None else _load(store)
            if done is None:
                if scored is None:
                    scored = ScoredVideo(video, protocol)
                    annotations = [
                        np.where(scored.merged, label != 0, label).astype(np.uint8)
                        for label in map(read_label_png, sorted(video.annotations.glob("*.png")))
                    ]
                done = list(
                    _measure_one(row, video.name, scored, annotations, network, steps, detector, plan.seed, snaps)
                )
                if store is not None:
                    files.write_text(store, json.dumps([dataclasses.asdict(one) for one in done]) + "\n")
            yield from done


def _load(path: Path) -> list[Measurement] | None:
    if not path.is_file():
        return None
    try:
        return [Measurement(**one) for one in json.loads(path.read_text())]
    except (ValueError, TypeError) as error:
        raise InputError(f"--out: {path} is damaged ({error}); remove it to measure anew") from error


def _measure_one(
    row: str,
    name: str,
    video: ScoredVideo,
    annotations: Sequence[Array],
    network: OSVOS,
    steps: int,
    detector: str,
    seed: int,
    contours: _KnownContours | None,
) -> Iterator[Measurement]:
    from osmn_tf.inference.predictor import Predictor, open_predictor
    from osmn_tf.inference.segmenter import VideoSegmenter
    from osmn_tf.inference.semantic import SemanticPredictor

    predictor: Predictor = open_predictor(network)
    frames = list(video)
    semantic: SemanticPredictor | None = None
    if detector:
        true = detector == "true"
        drop, shift = (0.0, 0.0) if true else (0.3, 0.1)
        oracle = DisturbedOracle(annotations, drop, shift, decoys=not true, seed=seed)
        given = {index: frames[index] for index in video.given}
        predictor = semantic = SemanticPredictor(predictor, oracle, annotated=given)
    segmenter = VideoSegmenter(predictor)
    annotated = [(frames[index], mask) for index, mask in sorted(video.given.items())]
    if steps:
        segmenter.finetune(annotated, 1, seed=seed).__exit__(None, None, None)  # compiles
    began = _now()
    masks: list[Array] = []
    alone: list[Array] = []
    with segmenter.finetune(annotated, steps, seed=seed):
        for index, (_, mask) in enumerate(segmenter.track(frames, video.given)):
            masks.append(mask)
            if semantic is not None:
                alone.append(_union(semantic, segmenter.labels, mask if index in video.given else None, mask.shape))
    times = _now() - began
    yield _scored(row, name, video, masks, times, len(frames))
    if contours is not None:
        snapped, more = contours.snap(masks, frames, video.given)
        yield _scored(row + SNAPPED, name, video, snapped, times + more, len(frames))
    if detector == "disturbed":
        yield _scored(DETECTIONS, name, video, alone, np.zeros(2), len(frames))


def _union(semantic: Any, labels: Sequence[int], given: Array | None, shape: tuple[int, ...]) -> Array:
    """What was picked, as a label mask; the given mask where there is one."""
    if given is not None:
        return given
    result = np.zeros(shape, np.uint8)
    for label, chosen in zip(labels, semantic.picked):
        for instance in chosen:
            result[instance.mask] = label
    return result


def _now() -> Array:
    """Seconds, and seconds of all threads."""
    return np.array([time.perf_counter(), time.process_time()])


class _KnownContours:
    """The contours of the frames of one sequence, found once for all rows, and the time that this took.

    Raises:
        MissingDependencyError: scikit-image is not installed.
    """

    def __init__(self, contours: Contours) -> None:
        check_snapping()
        self.name = type(contours).__name__
        self._contours = contours
        self._options = SnapOptions(contours.strength)
        self._found: dict[int, tuple[Array, Array]] = {}

    def snap(self, masks: Sequence[Array], frames: Sequence[Array], given: Container[int]) -> tuple[list[Array], Array]:
        """The masks as `SnappingPredictor` would give them, and what that takes."""
        times, snapped = np.zeros(2), list(masks)
        if not self._found:
            self._contours(frames[0])  # compiles
        for index, (mask, frame) in enumerate(zip(masks, frames, strict=True)):
            if index in given or not mask.any():
                continue
            if index not in self._found:
                began = _now()
                self._found[index] = self._contours(frame), _now() - began
            contours, taken = self._found[index]
            began = _now()
            snapped[index] = snap_mask(mask, contours, self._options)
            times += taken + (_now() - began)
        return snapped, times


def _scored(row: str, name: str, video: ScoredVideo, masks: Sequence[Array], times: Array, frames: int) -> Measurement:
    """Args: times: of all `frames`."""
    metric = VideoMetric(video.labels)
    for index, truth in video.truth.items():
        metric.update(truth, masks[index])
    scores = metric.compute()
    stacked = np.stack(masks)
    t = defined_mean(np.concatenate([temporal_stability(stacked == label) for label in video.labels]))
    seconds, cpu_seconds = (times / frames).tolist()
    return Measurement(row, name, float(scores.j.mean), float(scores.f.mean), t, seconds, cpu_seconds)


def lower_bound(differences: Sequence[float], seed: int = 0) -> float:
    """The lower end of a one-sided 95% bootstrap interval of a mean over sequences."""
    values = np.asarray(differences, np.float64)
    chosen = np.random.default_rng(seed).integers(0, len(values), (BOOTSTRAP, len(values)))
    return float(np.quantile(values[chosen].mean(axis=1), 1 - CONFIDENCE))


def format_table(measurements: Iterable[Measurement]) -> str:
    """Markdown: a line for every row, in percent, with the step from the row before (for snapped masks, from the same
    masks before) and the paper's numbers. Of several sequences, with the lower bound of the step."""
    by_row = rows_of(measurements)
    lines = [
        "| | J | F | T | J&F | J&F gained: mean, lower 95% bound | s a frame | processor s a frame | paper: J, F, T |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    before: dict[str, Measurement] | None = None
    for row, measured in by_row.items():
        gained = ""
        compared = by_row.get(row.removesuffix(SNAPPED)) if row.endswith(SNAPPED) else before if row in STEPS else None
        if compared is not None:
            differences = [100 * (measured[name].j_and_f - compared[name].j_and_f) for name in measured]
            gained = f"{np.mean(differences):+.1f}"
            if len(differences) > 1:  # one sequence says nothing of others
                gained += f", {lower_bound(differences):+.1f}"
        if row in STEPS:
            before = measured
        paper = ", ".join(f"{value:.1f}" for value in PAPER.get(row, ()))
        j, f, t, both = (
            _percent(value(one) for one in measured.values())
            for value in (lambda m: m.j, lambda m: m.f, lambda m: m.t, lambda m: m.j_and_f)
        )
        seconds, cpu_seconds = (np.mean([getattr(m, key) for m in measured.values()]) for key in _TIMES)
        times = f"{seconds:.2f} | {cpu_seconds:.2f}" if cpu_seconds else "|"
        lines.append(f"| {row} | {j} | {f} | {t} | {both} | {gained} | {times} | {paper} |")
    return "\n".join(lines)


_TIMES = ("seconds", "cpu_seconds")


def _percent(values: Iterable[float]) -> str:
    mean = defined_mean(list(values))
    return "-" if math.isnan(mean) else f"{100 * mean:.1f}"


def rows_of(measurements: Iterable[Measurement]) -> dict[str, dict[str, Measurement]]:
    """Row -> sequence -> what was measured, with the rows of the paper first, and snapped masks after the same masks
    before."""
    found: dict[str, dict[str, Measurement]] = {}
    for one in measurements:
        found.setdefault(one.row, {})[one.sequence] = one
    seen = list(found)

    def order(row: str) -> tuple[int, int, bool]:
        base = row.removesuffix(SNAPPED)
        return STEPS.index(base) if base in STEPS else len(STEPS), seen.index(base), row != base

    return {row: found[row] for row in sorted(found, key=order)}


def draw_dial(measurements: Iterable[Measurement], path: str | os.PathLike[str]) -> None:
    """The curve: J&F against processor seconds a frame, of the rows that take any, as a PNG.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
    """
    from osmn_tf.evaluation.report import check_packages

    check_packages()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    rows = rows_of(measurements)
    points: Mapping[str, tuple[float, float]] = {
        row: (
            float(np.mean([m.cpu_seconds for m in measured.values()])),
            float(100 * np.mean([m.j_and_f for m in measured.values()])),
        )
        for row, measured in rows.items()
        if row not in (IMAGENET, DETECTIONS)
    }
    figure = Figure(figsize=(6.4, 3.8), constrained_layout=True)
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    on_the_dial = [row for row in points if row == PARENT or row.endswith(_ON_THE_DIAL)]
    dial = sorted(points[row] for row in on_the_dial)
    axis.plot(*zip(*dial), color="#0072B2", marker="o", label="OSVOS: number of steps")
    if snapped := sorted(points[row + SNAPPED] for row in on_the_dial if row + SNAPPED in points):
        axis.plot(*zip(*snapped), color="#D55E00", marker="o", linestyle="--", label="snapped")
    for row, (x, y) in points.items():
        if row in (ONE_SHOT, SEMANTICS, SEMANTICS + SNAPPED, TRUE_INSTANCES):
            axis.plot(x, y, "s", label=row.removeprefix("+ "))
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("processor seconds a frame, with the learning divided over the frames")
    axis.set_ylabel("J&F")
    axis.legend(frameon=False, fontsize=8)
    axis.grid(color="#e4e4e4")
    figure.savefig(Path(path), dpi=150)

"""What RVOS's recurrences are worth, and training with own masks: the paper's ablation on synthetic clips."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from osmn_tf.data.synthetic import ClipOptions, SyntheticClips
from osmn_tf.datasets.stills import open_stills
from osmn_tf.errors import InputError
from osmn_tf.evaluation.metrics import jaccard
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.masks.labels import labels_of
from osmn_tf.training import config as cfg
from osmn_tf.training import stages

# Of a seed of their own: none of them is a clip of the training, whose clips have the seed 0.
CLIP_SEED = 1_000_003

VARIANTS: dict[str, tuple[str, bool]] = {
    "spatial": ("spatial", True),
    "temporal": ("temporal", True),
    "both": ("both", True),
    "annotated": ("both", False),
}
"""Name -> recurrence, and whether previous masks in training become the network's own as the stage says. "annotated" is
"both", trained with annotated masks only."""

PUBLISHED = {
    "spatial": (54.7, 37.3),
    "temporal": (59.9, 39.2),
    "both": (63.1, 44.5),
    "annotated": (60.8, 44.6),
}
"""J over seen and unseen categories, YouTube-VOS one-shot, a split of its training set (Ventura et al., table 1). The
first two were trained with annotated masks only."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A variant on the held-out clips.

    Attributes:
        variant: of `VARIANTS`.
        j: mean J over objects and frames but the first, of each clip.
        switches: share of an object's frames, while it is seen, in which another label covers more of it than its own;
            the mean over the clip's objects, of each clip.
    """

    variant: str
    j: tuple[float, ...]
    switches: tuple[float, ...]


def variant_config(config: cfg.Config, variant: str) -> cfg.Config:
    """The stage with another recurrence, or annotated masks only: masks are always given, nothing is validated, and the
    network is used at the size at which it is trained."""
    recurrence, own = VARIANTS[variant]
    trained = {"recurrence": recurrence, "one_shot": True, "network_size": list(config.data.size)}
    arguments = {**config.model.arguments, **trained}
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, arguments=arguments),
        data=config.data if own else dataclasses.replace(config.data, own_guide=cfg.CurriculumConfig(0.0, 0.0)),
        task=dataclasses.replace(config.task, find=0.0),  # type: ignore[call-arg]
        validation=None,
    )


def score_clips(
    network: Any, clips: Iterable[tuple[np.ndarray, np.ndarray]]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(J, share of switches) of a network on each of some clips, from the masks of their first frames.

    Args:
        network: as `VideoSegmenter` takes it.
        clips: (frames uint8 [T, H, W, 3], labels uint8 [T, H, W]).
    """
    segmenter = VideoSegmenter(network)
    clip_js: list[float] = []
    clip_switches: list[float] = []
    for frames, masks in clips:
        js: list[float] = []
        switched: list[float] = []
        found = [mask for _, mask in segmenter.track(list(frames), masks[0])]
        for label in labels_of(masks[0]):
            values, wrong, seen = [], 0, 0
            for guess, truth in zip(found[1:], masks[1:], strict=True):
                own, there = guess == label, truth == label
                values.append(jaccard(there, own))
                if there.any():
                    seen += 1
                    counts = np.bincount(guess[there], minlength=256)[1:255]
                    wrong += bool(counts.max() > counts[label - 1])
            js.append(float(np.mean(values)))
            switched.append(wrong / seen if seen else 0.0)
        clip_js.append(float(np.mean(js)))
        clip_switches.append(float(np.mean(switched)))
    return tuple(clip_js), tuple(clip_switches)


def measure(
    config: cfg.Config,
    run_dir: str | os.PathLike[str],
    *,
    variants: Sequence[str] = tuple(VARIANTS),
    clips: int = 40,
    frames: int = 12,
    stills: str | None = None,
    options: ClipOptions | None = None,
    progress: bool = True,
) -> Iterator[Row]:
    """Trains each variant of an RVOS stage as long as the stage says, and scores it on clips of several objects.

    An interrupted training goes on with the same call.

    Args:
        config: a stage of the task `rvos` with masks.
        run_dir: folder; each variant has its run below.
        variants: of `VARIANTS`.
        clips, frames: how many clips are scored, and their length.
        stills: folder below `data.root` from which objects are cut; None: drawn ones.
        options: of the clips.
        progress: show the trainings' progress bars.

    Raises:
        InputError: the stage is of another task, or a number is out of its range.
    """
    if config.task.kind != "rvos":
        raise InputError(f"CONFIG: expected a stage of the task rvos, received {config.task.kind}")
    if config.task.slots < 2:  # type: ignore[attr-defined]
        raise InputError("task.slots: expected 2 or more, since one recurrence is from object to object, received 1")
    unknown = [name for name in variants if name not in VARIANTS]
    if unknown:
        raise InputError(f"--variants: expected some of {', '.join(VARIANTS)}, received {unknown[0]!r}")
    if clips < 1 or frames < 2:
        raise InputError(f"--clips, --frames: expected at least 1 and 2, received {clips} and {frames}")
    images = open_stills(Path(config.data.root) / stills) if stills is not None else None
    held_out = SyntheticClips(images, config.data.size, frames, CLIP_SEED, options)
    for variant in variants:
        result = stages.train(variant_config(config, variant), Path(run_dir) / variant, progress)
        yield Row(variant, *score_clips(result.model, (held_out[number] for number in range(clips))))


def format_table(rows: Sequence[Row]) -> str:
    """A line a variant: means over the clips in percent, and what is more than with "both" on the same clips, with its
    standard error; beside them what the paper has measured on other data."""
    reference = next((row for row in rows if row.variant == "both"), None)
    width, column = len("annotated") + 2, 16
    lines = [
        f"{'recurrence':<{width}}{'J':>6}{'more than both':>{column}}{'switches':>10}{'more than both':>{column}}"
        "    paper: J seen, unseen"
    ]
    for row in rows:
        line = f"{row.variant:<{width}}"
        for name, places in (("j", 6), ("switches", 10)):
            values = getattr(row, name)
            compared = reference is not None and row is not reference
            difference = _difference(values, getattr(reference, name)) if compared else ""
            line += f"{100 * np.mean(values):{places}.1f}{difference:>{column}}"
        seen, unseen = PUBLISHED[row.variant]
        lines.append(f"{line}{seen:16.1f}{unseen:8.1f}")
    return "\n".join(lines)


def _difference(values: Sequence[float], others: Sequence[float]) -> str:
    """The mean of paired differences in percent, with its standard error."""
    differences = 100 * (np.array(values) - np.array(others))
    error = differences.std(ddof=1) / len(differences) ** 0.5 if len(differences) > 1 else float("nan")
    return f"{differences.mean():+.1f} ± {error:.1f}"

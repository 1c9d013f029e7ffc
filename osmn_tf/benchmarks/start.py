"""How long `osmn segment` takes to its first mask and to its end, each from a cold start."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from osmn_tf.benchmarks.processes import Ended, run_osmn
from osmn_tf.datasets.examples import example_path
from osmn_tf.errors import InputError


@dataclasses.dataclass(frozen=True)
class Start:
    """Medians over the turns.

    Attributes:
        name: what was run.
        first: seconds to the first mask file; None where none is made.
        done: seconds to the end.
        cpu_seconds: of the processor.
        mebibytes: at the most.
    """

    name: str
    first: float | None
    done: float
    cpu_seconds: float
    mebibytes: float


def measure(
    engines: Sequence[str] = ("litert", "keras"), repeat: int = 3, words: Sequence[str] = ()
) -> Iterator[Start]:
    """Times `osmn --help`, and `osmn segment` on the shipped example with each engine.

    Args:
        engines: as `--engine`.
        repeat: turns.
        words: further arguments of `osmn segment`.

    Raises:
        InputError: a command fails, or `repeat` is below 1.
    """
    if repeat < 1:
        raise InputError(f"--repeat: expected at least 1, received {repeat}")
    example = example_path()
    video, mask = str(example / f"{example.name}.mp4"), str(example / "first_mask.png")
    runs: dict[str, list[Ended]] = {name: [] for name in ("osmn --help", *engines)}
    for _ in range(repeat):
        runs["osmn --help"].append(run_osmn(["--help"]))
        for engine in engines:
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "out"
                first = out / example.name / "00000.png"
                command = ["segment", video, "--mask", mask, "--engine", engine, "--out", str(out), *words]
                runs[engine].append(run_osmn(command, watch=first.exists))
    for name, turns in runs.items():
        seen = [turn.seen for turn in turns if turn.seen is not None]
        yield Start(
            name,
            statistics.median(seen) if seen else None,
            statistics.median(turn.seconds for turn in turns),
            statistics.median(turn.cpu_seconds for turn in turns),
            statistics.median(turn.mebibytes for turn in turns),
        )

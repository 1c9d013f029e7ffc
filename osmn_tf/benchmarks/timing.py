"""How everything that is compared is timed: in turns, so that a machine that slows down slows all of it."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Timing:
    """Of one program.

    Attributes:
        seconds: of every turn.
        cpu_seconds: of every turn, of all threads of this process. A machine that has other work to do does not raise
            them much; divided by the threads they are less than a turn can take.
    """

    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median seconds of a turn."""
        return statistics.median(self.seconds)


def in_turns(programs: Mapping[str, Callable[[], Any]], repeat: int, warm_up: int = 1) -> dict[str, Timing]:
    """Runs one program after the other, `repeat` times, after `warm_up` turns that do not count.

    Args:
        programs: name -> what is timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(warm_up + repeat):
        for name, program in programs.items():
            cpu_began, began = time.process_time(), time.perf_counter()
            program()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - began)
                cpu_seconds[name].append(time.process_time() - cpu_began)
    return {name: Timing(tuple(seconds[name]), tuple(cpu_seconds[name])) for name in programs}

"""Whole commands, timed from outside: what a user waits for, start-up and imports included."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from osmn_tf.errors import InputError


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a command has ended.

    Attributes:
        code: its exit code.
        seconds: from its start to its end.
        cpu_seconds: of the command and all processes that it started.
        mebibytes: at the most, of that of its processes that had most.
        output: what it has printed.
        seen: seconds after which `watch` was true first; None: never, or it was not given.
    """

    code: int
    seconds: float
    cpu_seconds: float
    mebibytes: float
    output: str
    seen: float | None = None


def run_osmn(
    words: Sequence[str],
    watch: Callable[[], bool] | None = None,
    expected: Sequence[int] = (0,),
    family: bool = False,
) -> Ended:
    """Runs `osmn WORDS...` in a process of its own.

    Args:
        words: its arguments.
        watch: asked every few milliseconds.
        expected: exit codes that are none of a failure.
        family: look at all its processes every half second. What is known of processes once they have ended leaves out
            those that nobody has waited for, as of the actors that Ray's own processes start.

    Raises:
        InputError: it ends with another exit code.
    """
    command = [sys.executable, "-m", "osmn_tf.cli.main", *words]
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        looks = _Family(process.pid) if family else None
        seen, ended = None, 0
        while not ended:
            if watch is not None and seen is None and watch():
                seen = time.perf_counter() - began
            waits = looks is None and (watch is None or seen is not None)
            if looks is not None:
                looks.look()
            ended, status, usage = os.wait4(process.pid, 0 if waits else os.WNOHANG)
            if not ended:
                time.sleep(0.005)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if process.returncode not in expected:
        last = (text.strip().splitlines() or [""])[-1]
        raise InputError(f"'osmn {' '.join(words)}' has ended with {process.returncode}: {last}")
    cpu, mebibytes = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
    if looks is not None:
        cpu, mebibytes = max(cpu, looks.cpu_seconds), max(mebibytes, looks.mebibytes)
    return Ended(process.returncode, seconds, cpu, mebibytes, text, seen)


class _Family:
    """A process and all that it and they have started, looked at from time to time while they live (Linux)."""

    _EVERY = 0.5  # seconds

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._next = 0.0
        self._cpu: dict[tuple[int, str], float] = {}  # by number and start: numbers are used again
        self.mebibytes = 0.0

    @property
    def cpu_seconds(self) -> float:
        return sum(self._cpu.values())

    def look(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._EVERY
        facts: dict[int, list[str]] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has just ended
                facts[int(path.parent.name)] = path.read_text(errors="replace").rpartition(") ")[2].split()
        mine = {self._pid}
        while more := {pid for pid, fields in facts.items() if int(fields[1]) in mine} - mine:
            mine |= more
        for pid in mine & facts.keys():
            ticks = int(facts[pid][11]) + int(facts[pid][12])
            self._cpu[pid, facts[pid][19]] = ticks / os.sysconf("SC_CLK_TCK")
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
                    if line.startswith("VmHWM:"):
                        self.mebibytes = max(self.mebibytes, int(line.split()[1]) / 1024)

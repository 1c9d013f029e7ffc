"""Whole commands, timed from outside: what a user waits for, start-up and imports included."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

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


def run_osmn(words: Sequence[str], watch: Callable[[], bool] | None = None, expected: Sequence[int] = (0,)) -> Ended:
    """Runs `osmn WORDS...` in a process of its own.

    Args:
        words: its arguments.
        watch: asked every few milliseconds.
        expected: exit codes that are none of a failure.

    Raises:
        InputError: it ends with another exit code.
    """
    command = [sys.executable, "-m", "osmn_tf.cli.main", *words]
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        seen, ended = None, 0
        while not ended:
            if watch is not None and seen is None and watch():
                seen = time.perf_counter() - began
            ended, status, usage = os.wait4(process.pid, os.WNOHANG if watch is not None and seen is None else 0)
            if not ended:
                time.sleep(0.005)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if process.returncode not in expected:
        last = (text.strip().splitlines() or [""])[-1]
        raise InputError(f"'osmn {' '.join(words)}' has ended with {process.returncode}: {last}")
    cpu = usage.ru_utime + usage.ru_stime
    return Ended(process.returncode, seconds, cpu, usage.ru_maxrss / 1024, text, seen)

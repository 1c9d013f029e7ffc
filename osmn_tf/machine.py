"""What this process may use of the machine: less than there is, in a container."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CONTROL = Path("/sys/fs/cgroup")
_MEMORY = Path("/proc/meminfo")


def usable_cores() -> int:
    """How many cores this process may use, by its affinity and by its container's share of time."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    share = _numbers("cpu.max") or [*_numbers("cpu/cpu.cfs_quota_us"), *_numbers("cpu/cpu.cfs_period_us")]
    if len(share) == 2 and 0 < share[0] < math.inf:
        cores = min(cores, math.ceil(share[0] / share[1]))
    return max(1, cores)


def free_memory() -> float:
    """Bytes that may still be taken, by the system and by the container; infinity where neither says it."""
    free = math.inf
    try:
        for line in _MEMORY.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024.0
    except OSError:
        pass
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        if (most := _numbers(limit)) and (taken := _numbers(used)):
            free = min(free, most[0] - taken[0])
    return max(0.0, free)


def _numbers(name: str) -> list[float]:
    """What is in a file of the container's limits, 'max' as infinity; nothing where there is no such file."""
    try:
        return [math.inf if word == "max" else float(word) for word in (_CONTROL / name).read_text().split()]
    except (OSError, ValueError):
        return []

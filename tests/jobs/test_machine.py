"""How many processes are of use, by cores, memory, the container's limits, and what runs the network."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from osmn_tf import machine
from osmn_tf.jobs import many
from osmn_tf.jobs.many import MEMORY, enough_workers
from osmn_tf.jobs.rows import Row
from osmn_tf.machine import free_memory, usable_cores


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a container's limits, of none; eight cores and 4 GiB of free memory."""
    (tmp_path / "meminfo").write_text("MemTotal:  9000000 kB\nMemAvailable:   4194304 kB\nBuffers: 1 kB\n")
    monkeypatch.setattr(machine, "_CONTROL", tmp_path)
    monkeypatch.setattr(machine, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for folder in ("cpu", "memory"):
        (tmp_path / folder).mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "5000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu.max": "nonsense"}, 8),
    ],
)
def test_cores(files: dict[str, str], cores: int, control: Path) -> None:
    for name, text in files.items():
        (control / name).write_text(text)
    assert usable_cores() == cores


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 4 << 30),
        ({"memory.max": "max\n", "memory.current": "500\n"}, 4 << 30),
        ({"memory.max": f"{3 << 30}\n", "memory.current": f"{1 << 30}\n"}, 2 << 30),
        ({"memory/memory.limit_in_bytes": "1000\n", "memory/memory.usage_in_bytes": "400\n"}, 600),
        ({"memory.max": "1000\n", "memory.current": "1400\n"}, 0),
        ({"meminfo": "MemTotal: 5 kB\n"}, math.inf),
    ],
)
def test_memory(files: dict[str, str], free: float, control: Path) -> None:
    for name, text in files.items():
        (control / name).write_text(text)
    assert free_memory() == free


def rows(count: int, **columns: str) -> list[Row]:
    return [Row(index, str(index), {"video": "a.mp4", "mask": "a.png", **columns}, "out") for index in range(count)]


def test_workers(control: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [enough_workers(rows(count)) for count in (1, 3, 50)] == [1, 3, 8]
    (control / "meminfo").write_text(f"MemAvailable: {5 * MEMORY // 1024 + 3} kB\n")
    assert enough_workers(rows(50)) == 5
    (control / "meminfo").write_text("MemAvailable: 3 kB\n")
    assert enough_workers(rows(50)) == 1
    (control / "meminfo").write_text("")
    # Keras, in any of the rows.
    assert enough_workers([*rows(5), *rows(1, engine="keras")]) == 1
    assert enough_workers(rows(5, finetune="3")) == 1
    monkeypatch.setattr(many, "usable_cores", lambda: 3)
    assert enough_workers(rows(50)) == 3

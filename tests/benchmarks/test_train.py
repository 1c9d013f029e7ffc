from __future__ import annotations

from pathlib import Path

import pytest

from osmn_tf.benchmarks.train import Throughput
from osmn_tf.cli.main import main


def test_three_forward_passes_to_a_step() -> None:
    assert Throughput(2, 0.1, 0.5, 0.6, 0.0, 1e9).flop_per_second == 6e9
    assert Throughput(2, 0.1, 0.5, 0.6, 0.0, None).flop_per_second is None


def test_command(tiny_config: Path, data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["benchmark", "train", str(tiny_config), "--set", f"data.root={data_root}", "--steps", "2"]
    assert main([*words, "--peak", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[:3]] == ["pipeline alone", "step alone", "together"]
    pipeline, step, together = (float(line.split(" ms per batch")[0].split()[-1]) for line in lines[:3])
    assert min(pipeline, step) > 0
    assert together > step / 3
    waiting = float(lines[3].removeprefix("waiting for data: ").split("%")[0])
    assert 0 <= waiting <= 100
    assert lines[4].endswith("% of the peak")
    assert main([*words, "--steps", "0"]) == 2

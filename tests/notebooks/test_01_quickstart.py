"""The quick-start notebook runs from top to bottom and shows pictures."""

from __future__ import annotations

import pytest

from .running import outputs_of, printed


@pytest.mark.slow
def test_runs_and_shows_pictures() -> None:
    outputs = outputs_of("01_quickstart")
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert "60 masks written" in printed(outputs)

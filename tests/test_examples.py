"""The example in the docstring of every public name runs, and prints what it says."""

from __future__ import annotations

import doctest
import inspect
import os
from pathlib import Path

import pytest

import osmn_tf


def examples(name: str) -> doctest.DocTest:
    item = osmn_tf if name == "osmn_tf" else getattr(osmn_tf, name)
    text = inspect.getdoc(item) or ""
    return doctest.DocTestParser().get_doctest(text, {}, name, None, None)


@pytest.mark.parametrize("name", ["osmn_tf", *sorted(set(osmn_tf.__all__) - {"__version__"})])
def test_example(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.endswith("_detections"):
        pytest.importorskip("supervision", reason="supervision is not installed: pip install 'osmn-tf[supervision]'")
    example = examples(name)
    assert example.examples, f"{name} has no example in its docstring"
    monkeypatch.chdir(tmp_path)
    report: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(example, out=report.append)
    assert result.failed == 0, "".join(report)
    assert os.getcwd() == str(tmp_path)

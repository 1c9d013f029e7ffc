"""Runs a notebook of the repository from top to bottom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"


def outputs_of(name: str) -> list[Any]:
    """The outputs of all cells of `notebooks/NAME.ipynb`, run in its folder."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": str(FOLDER)}}).execute()
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def printed(outputs: list[Any]) -> str:
    """What the cells print, whole: a kernel may send one line in several parts."""
    return "".join(output["text"] for output in outputs if output.get("name") == "stdout")

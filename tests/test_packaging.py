"""What an installation carries: the list of packages in setup.cfg is complete, and a wheel has presets and examples."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_setup_lists_every_package() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "osmn_tf").rglob("*.py")
        if "__pycache__" not in path.parts
    }
    # Folders of data files, which have no module of their own.
    assert listed - found <= {"osmn_tf.saved_models", "osmn_tf.examples", "osmn_tf.configs"}
    assert found <= listed


@pytest.mark.slow
def test_wheel_carries_presets_and_examples(tmp_path: Path) -> None:
    # Setuptools leaves its build folder in the source tree: build from a copy.
    source = tmp_path / "source"
    for name in ("osmn_tf", "saved_models"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for preset in ("osmn_match_lite", "osvos_lite", "reconvnet_lite", "rvos_lite"):
        for file in (path for path in (ROOT / "saved_models" / preset).rglob("*") if path.is_file()):
            assert f"osmn_tf/saved_models/{file.relative_to(ROOT / 'saved_models').as_posix()}" in names
    assert "osmn_tf/examples/meadow/meadow.mp4" in names
    assert "osmn_tf/examples/meadow/masks/00059.png" in names
    assert "osmn_tf/py.typed" in names

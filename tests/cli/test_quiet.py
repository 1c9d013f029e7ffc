"""What a backend's start is kept from doing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from osmn_tf.cli import quiet


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that is installed and that nobody has imported."""
    (tmp_path / "an_unused_package.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(quiet, "_UNUSED", ("an_unused_package",))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    return "an_unused_package"


def is_there(package: str) -> bool:
    try:
        __import__(package)
    except ImportError:
        return False
    return True


def test_unused_packages_are_hidden_only_meanwhile(package: str) -> None:
    with quiet.without_unused():
        assert not is_there(package)
    assert is_there(package)
    with quiet.without_unused():  # somebody has imported it: it stays
        assert is_there(package)
    del sys.modules[package]


def test_other_backends_get_what_they_need(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "jax"}))
    with quiet.without_unused():
        assert is_there(package)
    del sys.modules[package]
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    with quiet.without_unused():
        assert not is_there(package)

"""The example clips that come with the package."""

from __future__ import annotations

from pathlib import Path

from osmn_tf.errors import InputError

_FOLDER = Path(__file__).resolve().parents[1] / "examples"


def list_examples() -> list[str]:
    """Names of the shipped examples, in alphabetical order."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/*.mp4"))


def example_path(name: str = "meadow") -> Path:
    """Folder of a shipped example.

    It holds `NAME.mp4`, `first_mask.png` (palette PNG, the objects of the first frame), `masks/%05d.png` (exact masks
    of all frames) and `README.md`.

    Raises:
        InputError: there is no such example; the message lists them.
    """
    known = list_examples()
    if name not in known:
        raise InputError(f"example: no example '{name}'; there are: {', '.join(known)}")
    return _FOLDER / name

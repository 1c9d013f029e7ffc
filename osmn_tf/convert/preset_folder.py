"""The folder of an imported preset: refused early where it is in the way, and there only when it is whole."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from osmn_tf.errors import InputError
from osmn_tf.files import ensure_directory, write_text
from osmn_tf.models.presets import CONFIG_FILE, save_preset

RECORD_FILE = "import.json"


def check_destination(out: Path, force: bool) -> None:
    """Creates the folder above `out`.

    Raises:
        InputError: `out` is something else than a preset, or is one and `force` is not given.
    """
    ensure_directory(out.resolve().parent, "--out")
    if out.is_file():
        raise InputError(f"--out: expected a folder, but {out} is a file")
    if out.is_dir() and any(out.iterdir()):
        if not (out / CONFIG_FILE).is_file():
            raise InputError(f"--out: the folder {out} exists and holds something else than a preset")
        if not force:
            raise InputError(f"--out: {out} exists already; use --force to replace it, or another --out")


def write_preset(
    model: keras.Model, out: Path, metadata: Mapping[str, Any], record: Mapping[str, Any], dtype: str
) -> None:
    """Writes the preset beside its place and moves it there when it is complete.

    Args:
        model, metadata, dtype: as `save_preset`.
        out: the folder, which is replaced.
        record: what became of each tensor, for `import.json`.

    Raises:
        InputError: it cannot be written.
    """
    mark = uuid.uuid4().hex[:8]
    temporary, old = (out.with_name(f".{out.name}.{mark}.{ending}") for ending in ("part", "old"))
    try:
        save_preset(model, temporary, metadata, dtype)
        write_text(temporary / RECORD_FILE, json.dumps(record, indent=2) + "\n")
        if out.is_dir():
            os.replace(out, old)
        os.replace(temporary, out)
    except OSError as error:
        raise InputError(f"--out: cannot write {out} ({error.strerror or error})") from error
    finally:
        if old.is_dir() and not out.exists():
            os.replace(old, out)
        for folder in (temporary, old):
            shutil.rmtree(folder, ignore_errors=True)

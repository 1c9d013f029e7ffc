"""An exported SavedModel's folder and what is written beside it. Needs neither TensorFlow nor Keras."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from osmn_tf.errors import InputError
from osmn_tf.files import file_digest

EXTRA_ASSETS = "assets.extra"  # TensorFlow Serving's name for what it leaves alone
METADATA_FILE = "osmn_tf.json"
GRAPH_FILE = "saved_model.pb"  # TensorFlow's name


def find_saved_model(path: str | os.PathLike[str]) -> Path | None:
    """The folder of a SavedModel, given it (`NAME/1`) or that of its versions (`NAME`), of which the highest counts.

    None where `path` is something else.
    """
    folder = Path(path)
    if (folder / GRAPH_FILE).is_file():
        return folder
    versions = [child.parent for child in folder.glob(f"*/{GRAPH_FILE}") if child.parent.name.isdigit()]
    return max(versions, key=lambda version: int(version.name), default=None)


def read_metadata(folder: str | os.PathLike[str], check_files: bool = True) -> dict[str, Any]:
    """The metadata of an exported version's folder.

    Args:
        check_files: compare the files' checksums too.

    Raises:
        InputError: the folder is no SavedModel of this package, or a file of it is missing or damaged.
    """
    path = Path(folder) / EXTRA_ASSETS / METADATA_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        digests = document["sha256"]
    except OSError as error:
        raise InputError(
            f"{folder}: expected the folder of an exported version (NAME/1), but {EXTRA_ASSETS}/{METADATA_FILE} is"
            f" not readable ({error.strerror or error})"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged, expected the JSON of 'osmn export'") from error
    if check_files:
        for name, digest in digests.items():
            file = Path(folder) / name
            if not file.is_file():
                raise InputError(f"{file}: missing, the SavedModel is incomplete")
            if file_digest(file) != digest:
                raise InputError(f"{file}: damaged (its SHA-256 is not the one in {METADATA_FILE})")
    return dict(document)

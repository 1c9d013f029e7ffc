"""Errors that a user can act on.

The command line prints the message of an `InputError` on one line and exits with code 2; library users catch it
as the `ValueError` that it is.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Sequence
from typing import Any


class InputError(ValueError):
    """A file or an argument given by the user is wrong.

    The message is one line that names the argument or file, what was expected and what was received.

    Example:
        >>> import osmn_tf as osmn
        >>> try:
        ...     osmn.read_mask("no such file.png")
        ... except osmn.InputError as error:
        ...     print(error)
        no such file.png: cannot read the mask (No such file or directory)
    """


class MissingDependencyError(InputError, ImportError):
    """An optional package is not installed. The message names the extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed: run  pip install 'osmn-tf[{extra}]'"
        )


def import_extra(module: str, package: str, extra: str, purpose: str) -> Any:
    """A module of an optional package.

    Args:
        module: its name, "scipy.optimize".
        package, extra, purpose: what is to be installed, and what for.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(package, extra, purpose) from error


def is_installed(module: str) -> bool:
    """Whether a module is there, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # half imported, or kept from being imported
        return False


def check_backend(purpose: str = "running a network") -> None:
    """Looks for Keras and the backend that it is set to.

    Args:
        purpose: what needs them, for the message.

    Raises:
        MissingDependencyError: one is not installed.
    """
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    for package in ("keras", backend):  # by the module's name: TensorFlow comes as tensorflow-cpu too
        if not is_installed(package):
            raise MissingDependencyError(package, "tf" if backend == "tensorflow" else backend, purpose)


def first_line(error: BaseException) -> str:
    """What an error of another library says, of which the rest is for those who know that library."""
    return str(error).strip().split("\n")[0]


def one_line(error: BaseException) -> str:
    """All that an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def name_some(names: Sequence[object], limit: int = 3) -> str:
    """ "a, b, c and 12 more": for messages about many files."""
    shown = ", ".join(str(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"

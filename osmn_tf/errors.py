"""Errors that a user can act on.

The command line prints the message of an `InputError` on one line and exits with code 2; library users catch it
as the `ValueError` that it is.
"""

from __future__ import annotations


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

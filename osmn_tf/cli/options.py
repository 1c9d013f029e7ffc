"""Arguments that several subcommands read in the same way."""

from __future__ import annotations

from osmn_tf.errors import InputError


def parse_size(text: str) -> tuple[int, int]:
    """The value of --network-size: "288x512" -> (288, 512), height first.

    Raises:
        InputError: it is not HxW with positive numbers.
    """
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"--network-size: expected HxW such as 288x512, received {text!r}")
    return int(parts[0]), int(parts[1])

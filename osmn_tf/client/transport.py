"""What a client asks of the way to a server, and what is done when an answer does not come."""

from __future__ import annotations

import abc
import dataclasses
import random
import re
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np

from osmn_tf.errors import InputError

T = TypeVar("T")

Tensors = dict[str, np.ndarray]
"""Name -> array; strings as an object array of bytes."""

Signatures = Mapping[str, Mapping[str, tuple[str, tuple[int | None, ...]]]]
"""Signature -> input -> (dtype, shape)."""


class ServerError(InputError):
    """The server refused a request, or gave no answer. The message is one line and names the server."""


class TransientError(Exception):
    """An answer did not come, but may come if the request is sent again: every request is a pure function."""


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long to wait for a server.

    Attributes:
        timeout: seconds for one request.
        retry_for: seconds from the first failure of a request during which it is sent again; 0: never again.
        first_pause: seconds before the second attempt; doubled every time, with a random part.
        longest_pause: seconds.
    """

    timeout: float = 30.0
    retry_for: float = 60.0
    first_pause: float = 0.1
    longest_pause: float = 2.0

    def __post_init__(self) -> None:
        if self.timeout <= 0:
            raise InputError(f"timeout: expected a positive number of seconds, received {self.timeout}")
        if self.retry_for < 0:
            raise InputError(f"retry_for: expected 0 or more seconds, received {self.retry_for}")

    def call(self, request: Callable[[], T], address: str) -> T:
        """The result of `request`, which is called again after a TransientError.

        Raises:
            ServerError: no answer came in time.
        """
        attempts, failed_at = 0, 0.0
        while True:
            attempts += 1
            try:
                return request()
            except TransientError as error:
                now = time.monotonic()
                failed_at = failed_at or now
                pause = min(self.first_pause * 2 ** (attempts - 1), self.longest_pause) * random.uniform(0.5, 1.0)
                if now + pause - failed_at > self.retry_for:
                    times = "once" if attempts == 1 else f"{attempts} times in {now - failed_at:.1f} s"
                    raise ServerError(f"{address}: {error} (tried {times})") from error
            time.sleep(pause)


class Transport(abc.ABC):
    """One model of one server.

    Attributes:
        address: of the server, for messages.
        model: name of the model.
        sent_bytes, received_bytes: of all requests and answers so far, without what the protocol adds to a message.
    """

    def __init__(self, address: str, model: str) -> None:
        self.address = address
        self.model = model
        self.sent_bytes = 0
        self.received_bytes = 0

    @abc.abstractmethod
    def describe(self, version: int | None) -> tuple[int, Signatures]:
        """The version that is served (the latest, or the given one), and its signatures.

        Raises:
            TransientError: no answer.
            ServerError: there is no such model or version.
        """

    @abc.abstractmethod
    def predict(self, signature: str, inputs: Tensors, version: int) -> Tensors:
        """Runs a signature.

        Raises:
            TransientError: no answer.
            ServerError: the server refuses.
        """

    def close(self) -> None:  # noqa: B027 (most have nothing to close)
        """Gives connections back."""


def readable(message: str) -> str:
    """The line of TensorFlow's error message that says what is wrong."""
    asserted = re.search(r"assertion failed: \[([^\]]*)\]((?: \[[^\]]*\])*)", message)
    if asserted:
        values = re.findall(r"\[([^\]]*)\]", asserted[2])
        return asserted[1] + "".join(f" [{value}]" for value in values)
    # The name of an input stands at the end of the path of the graph's node.
    message = re.sub(r"Shape of tensor (?:\S*/)?(\S+?)_\d+ \[", r"\1: the shape [", message)
    noise = ("Graph execution error", "Detected at node", "<stack traces", "[[{{", "Traceback")
    lines = [line.strip() for line in message.splitlines()]
    lines = [line for line in lines if line and not line.startswith(noise)]
    return lines[0] if lines else message.strip() or "no message"

"""Fine-tuners of a network that no predictor uses at the moment, with their compiled training steps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Tuner = TypeVar("Tuner")


class TunerPool(Generic[Tuner]):
    """Lends a fine-tuner to one user at a time.

    Args:
        make: makes a new one from what `borrow` was called with.
        most_idle: how many wait for another video; the oldest go first.
    """

    def __init__(self, make: Callable[..., Tuner], most_idle: int = 2) -> None:
        self._make, self._most_idle = make, most_idle
        self._idle: list[tuple[Hashable, Tuner]] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._idle)

    def borrow(self, *settings: Hashable) -> Tuner:
        """A fine-tuner with these settings that nobody else uses."""
        with self._lock:
            for index, (known, _) in enumerate(self._idle):
                if known == settings:
                    return self._idle.pop(index)[1]
        return self._make(*settings)

    def give_back(self, tuner: Tuner, *settings: Hashable) -> None:
        """The reverse of `borrow`."""
        with self._lock:
            self._idle = [*self._idle, (settings, tuner)][-self._most_idle :]

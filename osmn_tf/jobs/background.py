"""Work beside the main thread, and interruptions that wait for a frame to be finished."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

MOST_PENDING = 8  # jobs that wait: each holds a frame and a mask


class Background:
    """A thread that does jobs in order; a job's error is raised by the next call."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._slots = threading.Semaphore(MOST_PENDING)
        self._error: BaseException | None = None

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        """Queues a job; waits while too many are queued."""
        self._raise_error()
        self._slots.acquire()
        self._pool.submit(function, *arguments).add_done_callback(self._finished)

    def _finished(self, future: Future[None]) -> None:
        self._error = self._error or future.exception()
        self._slots.release()

    def wait(self) -> None:
        """Returns when all jobs are done."""
        for _ in range(MOST_PENDING):
            self._slots.acquire()
        self._slots.release(MOST_PENDING)
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Ends the thread behind the last job; errors stay where they are."""
        self._pool.shutdown()


@contextmanager
def deferred_interrupt() -> Iterator[threading.Event]:
    """The first Ctrl-C only sets the event, so that the frame in hand is finished; the second one interrupts."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested
        return

    def handle(number: int, frame: Any) -> None:
        if requested.is_set():
            raise KeyboardInterrupt
        requested.set()

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield requested
    finally:
        signal.signal(signal.SIGINT, previous)

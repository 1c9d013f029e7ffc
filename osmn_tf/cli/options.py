"""What all subcommands share: a parser, exit codes, progress bars."""

from __future__ import annotations

import argparse
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from tqdm import tqdm

EXIT_OK = 0
EXIT_INCOMPLETE = 1  # something was kept, but not all of it could be done
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

RUNNERS = ("local", "ray")
"""Where the processes are that segment many videos."""


class Parser(argparse.ArgumentParser):
    """Refuses in one line, as everything else of the command line does; its subparsers are of its class."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with exit code 2."""
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: error: {' '.join(message.split())} (see '{self.prog} --help')\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Knows all arguments: what a subcommand does not know is its own error, not that of the command above it."""
        arguments, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return arguments, unknown


class Bars:
    """Progress bars of a job, one after the other; none without a terminal.

    Args:
        quiet: none at all.
    """

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet or not sys.stderr.isatty()
        self._what: str | None = None
        self._bar: tqdm | None = None

    def show(self, what: str, done: int, total: int | None, note: str) -> None:
        """Says that `done` of `total` are done of `what`; another `what` begins a new bar."""
        if self._quiet:
            return
        from tqdm import tqdm

        if self._bar is None or what != self._what:
            self._close()
            self._what = what
            self._bar = tqdm(total=total, desc=what, dynamic_ncols=True)
        self._bar.total = total
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Bars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

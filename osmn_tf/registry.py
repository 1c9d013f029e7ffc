"""Registries: what can be added to the package by adding a file, and chosen by name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from osmn_tf.errors import InputError, MissingDependencyError

T = TypeVar("T")
S = TypeVar("S")


class Registry(Generic[T]):
    """Things of one kind by name.

    Nothing is listed by hand: a name that is not known yet makes the registry import all modules of one package, and
    each registers what it defines. A file outside the package registers by being imported.

        networks: Registry[type] = Registry("network", "osmn_tf.models")

        @networks.register("OSMN")
        class OSMN: ...

        networks.get("OSMN")

    Args:
        kind: what is in it, for messages: "network".
        package: the package whose modules (not its subpackages' modules) register themselves.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._items: dict[str, T] = {}
        self._looked = False
        self._skipped: list[str] = []

    def register(self, name: str) -> Callable[[S], S]:
        """A decorator that registers what it decorates, and returns it.

        Raises:
            ValueError: something else has this name. (The same definition once more, as by running a cell again, takes
                the place of the former.)
        """

        def decorate(item: S) -> S:
            known = self._items.get(name)
            if known is not None and known is not item and _origin(known) != _origin(item):
                raise ValueError(f"{self.kind} {name!r}: {_origin(item)} would replace {_origin(known)}")
            self._items[name] = item  # type: ignore[assignment]
            return item

        return decorate

    def get(self, name: str) -> T:
        """What is called `name`.

        Raises:
            InputError: there is no such thing; the message lists the names.
        """
        if name not in self._items:
            self._look()
        if name not in self._items:
            skipped = f" (not available: {'; '.join(self._skipped)})" if self._skipped else ""
            raise InputError(f"{self.kind}: expected one of {', '.join(self.names())}, received {name!r}{skipped}")
        return self._items[name]

    def names(self) -> list[str]:
        """All names, sorted."""
        self._look()
        return sorted(self._items)

    def name_of(self, item: Any) -> str | None:
        """The name under which `item` is registered, or None."""
        self._look()
        return next((name for name, known in self._items.items() if known is item), None)

    def _look(self) -> None:
        """Imports the modules of the package, once. Those that need something that is not installed are left out."""
        if self._looked:
            return
        skipped = []
        for module in pkgutil.iter_modules(importlib.import_module(self.package).__path__):
            try:
                importlib.import_module(f"{self.package}.{module.name}")
            except MissingDependencyError as error:
                skipped.append(str(error))
            except ModuleNotFoundError as error:
                if (error.name or "").partition(".")[0] == self.package.partition(".")[0]:
                    raise
                skipped.append(f"{module.name} needs the package {error.name!r}")
        self._looked, self._skipped = True, skipped


def _origin(item: Any) -> str:
    """Where a class or a function is defined."""
    return f"{getattr(item, '__module__', '')}.{getattr(item, '__qualname__', repr(item))}"

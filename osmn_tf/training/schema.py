"""Plain data (from YAML) into frozen dataclasses, directed by their type hints.

Every mistake is one line that says where it is ("optimizer.learning_rate"), what was expected and what was received.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from osmn_tf.errors import InputError

T = TypeVar("T")


def build(cls: type[T], data: Any, where: str = "") -> T:
    """Makes a dataclass from a mapping.

    Args:
        cls: a dataclass; its `__post_init__` may raise `InputError("field: ...")`.
        data: a mapping with the fields as keys.
        where: dotted path of the mapping, for messages.

    Raises:
        InputError: an unknown or missing key, a wrong type, or values that do not go together.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values = convert_arguments(data, {name: hints[name] for name in fields}, where)
    missing = [
        name
        for name, field in fields.items()
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"{_join(where, missing[0])}: a value is required")
    try:
        return cls(**values)
    except InputError as error:
        raise InputError(_join(where, str(error))) from error


def convert_arguments(data: Any, hints: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Checks and converts the values of a mapping; `hints` gives the type of every key that is allowed."""
    if not isinstance(data, Mapping):
        raise InputError(f"{where or 'configuration'}: expected a mapping, received {_shown(data)}")
    for key in data:
        if key not in hints:
            close = difflib.get_close_matches(str(key), hints, n=1)
            guess = f" (did you mean {close[0]}?)" if close else ""
            raise InputError(f"{_join(where, key)}: unknown key{guess}; valid keys: {', '.join(sorted(hints))}")
    return {key: convert(value, hints[key], _join(where, key)) for key, value in data.items()}


def convert(value: Any, hint: Any, where: str) -> Any:
    """Checks one value against a type hint, and converts it where YAML has no such type (tuples, 1e-5)."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        choices = [choice for choice in arguments if choice is not type(None)]
        if value is None and len(choices) < len(arguments):
            return None
        for choice in choices[:-1]:
            try:
                return convert(value, choice, where)
            except InputError:
                continue
        return convert(value, choices[-1], where)
    if dataclasses.is_dataclass(hint):
        chosen = getattr(hint, "choose", None)
        return chosen(value, where) if chosen else build(typing.cast(type, hint), value, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _wrong("a mapping", value, where)
        return {str(key): convert(item, arguments[1], _join(where, key)) for key, item in value.items()}
    if origin in (tuple, collections.abc.Sequence):
        return _tuple(value, arguments, where)
    if hint is bool:
        if not isinstance(value, bool):
            raise _wrong("true or false", value, where)
        return value
    if hint in (int, float):
        return _number(value, hint, where)
    if hint is str:
        if not isinstance(value, str):
            raise _wrong("a text", value, where)
        return value
    raise TypeError(f"{where}: no conversion to {hint}")


def _tuple(value: Any, arguments: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _wrong("a list", value, where)
    if len(arguments) == 1 or arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise _wrong(f"a list of {len(arguments)}", value, where)
    return tuple(convert(item, hint, f"{where}[{i}]") for i, (item, hint) in enumerate(zip(value, arguments)))


def _number(value: Any, kind: type, where: str) -> int | float:
    # PyYAML reads 1e-5 (without a point) as a text.
    number = value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = None
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise _wrong("a number" if kind is float else "a whole number", value, where)
    if kind is float:
        return float(number)
    if number != int(number):
        raise _wrong("a whole number", value, where)
    return int(number)


def _wrong(expected: str, value: Any, where: str) -> InputError:
    return InputError(f"{where}: expected {expected}, received {_shown(value)}")


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _join(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)

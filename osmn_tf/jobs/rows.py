"""Tables of videos: what a row says, as the options of a job.

The columns are the fields of `SegmentOptions`, of its `network`, its `look` and its `outputs`, each by its own name;
"mask" stands for `masks` and `annotations`, "box", "click" and "until" for `boxes`, `clicks` and `ends`. A field that
is added there is a column here.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from osmn_tf.datasets.annotations import is_annotation_file
from osmn_tf.errors import InputError
from osmn_tf.inference.predictor import PredictorOptions, parse_size
from osmn_tf.jobs.options import SegmentOptions
from osmn_tf.jobs.outputs import Look, outputs
from osmn_tf.masks.prompts import parse_box, parse_clicks

T = TypeVar("T")

Columns = Mapping[str, Any]
"""What is given of one video: column -> value, as JSON has values."""

OBJECTS = ("mask", "box", "click", "detections")
FILES = ("video", "mask", "detections", "detection_images")  # that a row reads
_MOST_NAMED = 3  # problems that a message names


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One video of a table.

    Attributes:
        number: in the table, from 1.
        name: what its results are called, below the folder of all results: "OUT/NAME" or "NAME".
        columns: what is given, and only that. Paths of what is read are absolute.
        out: the folder of all results.
    """

    number: int
    name: str
    columns: Columns
    out: str

    @property
    def options(self) -> SegmentOptions:
        """What the job is told."""
        return options_of(self.columns, self.out)


def read_table(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    base: Columns | None = None,
    of_preset: Callable[[str], Columns] | None = None,
) -> list[Row]:
    """Reads a table of videos, CSV with a header or JSON Lines.

    Relative paths of what is read are relative to the table's folder. In CSV an empty cell is one that is not there,
    and several masks or boxes in a cell are separated by ';'.

    Args:
        path: ends in .csv, or in .jsonl.
        out: the folder of all results.
        base: columns that hold where a row has none of its own. In their texts {name} is the video's name.
        of_preset: those that hold instead of them where a row has this preset of its own.

    Raises:
        InputError: the table is unreadable or empty, has a column that there is not, or a row is wrong; see `check`.
    """
    path = Path(path)
    reader = {".csv": _read_csv, ".jsonl": _read_jsonl}.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"--list: expected a .csv or a .jsonl file, received {path}")
    try:
        given = list(reader(path))
    except OSError as error:
        raise InputError(f"--list: cannot read {path} ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"--list: {path} is not UTF-8 text") from error
    if not given:
        raise InputError(f"--list: {path} has no rows")
    folder = Path(os.path.abspath(path.parent))
    return make_rows([_beside(columns, folder) for columns in given], out, base, f"--list: {path}, row", of_preset)


def make_rows(
    given: Iterable[Columns],
    out: str | os.PathLike[str],
    base: Columns | None = None,
    where: str = "video",
    of_preset: Callable[[str], Columns] | None = None,
) -> list[Row]:
    """Rows of columns, checked.

    Args:
        given: of every video.
        out, base, of_preset: as `read_table`.
        where: what messages call a row, before its number.

    Raises:
        InputError: a row is wrong; see `check`.
    """
    rows = []
    for number, own in enumerate(given, start=1):
        if not own.get("video"):
            raise InputError(f"{where} {number}: expected a video, received none")
        for key in ("video", "out"):
            if not isinstance(own.get(key) or "", str | os.PathLike):
                raise InputError(f"{where} {number}: {key}: expected str, received {own[key]!r}")
        stem = Path(own["video"])
        # As `open_source` calls it: a folder by its whole name.
        name = stem.resolve().name if stem.is_dir() else stem.stem
        preset = own.get("preset")
        of_own = of_preset(preset) if of_preset and isinstance(preset, str) else {}
        inherited = {
            key: _filled(value, name)
            for key, value in {**(base or {}), **of_own}.items()
            if key not in own and not (key in ("mask", "box", "click") and any(own.get(kind) for kind in OBJECTS))
        }
        columns = {**inherited, **own}
        name = os.path.normpath(os.path.join(columns.get("out") or "", name))
        rows.append(Row(number, name, columns, os.path.abspath(out)))
    check(rows, where)
    return rows


def _filled(value: Any, name: str) -> Any:
    if isinstance(value, str):
        return value.replace("{name}", name)
    return [_filled(item, name) for item in value] if isinstance(value, list) else value


def check(rows: Sequence[Row], where: str) -> None:
    """Finds what is wrong with a table before anything is written.

    Raises:
        InputError: a value cannot be read, a file is missing, or two videos would have the same results.
    """
    problems: list[str] = []
    names: dict[str, int] = {}
    for row in rows:
        try:
            options = row.options
        except InputError as error:
            problems.append(f"{where} {row.number}: {error}")
            continue
        missing = next((path for path in files_read(options) if not os.path.exists(path)), None)
        if missing is not None:
            problems.append(f"{where} {row.number}: there is no {missing}")
        targets = [row.name, *(os.path.normpath(path) for path in options.outputs.values() if path is not None)]
        for target in targets:
            if (first := names.setdefault(target, row.number)) != row.number:
                problems.append(f"{where} {row.number}: its results would be those of row {first} ({target})")
    if problems:
        more = f" (and {len(problems) - _MOST_NAMED} more)" if len(problems) > _MOST_NAMED else ""
        raise InputError("; ".join(problems[:_MOST_NAMED]) + more)


def files_read(options: SegmentOptions) -> list[Path]:
    """The video, the masks and the detections of a job, where they are files or folders."""
    paths = [options.video, *options.mask_files]
    return [Path(path) for path in (*paths, options.detections, options.detection_images) if path is not None]


# A row as options, and back ---------------------------------------------------------------------------------------


def options_of(columns: Columns, out: str | os.PathLike[str]) -> SegmentOptions:
    """The options of a job.

    Args:
        columns: see `Columns`.
        out: folder of all results; the column "out", and paths of results, are relative to it.

    Raises:
        InputError: there is no such column, or a value cannot be read.
    """
    settings: dict[str, dict[str, Any]] = {part: {} for part in _FIELDS}
    kinds = dict(SegmentOptions("").outputs)
    known = outputs.names()
    for name, value in columns.items():
        if value is None or value == "" or name in _LISTS:
            continue
        part = next((part for part, fields in _FIELDS.items() if name in fields), None)
        if name in known:
            _choose_output(kinds, name, value, out)
        elif part is not None:
            settings[part][name] = _value(name, _FIELDS[part][name], value)
        else:
            raise InputError(f"column {name!r}: expected one of {', '.join(column_names())}")
    own = settings.pop("")
    start = own.get("start", 0)
    mask, box, click, until = (_several(name, columns.get(name)) for name in _LISTS)
    masks, annotations = parse_masks(mask, start)
    own |= {
        "masks": masks,
        "annotations": annotations,
        "boxes": parse_prompts(box, start, parse_box),
        "clicks": parse_prompts(click, start, parse_clicks),
        "ends": parse_ends(until),
    }
    own["out"] = os.path.join(out, own.get("out", ""))
    parts = {part: _PARTS[part](**given) for part, given in settings.items()}
    return SegmentOptions(**own, **parts, outputs=kinds)


def columns_of(options: SegmentOptions) -> dict[str, Any]:
    """The columns that `options_of` makes these options of, but for the folder of all results.

    Paths become absolute.
    """
    default = SegmentOptions("")
    found: dict[str, Any] = {}
    for part, fields in _FIELDS.items():
        own, plain = (getattr(each, part) if part else each for each in (options, default))
        for name in fields:
            value = getattr(own, name)
            if name != "out" and value != getattr(plain, name):
                found[name] = "{}x{}".format(*value) if name == "network_size" else value
    if options.masks or options.annotations is not None:
        found["mask"] = [f"{number}:{os.path.abspath(str(path))}" for number, path in options.masks.items()]
        found["mask"] += [] if options.annotations is None else [os.path.abspath(options.annotations)]
    if options.boxes:
        found["box"] = [f"{n}:{','.join(map(str, box))}" for n, boxes in options.boxes.items() for box in boxes]
    if options.clicks:
        found["click"] = [
            f"{n}:{'+'.join(f'{x},{y}' for x, y in clicks)}"
            for n, objects in options.clicks.items()
            for clicks in objects
        ]
    if options.ends:
        found["until"] = [f"{label}:{number}" for label, number in options.ends.items()]
    for name in ("detections", "detection_images", "preset", "contours"):
        if name in found and (name not in ("preset", "contours") or os.path.exists(found[name])):
            found[name] = os.path.abspath(found[name])
    for name in outputs.names():
        if name != "masks" and (name in options.outputs) != (name in default.outputs):
            found[name] = name in options.outputs
        if options.outputs.get(name) is not None:
            found[name] = os.path.abspath(str(options.outputs[name]))
    return found


def column_names() -> tuple[str, ...]:
    """All columns that there are; kinds of results that a plugin brings are among them."""
    return (*_COLUMNS, *(name for name in outputs.names() if name != "masks"))


def _choose_output(kinds: dict[str, Any], name: str, value: Any, out: str | os.PathLike[str]) -> None:
    try:
        wanted = _boolean(value)
    except ValueError:
        kinds[name] = os.path.join(out, str(value))
        return
    if wanted:
        kinds.setdefault(name, None)
    else:
        kinds.pop(name, None)


def _value(name: str, kind: str, value: Any) -> Any:
    try:
        return _TYPES[kind](value)
    except (ValueError, TypeError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: expected {kind.partition(' |')[0]}, received {value!r}") from error


def _boolean(value: Any) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if str(value).lower() not in words:
        raise ValueError(value)
    return words[str(value).lower()]


def _integer(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and value != int(value)):
        raise ValueError(value)
    return int(value)


def _text(value: Any) -> str:
    if not isinstance(value, str | os.PathLike):
        raise ValueError(value)
    return str(value)


_TYPES: dict[str, Any] = {
    "bool": _boolean,
    "int": _integer,
    "float": float,
    "str": _text,
    "str | os.PathLike[str]": _text,
    "tuple[int, int]": lambda value: parse_size(_text(value)),
}


def _plain(options: Any) -> dict[str, str]:
    """Field -> its type as text, of those that one value of a column of this name gives."""
    kinds = {field.name: str(field.type).removesuffix(" | None") for field in dataclasses.fields(options)}
    return {name: kind for name, kind in kinds.items() if kind in _TYPES and name != "annotations"}  # in "mask"


_LISTS = ("mask", "box", "click", "until")
_PARTS: dict[str, Any] = {"network": PredictorOptions, "look": Look}
_FIELDS = {"": _plain(SegmentOptions), **{part: _plain(options) for part, options in _PARTS.items()}}
_COLUMNS = ("video", *_LISTS, *sorted({name for fields in _FIELDS.values() for name in fields} - {"video"}))


def parse_masks(values: Sequence[str], start: int) -> tuple[dict[int, str], str | None]:
    """Texts '[N:]FILE' as number of a frame -> file, and the file of annotations that has no number.

    Without a number a mask is of frame `start`, and annotations are of all their frames.

    Raises:
        InputError: a frame gets two masks, or there are two files of annotations without a number.
    """
    masks: dict[int, str] = {}
    annotations: str | None = None
    for value in values:
        number, path = _numbered(value)
        if number is None and is_annotation_file(path):
            if annotations is not None:
                raise InputError(f"--mask {value}: expected one file of annotations, received {annotations} too")
            annotations = path
            continue
        frame = start if number is None else number
        if frame in masks:
            raise InputError(f"--mask {value}: frame {frame} has a mask already")
        masks[frame] = path
    return masks, annotations


def parse_prompts(values: Sequence[str], start: int, parse: Callable[[str], T]) -> dict[int, tuple[T, ...]]:
    """Texts '[N:]X,Y,W,H' of boxes, or '[N:]X,Y+X,Y' of clicks, as number of a frame -> those in it.

    Args:
        start: the frame of those without a number.
        parse: reads one.

    Raises:
        InputError: one is not as `parse` wants it.
    """
    prompts: dict[int, tuple[T, ...]] = {}
    for value in values:
        number, text = _numbered(value)
        frame = start if number is None else number
        prompts[frame] = (*prompts.get(frame, ()), parse(text))
    return prompts


def parse_ends(values: Sequence[str]) -> dict[int, int]:
    """Texts 'LABEL:N' as label -> number of the frame from which on the object is not tracked.

    Raises:
        InputError: one is something else, or an object gets two.
    """
    ends: dict[int, int] = {}
    for value in values:
        label, separator, number = value.partition(":")
        if not (separator and label.isdecimal() and number.isdecimal()) or int(label) in ends:
            raise InputError(f"--until: expected LABEL:N, once for an object, received {value!r}")
        ends[int(label)] = int(number)
    return ends


def _numbered(value: str) -> tuple[int | None, str]:
    """'40:frame40.png' -> (40, 'frame40.png')."""
    number, separator, path = value.partition(":")
    return (int(number), path) if separator and number.isdecimal() and not Path(value).exists() else (None, value)


def _several(name: str, value: Any) -> list[str]:
    """The texts of a cell: one, several with ';' between them, or a list."""
    items = [part.strip() for part in value.split(";")] if isinstance(value, str) else value or []
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise InputError(f"{name}: expected a text or a list of texts, received {value!r}")
    return [item for item in items if item]


# Files ------------------------------------------------------------------------------------------------------------


def _beside(columns: Columns, folder: Path) -> dict[str, Any]:
    """With the paths of what is read relative to the current folder, rather than to the table's."""
    found = dict(columns)
    for name in FILES:
        value = found.get(name)
        if name == "mask":
            masks = [_numbered(text) for text in _several(name, value)]
            found[name] = [
                (f"{number}:" if number is not None else "") + os.path.join(folder, file) for number, file in masks
            ]
        elif isinstance(value, str) and value:
            found[name] = os.path.join(folder, value)
    for name in ("preset", "contours"):
        preset = found.get(name)
        if isinstance(preset, str) and preset and (folder / preset).exists():
            found[name] = os.path.join(folder, preset)
    return {name: value for name, value in found.items() if value not in (None, "", [])}


def _read_csv(path: Path) -> Iterable[dict[str, Any]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            _check_columns(reader.fieldnames or [], f"--list: {path}")
            for number, cells in enumerate(reader, start=1):
                if None in cells or None in cells.values():
                    count = len(reader.fieldnames or [])
                    raise InputError(f"--list: {path}, row {number}: expected {count} cells, as the header has")
                yield {name: cell.strip() for name, cell in cells.items()}
        except csv.Error as error:
            raise InputError(f"--list: {path}, line {reader.line_num}: no CSV ({error})") from error


def _read_jsonl(path: Path) -> Iterable[dict[str, Any]]:
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                content = json.loads(line)
            except ValueError as error:
                raise InputError(f"--list: {path}, line {number}: no JSON ({error})") from error
            if not isinstance(content, dict):
                raise InputError(f"--list: {path}, line {number}: expected an object, received {line.strip()[:40]}")
            _check_columns([*content, *(() if "video" in content else ("",))], f"--list: {path}, line {number}")
            yield content


def _check_columns(names: Sequence[str], where: str) -> None:
    if "video" not in names:
        raise InputError(f"{where}: expected a column 'video', received {', '.join(map(repr, names)) or 'nothing'}")
    unknown = [name for name in names if name not in column_names()]
    if unknown:
        raise InputError(f"{where}: expected columns among {', '.join(column_names())}, received {unknown[0]!r}")
    if len(set(names)) != len(names):
        raise InputError(f"{where}: a column is there twice")

"""Results of a network for a whole data set: segments every sequence, or keeps what an earlier run finished.

A sequence is kept only if everything that its masks depend on is unchanged: the network's files, the settings, the
code, the frames and the mask that was given. All of that is hashed into `<results>/<sequence>.json`, which is written
when the last mask of the sequence is.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Sequence as Frames
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import osmn_tf
from osmn_tf import files
from osmn_tf.errors import InputError
from osmn_tf.evaluation.protocols import Protocol, Sequence
from osmn_tf.inference.contours import Contours
from osmn_tf.inference.predictor import NetworkSource, Predictor, PredictorOptions, find_network
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.inference.snapping import SnappingPredictor
from osmn_tf.masks.files import read_label_png, write_mask
from osmn_tf.masks.labels import VOID
from osmn_tf.video.images import read_image

Array = NDArray[Any]
Track = Callable[[Frames[Array], "Mapping[int, Array] | None"], Iterable[tuple[Array, Array]]]
"""(frames uint8 RGB [H, W, 3], {number of a frame: given mask uint8 [H, W]}, or None where nothing is given) -> (frame,
mask) of every frame."""
Progress = Callable[[str, int, int], None]
"""Called with (sequence, frames done in all sequences, frames in all)."""

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Online fine-tuning on the given masks of every sequence.

    Attributes:
        steps: of it; None: `seconds`, or what the network needs.
        learning_rate: of the steps; None: the network's own.
        seconds: for every object, instead of steps.
    """

    steps: int | None = None
    learning_rate: float | None = None
    seconds: float | None = None

    @property
    def wanted(self) -> bool:
        """Whether it is asked for, whatever the network does by itself."""
        return bool(self.steps) or self.seconds is not None


def preset_track(
    preset: str,
    options: PredictorOptions | None = None,
    tuning: Tuning = Tuning(),
    engine: str | None = None,
    contours: Contours | None = None,
) -> tuple[Track, dict[str, Any]]:
    """Opens a network, and says what its results depend on.

    Args:
        preset: the name, path or address of a network (`osmn_tf.inference.predictor.open_predictor`).
        options: how it is used; its `engine` is not looked at.
        tuning: how it is fine-tuned to every sequence.
        engine: as `find_to_evaluate`.
        contours: let the masks follow these contours of the frames (`osmn_tf.inference.snapping`).

    Returns:
        The function that segments a video, and the settings to be recorded with its results.

    Raises:
        InputError: there is no such network, or it cannot be used so.
        MissingDependencyError: what runs it is not installed.
    """
    source, options = find_to_evaluate(preset, options, tuning, engine)
    # One for all sequences: `track` starts from nothing each time, and the network is compiled once.
    network = source.open(options)
    predictor = network if contours is None else SnappingPredictor(network, contours)
    segmenter = VideoSegmenter(predictor)
    if tuning.wanted and not segmenter.predictor.can_adapt:
        raise InputError(f"--finetune: {source.kind} cannot be fine-tuned, received {preset}")
    settings: dict[str, Any] = {
        "preset": preset,
        # A server may change its network at any time: results of one are never those of the next run.
        "network": files_digest(source.path) if source.path is not None else uuid.uuid4().hex,
        "network_size": list(options.network_size) if options.network_size else None,
        "code": _code_digest(*{network, predictor}),
    }
    if contours is not None:
        settings["snap"] = type(contours).__name__
    defaults = PredictorOptions()
    for name in ("merge", "precision", "objects", "search_window", "scale"):
        if getattr(options, name) != getattr(defaults, name):
            settings[name] = getattr(options, name)
    tunes = tuning.wanted or segmenter.predictor.adapts_itself
    if tunes:
        given = dataclasses.asdict(tuning)
        settings["finetune"] = {name: value for name, value in given.items() if value is not None}

    def tuned_track(frames: Frames[Array], given: Mapping[int, Array] | None) -> Iterator[tuple[Array, Array]]:
        if given is None:
            raise InputError("--finetune: there is nothing to fine-tune on in a protocol that gives no masks")
        annotated = [(frames[index], mask) for index, mask in sorted(given.items())]
        with segmenter.finetune(annotated, tuning.steps, tuning.learning_rate, seconds=tuning.seconds):
            yield from segmenter.track(frames, given)

    return tuned_track if tunes else segmenter.track, settings


def find_to_evaluate(
    preset: str,
    options: PredictorOptions | None = None,
    tuning: Tuning = Tuning(),
    engine: str | None = None,
) -> tuple[NetworkSource, PredictorOptions]:
    """Where a network is that is evaluated, and how it is used.

    Args:
        preset, options, tuning: as `preset_track`.
        engine: "keras", "litert" or "auto" (see `osmn_tf.inference.engines.choose_engine`); None: Keras where there is
            a choice, since the scores of a preset are those of its weights.

    Raises:
        InputError: there is no such network, or it cannot be used so.
        MissingDependencyError: what runs it is not installed.
    """
    if engine is None:
        engine = "keras" if find_network(preset).litert is not None else "auto"
    options = dataclasses.replace(options or PredictorOptions(), engine=engine)
    return find_network(preset, options, adapts=tuning.wanted), options


def files_digest(path: Path) -> str:
    """Digest of a file, or of all files in a folder."""
    digest = hashlib.blake2b(digest_size=20)
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(f"{file.relative_to(path)}:{file.stat().st_size}:".encode())
            with open(file, "rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def _code_digest(*predictors: Predictor) -> str:
    """Of the source that decides on the masks: that of predictors and of what they hold, and all that they import."""
    held = [value for predictor in predictors for value in getattr(predictor, "__dict__", {}).values()]
    digest = hashlib.blake2b(digest_size=20)
    for _, content in sorted(_code_files(*map(type, (*predictors, *held))).items()):
        digest.update(content)
    return digest.hexdigest()


def _code_files(*classes: type) -> dict[Path, bytes]:
    """The source files in which classes are defined, and of all that these import, by path."""
    pending = {known.__module__ for known in classes}
    sources: dict[Path, bytes] = {}
    seen: set[str] = set()
    while pending:
        seen.add(name := pending.pop())
        for path in _source_files(name):
            if path not in sources:
                content = path.read_bytes()
                # Other packages have versions of their own; networks from outside use this one.
                if name.startswith("osmn_tf.") or b"osmn_tf" in content:
                    sources[path] = content
                    pending |= set(_imported(content)) - seen
    return sources


def _source_files(module: str) -> list[Path]:
    """The file of a module; of one of this package's packages all files, as registries import them."""
    if module.startswith("osmn_tf."):
        path = Path(osmn_tf.__file__).parent.joinpath(*module.split(".")[1:])
        return [path.with_suffix(".py")] if path.with_suffix(".py").is_file() else sorted(path.glob("*.py"))
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return [Path(file)] if file.endswith(".py") else []


def _imported(source: bytes) -> Iterator[str]:
    """Names of this package's modules that a source file imports, or names in a string, as registries do; and of other
    things."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            names = [node.value]
        yield from (name for name in names if name.startswith("osmn_tf."))


def segment_sequences(
    track: Track,
    settings: Mapping[str, Any],
    sequences: Iterable[Sequence],
    protocol: Protocol,
    out: str | os.PathLike[str],
    progress: Progress | None = None,
) -> Path:
    """Writes the mask of every frame of every sequence to `<out>/<sequence>/<frame>.png`.

    The mask of every object's first annotated frame is given (merged to one object in DAVIS 2016), but for unsupervised
    protocols; these frames are written too.

    Args:
        track: see `Track`.
        settings: what the results depend on, beside the frames; sequences done with others are done again.
        sequences, protocol: of `protocols.find_sequences`.
        out: folder for the results.
        progress: called after every frame.

    Raises:
        InputError: the protocol gives no mask and the network finds no objects by itself, the frames of a sequence are
            missing, or a file is in the way that was not written here.
    """
    out = files.ensure_directory(out, "--out")
    frames = {sequence: frame_files(sequence) for sequence in sequences}
    total, done = sum(map(len, frames.values())), 0
    for sequence, paths in frames.items():
        given = sorted(set(sequence.first_frames)) if protocol.gives_masks else []
        mask_paths = [sequence.annotations / f"{frame}.png" for frame in given]
        record_path = out / f"{sequence.name}.json"
        fingerprint = _fingerprint(settings, protocol, [*mask_paths, *paths])
        if _is_finished(record_path, fingerprint, out / sequence.name, paths):
            done += len(paths)
            if progress is not None:
                progress(sequence.name, done, total)
            continue
        folder = files.OwnFolder(out / sequence.name)
        if (foreign := folder.foreign()) is not None:
            raise InputError(f"--out: {foreign} is in the way: osmn evaluate has not written it, and leaves it alone")
        # What is there belongs to other weights or settings, or is half done.
        record_path.unlink(missing_ok=True)
        folder.remove()
        folder.claim()
        started = time.perf_counter()
        names = [path.stem for path in paths]
        try:
            masks = track(_FrameFiles(paths), given_masks(sequence, protocol, names) if protocol.gives_masks else None)
            for path, (_, mask) in zip(paths, masks, strict=True):
                write_mask(folder.file(f"{path.stem}.png"), mask)
                done += 1
                if progress is not None:
                    progress(sequence.name, done, total)
        except BaseException:
            if folder.is_empty():  # the network was refused, or stopped before its first mask
                folder.remove()
            raise
        seconds = time.perf_counter() - started
        record = {"fingerprint": fingerprint, "settings": dict(settings), "frames_per_second": len(paths) / seconds}
        files.write_text(record_path, json.dumps(record, indent=1) + "\n")
    return out


class _FrameFiles(Frames[Array]):
    """Frames that are read when they are asked for."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return _FrameFiles(self.paths[index])
        return read_image(self.paths[index], oriented=False)


def frame_files(sequence: Sequence) -> list[Path]:
    """The frames of a sequence from the first one on that is given or scored."""
    if sequence.images is None:
        raise InputError(
            f"{sequence.name}: there is no folder of its frames beside {sequence.annotations.parent.parent}"
        )
    needed = {*sequence.first_frames, *sequence.frames}
    begin = min(map(files.natural, needed))
    paths = sorted(
        (
            path
            for path in sequence.images.iterdir()
            if path.suffix.lower() in _IMAGE_SUFFIXES and files.natural(path.stem) >= begin
        ),
        key=lambda path: files.natural(path.name),
    )
    missing = sorted(needed - {path.stem for path in paths})
    if missing:
        raise InputError(
            f"{sequence.images}: {len(missing)} frames that are to be scored are missing, first {missing[0]}"
        )
    return paths


def _fingerprint(settings: Mapping[str, Any], protocol: Protocol, paths: list[Path]) -> str:
    digest = hashlib.blake2b(json.dumps([protocol.name, dict(settings)], sort_keys=True).encode(), digest_size=20)
    for path in paths:
        content = path.read_bytes()
        digest.update(f"{path.stem}:{len(content)}:".encode())
        digest.update(content)
    return digest.hexdigest()


def _is_finished(record: Path, fingerprint: str, folder: Path, paths: list[Path]) -> bool:
    try:
        if json.loads(record.read_text())["fingerprint"] != fingerprint:
            return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return all((folder / f"{path.stem}.png").is_file() for path in paths)


def given_masks(sequence: Sequence, protocol: Protocol, frames: list[str]) -> dict[int, Array]:
    """Number of a frame -> mask of the objects whose first annotated frame it is."""
    given = {}
    for frame in sorted(set(sequence.first_frames)):
        mask = read_label_png(sequence.annotations / f"{frame}.png")
        if sequence.binary:
            mask = (mask != 0).astype(np.uint8)
        elif protocol.merge_objects:
            mask = ((mask != 0) & (mask != VOID)).astype(np.uint8)
        else:
            labels = [label for label, first in zip(sequence.labels, sequence.first_frames) if first == frame]
            mask = np.where(np.isin(mask, labels), mask, np.uint8(0))
        given[frames.index(frame)] = mask
    return given

"""An exported network: the folder that `osmn export --format litert` writes, checked and ready to run.

The folder holds `metadata.json` and three LiteRT files: `modulator.tflite` runs once per object, `encoder.tflite` once
per frame, `step.tflite` once per frame and batch of objects. The last two may hold further graphs, with the same
weights, for videos that are not wide and for larger frames; the modulator does not depend on the frame's size.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from osmn_tf.errors import InputError, MissingDependencyError
from osmn_tf.resampling import square_size
from osmn_tf.runtime.guides import write_full_guide

FORMAT = "osmn_tf.litert"
FORMAT_VERSION = 1
METADATA_FILE = "metadata.json"
SIGNATURES = {"modulator": "modulate", "encoder": "encode", "step": "step"}
SQUARE = "_square"  # ends the signatures of the graphs for videos that are not wide


def suffix_of(size: tuple[int, int]) -> str:
    """What the signatures of the graphs for larger frames, (h, w), end in."""
    return f"_{size[0]}x{size[1]}"


def find_export(path: str | os.PathLike[str]) -> Path | None:
    """The folder of an exported network, given it or one of its `.tflite` files; None where `path` is something else.

    Raises:
        InputError: `path` ends in .tflite, but there is no such file; or no metadata is beside the `.tflite` files.
    """
    path = Path(path)
    if path.suffix == ".tflite" and not path.is_file():
        raise InputError(f"preset: the file {path} does not exist")
    folder = path.parent if path.suffix == ".tflite" else path
    metadata = folder / METADATA_FILE
    if path.suffix == ".tflite" or (folder / "step.tflite").is_file():
        if not metadata.is_file():
            raise InputError(f"preset: {metadata} is missing; keep together what osmn export has written")
        return folder
    try:
        # A preset's folder has a file of this name too.
        content = json.loads(metadata.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return folder if isinstance(content, dict) and content.get("format") == FORMAT else None


@dataclasses.dataclass(frozen=True)
class Sequence:
    """How a network takes its objects that follow each other (RVOS).

    Attributes:
        before: name -> shape [h, w, c] of what goes from an object to the next.
        takes_masks: whether previous masks are among its inputs.
        slots: how many objects it looks for where no masks are given; None: it needs masks.
        independent: whether an object's own mask is carried on only where no other object is surer.
    """

    before: dict[str, tuple[int, ...]]
    takes_masks: bool
    slots: int | None
    independent: bool

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Sequence:
        """From the metadata file."""
        slots = content["slots"]
        return cls(
            {name: tuple(map(int, shape)) for name, shape in content["before"].items()},
            bool(content["takes_masks"]),
            None if slots is None else int(slots),
            bool(content.get("independent", False)),  # exports of before have none
        )


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What has to be known to run the files.

    Attributes:
        network_size: (h, w) of the frames that go into the network.
        objects: batch size of the step.
        guide_size: side of the visual guide.
        guide_background: RGB colour around the object in a visual guide.
        modulation_size: length of an object's modulation.
        features: name -> shape of what goes from the encoder to the step.
        state: name -> shape [h, w, c] of an object's state.
        guide_channels: of the spatial guide: 1, or 2 with the previous mask in the second.
        matches: whether the network matches, and is used with a search window unless told otherwise.
        quantization: "none", "float16", "dynamic" or "int8".
        weights: SHA-256 of the preset's weight file that was exported; None where no preset was.
        files: graph -> (file name, SHA-256).
        sequence: of a network that takes its objects one after the other, without guides; None for the others, and
            those have no modulator.
        one_object: the network knows one object by its weights, and has a step only (OSVOS).
        further: the same of the further graphs, for videos that are not wide and for larger frames, with the size,
            features and state of these.
        suffix: what the signatures of its graphs end in.
    """

    network_size: tuple[int, int]
    objects: int
    guide_size: int
    guide_background: tuple[float, float, float]
    modulation_size: int
    features: dict[str, tuple[int, ...]]
    state: dict[str, tuple[int, ...]]
    quantization: str
    files: dict[str, tuple[str, str]]
    guide_channels: int = 1
    matches: bool = False
    weights: str | None = None
    sequence: Sequence | None = None
    one_object: bool = False
    further: tuple[Metadata, ...] = ()
    suffix: str = ""

    @property
    def sizes(self) -> dict[tuple[int, int], Metadata]:
        """(h, w) of the frames that there are graphs for, and what is known of these."""
        return {of_size.network_size: of_size for of_size in (self, *self.further)}

    @classmethod
    def read(cls, folder: Path) -> Metadata:
        """Reads `metadata.json`.

        Raises:
            InputError: it is unreadable, of another format or version, or incomplete.
        """
        path = folder / METADATA_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"preset: {path} is not readable JSON ({error})") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise InputError(f"preset: {path} is not that of an exported network (format {FORMAT})")
        if content.get("format_version") != FORMAT_VERSION:
            raise InputError(
                f"preset: {path} has format version {content.get('format_version')}, this release reads "
                f"{FORMAT_VERSION}; export the network again"
            )
        try:
            metadata, further = cls._of(content), []
            if "square" in content:
                further.append(dataclasses.replace(cls._of({**content, **content["square"]}), suffix=SQUARE))
                if further[0].network_size != square_size(metadata.network_size):
                    raise ValueError("the size of its square")
            for of_size in content.get("larger", ()):
                larger = cls._of({**content, **of_size})
                further.append(dataclasses.replace(larger, suffix=suffix_of(larger.network_size)))
            return dataclasses.replace(metadata, further=tuple(further))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"preset: {path} is damaged or incomplete ({type(error).__name__}: {error})") from error

    @classmethod
    def _of(cls, content: Mapping[str, Any]) -> Metadata:
        """From what the file says, of one size."""
        height, width = content["network_size"]
        sequence = Sequence.read(content["sequence"]) if "sequence" in content else None
        one_object = bool(content.get("one_object", False))
        if sequence is not None or one_object:
            content = {"guide_background": [0, 0, 0], "guide_size": 0, "modulation_size": 0, **content}
        red, green, blue = content["guide_background"]
        return cls(
            network_size=(int(height), int(width)),
            objects=int(content["objects"]),
            guide_size=int(content["guide_size"]),
            guide_background=(float(red), float(green), float(blue)),
            modulation_size=int(content["modulation_size"]),
            features={name: tuple(map(int, shape)) for name, shape in content["features"].items()},
            state={name: tuple(map(int, shape)) for name, shape in content["state"].items()},
            quantization=str(content["quantization"]),
            files={graph: (str(file["name"]), str(file["sha256"])) for graph, file in content["files"].items()},
            guide_channels=int(content.get("guide_channels", 1)),
            matches=bool(content.get("matches", False)),
            weights=content.get("source", {}).get("sha256"),
            sequence=sequence,
            one_object=one_object,
        )


def read_metadata(path: str | os.PathLike[str]) -> tuple[Path, Metadata]:
    """The folder of an exported network and what is known of it, given the folder or one of its `.tflite` files.

    Raises:
        InputError: it is not an exported network, or its metadata is damaged.
    """
    folder = find_export(path)
    if folder is None:
        raise InputError(f"preset: {path} is not an exported network (no folder with {METADATA_FILE} in it)")
    return folder, Metadata.read(folder)


def choose_threads(threads: int | None = None) -> int:
    """Threads that a network gets: as many as are asked for, else the cores that this process may use, at most four,
    and no more than OMP_NUM_THREADS says, as for what else computes.

    Raises:
        InputError: fewer than one is asked for.
    """
    if threads is not None:
        if threads < 1:
            raise InputError(f"threads: expected at least 1, received {threads}")
        return threads
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(4, cores, max(1, int(limit)) if limit.isdecimal() else 4)


def open_graph(
    folder: Path,
    metadata: Metadata,
    graph: str,
    inputs: Mapping[str, tuple[int, ...]],
    outputs: Mapping[str, tuple[int, ...]],
    threads: int,
) -> Graph | CopyingGraph:
    """One of the graphs of an export.

    Args:
        folder: of the export.
        metadata: of the export; or one of its `further`, for the graph that the file has for that.
        graph: "modulator", "encoder" or "step".
        inputs: expected name -> shape.
        outputs: expected name -> shape.
        threads: how many it computes with.

    Raises:
        InputError: the file is missing, of another export, no LiteRT file, or its inputs or outputs are not those
            expected.
        MissingDependencyError: ai-edge-litert is not installed.
    """
    path = _checked_file(folder, metadata, graph)
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingDependencyError("ai-edge-litert", "runtime", "running an exported network") from error
    try:
        interpreter = Interpreter(str(path), num_threads=threads)
        # Of all graphs in the file, before any of them runs: this is what hands them to the fast kernels.
        interpreter.allocate_tensors()
        runner = interpreter.get_signature_runner(SIGNATURES[graph] + metadata.suffix)
    except (ValueError, RuntimeError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"preset: {path} is no LiteRT file that can be run ({reason})") from error
    _check(runner.get_input_details(), inputs, path, "input")
    _check(runner.get_output_details(), outputs, path, "output")
    return CopyingGraph(runner) if metadata.suffix else Graph(interpreter, runner)


class Graph:
    """The first graph of a file, with named arrays in and named arrays out, in the interpreter's own memory.

    Args:
        interpreter: of the file.
        runner: knows the names. It must not be kept: the interpreter refuses to run while another has its memory.
    """

    def __init__(self, interpreter: Any, runner: Any) -> None:
        self._interpreter = interpreter
        self._inputs = {name: int(detail["index"]) for name, detail in runner.get_input_details().items()}
        self._outputs = {name: int(detail["index"]) for name, detail in runner.get_output_details().items()}
        for name in self._inputs:
            self.write(name, ..., 0)  # the memory of batch places that are not used yet is not initialised

    # The interpreter refuses to run while anybody holds a view of its memory.

    def write(self, name: str, place: Any, value: Any) -> None:
        """Sets `[place]` of an input."""
        self.input(name)[place] = value

    def input(self, name: str) -> np.ndarray:
        """The memory of an input, to be set. While it is held, `run` fails."""
        view: np.ndarray = self._interpreter.tensor(self._inputs[name])()
        return view

    def output(self, name: str) -> np.ndarray:
        """The memory of an output. Copy it: while it is held, `run` fails."""
        view: np.ndarray = self._interpreter.tensor(self._outputs[name])()
        return view

    def run(self) -> None:
        """Computes the outputs."""
        self._interpreter.invoke()


class CopyingGraph:
    """A further graph of a file: as `Graph`, but it copies its arrays; LiteRT shows the first graph's memory only.

    Args:
        runner: what computes it (LiteRT's `SignatureRunner`).
    """

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        details = runner.get_input_details()
        self._inputs = {name: np.zeros(detail["shape"], detail["dtype"]) for name, detail in details.items()}
        self._outputs: dict[str, np.ndarray] = {}

    def write(self, name: str, place: Any, value: Any) -> None:
        """Sets `[place]` of an input."""
        self._inputs[name][place] = value

    def input(self, name: str) -> np.ndarray:
        """The memory of an input, to be set."""
        return self._inputs[name]

    def output(self, name: str) -> np.ndarray:
        """An output."""
        return self._outputs[name]

    def run(self) -> None:
        """Computes the outputs."""
        self._outputs = self._runner(**self._inputs)


def _check(details: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]], path: Path, kind: str) -> None:
    found = {name: tuple(int(side) for side in detail["shape"]) for name, detail in details.items()}
    if found != dict(expected):
        different = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        name = different[0]
        raise InputError(
            f"preset: {path}: expected the {kind} {name} to have the shape {_shape(expected.get(name))} as "
            f"{METADATA_FILE} says, received {_shape(found.get(name))}"
        )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str(list(shape))


class ExportedNetwork:
    """The three graphs of an exported network.

    Args:
        path: the folder, or one of the `.tflite` files in it.
        threads: per graph; default: `choose_threads()`.

    Raises:
        InputError: a file is missing, damaged, or belongs to another export.
        MissingDependencyError: ai-edge-litert is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None) -> None:
        self._folder, metadata = read_metadata(path)
        self._threads = choose_threads(threads)
        self.sizes = metadata.sizes
        self._opened: dict[tuple[int, int], tuple[Graph | CopyingGraph, Graph | CopyingGraph]] = {}
        self._modulator = open_graph(
            self._folder,
            metadata,
            "modulator",
            {"visual_guide": (1, metadata.guide_size, metadata.guide_size, 3)},
            {"modulation": (1, metadata.modulation_size)},
            self._threads,
        )
        self.use(metadata.network_size)

    def use(self, size: tuple[int, int]) -> None:
        """Goes on with the graphs for frames of a size, one of `sizes`.

        Raises:
            InputError: these cannot be opened.
        """
        if size not in self._opened:
            self._opened[size] = self._open(self.sizes[size])
        self._encoder, self._step = self._opened[size]
        self.metadata = self.sizes[size]

    def _open(self, metadata: Metadata) -> tuple[Graph | CopyingGraph, Graph | CopyingGraph]:
        """Encoder and step of a size."""
        height, width = metadata.network_size
        batch, features = metadata.objects, metadata.features
        state = {name: (batch, *shape) for name, shape in metadata.state.items()}
        inputs = {
            **features,
            "spatial_guide": (batch, height, width, metadata.guide_channels),
            "modulation": (batch, metadata.modulation_size),
            **state,
        }
        outputs = {"logits": (batch, height, width, 1), **state}
        frame = {"frame": (1, height, width, 3)}
        return (
            open_graph(self._folder, metadata, "encoder", frame, features, self._threads),
            open_graph(self._folder, metadata, "step", inputs, outputs, self._threads),
        )

    def modulate(self, visual_guide: np.ndarray) -> np.ndarray:
        """Modulation float32 [M] of an object, from its visual guide float32 [S, S, 3]."""
        self._modulator.write("visual_guide", 0, visual_guide)
        self._modulator.run()
        return self._modulator.output("modulation")[0].copy()

    def encode(self, frame: np.ndarray) -> None:
        """Prepares a frame, uint8 [h, w, 3] of the network's size, for `step`."""
        self._encoder.write("frame", 0, frame)
        self._encoder.run()
        for name in self.metadata.features:
            self._step.write(name, ..., self._encoder.output(name))

    def initial_state(self) -> dict[str, np.ndarray]:
        """An object's state before its first frame: zeros."""
        return {name: np.zeros(shape, np.float32) for name, shape in self.metadata.state.items()}

    def step(
        self, masks: list[np.ndarray], modulations: list[np.ndarray], states: list[dict[str, np.ndarray]]
    ) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
        """One step of any number of objects on the frame that was encoded last.

        Args:
            masks: [h, w], what every object's spatial guide is made of.
            modulations: `modulate`'s result for every object.
            states: state of every object.

        Returns:
            Logits float32 [N, h, w], and the new states.
        """
        batch, graph = self.metadata.objects, self._step
        logits = np.empty((len(masks), *self.metadata.network_size), np.float32)
        new_states: list[dict[str, np.ndarray]] = []
        for first in range(0, len(masks), batch):
            count = min(batch, len(masks) - first)
            for place in range(count):
                write_full_guide(masks[first + place], graph.input("spatial_guide")[place])
                graph.write("modulation", place, modulations[first + place])
                for name, value in states[first + place].items():
                    graph.write(name, place, value)
            graph.run()
            logits[first : first + count] = graph.output("logits")[:count, :, :, 0]
            new_states += [
                {name: graph.output(name)[place].copy() for name in self.metadata.state} for place in range(count)
            ]
        return logits, new_states


def _checked_file(folder: Path, metadata: Metadata, graph: str) -> Path:
    """The path of a graph's file, which exists and is the one that was exported."""
    if graph not in metadata.files:
        raise InputError(f"preset: {folder / METADATA_FILE} is damaged or incomplete (it names no file for {graph})")
    name, digest = metadata.files[graph]
    path = folder / name
    if Path(name).name != name or not path.is_file():
        raise InputError(f"preset: the file {path} is missing")
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise InputError(
                f"preset: {path} is damaged or of another export (its SHA-256 is not the one in {METADATA_FILE})"
            )
    return path

"""LiteRT (TFLite) files of a network, for devices that have neither Keras nor TensorFlow.

A folder with three files of graphs of fixed size, built-in operators only, and `metadata.json` (see
`osmn_tf.runtime`):

    modulator.tflite   signature "modulate": visual_guide -> modulation. Once for every object.
    encoder.tflite     signature "encode": frame -> features. Once for every frame.
    step.tflite        signature "step": features, spatial_guide, modulation, state -> logits, state. Once for every
                       frame and batch of objects.

Of a network that matches, encoder and step hold a second graph with the same weights, for videos that are not wide:
signatures "encode_square" and "step_square"; and graphs for larger frames, if asked for: "encode_480x832" and so on.

The guides are made outside, in NumPy: their medians do not convert to built-in operators. An RVOS has other graphs: see
`osmn_tf.export.litert_rvos`; an OSVOS has a step only: `osmn_tf.export.osvos_graphs`.

Which part gets which numbers was measured with `osmn benchmark litert` (docs/export.md). "int8" means the part where
nearly all of the time and most of the weights are. Without a shared trunk that is the step: the encoder has 31,000
weights, XNNPACK (LiteRT's CPU kernels) runs it faster as float32 than with int8 weights, and with int8 activations it
costs more accuracy than everything else together. A shared trunk is in the encoder; of it and of the step after it only
the convolutions are int8: matching computes with exponentials, which 8 bits do not hold, and what stands between a few
convolutions is faster as float32 than with its numbers rounded anew. "compact" is the smallest form that computes in
float32 throughout, but for the modulator; "smallest" is the same with int8 weights in the encoder too, where a shared
trunk has most of the weights. The modulator runs once per object, and its scales lie closer to each other than an int8
of their range could tell.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from osmn_tf.errors import InputError
from osmn_tf.export import QUANTIZATIONS
from osmn_tf.export.litert_rvos import RVOSGraphs
from osmn_tf.export.osvos_graphs import OSVOSGraphs
from osmn_tf.export.steps import TracedOnce, scaled_steps, square_step, step_of
from osmn_tf.files import ensure_directory, write_bytes, write_text
from osmn_tf.guides import GUIDE_CHANNELS
from osmn_tf.inference.modulated import ModulatedStep
from osmn_tf.inference.osvos import OSVOSStep
from osmn_tf.inference.predictor import PredictorOptions
from osmn_tf.inference.rvos import RVOSStep
from osmn_tf.masks.labels import labels_of
from osmn_tf.resampling import resize_frame, resize_mask
from osmn_tf.runtime import guides
from osmn_tf.runtime.network import FORMAT, FORMAT_VERSION, METADATA_FILE, SIGNATURES, SQUARE, suffix_of
from osmn_tf.version import __version__

if TYPE_CHECKING:
    from osmn_tf.models.osmn import OSMN

Tensor = Any
Clip = tuple[Iterable[np.ndarray], np.ndarray]
"""(frames uint8 RGB [H, W, 3], the first frame's mask uint8 [H, W])."""

_BY_GRAPH = {
    "none": dict.fromkeys(SIGNATURES, "none"),
    "float16": dict.fromkeys(SIGNATURES, "float16"),
    "compact": {"modulator": "dynamic", "encoder": "float16", "step": "float16"},
    "smallest": {"modulator": "dynamic", "encoder": "dynamic", "step": "float16"},
    "dynamic": {"modulator": "dynamic", "encoder": "none", "step": "dynamic"},
    "int8": {"modulator": "dynamic", "encoder": "none", "step": "int8"},
}
_SHARED_TRUNK_INT8 = {"modulator": "dynamic", "encoder": "int8 convolutions", "step": "int8 convolutions"}
# Operators that stay float32 in "int8 convolutions": all others.
_NO_CONVOLUTIONS = (
    *("ADD", "BATCH_MATMUL", "CAST", "CONCATENATION", "DIV", "EXP", "FULLY_CONNECTED", "GREATER", "GREATER_EQUAL"),
    *("LOG", "MAXIMUM", "MAX_POOL_2D", "MINIMUM", "MUL", "REDUCE_MAX", "RELU", "RESHAPE", "RESIZE_BILINEAR", "RSQRT"),
    *("SPLIT", "SQUARE", "STRIDED_SLICE", "SUB", "SUM"),
)

CALIBRATION_STEPS = 96  # frames times objects, shared among the clips
_LEAST_CLIP_STEPS = 4  # of one clip and object: the state grows during the first frames


def export_litert(
    model: OSMN,
    out_dir: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    objects: int = 1,
    quantize: str = "none",
    calibration: Iterable[Clip] | None = None,
    scales: Sequence[float] = (),
    source: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a network as LiteRT files.

    Args:
        model: an `OSMN`, `ReConvNet`, `OSVOS` or `RVOS` that computes in float32.
        out_dir: created if needed; an export in it is replaced.
        size: (h, w) of the frames inside the network; default: the model's `network_size`, and of one that matches the
            square of as many pixels too, in the same files (`osmn_tf.resampling.square_size`).
        objects: batch size of the step. The runtime takes any number of objects and fills batches of this size.
        quantize: "none" (float32), "float16" (weights; half the size), "compact" (the same, and int8 weights in the
            modulator), "smallest" (in the encoder too), "dynamic" (int8 weights, activations are quantised while it
            runs) or "int8" (weights and activations where that saves time, see above; needs `calibration`; not of an
            OSVOS or RVOS).
        calibration: clips on which the ranges of activations are measured: the network runs on the first frames of
            each, with its states and own guides, 96 steps in all (or 4 per clip and object, if that is more). Clips
            like those to be segmented are the best, a dozen of them is enough.
        scales: of a network that matches, without `size`: further sizes in the same files, as multiples of its own;
            `--quality good` is `osmn_tf.inference.adaptation.quality.LARGER`.
        source: what should be known of the network (name of the preset, licence, ...): kept in the metadata.

    Returns:
        The folder.

    Raises:
        InputError: an argument is none of its choices, there is no calibration data for "int8", or the folder cannot
            be written.
    """
    if quantize not in QUANTIZATIONS:
        raise InputError(f"quantize: expected one of {', '.join(QUANTIZATIONS)}, received {quantize!r}")
    if objects < 1:
        raise InputError(f"objects: expected at least 1, received {objects}")
    options = PredictorOptions(size)
    step = step_of(model, options, _GRAPHS)
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"model: LiteRT files are made with the TensorFlow backend, not with {keras.backend.backend()}"
        )
    if model.compute_dtype != "float32":
        raise InputError(f"model: expected one that computes in float32, received {model.compute_dtype}")
    clips = list(calibration or ())
    if quantize == "int8" and not clips:
        raise InputError(
            "calibration: quantize='int8' needs clips (frames and the first mask) to measure the ranges of activations "
            "on, received none"
        )
    kind = _GRAPHS[type(step)]
    if quantize == "int8" and not kind.calibrates:
        raise InputError(f"quantize: {kind.title} is exported as none, float16, compact or dynamic, received 'int8'")
    if kind.one_object and objects != 1:
        raise InputError(f"objects: {kind.title} knows one object, expected 1, received {objects}")
    forms = _BY_GRAPH[quantize]
    if quantize == "int8" and model.trunk == "shared":
        forms = _SHARED_TRUNK_INT8
    facts = {"network": type(model).__name__, "source": dict(source or {}), "quantization": quantize}
    sizes = {"": kind(step, objects)}
    if (square := square_step(step, options, _GRAPHS)) is not None:
        sizes[SQUARE] = _Graphs(square, objects)
    for scale in scales:
        for scaled in scaled_steps(step, options, _GRAPHS, scale):
            sizes[suffix_of(scaled.network_size)] = _Graphs(scaled, objects)
    folder = ensure_directory(out_dir, "out_dir")
    files = {}
    for graph in kind.names:
        of_graph = {"": sizes[""]} if graph == "modulator" else sizes  # its input does not depend on the size
        content = _convert(of_graph, graph, forms[graph], clips)
        files[graph] = {
            "name": f"{graph}.tflite",
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
        }
        write_bytes(folder / f"{graph}.tflite", content)
    larger = [_of_size(graphs) for suffix, graphs in sizes.items() if suffix not in ("", SQUARE)]
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **facts,
        "network_size": list(sizes[""].size),
        "objects": objects,
        **sizes[""].metadata(),
        **({"square": _of_size(sizes[SQUARE])} if SQUARE in sizes else {}),
        **({"larger": larger} if larger else {}),
        "files": files,
        "osmn_tf_version": __version__,
    }
    write_text(folder / METADATA_FILE, json.dumps(metadata, indent=2) + "\n")
    return folder


def _of_size(graphs: _Graphs | RVOSGraphs | OSVOSGraphs) -> dict[str, Any]:
    """What the runtime has to know of graphs of another size."""
    metadata = graphs.metadata()
    return {"network_size": list(graphs.size), "features": metadata["features"], "state": metadata["state"]}


class _Graphs(TracedOnce):
    """The three functions of a network at a fixed size and batch, and what they exchange."""

    title = "a modulated network"
    names = tuple(SIGNATURES)
    calibrates = True  # "int8" has activations to measure
    one_object = False

    def __init__(self, step: ModulatedStep, objects: int) -> None:
        self.model, self.size, self.objects = step.network, step.network_size, objects
        self.modulation_size = int(self.model.visual_modulator.output_shape[-1])
        self.state = {name: tuple(x.shape[1:]) for name, x in self.model.initial_state(1, *self.size).items()}
        self.features = {name: tuple(x.shape) for name, x in self.traced("encoder").structured_outputs.items()}

    def metadata(self) -> dict[str, Any]:
        """What the runtime has to know of it."""
        return {
            "guide_size": self.model.guide_size,
            "guide_background": list(self.model.guide_background),
            "guide_channels": GUIDE_CHANNELS[self.model.guide],
            "matches": self.model.matching is not None,
            "modulation_size": self.modulation_size,
            "features": {name: list(shape) for name, shape in self.features.items()},
            "state": {name: list(shape) for name, shape in self.state.items()},
        }

    def parts(self, graph: str) -> Any:
        """The model whose weights a graph holds."""
        return {
            "modulator": self.model.visual_modulator,
            "encoder": self.model.frame_encoder,
            "step": self.model.object_network,
        }[graph]

    def inputs(self, graph: str) -> dict[str, Any]:
        """Name -> `tf.TensorSpec` of a graph's inputs."""
        guide_size = self.model.guide_size
        if graph == "modulator":
            return {"visual_guide": tf.TensorSpec((1, guide_size, guide_size, 3), tf.float32)}
        if graph == "encoder":
            return {"frame": tf.TensorSpec((1, *self.size, 3), tf.uint8)}
        shapes = {
            **self.features,
            "spatial_guide": (self.objects, *self.size, GUIDE_CHANNELS[self.model.guide]),
            "modulation": (self.objects, self.modulation_size),
            **{name: (self.objects, *shape) for name, shape in self.state.items()},
        }
        return {name: tf.TensorSpec(shape, tf.float32) for name, shape in shapes.items()}

    def function(self, graph: str) -> Any:
        """The graph as a `tf.function` with named arguments.

        An output of the step that is one of its inputs, such as a feature of the frame that is kept as state, is made
        anew: `Interpreter` takes one tensor for both, but LiteRT's `CompiledModel`, which LiteRT.js has too, gives it
        two buffers, and neither these outputs nor what is computed from these inputs is right then.
        """
        model = self.model

        def modulate(visual_guide: Tensor) -> dict[str, Tensor]:
            return {"modulation": model.visual_modulator(visual_guide, training=False)}

        def encode(frame: Tensor) -> dict[str, Tensor]:
            return dict(model.frame_encoder({"frame": frame}, training=False))

        def step(**inputs: Tensor) -> dict[str, Tensor]:
            outputs = dict(model.object_network(inputs, training=False))
            for name, x in outputs.items():
                if any(_origin(x) is given for given in inputs.values()):
                    # The converter leaves this alone; what is more obviously a copy, it takes out.
                    outputs[name] = tf.concat(tf.split(x, 2, axis=-1), axis=-1)
            return outputs

        functions: dict[str, Callable[..., Any]] = {"modulator": modulate, "encoder": encode, "step": step}
        return tf.function(functions[graph], autograph=False)


def _origin(x: Tensor) -> Tensor:
    """What a tensor is once the converter has taken out what changes nothing: a frame's key is spread over objects,
    and there may be one."""
    while x.op.type in ("BroadcastTo", "Identity") and x.op.inputs[0].shape == x.shape:
        x = x.op.inputs[0]
    return x


_GRAPHS: dict[type, type[_Graphs] | type[RVOSGraphs] | type[OSVOSGraphs]] = {
    ModulatedStep: _Graphs,
    RVOSStep: RVOSGraphs,
    OSVOSStep: OSVOSGraphs,
}
"""What a predictor computes -> how it is cut into graphs."""


@contextlib.contextmanager
def _saved_model(functions: Mapping[str, Any], variables: Sequence[Any]) -> Iterator[str]:
    """The path of a SavedModel with these signatures, as long as the context lasts."""
    module = tf.Module()
    # TensorFlow's own variables: Keras's around them would not become constants of the converted graph.
    module.weights = [variable.value for variable in variables]
    with tempfile.TemporaryDirectory() as path:
        tf.saved_model.save(module, path, signatures=dict(functions))
        yield path


def _convert(
    sizes: Mapping[str, _Graphs | RVOSGraphs | OSVOSGraphs], graph: str, quantize: str, clips: Sequence[Clip]
) -> bytes:
    """A file with a graph, at every size: the converter keeps equal weights once."""
    signatures = {SIGNATURES[graph] + suffix: graphs for suffix, graphs in sizes.items()}
    functions = {signature: graphs.traced(graph) for signature, graphs in signatures.items()}
    with _saved_model(functions, sizes[""].parts(graph).variables) as path:
        converter = tf.lite.TFLiteConverter.from_saved_model(path, signature_keys=list(signatures))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if quantize != "none":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        with warnings.catch_warnings():
            # Calibration runs in an interpreter of TensorFlow's that announces its own end.
            warnings.filterwarnings("ignore", message=".*tf.lite.Interpreter is deprecated", category=UserWarning)
            if quantize.startswith("int8"):
                samples = (
                    (signature, sample)
                    for signature, graphs in signatures.items()
                    if isinstance(graphs, _Graphs)
                    for sample in calibration_samples(graphs, graph, clips)
                )
                # The first sample is made before the converter asks: what is wrong with a clip is said as it is.
                first = next(samples)
                converter.representative_dataset = lambda: itertools.chain([first], samples)
            content: bytes = _int8_convolutions(converter) if quantize == "int8 convolutions" else converter.convert()
    return content


def _int8_convolutions(converter: Any) -> bytes:
    """A converter's int8 graph in which nothing but convolutions is int8."""
    # The one public way to say which operators stay as they are; nothing is debugged.
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter,
        debug_dataset=converter.representative_dataset,
        debug_options=tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=list(_NO_CONVOLUTIONS)),
    )
    content: bytes = debugger.get_nondebug_quantized_model()
    return content


def calibration_samples(graphs: _Graphs, graph: str, clips: Sequence[Clip]) -> Iterator[dict[str, np.ndarray]]:
    """Inputs of the encoder or the step as they occur on clips: what is around it runs in float.

    Raises:
        InputError: a clip's frames or mask are not what `VideoSegmenter.track` takes.
    """
    if graph == "encoder":
        for frames, _ in _beginnings(clips):
            yield from ({"frame": resize_frame(frame, graphs.size)[None]} for frame in frames)
        return
    for frames, mask in _beginnings(clips):
        yield from _steps(graphs, frames, mask)


def _beginnings(clips: Sequence[Clip]) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
    """As many first frames of every clip as are used of it, and its mask."""
    for frames, mask in clips:
        labels = labels_of(mask)
        if not labels:
            raise InputError("calibration: the mask of a clip has no object in it")
        count = max(CALIBRATION_STEPS // (len(clips) * len(labels)), _LEAST_CLIP_STEPS)
        kept: list[np.ndarray] = list(itertools.islice(frames, count))
        if not kept or kept[0].shape != (*mask.shape, 3):
            raise InputError(
                f"calibration: expected frames of the mask's size, {list(mask.shape)}, received "
                f"{list(kept[0].shape) if kept else 'none'}"
            )
        yield kept, mask


def _steps(graphs: _Graphs, frames: Sequence[np.ndarray], mask: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """Inputs of the step, object by object, with its own states and guides."""
    model, size = graphs.model, graphs.size

    def compute(graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = graphs.traced(graph)(**{name: tf.constant(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    for label in labels_of(mask):
        guide = guides.visual_guide(frames[0], mask == label, model.guide_size, model.guide_background)
        modulation = compute("modulator", {"visual_guide": guide[None]})["modulation"]
        guide_mask = resize_mask(mask == label, size)
        state = {name: np.zeros((graphs.objects, *shape), np.float32) for name, shape in graphs.state.items()}
        for index, frame in enumerate(frames):
            # The objects of a batch do not meet: the same one in every place gives all ranges.
            spatial = np.empty((graphs.objects, *size, GUIDE_CHANNELS[model.guide]), np.float32)
            for guide in spatial:
                guides.write_full_guide(guide_mask, guide)
            inputs = {
                **compute("encoder", {"frame": resize_frame(frame, size)[None]}),
                "spatial_guide": spatial,
                "modulation": np.repeat(modulation, graphs.objects, axis=0),
                **state,
            }
            yield inputs
            state = compute("step", inputs)
            own = state.pop("logits")[0, ..., 0] > 0
            if index > 0 and own.any():
                guide_mask = own

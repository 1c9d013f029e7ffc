"""How long a step takes beside the least that the machine needs for its convolutions, and beside simpler programs.

Everything is timed in turns in one run: a machine that slows down slows all of it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from osmn_tf.benchmarks.flop import forward_flop
from osmn_tf.benchmarks.timing import in_turns
from osmn_tf.errors import InputError
from osmn_tf.guides import full_guide, visual_guide
from osmn_tf.inference.compilation import compile_function
from osmn_tf.inference.predictor import PredictorOptions, open_predictor
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.models.network import Network
from osmn_tf.models.presets import load
from osmn_tf.models.registry import NETWORKS
from osmn_tf.precision import computing_in

Tensor = Any

CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative", "Conv2DBackpropInput")


@dataclasses.dataclass(frozen=True)
class StepTimes:
    """Medians in seconds for one frame with all its objects.

    Attributes:
        network, precision, objects: what was timed.
        step: `VideoSegmenter.step`: resize, guides, network, merge.
        convolutions: the step's convolutions alone, at their shapes and in the same precision, one after the other;
            None where the backend is not TensorFlow.
        operations: floating-point operations of these convolutions; on JAX of the whole network; None on PyTorch.
        unshared: the whole published network for every object by itself, visual modulator included, in one compiled
            call each; None for a network without one.
        predict: the same by `Model.predict`, with the guides made outside of it.
    """

    network: str
    precision: str
    objects: int
    step: float
    convolutions: float | None
    operations: float | None
    unshared: float | None
    predict: float | None


def build_network(name: str, precision: str) -> Network:
    """A preset, or one of `untrained_networks` with random weights, that computes in `precision`.

    Raises:
        InputError: there is no such precision or preset.
    """
    build = untrained_networks().get(name)
    if build is None:
        return load(name, precision)
    with computing_in(precision):
        return build()


def untrained_networks() -> dict[str, Callable[[], Network]]:
    """The published forms that the networks name: speed does not depend on the weights."""
    classes = [NETWORKS.get(name) for name in NETWORKS.names()]
    return {form: functools.partial(cls, **arguments) for cls in classes for form, arguments in cls.untrained.items()}


def measure(
    network: str,
    *,
    precision: str = "float32",
    size: tuple[int, int] | None = None,
    objects: Sequence[int] = (1, 3, 5),
    repeat: int = 5,
    peers: bool = True,
) -> Iterator[StepTimes]:
    """Times a network with different numbers of objects.

    Args:
        network: a preset's name or path, or one of `untrained_networks`.
        precision: Keras's dtype policy.
        size: (H, W) of the frames, which the network gets as they are; default: the network's size.
        objects: how many objects are tracked.
        repeat: turns of which the median counts.
        peers: time the simpler programs too, of a network that is modulated.

    Raises:
        InputError: as `build_network`, or a number is out of its range.
    """
    if repeat < 1 or not objects or min(objects) < 1 or max(objects) > 64:
        raise InputError(f"repeat, objects: expected 1 or more and 1..64, received {repeat} and {list(objects)}")
    model = build_network(network, precision)
    height, width = size or model.network_size
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (2, height, width, 3)).astype(np.uint8)
    unshared = None
    if peers and "visual_guide" in model.input:
        unshared = {compiled: _unshared(model, frames[1], compiled) for compiled in (True, False)}
    for count in objects:
        predictor: Any = open_predictor(model, PredictorOptions((height, width)))
        segmenter = VideoSegmenter(predictor)
        mask = _stripes(height, width, count)
        segmenter.start(frames[0], mask)
        programs: dict[str, Callable[[], Any]] = {"step": lambda s=segmenter: s.step(frames[1])}  # type: ignore[misc]
        operations = None
        if keras.backend.backend() == "tensorflow":
            programs["convolutions"], operations = _bare_convolutions(predictor, frames[1])
        elif keras.backend.backend() == "jax":
            operations = _counted_by_jax(predictor, frames[1])
        if unshared is not None:
            programs["unshared"], programs["predict"] = unshared[True](mask), unshared[False](mask)
        times = {name: timing.median for name, timing in in_turns(programs, repeat).items()}
        yield StepTimes(
            network,
            precision,
            count,
            times["step"],
            times.get("convolutions"),
            operations,
            times.get("unshared"),
            times.get("predict"),
        )


def _stripes(height: int, width: int, count: int) -> np.ndarray:
    """Label mask with `count` upright stripes."""
    mask = np.zeros((height, width), np.uint8)
    edges = np.linspace(0, width, 2 * count + 1).astype(int)
    for label in range(1, count + 1):
        mask[height // 4 : 3 * height // 4, edges[2 * label - 1] : edges[2 * label]] = label
    return mask


def _bare_convolutions(predictor: Any, frame: np.ndarray) -> tuple[Callable[[], Any], float]:
    """The convolutions of a step as a program of their own, and its floating-point operations.

    They are read off the graph of the step, so that they are those that it executes: what is shared by all objects
    once, everything else with as many examples as there are objects.
    """
    import tensorflow as tf

    step = tf.function(lambda *tensors: predictor.step.step(*tensors, size=frame.shape[:2]), autograph=False)
    arguments = (frame, *predictor.carried)
    graph = step.get_concrete_function(*keras.tree.map_structure(tf.convert_to_tensor, arguments)).graph
    generator = np.random.default_rng(0)
    calls: list[Callable[..., Tensor]] = []
    tensors: list[dict[str, Tensor]] = []
    operations = 0.0
    for node in graph.get_operations():
        if node.type not in CONVOLUTIONS:
            continue
        attributes = {
            "strides": list(node.get_attr("strides")),
            "padding": node.get_attr("padding").decode(),
            "dilations": list(node.get_attr("dilations")),
        }
        transposed = node.type == "Conv2DBackpropInput"
        sources = {"out_backprop" if transposed else "input": node.inputs[2 if transposed else 0]}
        sources["filter"] = kernel = node.inputs[1]
        tensors.append(
            {
                name: tf.constant(generator.standard_normal(tensor.shape.as_list(), np.float32), tensor.dtype)
                for name, tensor in sources.items()
            }
        )
        # One multiplication and addition per weight and place: of the output, or of a transposed convolution's input.
        places = node.inputs[2] if transposed else node.outputs[0]
        operations += 2.0 * float(np.prod(places.shape.as_list()[:3])) * float(np.prod(kernel.shape.as_list()))
        if transposed:
            attributes["input_sizes"] = node.outputs[0].shape.as_list()
        calls.append(functools.partial(getattr(tf.raw_ops, node.type), **attributes))

    @tf.function(autograph=False)
    def all_of_them(tensors: list[dict[str, Tensor]]) -> list[Tensor]:
        corners: list[Tensor] = []
        for call, inputs in zip(calls, tensors):
            with tf.control_dependencies(corners[-1:]):
                corners.append(call(**inputs)[0, 0, 0, 0])
        return corners

    return lambda: [corner.numpy() for corner in all_of_them(tensors)], operations


def _counted_by_jax(predictor: Any, frame: np.ndarray) -> float | None:
    """The operations that JAX counts in the two networks of a step; None for those that are not modulated."""
    model = predictor.network
    if "visual_guide" not in model.input:
        return None
    guide_masks, modulation, state = predictor.carried
    inputs = {"frame": ops.convert_to_tensor(frame[None])}
    others = {"spatial_guide": full_guide(guide_masks, model.guide), "modulation": modulation}
    features = model.frame_encoder(inputs)
    counts = [
        forward_flop(model.frame_encoder, inputs),
        forward_flop(model.object_network, {**features, **others, **state}),
    ]
    return None if None in counts else sum(count or 0.0 for count in counts)


def _unshared(
    model: Network, frame: np.ndarray, compiled: bool
) -> Callable[[np.ndarray], Callable[[], list[np.ndarray]]]:
    """Of a label mask, a program: the whole network for one object after the other, as the release runs it, with the
    logits [1, H, W, 1] of each. All numbers of objects share what is compiled."""
    state = model.initial_state(1, *frame.shape[:2])

    def inputs(one_mask: Tensor, guide: Tensor) -> dict[str, Tensor]:
        spatial = full_guide(one_mask, model.guide)
        tensors = {"frame": frame[None], "visual_guide": guide, "spatial_guide": spatial, **state}
        return {name: ops.convert_to_tensor(x) for name, x in tensors.items()}

    call = compile_function(lambda one_mask, guide: model(inputs(one_mask, guide), training=False), [model])

    def predict(one_mask: np.ndarray, guide: Tensor) -> Any:
        arrays = {name: ops.convert_to_numpy(x) for name, x in inputs(one_mask, guide).items()}
        return model.predict(arrays, verbose=0)

    one = call if compiled else predict

    def program(mask: np.ndarray) -> Callable[[], list[np.ndarray]]:
        masks = np.stack([mask == label for label in range(1, int(mask.max()) + 1)]).astype(np.uint8)
        guides = visual_guide(frame[None], ops.convert_to_tensor(masks), model.guide_size, model.guide_background)

        def run() -> list[np.ndarray]:
            logits = []
            for index in range(len(masks)):
                outputs = one(masks[index : index + 1], guides[index : index + 1])
                logits.append(ops.convert_to_numpy(outputs["logits"] if isinstance(outputs, dict) else outputs))
            return logits

        return run

    return program

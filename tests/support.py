"""What several test modules share: backend checks, random weights, small networks, boxes as masks."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from osmn_tf.backbones.mobilenet import MobileNet
from osmn_tf.backbones.registry import BACKBONES
from osmn_tf.inference.compilation import compile_function
from osmn_tf.layers import matching
from osmn_tf.models.mobilenet_network import MobileNetForm
from osmn_tf.models.modulated import FORMS

BACKEND = keras.backend.backend()

needs_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow", reason=f"compares with TensorFlow's own operations, the backend is {BACKEND}"
)

# For `Model.compile`: XLA takes minutes to compile these networks on a CPU. JAX has nothing else.
JIT = "auto" if BACKEND == "jax" else False

# For `Model.compile` where a step or two is all: making the graph takes many times longer. JAX is faster with one.
UNTRACED: dict[str, Any] = {"jit_compile": "auto"} if BACKEND == "jax" else {"run_eagerly": True}


@BACKBONES.register("short")
class ShortMobileNet(MobileNet):
    """MobileNet-v1 with one block at each stride, of few channels.

    TensorFlow and Keras take time for each layer, not for what it computes: networks on it are made, compiled, saved
    and loaded in half the time of those on the thirteen blocks.
    """

    published_channels = (4, 6, 8, 10, 12)
    strides = (1, 2, 2, 2, 2)


@FORMS.register("short")
class ShortForm(MobileNetForm):
    modulated = (2, 3, 4, 5)


# A whole OSMN or ReConvNet that builds in less than a second.
TINY = {
    "backbone": "short",
    "guide_size": 32,
    "visual_hidden": 8,
    "side_channels": 4,
    "network_size": (64, 96),
}

# With the thirteen blocks of the paper, as wide as published.
TINY_MOBILENET = {**TINY, "backbone": "mobilenet"}

# An RVOS of this kind.
TINY_RVOS = {"backbone": "short", "hidden_channels": 8, "network_size": (64, 96)}

# What makes it match: the form of `osmn_match_lite`.
MATCHING = {
    "decoder": "refinement",
    "trunk": "shared",
    "matching": "first+recent+previous",
    "guide": "gaussian+mask",
}

# VGG-16's layers with few channels, and all else as small as it can be: most tests do not depend on the widths.
NARROW_VGG = (2, 3, 4, 5, 6)
TINY_VGG = {"visual_head": "pooled", "visual_hidden": 4, "guide_size": 32, "block_channels": NARROW_VGG}
# For `osmn train --set`.
NARROW_VGG_SETTING = f"model.arguments.block_channels={list(NARROW_VGG)}"

# MobileNet with few channels: ConvLSTMs of 1024 channels take half a minute to initialise.
NARROW_MOBILENET = (2, 3, 4, 4, 5, 6, 6, 6, 6, 6, 6, 7, 7)


def command(*words: str, prelude: str = "") -> list[str]:
    """`osmn WORDS...` in a process of its own, after the statements of `prelude`."""
    program = f"""{prelude}
from osmn_tf.cli.main import main
raise SystemExit(main())"""
    return [sys.executable, "-c", program, *words]


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make(folder)` fills, which may take many seconds: the first of pytest-xdist's workers that needs
    it leaves it to the others. Do not change what is in it.
    """
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"made_once_{name}"
    if not shared.exists():
        folder = factory.mktemp(name)
        make(folder)
        with contextlib.suppress(OSError):  # another worker was faster: theirs is the same
            folder.rename(shared)
    return shared


def numpy(tensor) -> np.ndarray:
    """A tensor of any backend as float32 (or integer) array."""
    array = keras.ops.convert_to_numpy(tensor)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


@contextlib.contextmanager
def without_graphs() -> Iterator[None]:
    """TensorFlow runs functions without building graphs; other backends have no such switch."""
    if BACKEND != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


def call(model: keras.Model, inputs: Any) -> Any:
    """`model(inputs)`. On JAX it is compiled as a whole: its hundreds of operations one by one take longer."""
    return _compiled(model)(inputs) if BACKEND == "jax" else model(inputs)


def as_one(function: Callable[..., Any], *static: str) -> Callable[..., Any]:
    """`function`, on JAX compiled as a whole for every shape, and for every value of the `static` arguments."""
    if BACKEND != "jax":
        return function
    import jax

    return jax.jit(function, static_argnames=static)


@functools.lru_cache(maxsize=8)
def _compiled(model: keras.Model) -> Callable[[Any], Any]:
    return compile_function(lambda inputs: model(inputs, training=False), [model])


def randomise(model: keras.Model, seed: int = 0) -> keras.Model:
    """Gives every weight a random value with which activations neither vanish nor explode, and returns the model.

    The initial values would hide mistakes: scales of 1, shifts of 0, moving statistics of 0 and 1.
    """
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        kind, shape = weight.path.rsplit("/", 1)[-1], tuple(weight.shape)
        noise = rng.standard_normal(shape, np.float32)
        if not shape or (kind == "kernel" and not weight.trainable):
            continue  # temperatures; the fixed bilinear kernels
        if kind in ("gamma", "moving_variance"):
            value = np.clip(1.0 + 0.2 * noise, 0.5, 2.0)
        elif kind in ("beta", "moving_mean"):
            value = 0.2 * noise
        elif kind == "bias":
            value = noise * 0.1 + (1.0 if "fc8" in weight.path or "out_" in weight.path else 0.0)
        else:
            fan_in = shape[0] * shape[1] * (1 if "depthwise" in weight.path else shape[2])
            scale_head = "fc8" in weight.path or "Conv2d_out" in weight.path or "modulator_recurrent" in weight.path
            value = noise * np.sqrt((0.05 if scale_head else 2.0) / fan_in)
        weight.assign(value)
    return model


def zero_lstms(model: keras.Model) -> None:
    """Makes the ConvLSTMs' hidden states zero: the candidate is tanh(0)."""
    for weight in model.weights:
        if "_lstm/" in weight.path and not weight.path.endswith("bias"):
            weight.assign(np.zeros(weight.shape, np.float32))


EPSILON = float(np.finfo(np.float32).eps)

# Roundings that may add up in a whole network: some thirty layers of some hundred terms each, which cancel in part.
WHOLE_NETWORK = 1000


def assert_close(found: Any, expected: Any, roundings: float, name: str = "") -> None:
    """Equal but for rounding: no value differs by more than `roundings` roundings of the largest value compared.

    How many roundings of float32 may add up is a fact of what is computed, not of the machine: at most one for each
    term of a sum, and those of all layers that a value passes. Processors differ in the order in which they add, and in
    whether they round a product before they add it.
    """
    found, expected = numpy(found), numpy(expected)
    bound = roundings * EPSILON * float(np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound, err_msg=name)


def passed_through(content: bytes) -> set[str]:
    """Outputs of a LiteRT file that are one of its inputs, which LiteRT's `CompiledModel` computes wrongly."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter, found = Interpreter(model_content=content), set()
    for signature in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(signature)
        inputs = {detail["index"] for detail in runner.get_input_details().values()}
        found |= {name for name, detail in runner.get_output_details().items() if detail["index"] in inputs}
    return found


def is_quotient(printed: float, above: float, below: float) -> bool:
    """Whether `printed` is above / below, where all three were rounded to one decimal (on a fast machine, a lot)."""
    smallest, largest = (above - 0.05) / (below + 0.05), (above + 0.05) / max(below - 0.05, 1e-9)
    return smallest - 0.05 <= printed <= largest + 0.05


def random_frames(*shape: int, seed: int = 0) -> np.ndarray:
    """uint8 [..., 3], smooth enough to be interpolated, never constant."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*shape, 3)).astype(np.uint8)


def box_mask(height: int, width: int, *boxes: tuple[int, int, int, int]) -> np.ndarray:
    """uint8 [H, W]: the k-th box (top, bottom, left, right; ends excluded) gets label k."""
    mask = np.zeros((height, width), np.uint8)
    for label, (top, bottom, left, right) in enumerate(boxes, start=1):
        mask[top:bottom, left:right] = label
    return mask


def merge_scores(scores: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """The release's merging, word for word: argmax over [0.5, score_1, ..., score_N] of float [N, H, W]."""
    winner = np.argmax(np.concatenate([np.full((1, *scores.shape[1:]), 0.5, scores.dtype), scores]), axis=0)
    return np.array([0, *labels], np.uint8)[winner]


def soft_aggregate(scores: np.ndarray) -> np.ndarray:
    """Soft aggregation (RGMP, CVPR 2018), word for word: float [N, H, W] -> [N + 1, H, W], the background first."""
    objects = scores.astype(np.float64)
    everything = np.concatenate([np.prod(1 - objects, axis=0, keepdims=True), objects]).clip(1e-7, 1 - 1e-7)
    odds = everything / (1 - everything)
    return (odds / odds.sum(axis=0)).astype(np.float32)


def tensors(values: dict) -> dict:
    """The same dict with tensors: Keras refuses a mixture of tensors and arrays."""
    return {name: keras.ops.convert_to_tensor(value) for name, value in values.items()}


def object_batch(model, count: int, height: int, width: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs of a whole OSMN or ReConvNet: `count` frames with an object each, and a state that is not zero."""
    rng = np.random.default_rng(seed)
    state = model.initial_state(count, height, width)
    return {
        "frame": random_frames(count, height, width, seed=seed),
        "visual_guide": rng.uniform(0, 255, (count, model.guide_size, model.guide_size, 3)).astype(np.float32),
        "spatial_guide": rng.uniform(0, 1, (count, height, width, 1)).astype(np.float32),
        **{name: 0.5 * rng.standard_normal(tuple(x.shape), np.float32) for name, x in state.items()},
    }


def record_compared(patch: pytest.MonkeyPatch) -> list[int]:
    """Grows by how many earlier frames are compared with at a time, whenever objects are matched."""
    compared: list[int] = []
    weights = matching._weights

    def recording(query: Any, memory: Any) -> Any:
        compared.append(memory.shape[0])
        return weights(query, memory)

    patch.setattr(matching, "_weights", recording)
    return compared


def count_calls(patch: pytest.MonkeyPatch, owner: type, name: str, calls: list[str]) -> None:
    """Appends `name` to `calls` whenever the method `owner.name` is called; of a compiled one, when it is traced."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def counting(*arguments: Any, **settings: Any) -> Any:
        calls.append(name)
        return original(*arguments, **settings)

    patch.setattr(owner, name, counting)

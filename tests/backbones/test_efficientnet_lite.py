"""EfficientNet-Lite against the network written out, with narrow stages; and the networks that can stand on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from support import needs_tensorflow, numpy, random_frames

from osmn_tf.backbones.registry import BACKBONES
from osmn_tf.errors import InputError
from osmn_tf.layers.preprocessing import FrameNormalization
from osmn_tf.models.osmn import OSMN
from osmn_tf.models.osvos import OSVOS
from osmn_tf.models.registry import NETWORKS
from osmn_tf.models.rvos import RVOS

NARROW = (3, 2, 3, 4, 5, 6, 7, 8, 9)
# Repeats, kernel, stride, expansion of each stage of Lite0.
STAGES = ((1, 3, 1, 1), (2, 3, 2, 6), (2, 5, 2, 6), (3, 3, 2, 6), (3, 5, 1, 6), (4, 5, 2, 6), (1, 3, 1, 6))


def random_weights() -> dict[str, np.ndarray]:
    """Of a narrow Lite0, under the names of its PyTorch package."""
    rng = np.random.default_rng(7)
    values: dict[str, np.ndarray] = {}

    def convolution(name: str, norm: str, shape: tuple[int, ...], channels: int) -> None:
        fan = shape[0] * shape[1] * (shape[2] if shape[3] != 1 else 1)
        values[f"{name}.weight"] = (rng.standard_normal(shape) * np.sqrt(2 / fan)).astype(np.float16)
        values[f"{norm}.weight"] = rng.uniform(0.7, 1.3, channels).astype(np.float32)
        values[f"{norm}.bias"] = rng.uniform(0.0, 0.5, channels).astype(np.float32)
        values[f"{norm}.running_mean"] = rng.uniform(-0.2, 0.2, channels).astype(np.float32)
        values[f"{norm}.running_var"] = rng.uniform(0.5, 1.5, channels).astype(np.float32)

    convolution("conv_stem", "bn0", (3, 3, 3, NARROW[0]), NARROW[0])
    before, block = NARROW[0], 0
    for channels, (repeats, kernel, _, expansion) in zip(NARROW[1:-1], STAGES):
        for _ in range(repeats):
            name, wide = f"blocks.{block}", expansion * before
            if expansion > 1:
                convolution(f"{name}._expand_conv", f"{name}._bn0", (1, 1, before, wide), wide)
            convolution(f"{name}._depthwise_conv", f"{name}._bn1", (kernel, kernel, wide, 1), wide)
            convolution(f"{name}._project_conv", f"{name}._bn2", (1, 1, wide, channels), channels)
            before, block = channels, block + 1
    convolution("conv_head", "bn1", (1, 1, before, NARROW[-1]), NARROW[-1])
    return values


def written_out(frame: np.ndarray, w: dict[str, np.ndarray]) -> dict[int, Any]:
    """The features by stride, operation by operation."""
    import tensorflow as tf

    def norm(x: Any, name: str) -> Any:
        scale = w[f"{name}.weight"] / np.sqrt(w[f"{name}.running_var"] + 1e-3)
        return (x - w[f"{name}.running_mean"]) * scale + w[f"{name}.bias"]

    x = (frame.astype(np.float32) - 127) / 128
    x = tf.nn.relu6(norm(tf.nn.conv2d(x, w["conv_stem.weight"].astype(np.float32), 2, "SAME"), "bn0"))
    found: dict[int, Any] = {}
    stride, block = 2, 0
    for repeats, _, first, expansion in STAGES:
        for index in range(repeats):
            name, step = f"blocks.{block}", first if index == 0 else 1
            y = x
            if expansion > 1:
                kernel = w[f"{name}._expand_conv.weight"].astype(np.float32)
                y = tf.nn.relu6(norm(tf.nn.conv2d(y, kernel, 1, "SAME"), f"{name}._bn0"))
            if step == 2:
                found[stride] = y
                stride *= 2
            kernel = w[f"{name}._depthwise_conv.weight"].astype(np.float32)
            y = tf.nn.depthwise_conv2d(y, kernel, [1, step, step, 1], "SAME")
            y = tf.nn.relu6(norm(y, f"{name}._bn1"))
            kernel = w[f"{name}._project_conv.weight"].astype(np.float32)
            y = norm(tf.nn.conv2d(y, kernel, 1, "SAME"), f"{name}._bn2")
            x = x + y if index > 0 else y
            block += 1
    head = tf.nn.conv2d(x, w["conv_head.weight"].astype(np.float32), 1, "SAME")
    found[32] = tf.nn.relu6(norm(head, "bn1"))
    return found


def trunk(name: str, channels: tuple[int, ...] | None = None) -> tuple[Any, keras.Model]:
    frame = keras.Input((None, None, 3), dtype="uint8")
    backbone = BACKBONES.get(name)(channels)
    normalize = FrameNormalization.of_kind(backbone.imagenet_normalization, "normalization")
    return backbone, keras.Model(frame, backbone.features(normalize(frame), "seg"))


@pytest.mark.parametrize(("name", "parameters"), [("efficientnet_lite0", 4_652_008), ("efficientnet_lite2", 6_092_072)])
def test_has_the_published_number_of_parameters(name: str, parameters: int) -> None:
    """But for the classifier's: 1,280 weights and a bias for each of 1,000 classes."""
    _, model = trunk(name)
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == parameters - 1_281_000


@needs_tensorflow
@pytest.mark.parametrize("size", [(64, 96), (61, 75)])
def test_equals_the_network_written_out(size: tuple[int, int], tmp_path: Path) -> None:
    weights = random_weights()
    np.savez(tmp_path / "lite.npz", **weights)
    backbone, model = trunk("efficientnet_lite0", NARROW)
    backbone.load_imagenet_weights(model, "seg", str(tmp_path / "lite.npz"))
    frame = random_frames(2, *size)
    found, expected = model(frame), written_out(frame, weights)
    assert set(found) == set(expected) == {2, 4, 8, 16, 32}
    for stride, x in expected.items():
        np.testing.assert_allclose(numpy(found[stride]), numpy(x), atol=1e-4 * numpy(x).std())


def test_other_files_are_refused(tmp_path: Path) -> None:
    weights = random_weights()
    backbone, model = trunk("efficientnet_lite0", NARROW)
    with pytest.raises(ValueError, match="Keras has no weights for EfficientNet-Lite"):
        backbone.load_imagenet_weights(model, "seg")
    path = tmp_path / "lite.npz"
    path.write_bytes(b"PK\3\4 cut off")
    with pytest.raises(OSError, match=r"damaged, or no \.npz"):
        backbone.load_imagenet_weights(model, "seg", str(path))
    np.savez(path, **{name: value for name, value in weights.items() if name != "blocks.3._bn2.bias"})
    with pytest.raises(ValueError, match=r"no EfficientNet-Lite: there is no blocks\.3\.bn2\.bias"):
        backbone.load_imagenet_weights(model, "seg", str(path))
    np.savez(path, **weights)
    other, wide = trunk("efficientnet_lite0", (4, *NARROW[1:]))
    with pytest.raises(ValueError, match="shape"):
        other.load_imagenet_weights(wide, "seg", str(path))


@pytest.mark.backend
def test_networks_stand_on_it() -> None:
    """A shared trunk that matches, an OSVOS and an RVOS, with no line of theirs that knows it."""
    assert {"OSMN", "OSVOS", "RVOS"} <= set(NETWORKS.names())
    arguments: dict[str, Any] = {"backbone": "efficientnet_lite0", "block_channels": NARROW, "network_size": (64, 96)}
    matching = OSMN(
        **arguments,
        trunk="shared",
        decoder="refinement",
        matching="first+previous",
        guide="gaussian+mask",
        guide_size=32,
        visual_hidden=4,
    )
    assert matching.normalization == "efficientnet_lite"
    osvos = OSVOS(**arguments, side_channels=2)
    for network in (matching, osvos, RVOS(**arguments, hidden_channels=8)):
        assert network.backbone == "efficientnet_lite0"
        assert tuple(network.get_config()["block_channels"]) == NARROW
    copy = OSVOS.from_config(osvos.get_config())
    assert [weight.path for weight in copy.weights] == [weight.path for weight in osvos.weights]
    copy.set_weights(osvos.get_weights())
    frame = random_frames(1, 50, 70)
    encoded = matching.frame_encoder({"frame": frame})
    assert tuple(encoded["key"].shape[1:3]) == (4, 6)  # padded to 64 x 96


def test_a_modulated_trunk_of_it_does_not_exist() -> None:
    with pytest.raises(InputError, match=r"backbone: expected one of mobilenet, .*vgg16"):
        OSMN(backbone="efficientnet_lite0", block_channels=NARROW)

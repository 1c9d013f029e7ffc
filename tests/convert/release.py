"""The original networks written down in TensorFlow 1 operations, from the published description, and random weights.

Everything here is independent of the package: names and shapes are spelled out, and the graphs use nothing but
`tf.compat.v1` operations on a dict of tensors with the names of a checkpoint.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import tensorflow as tf

tf1 = tf.compat.v1
nn = tf1.nn
MEAN_BGR = np.array([104.0, 117.0, 123.0], np.float32)
VGG = {1: (64, 64), 2: (128, 128), 3: (256, 256, 256), 4: (512, 512, 512), 5: (512, 512, 512)}
VGG_HIDDEN = 4096  # of fc6 and fc7
MOBILENET = [64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
STRIDES = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]

Shapes = dict[str, tuple[int, ...]]


# Names and shapes --------------------------------------------------------------------------------------------------


def vgg_trunk_shapes(root: str) -> Shapes:
    shapes: Shapes = {}
    width = 3
    for block, channels in VGG.items():
        for index, filters in enumerate(channels, start=1):
            shapes[f"{root}/conv{block}/conv{block}_{index}/weights"] = (3, 3, width, filters)
            shapes[f"{root}/conv{block}/conv{block}_{index}/biases"] = (filters,)
            width = filters
    return shapes


def batch_norm_shapes(name: str, channels: int) -> Shapes:
    return {f"{name}/BatchNorm/{part}": (channels,) for part in ("beta", "gamma", "moving_mean", "moving_variance")}


def side_shapes(root: str) -> Shapes:
    shapes: Shapes = {}
    for block, name in {2: "conv2_2_16", 3: "conv3_3_16", 4: "conv4_3_16", 5: "conv5_3_16"}.items():
        shapes[f"{root}/{name}/weights"] = (3, 3, VGG[block][-1], 16)
        shapes[f"{root}/{name}/biases"] = (16,)
    shapes[f"{root}/score-multi2-up/weights"] = (4, 4, 16, 16)
    shapes[f"{root}/score-multi3-up/weights"] = (8, 8, 16, 16)
    shapes[f"{root}/score-multi4-up/weights"] = (16, 16, 16, 16)
    shapes[f"{root}/score-multi5-up/weights"] = (32, 32, 16, 16)
    shapes[f"{root}/upscore-fuse/weights"] = (1, 1, 64, 1)
    shapes[f"{root}/upscore-fuse/biases"] = (1,)
    return shapes


def vgg_dense_shapes(root: str, outputs: int) -> Shapes:
    shapes: Shapes = {}
    dense = {"fc6": (7, 7, VGG[5][-1], VGG_HIDDEN), "fc7": (1, 1, VGG_HIDDEN, VGG_HIDDEN)}
    for name, shape in (dense | {"fc8": (1, 1, VGG_HIDDEN, outputs)}).items():
        shapes[f"{root}/{name}/weights"] = shape
        shapes[f"{root}/{name}/biases"] = shape[-1:]
    return shapes


def vgg_shapes(early: bool = False) -> Shapes:
    """The release's 87 variables (with `early`: 97)."""
    spatial = {f"conv{block}": sum(VGG[block]) for block in ((1, 2, 3, 4, 5) if early else (3, 4, 5))}
    shapes = vgg_trunk_shapes("osmn/modulator") | vgg_trunk_shapes("osmn/seg") | side_shapes("osmn/seg")
    shapes |= vgg_dense_shapes("osmn/modulator", sum(spatial.values()))
    for name, channels in spatial.items():
        shapes[f"osmn/modulator_sp/{name}/weights"] = (1, 1, 1, channels)
        shapes |= batch_norm_shapes(f"osmn/modulator_sp/{name}", channels)
    return shapes


def lite_shapes() -> Shapes:
    """The 310 variables of the MobileNet form."""
    shapes: Shapes = {}
    for trunk in ("osmn/modulator", "osmn/seg"):
        shapes[f"{trunk}/Conv2d_0/weights"] = (3, 3, 3, 32)
        shapes |= batch_norm_shapes(f"{trunk}/Conv2d_0", 32)
        width = 32
        for index, filters in enumerate(MOBILENET, start=1):
            shapes[f"{trunk}/Conv2d_{index}_depthwise/depthwise_weights"] = (3, 3, width, 1)
            shapes |= batch_norm_shapes(f"{trunk}/Conv2d_{index}_depthwise", width)
            shapes[f"{trunk}/Conv2d_{index}_pointwise/weights"] = (1, 1, width, filters)
            shapes |= batch_norm_shapes(f"{trunk}/Conv2d_{index}_pointwise", filters)
            width = filters
    shapes["osmn/modulator/Logits/Conv2d_1c_1x1/weights"] = (1, 1, 1024, 2048)
    shapes["osmn/modulator/Logits/Conv2d_1c_1x1/biases"] = (2048,)
    for head, (layer, channels) in enumerate({3: 128, 5: 256, 11: 512, 13: 1024}.items(), start=1):
        shapes[f"osmn/Conv2d_out_{head}/weights"] = (1, 1, 2048, channels)
        shapes[f"osmn/Conv2d_out_{head}/biases"] = (channels,)
        shapes[f"osmn/modulator_sp/conv{layer}/weights"] = (1, 1, 1, channels)
        shapes |= batch_norm_shapes(f"osmn/modulator_sp/conv{layer}", channels)
        shapes[f"osmn/conv{layer}_16/weights"] = (3, 3, channels, 16)
        shapes[f"osmn/conv{layer}_16/biases"] = (16,)
    return shapes | {"osmn/score/weights": (1, 1, 64, 1), "osmn/score/biases": (1,)}


def osvos_shapes() -> Shapes:
    shapes = vgg_trunk_shapes("osvos") | side_shapes("osvos")
    for level, side in {2: 4, 3: 8, 4: 16, 5: 32}.items():
        shapes[f"osvos/score-dsn_{level}/weights"] = (1, 1, 16, 1)
        shapes[f"osvos/score-dsn_{level}/biases"] = (1,)
        shapes[f"osvos/score-dsn_{level}-up/weights"] = (side, side, 1, 1)
    return shapes


def slim_vgg16_shapes() -> Shapes:
    return vgg_trunk_shapes("vgg_16") | vgg_dense_shapes("vgg_16", 1000) | {"vgg_16/mean_rgb": (3,)}


def random_values(shapes: Shapes, seed: int = 0) -> dict[str, np.ndarray]:
    """Values with which activations keep their scale from layer to layer, and scales stay around 1."""
    rng = np.random.default_rng(seed)
    values: dict[str, np.ndarray] = {}
    for name, shape in shapes.items():
        part = name.rsplit("/", 1)[-1]
        # To draw a hundred million numbers takes seconds; the period is a prime, so that rows and columns differ.
        noise = np.resize(rng.standard_normal(min(math.prod(shape), 1_000_003), np.float32), shape)
        head = "fc8" in name or "Conv2d_out" in name
        if "-up/" in name:
            noise = bilinear_filter(shape[0], shape[2])
        elif name.endswith("mean_rgb"):
            noise = np.array([123.68, 116.779, 103.939], np.float32)
        elif part in ("gamma", "moving_variance"):
            noise = np.clip(1 + 0.2 * noise, 0.5, 2)
        elif part in ("beta", "moving_mean"):
            noise *= 0.2
        elif part == "biases":
            noise = 0.1 * noise + (1 if head else 0)
        elif name.startswith("osmn/modulator_sp"):
            noise *= 5
        else:
            fan_in = np.prod(shape[:2] if part == "depthwise_weights" else shape[:3])
            # Activations of the VGG form are of the images' scale, about 70.
            gain = (1e-5 if "fc8" in name else 0.1) if head else 2
            noise *= np.float32(np.sqrt(gain / fan_in))
        values[name] = noise.astype(np.float32)
    return values


def bilinear_filter(size: int, channels: int) -> np.ndarray:
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    kernel = np.zeros((size, size, channels, channels), np.float32)
    for row in range(size):
        for column in range(size):
            value = (1 - abs(row - centre) / factor) * (1 - abs(column - centre) / factor)
            for channel in range(channels):
                kernel[row, column, channel, channel] = value
    return kernel


# Graphs ------------------------------------------------------------------------------------------------------------


def convolve(x, v, name, stride=1, padding="SAME"):
    y = nn.conv2d(x, v[f"{name}/weights"], [1, stride, stride, 1], padding)
    return nn.bias_add(y, v[f"{name}/biases"]) if f"{name}/biases" in v else y


def batch_norm(x, v, name):
    beta, gamma, mean, variance = (
        v[f"{name}/BatchNorm/{part}"] for part in ("beta", "gamma", "moving_mean", "moving_variance")
    )
    return nn.batch_normalization(x, mean, variance, beta, gamma, 0.001)


def max_pool(x):
    return nn.max_pool(x, [1, 2, 2, 1], [1, 2, 2, 1], "SAME")


def vgg_modulator(v, guide):
    """Visual guide [1, 224, 224, 3], BGR minus mean -> gammas [1, 1, 1, 3840 or 4224]."""
    x = guide
    for block, channels in VGG.items():
        for index in range(1, len(channels) + 1):
            x = nn.relu(convolve(x, v, f"osmn/modulator/conv{block}/conv{block}_{index}"))
        x = max_pool(x)
    x = nn.relu(convolve(x, v, "osmn/modulator/fc6", padding="VALID"))
    x = nn.relu(convolve(x, v, "osmn/modulator/fc7"))
    return convolve(x, v, "osmn/modulator/fc8")


def hypercolumn(v, root, maps, height, width):
    columns = []
    for level, stride in {2: 2, 3: 4, 4: 8, 5: 16}.items():
        name = {2: "conv2_2_16", 3: "conv3_3_16", 4: "conv4_3_16", 5: "conv5_3_16"}[level]
        side = convolve(maps[level], v, f"{root}/{name}")
        rows, cols = int(side.shape[1]), int(side.shape[2])
        shape = [1, (rows - 1) * stride + 2 * stride, (cols - 1) * stride + 2 * stride, 16]
        kernel = v[f"{root}/score-multi{level}-up/weights"]
        up = nn.conv2d_transpose(side, kernel, shape, [1, stride, stride, 1], "VALID")
        top, left = (shape[1] - height) // 2, (shape[2] - width) // 2
        columns.append(tf1.slice(up, [0, top, left, 0], [1, height, width, 16]))
    return convolve(tf1.concat(columns, 3), v, f"{root}/upscore-fuse")


def vgg_segmentation(v, image, guide, gammas, early=False):
    """Image [1, H, W, 3], BGR minus mean; guide [1, H, W, 1]; gammas [1, 1, 1, M] -> logits [1, H, W, 1]."""
    x, pooled, offset, maps = image, guide, 0, {}
    for block, channels in VGG.items():
        if block > 1:
            x = max_pool(x)
            pooled = nn.avg_pool(pooled, [1, 2, 2, 1], [1, 2, 2, 1], "SAME")
        modulated = early or block >= 3
        if modulated:
            name = f"osmn/modulator_sp/conv{block}"
            betas = nn.relu(batch_norm(convolve(pooled, v, name), v, name))
        start = 0
        for index, filters in enumerate(channels, start=1):
            x = nn.relu(convolve(x, v, f"osmn/seg/conv{block}/conv{block}_{index}"))
            if modulated:
                x = x * gammas[..., offset : offset + filters] + betas[..., start : start + filters]
                offset += filters
                start += filters
        maps[block] = x
    return hypercolumn(v, "osmn/seg", maps, int(image.shape[1]), int(image.shape[2]))


def osvos_maps(v, image):
    x, maps = image, {}
    for block, channels in VGG.items():
        x = max_pool(x) if block > 1 else x
        for index in range(1, len(channels) + 1):
            x = nn.relu(convolve(x, v, f"osvos/conv{block}/conv{block}_{index}"))
        maps[block] = x
    return maps


def osvos_segmentation(v, image):
    """Image [1, H, W, 3], BGR minus mean -> logits [1, H, W, 1]."""
    return hypercolumn(v, "osvos", osvos_maps(v, image), int(image.shape[1]), int(image.shape[2]))


def osvos_side_scores(v, image):
    """The logits of the four side outputs alone, fine to coarse."""
    maps, height, width = osvos_maps(v, image), int(image.shape[1]), int(image.shape[2])
    scores = []
    for level, name in {2: "conv2_2_16", 3: "conv3_3_16", 4: "conv4_3_16", 5: "conv5_3_16"}.items():
        score = convolve(convolve(maps[level], v, f"osvos/{name}"), v, f"osvos/score-dsn_{level}")
        stride = 2 ** (level - 1)
        shape = [1, (int(score.shape[1]) + 1) * stride, (int(score.shape[2]) + 1) * stride, 1]
        kernel = v[f"osvos/score-dsn_{level}-up/weights"]
        up = nn.conv2d_transpose(score, kernel, shape, [1, stride, stride, 1], "VALID")
        top, left = (shape[1] - height) // 2, (shape[2] - width) // 2
        scores.append(tf1.slice(up, [0, top, left, 0], [1, height, width, 1]))
    return scores


def mobilenet_layer(x, v, root, index):
    if index == 0:
        return nn.relu6(batch_norm(convolve(x, v, f"{root}/Conv2d_0", 2), v, f"{root}/Conv2d_0"))
    stride = STRIDES[index - 1]
    name = f"{root}/Conv2d_{index}_depthwise"
    x = nn.depthwise_conv2d(x, v[f"{name}/depthwise_weights"], [1, stride, stride, 1], "SAME")
    x = nn.relu6(batch_norm(x, v, name))
    name = f"{root}/Conv2d_{index}_pointwise"
    return nn.relu6(batch_norm(convolve(x, v, name), v, name))


def lite_modulator(v, guide):
    """Visual guide [1, 224, 224, 3], (BGR minus mean) * 0.00787 -> gammas [1, 1, 1, 1920], layer after layer."""
    x = guide
    for index in range(14):
        x = mobilenet_layer(x, v, "osmn/modulator", index)
    x = nn.avg_pool(x, [1, 7, 7, 1], [1, 1, 1, 1], "VALID")
    x = nn.relu(convolve(x, v, "osmn/modulator/Logits/Conv2d_1c_1x1"))
    return tf1.concat([convolve(x, v, f"osmn/Conv2d_out_{head}") for head in (1, 2, 3, 4)], 3)


def lite_segmentation(v, image, guide, gammas):
    """As `vgg_segmentation`; the image is scaled too and its sides are multiples of 32."""
    height, width = int(image.shape[1]), int(image.shape[2])
    x, offset, columns = image, 0, []
    guide_pooling = {3: 4, 5: 8, 11: 16, 13: 32}
    for index in range(14):
        x = mobilenet_layer(x, v, "osmn/seg", index)
        if index in guide_pooling:
            side, name = guide_pooling[index], f"osmn/modulator_sp/conv{index}"
            pooled = nn.avg_pool(guide, [1, side, side, 1], [1, side, side, 1], "VALID")
            betas = nn.relu(batch_norm(convolve(pooled, v, name), v, name))
            filters = MOBILENET[index - 1]
            x = x * gammas[..., offset : offset + filters] + betas
            offset += filters
            column = convolve(x, v, f"osmn/conv{index}_16")
            columns.append(resize_tf1(column, height // 2, width // 2))
    return resize_tf1(convolve(tf1.concat(columns, 3), v, "osmn/score"), height, width)


def resize_tf1(x, height, width):
    return tf1.image.resize_bilinear(x, [height, width], align_corners=False, half_pixel_centers=False)


# Sessions ----------------------------------------------------------------------------------------------------------


def write_checkpoint(
    prefix: Path, values: dict[str, np.ndarray], step: int | None = None, adam: str | None = None, **saver_options
) -> str:
    """Writes `values` with `tf.compat.v1.train.Saver`; with `adam` also an Adam optimiser's state for the variables
    whose names begin so.
    """
    with tf.Graph().as_default(), tf1.Session() as session:
        inputs = {name: tf1.placeholder(value.dtype, value.shape) for name, value in values.items()}
        saved = {name: tf1.get_variable(name, initializer=inputs[name]) for name in values}
        if step is not None:
            tf1.get_variable("global_step", initializer=tf1.constant(step, tf.int64))
        if adam is not None:
            trained = [variable for name, variable in saved.items() if name.startswith(adam)]
            tf1.train.AdamOptimizer().minimize(
                tf1.add_n([tf1.reduce_sum(variable) for variable in trained]), None, trained
            )
        session.run(tf1.global_variables_initializer(), {inputs[name]: value for name, value in values.items()})
        return tf1.train.Saver(**saver_options).save(session, str(prefix), step, write_meta_graph=False)


def run_graph(checkpoint: str, shapes: Shapes, build, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Restores a checkpoint into the graph that `build(variables, **placeholders)` makes, and runs it."""
    with tf.Graph().as_default(), tf1.Session() as session:
        restored = {name: tf1.get_variable(name, shape=shape) for name, shape in shapes.items()}
        inputs = {name: tf1.placeholder(tf.float32, value.shape, name) for name, value in feeds.items()}
        outputs = build(restored, **inputs)
        tf1.train.Saver(list(restored.values())).restore(session, checkpoint)
        return session.run(outputs, {inputs[name]: value for name, value in feeds.items()})


def normalise(rgb: np.ndarray, scale: float = 1.0, mean_bgr: np.ndarray = MEAN_BGR) -> np.ndarray:
    """RGB 0..255 -> BGR minus the mean, times `scale`."""
    return (rgb[..., ::-1].astype(np.float32) - mean_bgr.astype(np.float32)) * np.float32(scale)

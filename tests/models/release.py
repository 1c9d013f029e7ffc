"""The two forms of the OSMN release written out with TensorFlow's basic operations: what the networks must compute.

Nothing here comes from the package: weights are a dict from our names to arrays, inputs are raw frames and guides.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

VGG = {1: (64, 64), 2: (128, 128), 3: (256,) * 3, 4: (512,) * 3, 5: (512,) * 3}
VGG_OFFSETS = {
    (3, 1): 0, (3, 2): 256, (3, 3): 512, (4, 1): 768, (4, 2): 1280, (4, 3): 1792, (5, 1): 2304, (5, 2): 2816,
    (5, 3): 3328,
}  # fmt: skip
MOBILENET_STRIDES = {1: 1, 2: 2, 3: 1, 4: 2, 5: 1, 6: 2, 7: 1, 8: 1, 9: 1, 10: 1, 11: 1, 12: 2, 13: 1}
MOBILENET_OFFSETS = {3: 0, 5: 128, 11: 384, 13: 896}


def caffe(image):
    """RGB -> BGR minus (104, 117, 123)."""
    return np.asarray(image, np.float32)[..., ::-1] - np.array([104, 117, 123], np.float32)


def conv(x, w, name, padding="SAME", stride=1):
    x = tf.nn.conv2d(x, w[f"{name}/kernel"], stride, padding)
    return x + w[f"{name}/bias"] if f"{name}/bias" in w else x


def batch_norm(x, w, name):
    mean, variance = w[f"{name}/moving_mean"], w[f"{name}/moving_variance"]
    return tf.nn.batch_normalization(x, mean, variance, w[f"{name}/beta"], w[f"{name}/gamma"], 1e-3)


def shift(guide, w, name):
    return tf.nn.relu(batch_norm(conv(guide, w, name), w, f"{name}_bn"))


def upsampled(x, stride, height, width):
    """SAME transposed convolution with the bilinear filter, floor centre crop."""
    size, channels = 2 * stride, x.shape[-1]
    profile = 1 - np.abs(np.arange(size) - (stride - 0.5)) / stride
    kernel = np.zeros((size, size, channels, channels), np.float32)
    for channel in range(channels):
        kernel[:, :, channel, channel] = np.outer(profile, profile)
    rows, columns = x.shape[1] * stride, x.shape[2] * stride
    x = tf.nn.conv2d_transpose(x, kernel, (x.shape[0], rows, columns, channels), stride, "SAME")
    top, left = (rows - height) // 2, (columns - width) // 2
    return x[:, top : top + height, left : left + width]


def vgg_trunk(x, w, prefix):
    for block, channels in VGG.items():
        if block > 1:
            x = tf.nn.max_pool2d(x, 2, 2, "SAME")
        for index in range(1, len(channels) + 1):
            x = tf.nn.relu(conv(x, w, f"{prefix}_conv{block}_{index}"))
    return x


def vgg_modulator_fc(guide, w):
    x = tf.nn.max_pool2d(vgg_trunk(caffe(guide), w, "modulator"), 2, 2, "SAME")
    x = tf.nn.relu(conv(x, w, "modulator_fc6", "VALID"))
    x = tf.nn.relu(conv(x, w, "modulator_fc7"))
    return conv(x, w, "modulator_fc8")[:, 0, 0]


def vgg_modulator_pooled(guide, w):
    x = tf.reduce_mean(vgg_trunk(caffe(guide), w, "modulator"), (1, 2), keepdims=True)
    x = tf.nn.relu(conv(x, w, "modulator_hidden"))
    return conv(x, w, "modulator_fc8")[:, 0, 0]


def vgg_logits(frame, spatial_guide, gamma, w):
    height, width = frame.shape[1:3]
    x, guide, sides = caffe(frame), spatial_guide, {}
    for block, channels in VGG.items():
        if block > 1:
            x = tf.nn.max_pool2d(x, 2, 2, "SAME")
            guide = tf.nn.avg_pool2d(guide, 2, 2, "SAME")
        if block >= 3:
            beta, start = shift(guide, w, f"modulator_sp_conv{block}"), 0
        for index, filters in enumerate(channels, start=1):
            x = tf.nn.relu(conv(x, w, f"seg_conv{block}_{index}"))
            if block >= 3:
                offset = VGG_OFFSETS[block, index]
                x = x * gamma[:, None, None, offset : offset + filters] + beta[..., start : start + filters]
                start += filters
        if block >= 2:
            side = conv(x, w, f"seg_conv{block}_{len(channels)}_16")
            sides[block] = upsampled(side, 2 ** (block - 1), height, width)
    return conv(tf.concat([sides[block] for block in (2, 3, 4, 5)], -1), w, "seg_upscore_fuse")


def mobilenet_layer(x, w, name, stride=1, depthwise=False):
    if depthwise:
        x = tf.nn.depthwise_conv2d(x, w[f"{name}/kernel"], (1, stride, stride, 1), "SAME")
    else:
        x = conv(x, w, name, stride=stride)
    return tf.nn.relu6(batch_norm(x, w, f"{name}_bn"))


def mobilenet_modulator(guide, w):
    x = mobilenet_layer(caffe(guide) * 0.00787, w, "modulator_Conv2d_0", 2)
    for index, stride in MOBILENET_STRIDES.items():
        x = mobilenet_layer(x, w, f"modulator_Conv2d_{index}_depthwise", stride, depthwise=True)
        x = mobilenet_layer(x, w, f"modulator_Conv2d_{index}_pointwise")
    x = tf.reduce_mean(x, (1, 2), keepdims=True)
    x = tf.nn.relu(conv(x, w, "modulator_Conv2d_1c_1x1"))
    return tf.concat([conv(x, w, f"Conv2d_out_{index}")[:, 0, 0] for index in (1, 2, 3, 4)], -1)


def mobilenet_logits(frame, spatial_guide, gamma, w):
    """Sides must be multiples of 32, as in the release."""
    height, width = frame.shape[1:3]
    x = mobilenet_layer(caffe(frame) * 0.00787, w, "seg_Conv2d_0", 2)
    guide, stride, sides = tf.nn.avg_pool2d(spatial_guide, 2, 2, "VALID"), 2, []
    for index, step in MOBILENET_STRIDES.items():
        x = mobilenet_layer(x, w, f"seg_Conv2d_{index}_depthwise", step, depthwise=True)
        x = mobilenet_layer(x, w, f"seg_Conv2d_{index}_pointwise")
        if step == 2:
            guide, stride = tf.nn.avg_pool2d(guide, 2, 2, "VALID"), stride * 2
        if index in MOBILENET_OFFSETS:
            offset = MOBILENET_OFFSETS[index]
            beta = shift(guide, w, f"modulator_sp_conv{index}")
            x = x * gamma[:, None, None, offset : offset + x.shape[-1]] + beta
            sides.append(tf1_resize(conv(x, w, f"seg_conv{index}_16"), height // 2, width // 2))
    return tf1_resize(conv(tf.concat(sides, -1), w, "seg_score"), height, width)


def tf1_resize(x, height, width):
    return tf.compat.v1.image.resize_bilinear(x, [height, width], align_corners=False, half_pixel_centers=False)

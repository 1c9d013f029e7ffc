"""What the known checkpoints hold: name and shape of every tensor, and the weight of our network that it becomes.

Sources: the variables of the original OSMN release (VGG-16 with and without modulation of its early layers, and the
MobileNet form), of OSVOS (Caelles et al., 2017) and of TF-Slim's VGG-16 classifier.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from osmn_tf.backbones.mobilenet import MobileNet
from osmn_tf.backbones.vgg16 import CLASSIFIER_MEAN_BGR, VGG16
from osmn_tf.models.mobilenet_network import MODULATED

Shape = tuple[int | None, ...]

VGG16_CONFIG: dict[str, Any] = {
    "backbone": "vgg16",
    "visual_head": "fc",
    "guide_size": 224,
    "decoder": "hypercolumn",
    "side_channels": 16,
    "modulate_early": False,
    "normalization": "caffe",
    "network_size": (480, 854),
}
_LITE_CONFIG: dict[str, Any] = {
    **VGG16_CONFIG,
    "backbone": "mobilenet",
    "visual_head": "pooled",
    "visual_hidden": 2048,
    "normalization": "caffe_scaled",
    "network_size": (480, 864),  # the release takes sides that are multiples of 32
}
MIN_SIMILARITY = 0.5  # shared names / all names, below which a checkpoint is of something else
_SLOT = re.compile(r"(?P<variable>.+)/(?P<slot>Adam|Adam_1|Momentum|RMSProp|RMSProp_1|Adagrad)$")
_COUNTER = re.compile(r"(^|/)(global_step|beta[12]_power)(_\d+)?$")
_BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a checkpoint.

    Attributes:
        shape: None stands for any length.
        targets: paths of the network's weights that receive it; none for a tensor that is only checked or left out.
        bilinear: it must hold the fixed bilinear filter, and is compared with it; the targets get the exact filter.
        unused: why it has no target.
        optional: the checkpoint may lack it.
    """

    shape: Shape
    targets: tuple[str, ...] = ()
    bilinear: bool = False
    unused: str = ""
    optional: bool = False

    def fits(self, shape: Iterable[int]) -> bool:
        """Whether a stored shape is the expected one."""
        shape = tuple(shape)
        return len(shape) == len(self.shape) and all(want in (None, got) for want, got in zip(self.shape, shape))


@dataclass(frozen=True)
class Form:
    """One kind of checkpoint.

    Attributes:
        key: short name, recorded in metadata.
        title: what it is, for people.
        config: arguments of the `OSMN` that receives it.
        tensors: name -> TensorSpec.
        complete: every weight of that network comes from the checkpoint, so that the result segments videos as it is;
            False: it only initialises one.
        mean_bgr: mean colour that the source subtracts, where it is not the network's own.
        mean_rgb_tensor: name of the tensor that holds the mean colour, where the checkpoint brings it.
        rgb: the source's first convolution takes RGB.
        root: first part of the names.
    """

    key: str
    title: str
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorSpec]
    complete: bool = True
    mean_bgr: tuple[float, float, float] | None = None
    mean_rgb_tensor: str | None = None
    rgb: bool = False
    root: str = field(default="osmn")

    @property
    def first_layer(self) -> str:
        """Name of the first convolution, without /weights."""
        return f"{self.root}/conv1/conv1_1"


def _convolution(name: str, shape: Shape, *layers: str, kernel: str = "weights") -> dict[str, TensorSpec]:
    """Kernel and bias of a convolution that becomes each of `layers`."""
    return {
        f"{name}/{kernel}": TensorSpec(shape, tuple(f"{layer}/kernel" for layer in layers)),
        f"{name}/biases": TensorSpec((shape[-1],), tuple(f"{layer}/bias" for layer in layers)),
    }


def _normalised(name: str, shape: Shape, layer: str, kernel: str = "weights") -> dict[str, TensorSpec]:
    """Kernel of a convolution without bias, and the batch normalisation behind it."""
    channels = shape[2] if kernel == "depthwise_weights" else shape[3]
    return {
        f"{name}/{kernel}": TensorSpec(shape, (f"{layer}/kernel",)),
        **{f"{name}/BatchNorm/{part}": TensorSpec((channels,), (f"{layer}_bn/{part}",)) for part in _BATCH_NORM},
    }


def _vgg16_trunk(root: str, *prefixes: str) -> dict[str, TensorSpec]:
    tensors: dict[str, TensorSpec] = {}
    width = 3
    for block, channels in enumerate(VGG16().blocks, start=1):
        for index, filters in enumerate(channels, start=1):
            name = f"conv{block}_{index}"
            layers = [f"{prefix}_{name}" for prefix in prefixes]
            tensors |= _convolution(f"{root}/conv{block}/{name}", (3, 3, width, filters), *layers)
            width = filters
    return tensors


def _vgg16_sides(root: str) -> dict[str, TensorSpec]:
    """Side outputs, their fixed upsampling and the fusion."""
    tensors: dict[str, TensorSpec] = {}
    for block, channels in enumerate(VGG16().blocks[1:], start=2):
        name = f"conv{block}_{len(channels)}_16"
        tensors |= _convolution(f"{root}/{name}", (3, 3, channels[-1], 16), f"seg_{name}")
        side = 2**block
        target = f"seg_score_multi{block}_up/kernel"
        tensors[f"{root}/score-multi{block}-up/weights"] = TensorSpec((side, side, 16, 16), (target,), bilinear=True)
    return tensors | _convolution(f"{root}/upscore-fuse", (1, 1, 64, 1), "seg_upscore_fuse")


def _osmn_vgg16(modulate_early: bool) -> Form:
    first = 1 if modulate_early else 3
    modulated = {block: sum(channels) for block, channels in enumerate(VGG16().blocks, start=1) if block >= first}
    tensors = _vgg16_trunk("osmn/modulator", "modulator")
    tensors |= _convolution("osmn/modulator/fc6", (7, 7, 512, 4096), "modulator_fc6")
    tensors |= _convolution("osmn/modulator/fc7", (1, 1, 4096, 4096), "modulator_fc7")
    tensors |= _convolution("osmn/modulator/fc8", (1, 1, 4096, sum(modulated.values())), "modulator_fc8")
    for block, channels in modulated.items():
        name = f"modulator_sp/conv{block}"
        tensors |= _normalised(f"osmn/{name}", (1, 1, 1, channels), name.replace("/", "_"))
    tensors |= _vgg16_trunk("osmn/seg", "seg") | _vgg16_sides("osmn/seg")
    return Form(
        key="osmn_vgg16_early" if modulate_early else "osmn_vgg16",
        title="OSMN on VGG-16" + (", early layers modulated too" if modulate_early else ""),
        config={**VGG16_CONFIG, "modulate_early": modulate_early},
        tensors=tensors,
    )


def _osmn_lite() -> Form:
    tensors: dict[str, TensorSpec] = {}
    for trunk in ("modulator", "seg"):
        tensors |= _normalised(f"osmn/{trunk}/Conv2d_0", (3, 3, 3, 32), f"{trunk}_Conv2d_0")
        width = 32
        for index, channels in enumerate(MobileNet.published_channels, start=1):
            name, layer = f"osmn/{trunk}/Conv2d_{index}", f"{trunk}_Conv2d_{index}"
            depthwise, pointwise = (3, 3, width, 1), (1, 1, width, channels)
            tensors |= _normalised(f"{name}_depthwise", depthwise, f"{layer}_depthwise", "depthwise_weights")
            tensors |= _normalised(f"{name}_pointwise", pointwise, f"{layer}_pointwise")
            width = channels
    tensors |= _convolution("osmn/modulator/Logits/Conv2d_1c_1x1", (1, 1, 1024, 2048), "modulator_Conv2d_1c_1x1")
    for head, index in enumerate(MODULATED, start=1):
        channels = MobileNet.published_channels[index - 1]
        tensors |= _convolution(f"osmn/Conv2d_out_{head}", (1, 1, 2048, channels), f"Conv2d_out_{head}")
        tensors |= _normalised(f"osmn/modulator_sp/conv{index}", (1, 1, 1, channels), f"modulator_sp_conv{index}")
        tensors |= _convolution(f"osmn/conv{index}_16", (3, 3, channels, 16), f"seg_conv{index}_16")
    tensors |= _convolution("osmn/score", (1, 1, 64, 1), "seg_score")
    return Form(key="osmn_lite", title="OSMN lite (MobileNet-v1)", config=_LITE_CONFIG, tensors=tensors)


def _osvos() -> Form:
    tensors = _vgg16_trunk("osvos", "seg") | _vgg16_sides("osvos")
    unused = "score of a single side, which only OSVOS's own side losses use"
    for block in range(2, 6):
        tensors[f"osvos/score-dsn_{block}/weights"] = TensorSpec((1, 1, 16, 1), unused=unused)
        tensors[f"osvos/score-dsn_{block}/biases"] = TensorSpec((1,), unused=unused)
        name, side = f"osvos/score-dsn_{block}-up/weights", 2**block
        tensors[name] = TensorSpec((side, side, 1, 1), bilinear=True, optional=True)
    return Form(
        key="osvos",
        title="OSVOS parent (VGG-16)",
        config=VGG16_CONFIG,
        tensors=tensors,
        complete=False,
        mean_bgr=(104.00699, 116.66877, 122.67892),
        root="osvos",
    )


def _slim_vgg16() -> Form:
    tensors = _vgg16_trunk("vgg_16", "seg", "modulator")
    tensors |= _convolution("vgg_16/fc6", (7, 7, 512, 4096), "modulator_fc6")
    tensors |= _convolution("vgg_16/fc7", (1, 1, 4096, 4096), "modulator_fc7")
    unused = "the classifier's own last layer"
    tensors["vgg_16/fc8/weights"] = TensorSpec((1, 1, 4096, None), unused=unused, optional=True)
    tensors["vgg_16/fc8/biases"] = TensorSpec((None,), unused=unused, optional=True)
    unused = "the mean colour, which goes into the first layer's bias"
    tensors["vgg_16/mean_rgb"] = TensorSpec((3,), unused=unused, optional=True)
    return Form(
        key="slim_vgg16",
        title="VGG-16 classifier of TF-Slim",
        config=VGG16_CONFIG,
        tensors=tensors,
        complete=False,
        mean_bgr=CLASSIFIER_MEAN_BGR,
        mean_rgb_tensor="vgg_16/mean_rgb",
        rgb=True,
        root="vgg_16",
    )


FORMS: tuple[Form, ...] = (_osmn_vgg16(False), _osmn_vgg16(True), _osmn_lite(), _osvos(), _slim_vgg16())


def training_state(names: Iterable[str]) -> dict[str, str]:
    """The tensors among `names` that belong to a training run and not to the network: name -> what it is."""
    names = set(names)
    found: dict[str, str] = {}
    for name in names:
        if counter := _COUNTER.search(name):
            found[name] = "step counter" if counter[2] == "global_step" else "Adam's running power"
        elif slot := _SLOT.match(name):
            parts = slot["variable"].split("/")
            # A scope that the optimiser was made in may stand before the variable's name.
            if any("/".join(parts[start:]) in names for start in range(len(parts))):
                found[name] = f"{slot['slot'].split('_')[0]} slot of the optimiser"
    return found


def recognise(names: Iterable[str]) -> Form | None:
    """The form whose names are most like `names`, or None if none is at all like them."""
    names = set(names)

    def similarity(form: Form) -> float:
        return len(names & form.tensors.keys()) / max(1, len(names | form.tensors.keys()))

    best = max(FORMS, key=similarity)
    return best if similarity(best) >= MIN_SIMILARITY else None


def parameter_count(shapes: Iterable[Iterable[int]]) -> int:
    """How many numbers tensors of these shapes hold."""
    return sum(math.prod(shape) for shape in shapes)

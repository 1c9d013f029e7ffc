"""Checkpoints of networks on VGG-16: the original OSMN release, OSVOS (Caelles et al., 2017), TF-Slim's classifier."""

from __future__ import annotations

from typing import Any

from osmn_tf.backbones.vgg16 import CLASSIFIER_MEAN_BGR, VGG16
from osmn_tf.convert.forms import FORMS, Form, TensorSpec, convolution_tensors, normalised_tensors

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


def vgg16_trunk(root: str, *prefixes: str) -> dict[str, TensorSpec]:
    tensors: dict[str, TensorSpec] = {}
    for block, index, width, filters in VGG16().convolutions():
        name = f"conv{block}_{index}"
        layers = [f"{prefix}_{name}" for prefix in prefixes]
        tensors |= convolution_tensors(f"{root}/conv{block}/{name}", (3, 3, width, filters), *layers)
    return tensors


def vgg16_hidden(root: str) -> dict[str, TensorSpec]:
    """The classifier's hidden layers, which only the visual modulator has."""
    tensors = convolution_tensors(f"{root}/fc6", (7, 7, VGG16().channels[-1], VGG16.hidden), "modulator_fc6")
    return tensors | convolution_tensors(f"{root}/fc7", (1, 1, VGG16.hidden, VGG16.hidden), "modulator_fc7")


def vgg16_sides(root: str) -> dict[str, TensorSpec]:
    """Side outputs, their fixed upsampling and the fusion."""
    tensors: dict[str, TensorSpec] = {}
    for block, channels in enumerate(VGG16().blocks[1:], start=2):
        name = f"conv{block}_{len(channels)}_16"
        tensors |= convolution_tensors(f"{root}/{name}", (3, 3, channels[-1], 16), f"seg_{name}")
        side = 2**block
        target = f"seg_score_multi{block}_up/kernel"
        tensors[f"{root}/score-multi{block}-up/weights"] = TensorSpec((side, side, 16, 16), (target,), bilinear=True)
    return tensors | convolution_tensors(f"{root}/upscore-fuse", (1, 1, 64, 1), "seg_upscore_fuse")


def _osmn(modulate_early: bool) -> Form:
    first = 1 if modulate_early else 3
    modulated = {block: sum(channels) for block, channels in enumerate(VGG16().blocks, start=1) if block >= first}
    tensors = vgg16_trunk("osmn/modulator", "modulator")
    tensors |= vgg16_hidden("osmn/modulator")
    tensors |= convolution_tensors("osmn/modulator/fc8", (1, 1, VGG16.hidden, sum(modulated.values())), "modulator_fc8")
    for block, channels in modulated.items():
        name = f"modulator_sp/conv{block}"
        tensors |= normalised_tensors(f"osmn/{name}", (1, 1, 1, channels), name.replace("/", "_"))
    tensors |= vgg16_trunk("osmn/seg", "seg") | vgg16_sides("osmn/seg")
    return Form(
        key="osmn_vgg16_early" if modulate_early else "osmn_vgg16",
        title="OSMN on VGG-16" + (", early layers modulated too" if modulate_early else ""),
        config={**VGG16_CONFIG, "modulate_early": modulate_early},
        tensors=tensors,
    )


@FORMS.register("osmn_vgg16")
def osmn_vgg16() -> Form:
    """OSMN's release."""
    return _osmn(modulate_early=False)


@FORMS.register("osmn_vgg16_early")
def osmn_vgg16_early() -> Form:
    """OSMN's release with modulation of the early layers."""
    return _osmn(modulate_early=True)


def _osvos(as_osmn: bool) -> Form:
    tensors = vgg16_trunk("osvos", "seg") | vgg16_sides("osvos")
    unused = "score of a single side, which an OSMN does not have" if as_osmn else ""
    for block in range(2, 6):
        layer, name, side = f"seg_score_dsn_{block}", f"osvos/score-dsn_{block}", 2**block
        for part, ours, shape in (("weights", "kernel", (1, 1, 16, 1)), ("biases", "bias", (1,))):
            tensors[f"{name}/{part}"] = TensorSpec(shape, () if as_osmn else (f"{layer}/{ours}",), unused=unused)
        targets = () if as_osmn else (f"{layer}_up/kernel",)
        tensors[f"{name}-up/weights"] = TensorSpec((side, side, 1, 1), targets, bilinear=True, optional=True)
    names = ("backbone", "decoder", "side_channels", "network_size")
    own = {name: VGG16_CONFIG[name] for name in names} | {"normalization": "osvos"}
    return Form(
        key="osvos_as_osmn" if as_osmn else "osvos",
        title="OSVOS parent (VGG-16)" + (" as the beginning of an OSMN" if as_osmn else ""),
        config=VGG16_CONFIG if as_osmn else own,
        tensors=tensors,
        complete=not as_osmn,
        mean_bgr=(104.00699, 116.66877, 122.67892) if as_osmn else None,
        root="osvos",
        network="OSMN" if as_osmn else "OSVOS",
    )


@FORMS.register("osvos")
def osvos() -> Form:
    """OSVOS's parent network, with the scores of its sides."""
    return _osvos(as_osmn=False)


@FORMS.register("osvos_as_osmn")
def osvos_as_osmn() -> Form:
    """OSVOS's parent network, whose trunk and sides initialise an OSMN."""
    return _osvos(as_osmn=True)


@FORMS.register("slim_vgg16")
def slim_vgg16() -> Form:
    """TF-Slim's classifier, which initialises both trunks."""
    tensors = vgg16_trunk("vgg_16", "seg", "modulator")
    tensors |= vgg16_hidden("vgg_16")
    unused = "the classifier's own last layer"
    tensors["vgg_16/fc8/weights"] = TensorSpec((1, 1, VGG16.hidden, None), unused=unused, optional=True)
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

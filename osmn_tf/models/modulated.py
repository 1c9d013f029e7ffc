"""From the arguments of OSMN and ReConvNet to their parts, on any backbone."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras

from osmn_tf.backbones.registry import BACKBONES
from osmn_tf.guides import GUIDE_CHANNELS
from osmn_tf.layers.preprocessing import NORMALIZATIONS, FrameNormalization
from osmn_tf.models import modulators
from osmn_tf.models.segmentation_network import NetworkBuilder, Recurrence, SegmentationNetwork
from osmn_tf.registry import Registry

Tensor = Any

FORMS: Registry[type[ModulatedForm]] = Registry("backbone", "osmn_tf.models")
TRUNKS: Registry[type[ModulatedForm]] = Registry("trunk", "osmn_tf.models")
MODULATED = "modulated"  # the trunk of the paper, in the backbone's own form
MATCHINGS = ("first+previous", "first+recent+previous")
DECODERS = ("hypercolumn", "refinement")
FC_GUIDE_SIZE = 224  # fc6 is a 7x7 VALID convolution behind five poolings


def check_choice(argument: str, value: Any, allowed: Sequence[str]) -> None:
    """Raises a ValueError that names the argument unless `value` is among those allowed."""
    if value not in allowed:
        raise ValueError(f"{argument}: expected one of {', '.join(allowed)}, received {value!r}")


def find_form(backbone: str, trunk: str) -> type[ModulatedForm]:
    """The form of a trunk that is modulated is its backbone's own; the others take any backbone.

    Raises:
        InputError: there is no such backbone, or no such trunk.
    """
    return FORMS.get(backbone) if trunk == MODULATED else TRUNKS.get(trunk)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The arguments of `OSMN`, checked, and what is None replaced by the backbone's own; see there.

    Raises:
        ValueError: one is none of its choices, or a combination is impossible.
    """

    backbone: str
    visual_head: str
    visual_hidden: int
    guide_size: int
    decoder: str
    side_channels: int
    modulate_early: bool
    normalization: str
    batch_statistics: bool
    network_size: tuple[int, int]
    block_channels: tuple[int, ...] | None
    trunk: str = MODULATED
    matching: str | None = None
    guide: str = "gaussian"

    @classmethod
    def of(
        cls,
        *,
        backbone: str,
        block_channels: Sequence[int] | None,
        visual_head: str | None,
        normalization: str | None,
        network_size: Sequence[int],
        trunk: str,
        **others: Any,
    ) -> Arguments:
        """Fills in what is None."""
        form = find_form(backbone, trunk)
        if len(network_size) != 2 or min(network_size) < 1:
            raise ValueError(f"network_size: expected a positive height and width, received {network_size}")
        return cls(
            backbone=backbone,
            block_channels=None if block_channels is None else tuple(int(number) for number in block_channels),
            visual_head=visual_head or form.visual_heads[0],
            normalization=normalization or form.normalization or BACKBONES.get(backbone).imagenet_normalization,
            network_size=(int(network_size[0]), int(network_size[1])),
            trunk=trunk,
            **others,
        )

    def __post_init__(self) -> None:
        form = find_form(self.backbone, self.trunk)
        check_choice("visual_head", self.visual_head, form.visual_heads)
        check_choice("decoder", self.decoder, DECODERS)
        check_choice("normalization", self.normalization, tuple(NORMALIZATIONS))
        if self.visual_head == "fc" and self.guide_size != FC_GUIDE_SIZE:
            raise ValueError(f"guide_size: the fc head takes {FC_GUIDE_SIZE}, received {self.guide_size}")
        if self.modulate_early and not form.modulates_early:
            raise ValueError(f"modulate_early: the {self.backbone} backbone does not have this option")
        check_choice("guide", self.guide, tuple(GUIDE_CHANNELS))
        shared = self.trunk != MODULATED
        if shared and self.decoder != "refinement":
            raise ValueError(f"decoder: with trunk='{self.trunk}' expected refinement, received {self.decoder!r}")
        if self.matching is not None:
            check_choice("matching", self.matching, MATCHINGS)
            if not shared or self.guide != "gaussian+mask":
                raise ValueError("matching: needs trunk='shared' and guide='gaussian+mask'")


class ModulatedForm(abc.ABC):
    """How the modulated networks are built on one backbone: one file each, registered under the backbone's name.

    Attributes:
        visual_heads: the heads that its visual modulator may have, the release's first.
        normalization: the release's; None: that of the backbone's ImageNet weights.
        modulates_early: whether there is something to modulate before the usual layers.
    """

    visual_heads: ClassVar[tuple[str, ...]]
    normalization: ClassVar[str | None]
    modulates_early: ClassVar[bool] = False

    def __init__(self, arguments: Arguments, recurrence: Recurrence | None) -> None:
        self.arguments = arguments
        self.recurrence = recurrence
        self.backbone: Any = BACKBONES.get(arguments.backbone)(arguments.block_channels, arguments.batch_statistics)

    @property
    @abc.abstractmethod
    def heads(self) -> Mapping[str, int]:
        """The visual modulator's heads for the convolutions: layer name -> number of scales."""

    @property
    @abc.abstractmethod
    def recurrent_blocks(self) -> tuple[int, ...]:
        """Channels of the blocks that ConvLSTMs follow, `RECURRENT_LEVELS` of them."""

    def visual_features(self, guide: Tensor) -> Tensor:
        """What the visual modulator's heads read: normalised guide [B, S, S, 3] -> [B, 1, 1, C].

        Unless a form says otherwise, a hidden layer on the global average of the trunk's last map.
        """
        maps = self.backbone.features(guide, "modulator")
        return modulators.pooled_features(maps[max(maps)], self.arguments.visual_hidden, "modulator_Conv2d_1c_1x1")

    @abc.abstractmethod
    def segmentation_network(self) -> SegmentationNetwork:
        """The frame encoder and the object network."""

    def normalize(self, name: str) -> FrameNormalization:
        """The layer `{name}_normalization`."""
        return FrameNormalization.of_kind(self.arguments.normalization, f"{name}_normalization")

    def builder(self) -> NetworkBuilder:
        """A builder for `segmentation_network`."""
        channels = GUIDE_CHANNELS[self.arguments.guide]
        return NetworkBuilder(sum(self.heads.values()), self.recurrent_blocks, self.recurrence, channels)

    def visual_modulator(self) -> keras.Model:
        """From the guide, float32 [B, S, S, 3] RGB 0..255, to all scales [B, M]."""
        size = self.arguments.guide_size
        guide = keras.Input((size, size, 3), name="visual_guide")
        features = self.visual_features(self.normalize("modulator")(guide))
        heads = dict(self.heads)
        if self.recurrence:
            # A head of its own, so that an OSMN's heads can be loaded unchanged beside it.
            heads["modulator_recurrent"] = sum(self.recurrence.hidden_channels(self.recurrent_blocks))
        return modulators.visual_modulator(guide, features, heads)


@dataclasses.dataclass(frozen=True)
class Parts:
    """What an OSMN or a ReConvNet consists of: its three networks, and the graph that joins them."""

    visual_modulator: keras.Model
    segmentation: SegmentationNetwork
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


def assemble(arguments: Arguments, recurrence: Recurrence | None = None) -> Parts:
    """Builds the parts of a modulated network.

    Args:
        recurrence: the ConvLSTMs of a ReConvNet; None for an OSMN.

    Raises:
        ValueError: `block_channels` does not fit the backbone, or the trunk has no ConvLSTMs.
    """
    form = find_form(arguments.backbone, arguments.trunk)(arguments, recurrence)
    modulator, network = form.visual_modulator(), form.segmentation_network()
    size = arguments.guide_size
    inputs = {
        "frame": keras.Input((None, None, 3), dtype="uint8", name="frame"),
        "visual_guide": keras.Input((size, size, 3), name="visual_guide"),
        "spatial_guide": keras.Input((None, None, GUIDE_CHANNELS[arguments.guide]), name="spatial_guide"),
    }
    state = {spec.name: keras.Input((None, None, spec.channels), name=spec.name) for spec in network.state}
    outputs = network.object_network(
        {
            **network.frame_encoder({"frame": inputs["frame"]}),
            "spatial_guide": inputs["spatial_guide"],
            "modulation": modulator(inputs["visual_guide"]),
            **state,
        }
    )
    return Parts(modulator, network, {**inputs, **state}, outputs)

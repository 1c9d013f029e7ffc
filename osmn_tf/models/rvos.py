"""RVOS: all objects of a video in one sequence, with given masks or with none (Ventura et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
from keras import layers, ops

from osmn_tf.backbones.registry import BACKBONES
from osmn_tf.layers.normalization import BatchNorm
from osmn_tf.layers.preprocessing import NORMALIZATIONS, FrameNormalization
from osmn_tf.layers.spatio_temporal_lstm import RECURRENCES, SpatioTemporalConvLSTM2DCell
from osmn_tf.layers.upsampling import AlignedResizeLike, AlignedUpsampling
from osmn_tf.models.clips import Unroll, encode_clip
from osmn_tf.models.modulated import check_choice
from osmn_tf.models.network import Network
from osmn_tf.models.registry import register_network
from osmn_tf.models.segmentation_network import StateSpec

Tensor = Any

STRIDES = (32, 16, 8, 4)  # of the decoder's levels, coarse to fine


@dataclass(frozen=True)
class _States:
    """The states by name, with their level's stride, and how far each reaches.

    Attributes:
        cells: level's stride -> the names of h and c.
        spatial: those that go to the next object of the same frame.
        temporal: those that go to the same object in the next frame.
    """

    cells: dict[int, tuple[str, str]]
    spatial: dict[str, int]
    temporal: dict[str, int]

    @classmethod
    def of(cls, recurrence: str) -> _States:
        cells = {stride: (f"lstm{stride}_h", f"lstm{stride}_c") for stride in STRIDES}
        hidden = {h: stride for stride, (h, _) in cells.items()}
        both = {name: stride for stride, pair in cells.items() for name in pair}
        if recurrence == "temporal":
            return cls(cells, spatial={}, temporal=both)
        return cls(cells, spatial=both, temporal=hidden if recurrence == "both" else {})


@register_network("RVOS")
class RVOS(Network):
    """RVOS as a functional model: an encoder, and a decoder of four ConvLSTMs that runs once for every object.

    Objects are decoded one after the other. The ConvLSTMs carry two states: that of the object before in the same frame
    (h and c, zeros for the first), and that of the same object in the frame before (h alone, zeros in the first frame).
    The state is explicit: what goes to the next object or frame is among the outputs, and comes back as an input.

    The whole model is one step for one object. Video runs on its parts:

    * `frame_encoder`: {"frame"} -> {"gates32", ..., "gates4"}, the frame's share of the gates of all cells. Once for
      every frame, whatever the number of objects.
    * `object_network`: {"gates32", ..., "frame", "previous_mask", state...} -> {"logits", state...}. One object; of
      "frame" only the size is used.
    * `frame_model(objects)`: a frame with all its objects in one graph.
    * `clip_model(length, objects)`: a clip, for training.

    Inputs (a dict):
        frame: uint8 [B, H, W, 3], raw RGB; any H and W.
        previous_mask: float32 [B, H, W, 1], 0..1: the object in the previous frame, or its given mask in this one.
            One-shot only.
        object_lstm32_h, object_lstm32_c, ...: [B, ceil(H / 32), ceil(W / 32), F], state of the previous object.
        frame_lstm32_h, ...: the same sizes, state of this object in the previous frame.

    Outputs (a dict): "logits", float32 [B, H, W, 1], and the new state as "lstm32_h", "lstm32_c", ...

    Args:
        backbone: "resnet101" (paper), "resnet50", or "mobilenet" and others that reach stride 32.
        one_shot: the objects' masks are given in their first frames, and an object's previous mask is an input
            (2,940,433 parameters in the decoder at the default size). False: zero-shot, without masks (2,931,793).
        hidden_channels: of the coarsest ConvLSTM; the finer ones have a half, a quarter and an eighth.
        recurrence: "both", "spatial" (objects only) or "temporal" (frames only); see `SpatioTemporalConvLSTM2DCell`.
        block_channels: channels of the trunk's blocks; None: as published.
        normalization: one of `NORMALIZATIONS`; default: that of the backbone's ImageNet weights. ("torch" is what the
            release's encoders take.)
        batch_statistics: False trains with BatchNorm's stored statistics (see `BatchNorm`).
        slots: how many objects it looks for in a video without masks, unless told otherwise; None: 10 with `one_shot`
            off, and with it on the network needs masks. (A one-shot network finds objects if it was also trained with
            nothing for a first mask.)
        network_size: (H, W) at which videos are segmented unless told otherwise; the network itself takes any size.
        independent: every object is decoded as if it were the first of its frame, and its own mask is carried on only
            where no other object is surer. Not in the paper: for weights that were trained on one object at a time,
            which know nothing of an object before, so that they can be given several.

    Raises:
        ValueError: an argument is none of its choices, a number is out of its range, or independent objects would have
            nothing that tells them apart: without masks there can be one.
        InputError: there is no such backbone.
    """

    task_name = "rvos"
    untrained: ClassVar = {"rvos_resnet101": {}}

    def __init__(
        self,
        backbone: str = "resnet101",
        one_shot: bool = True,
        hidden_channels: int = 128,
        recurrence: str = "both",
        block_channels: Sequence[int] | None = None,
        normalization: str | None = None,
        batch_statistics: bool = True,
        slots: int | None = None,
        network_size: tuple[int, int] = (256, 448),
        independent: bool = False,
        **kwargs: Any,
    ) -> None:
        check_choice("recurrence", recurrence, RECURRENCES)
        if hidden_channels < 8 or hidden_channels % 8:
            raise ValueError(f"hidden_channels: expected a positive multiple of 8, received {hidden_channels}")
        if slots is not None and slots < 1:
            raise ValueError(f"slots: expected 1 or more, received {slots}")
        if independent and (not one_shot or (slots or 1) > 1):
            raise ValueError(
                "independent: objects that are found without masks would all be the same one, expected one_shot: true "
                "and slots: 1 or none"
            )
        if len(network_size) != 2 or min(network_size) < 1:
            raise ValueError(f"network_size: expected a positive height and width, received {network_size}")
        trunk = BACKBONES.get(backbone)(block_channels, batch_statistics)
        normalization = normalization or trunk.imagenet_normalization
        check_choice("normalization", normalization, tuple(NORMALIZATIONS))
        widths = dict(zip(STRIDES, (hidden_channels // 2**level for level in range(4))))
        states = _States.of(recurrence)

        frame = keras.Input((None, None, 3), dtype="uint8", name="frame")
        maps = trunk.features(FrameNormalization.of_kind(normalization, "seg_normalization")(frame), "seg")
        missing = [stride for stride in STRIDES if stride not in maps]
        if missing:
            raise ValueError(f"backbone: expected feature maps at strides 4 to 32, {backbone!r} has none at {missing}")
        gates = {f"gates{stride}": _frame_gates(maps[stride], stride, widths, batch_statistics) for stride in STRIDES}
        encoder = keras.Model({"frame": frame}, gates, name="frame_encoder")
        decoder = _object_network(widths, states, recurrence, one_shot)
        inputs = {"frame": keras.Input((None, None, 3), dtype="uint8", name="frame")}
        inputs |= {
            name: keras.Input(x.shape[1:], name=name)
            for name, x in decoder.input.items()
            if name != "frame" and name not in gates
        }
        super().__init__(inputs, decoder({**encoder({"frame": inputs["frame"]}), **inputs}), **kwargs)
        self.frame_encoder = encoder
        self.object_network = decoder
        self.state_specs = tuple(StateSpec(name, stride, widths[stride]) for name, stride in states.temporal.items())
        spatial = {} if independent else states.spatial
        self.spatial_specs = tuple(StateSpec(name, stride, widths[stride]) for name, stride in spatial.items())
        self._states = states
        self.backbone = backbone
        self.one_shot = one_shot
        self.hidden_channels = hidden_channels
        self.recurrence = recurrence
        self.block_channels = None if block_channels is None else [int(number) for number in block_channels]
        self.normalization = normalization
        self.batch_statistics = batch_statistics
        self.slots = 10 if slots is None and not one_shot else slots
        self.network_size = (int(network_size[0]), int(network_size[1]))
        self.independent = independent

    def initial_state(self, objects: int, height: int, width: int) -> dict[str, Tensor]:
        """What `frame_model` takes as the state before the first frame, and for a new object: zeros.

        Args:
            objects: their number K.
            height, width: of the frames given to the network.

        Returns:
            [K, ceil(height / stride), ceil(width / stride), F] for every entry of `state_specs`; an empty dict without
            temporal recurrence.
        """
        return {
            spec.name: ops.zeros(
                (objects, -(-height // spec.stride), -(-width // spec.stride), spec.channels), dtype=self.compute_dtype
            )
            for spec in self.state_specs
        }

    def decode_objects(
        self,
        gates: Mapping[str, Tensor],
        frame: Tensor,
        masks: Sequence[Tensor] | None,
        states: Sequence[Mapping[str, Tensor]],
        training: bool | None = None,
        before: Mapping[str, Tensor] | None = None,
    ) -> tuple[list[Tensor], list[dict[str, Tensor]], dict[str, Tensor]]:
        """All objects of a frame, in their order.

        Args:
            gates: what `frame_encoder` gives for the frame, [B, ...].
            frame: uint8 [B, H, W, 3], for its size.
            masks: previous mask of each object, [B, H, W, 1]; None for zero-shot.
            states: state of each object from the previous frame, under the names of `state_specs`.
            before: state of the object before the first of these, under the names of `spatial_specs`, where the objects
                of a frame are decoded a few at a time; None: zeros, nothing is before them. `independent` objects do
                not look at it.

        Returns:
            logits [B, H, W, 1] and state of each object, and the state of the last one for an object behind it, under
            the names of `spatial_specs` (`independent` objects have none).
        """
        nothing = {}
        for name, stride in self._states.spatial.items():
            x = gates[f"gates{stride}"]
            nothing[name] = ops.zeros_like(x[..., : x.shape[-1] // 4])
        outputs: dict[str, Tensor] = {**nothing, **(before or {})}
        logits, found = [], []
        for index, state in enumerate(states):
            inputs = {**gates, "frame": frame}
            if masks is not None:
                inputs["previous_mask"] = masks[index]
            carried = nothing if self.independent else outputs
            inputs |= {f"object_{name}": carried[name] for name in self._states.spatial}
            inputs |= {f"frame_{name}": state[name] for name in self._states.temporal}
            outputs = self.object_network(inputs, training=training)
            logits.append(outputs["logits"])
            found.append({name: outputs[name] for name in self._states.temporal})
        return logits, found, {spec.name: outputs[spec.name] for spec in self.spatial_specs}

    def own_masks(self, logits: Tensor) -> Tensor:
        """What the objects' previous masks are in the next frame: their probabilities.

        Args:
            logits: float32 [K, ...], of all objects of a frame.

        Returns:
            float32 of the same shape, 0..1. Where objects are `independent`, 0 where another one's is larger.
        """
        masks = ops.sigmoid(logits)
        if not self.independent:
            return masks
        return ops.where(logits >= ops.max(logits, axis=0, keepdims=True), masks, ops.zeros_like(masks))

    def frame_model(self, objects: int, height: int | None = None, width: int | None = None) -> keras.Model:
        """One frame of one video with all its objects, as one graph that shares this model's weights.

        Inputs (a dict):
            frame: uint8 [1, H, W, 3].
            previous_masks: float32 [K, H, W, 1]; the given mask where an object begins in this frame. One-shot only.
            the state, [K, ...], under the names of `state_specs` (`initial_state` gives the first ones).

        Outputs (a dict): "logits", float32 [K, H, W, 1], and the new state under the names of the inputs.

        Args:
            objects: their number K.
            height, width: of the frames; None leaves them open.

        Raises:
            ValueError: `objects` is below 1.
        """
        if objects < 1:
            raise ValueError(f"objects: expected 1 or more, received {objects}")
        inputs = {"frame": keras.Input(batch_shape=(1, height, width, 3), dtype="uint8", name="frame")}
        if self.one_shot:
            shape = (objects, height, width, 1)
            inputs["previous_masks"] = keras.Input(batch_shape=shape, name="previous_masks")
        for spec in self.state_specs:
            sides = (None if side is None else -(-side // spec.stride) for side in (height, width))
            inputs[spec.name] = keras.Input(batch_shape=(objects, *sides, spec.channels), name=spec.name)
        outputs = ObjectUnroll(self, objects, name="objects")(inputs)
        return keras.Model(inputs, outputs, name=f"{self.name}_frame")

    def clip_model(self, length: int, objects: int, height: int | None = None, width: int | None = None) -> keras.Model:
        """The network unrolled over a clip, sharing this model's weights: for training and whole-clip inference.

        Inputs (a dict):
            frames: uint8 [B, length, H, W, 3].
            previous_masks: float32 [B, length, K, H, W, 1], annotated: of the frame before, or of the same frame where
                an object begins. One-shot only.
            own_mask: float32 [B, length, K]; 1 where the network's own probabilities of the frame before (no gradient
                flows through them) take the place of the annotated mask. The first frame is ignored. One-shot only.

        Output: logits, float32 [B, length, K, H, W, 1]. Streaming the same masks gives the same numbers.

        Args:
            length: number of frames.
            objects: number of objects K.
            height, width: of the frames; None leaves them open.
        """
        inputs = {"frames": keras.Input((length, height, width, 3), dtype="uint8", name="frames")}
        if self.one_shot:
            shape = (length, objects, height, width, 1)
            inputs["previous_masks"] = keras.Input(shape, name="previous_masks")
            inputs["own_mask"] = keras.Input((length, objects), name="own_mask")
        logits = ObjectClipUnroll(self, objects, name="clip")(inputs)
        return keras.Model(inputs, logits, name=f"{self.name}_clip")

    def load_backbone_weights(self, weights: str = "imagenet") -> None:
        """Initialises the encoder's trunk from an image classifier (see `Backbone.load_imagenet_weights`).

        Args:
            weights: "imagenet" or the path of a weight file without the top.
        """
        trunk = BACKBONES.get(self.backbone)(self.block_channels, self.batch_statistics)
        trunk.load_imagenet_weights(self, "seg", weights)


def _frame_gates(features: Tensor, stride: int, widths: Mapping[int, int], batch_statistics: bool) -> Tensor:
    """A feature map's skip connection, convolved for the gates of its level: what the frame has in them."""
    # The skip is as wide as the hidden state that comes from the level above.
    channels = widths[min(2 * stride, STRIDES[0])]
    x = layers.Conv2D(channels, 3, padding="same", name=f"seg_skip{stride}")(features)
    x = BatchNorm(batch_statistics, name=f"seg_skip{stride}_bn")(x)
    return layers.Conv2D(4 * widths[stride], 3, padding="same", use_bias=False, name=f"seg_lstm{stride}_frame")(x)


def _object_network(widths: Mapping[int, int], states: _States, recurrence: str, one_shot: bool) -> keras.Model:
    inputs = {"frame": keras.Input((None, None, 3), dtype="uint8", name="frame")}
    for stride in STRIDES:
        inputs[f"gates{stride}"] = keras.Input((None, None, 4 * widths[stride]), name=f"gates{stride}")
    masks: dict[int, Tensor] = {}
    if one_shot:
        x = inputs["previous_mask"] = keras.Input((None, None, 1), name="previous_mask")
        for stride in (2, *reversed(STRIDES)):
            x = masks[stride] = layers.MaxPooling2D(2, padding="same", name=f"mask_pool{stride}")(x)
    for name, reach in (("object", states.spatial), ("frame", states.temporal)):
        for stride, pair in states.cells.items():
            for key in (f"{name}_{state}" for state in pair if state in reach):
                inputs[key] = keras.Input((None, None, widths[stride]), name=key)

    outputs: dict[str, Tensor] = {}
    x = None
    for stride, (h_name, c_name) in states.cells.items():
        gates = inputs[f"gates{stride}"]
        parts = [] if x is None else [AlignedResizeLike(name=f"seg_lstm{stride}_up")(x, gates)]
        parts += [masks[stride]] if one_shot else []
        own = layers.Concatenate(name=f"seg_lstm{stride}_inputs")(parts) if len(parts) > 1 else (*parts, None)[0]
        hidden = [inputs[f"{name}_{h_name}"] for name in ("object", "frame") if f"{name}_{h_name}" in inputs]
        carry = inputs[f"object_{c_name}" if states.spatial else f"frame_{c_name}"]
        cell = SpatioTemporalConvLSTM2DCell(widths[stride], recurrence=recurrence, name=f"seg_lstm{stride}")
        x, outputs[c_name] = cell(gates, hidden, carry, own)
        outputs[h_name] = x
    x = AlignedUpsampling(2, name="seg_score_hidden_up")(x)
    x = layers.Conv2D(1, 3, padding="same", dtype="float32", name="seg_score")(x)
    outputs["logits"] = AlignedResizeLike(dtype="float32", name="seg_score_up")(x, inputs["frame"])
    return keras.Model(inputs, outputs, name="object_network")


class _Unroll(Unroll):
    """Runs an RVOS once for each of some objects."""

    def __init__(self, model: RVOS, objects: int, **kwargs: Any) -> None:
        super().__init__(model, **kwargs)
        self.objects = objects

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "objects": self.objects}


@keras.saving.register_keras_serializable(package="osmn_tf")
class ObjectUnroll(_Unroll):
    """A frame of one video with all its objects; see `RVOS.frame_model` for inputs and outputs."""

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> dict[str, Tensor]:
        model = self.model
        names = [spec.name for spec in model.state_specs]
        each = range(self.objects)
        masks = [inputs["previous_masks"][k : k + 1] for k in each] if model.one_shot else None
        states = [{name: inputs[name][k : k + 1] for name in names} for k in each]
        gates = model.frame_encoder({"frame": inputs["frame"]}, training=training)
        logits, found, _ = model.decode_objects(gates, inputs["frame"], masks, states, training)
        outputs = {name: ops.concatenate([state[name] for state in found]) for name in names}
        return {"logits": ops.concatenate(logits), **outputs}

    def compute_output_spec(self, inputs: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        states = {
            spec.name: keras.KerasTensor(inputs[spec.name].shape, dtype=self.compute_dtype)
            for spec in self.model.state_specs
        }
        shape = (self.objects, *inputs["frame"].shape[1:3], 1)
        return {"logits": keras.KerasTensor(shape, dtype="float32"), **states}


@keras.saving.register_keras_serializable(package="osmn_tf")
class ObjectClipUnroll(_Unroll):
    """A clip with all its objects; see `RVOS.clip_model` for inputs and output."""

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> Tensor:
        model, frames = self.model, inputs["frames"]
        gates = encode_clip(model.frame_encoder, frames, training)
        initial = {
            spec.name: ops.zeros_like(gates[f"gates{spec.stride}"][:, 0, ..., : spec.channels])
            for spec in model.state_specs
        }
        states: list[dict[str, Tensor]] = [initial] * self.objects
        clip: list[Tensor] = []
        logits: list[Tensor] = []
        for t in range(frames.shape[1]):
            masks = None
            if model.one_shot:
                masks = [inputs["previous_masks"][:, t, k] for k in range(self.objects)]
                if t > 0:
                    own = [inputs["own_mask"][:, t, k, None, None, None] > 0.5 for k in range(self.objects)]
                    found = ops.stop_gradient(model.own_masks(ops.stack(logits)))
                    masks = [
                        ops.where(use, ops.cast(found[k], mask.dtype), mask)
                        for k, (use, mask) in enumerate(zip(own, masks))
                    ]
            of_frame = {name: x[:, t] for name, x in gates.items()}
            logits, states, _ = model.decode_objects(of_frame, frames[:, t], masks, states, training)
            clip.append(ops.stack(logits, axis=1))
        return ops.stack(clip, axis=1)

    def compute_output_spec(self, inputs: dict[str, Any], training: bool | None = None) -> keras.KerasTensor:
        batch, length, height, width, _ = inputs["frames"].shape
        return keras.KerasTensor((batch, length, self.objects, height, width, 1), dtype="float32")

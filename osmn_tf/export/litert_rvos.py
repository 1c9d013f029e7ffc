"""The LiteRT graphs of an RVOS: K objects of a frame, one after the other.

    encoder.tflite     signature "encode": frame -> the frame's share of the gates. Once for every frame.
    step.tflite        signature "step": that, previous_masks, state and the state of the object before the first ->
                       logits, state and the state of the last. Once for every frame and K objects.

Any number of objects can be run: the state of the last of K goes to the first of the next K, and places that are left
over are behind all objects, where they change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from osmn_tf.export.steps import TracedOnce
from osmn_tf.inference.rvos import RVOSStep

if TYPE_CHECKING:
    from osmn_tf.models.rvos import RVOS

Tensor = Any

BEFORE = "before_"  # names of the states that go from object to object begin with it


class RVOSGraphs(TracedOnce):
    """The two functions of an RVOS at a fixed size and number of objects, and what they exchange.

    Args:
        step: the network and its size.
        objects: K.
    """

    title = "an RVOS"
    names = ("encoder", "step")
    calibrates = False
    one_object = False

    def __init__(self, step: RVOSStep, objects: int) -> None:
        self.model: RVOS = step.network
        self.size, self.objects = step.network_size, objects

        def shape(spec: Any) -> tuple[int, ...]:
            return (*(-(-side // spec.stride) for side in self.size), spec.channels)

        self.state = {spec.name: shape(spec) for spec in self.model.state_specs}
        self.before = {f"{BEFORE}{spec.name}": shape(spec) for spec in self.model.spatial_specs}
        self.features = {name: tuple(x.shape) for name, x in self.traced("encoder").structured_outputs.items()}

    def metadata(self) -> dict[str, Any]:
        """What the runtime has to know of it."""
        return {
            "features": {name: list(shape) for name, shape in self.features.items()},
            "state": {name: list(shape) for name, shape in self.state.items()},
            "sequence": {
                "before": {name: list(shape) for name, shape in self.before.items()},
                "takes_masks": self.model.one_shot,
                "slots": self.model.slots,
                "independent": self.model.independent,
            },
        }

    def parts(self, graph: str) -> Any:
        """The model whose weights a graph holds."""
        return {"encoder": self.model.frame_encoder, "step": self.model.object_network}[graph]

    def inputs(self, graph: str) -> dict[str, Any]:
        """Name -> `tf.TensorSpec` of a graph's inputs."""
        if graph == "encoder":
            return {"frame": tf.TensorSpec((1, *self.size, 3), tf.uint8)}
        shapes = {
            **self.features,
            **({"previous_masks": (self.objects, *self.size, 1)} if self.model.one_shot else {}),
            **{name: (self.objects, *shape) for name, shape in self.state.items()},
            **{name: (1, *shape) for name, shape in self.before.items()},
        }
        return {name: tf.TensorSpec(shape, tf.float32) for name, shape in shapes.items()}

    def function(self, graph: str) -> Any:
        """The graph as a `tf.function` with named arguments."""
        model, each = self.model, range(self.objects)

        def encode(frame: Tensor) -> dict[str, Tensor]:
            return dict(model.frame_encoder({"frame": frame}, training=False))

        def step(**inputs: Tensor) -> dict[str, Tensor]:
            masks = [inputs["previous_masks"][k : k + 1] for k in each] if model.one_shot else None
            states = [{name: inputs[name][k : k + 1] for name in self.state} for k in each]
            before = {name.removeprefix(BEFORE): inputs[name] for name in self.before}
            frame = tf.zeros((1, *self.size, 3), tf.uint8)  # of which the size is used
            gates = {name: inputs[name] for name in self.features}
            logits, found, last = model.decode_objects(gates, frame, masks, states, training=False, before=before)
            outputs = {name: tf.concat([state[name] for state in found], axis=0) for name in self.state}
            outputs |= {f"{BEFORE}{name}": x for name, x in last.items()}
            return {"logits": tf.concat(logits, axis=0), **outputs}

        functions: dict[str, Callable[..., Any]] = {"encoder": encode, "step": step}
        return tf.function(functions[graph], autograph=False)

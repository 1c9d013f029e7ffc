"""OSVOS for the formats that export: one graph from a frame to the logits of the one object that its weights know.

    LiteRT        step.tflite, signature "step": frame uint8 [1, h, w, 3] -> logits float32 [1, h, w, 1]
    SavedModel    the signatures of all networks; `modulation` [1, 1] says nothing, and `guide_masks` are handed back

Whichever object a mask shows in the first frame, what is found is the object that was learnt before the export.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from osmn_tf.export.graph import SegmenterModule
from osmn_tf.export.steps import TracedOnce
from osmn_tf.inference.osvos import OSVOSStep

Tensor = Any


class OSVOSGraphs(TracedOnce):
    """The one LiteRT graph of an OSVOS at a fixed size.

    Args:
        step: the network and its size.
        objects: 1.
    """

    title = "an OSVOS"
    names = ("step",)
    calibrates = False
    one_object = True

    def __init__(self, step: OSVOSStep, objects: int) -> None:
        self.model, self.size, self.objects = step.network, step.network_size, objects

    def metadata(self) -> dict[str, Any]:
        """What the runtime has to know of it."""
        return {"features": {}, "state": {}, "one_object": True}

    def parts(self, graph: str) -> Any:
        """The model whose weights a graph holds."""
        return self.model

    def inputs(self, graph: str) -> dict[str, Any]:
        """Name -> `tf.TensorSpec` of a graph's inputs."""
        return {"frame": tf.TensorSpec((1, *self.size, 3), tf.uint8)}

    def function(self, graph: str) -> Any:
        """The graph as a `tf.function` with named arguments."""

        def step(frame: Tensor) -> dict[str, Tensor]:
            return {"logits": self.model({"frame": frame}, training=False)["logits"]}

        return tf.function(step, autograph=False)


class OSVOSModule(SegmenterModule):
    """See `SegmenterModule`."""

    @staticmethod
    def modulation_size(step: OSVOSStep) -> int:
        return 1

    def _start(self, frame: Tensor, masks: Tensor, guide_masks: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        count = tf.shape(masks)[0]
        message = "mask: an exported OSVOS knows one object, received:"
        with tf.control_dependencies([tf.debugging.Assert(count == 1, [message, count])]):
            return tf.zeros((count, 1)), guide_masks, {}

    def _network_step(
        self, small: Tensor, guide_masks: Tensor, modulation: Tensor, state: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        logits = self._step.network({"frame": small[None]}, training=False)["logits"]
        return logits[..., 0], guide_masks, {}

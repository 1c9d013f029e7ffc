"""The ConvLSTM of RVOS, recurrent over the objects of a frame and over the frames (Ventura et al., CVPR 2019)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

Tensor = Any
Shape = tuple[int | None, ...]

RECURRENCES = ("spatial", "temporal", "both")


@keras.saving.register_keras_serializable(package="osmn_tf")
class SpatioTemporalConvLSTM2DCell(keras.layers.Layer):
    """One step for one object: state of the previous object of this frame, and of this object in the previous frame.

    i, f, o, g = projected + W * [inputs, spatial h, temporal h] + b, one convolution for all gates;
    c' = sigmoid(f) c + sigmoid(i) tanh(g); h' = sigmoid(o) tanh(c').

    The cell state c is the previous *object's*; of the previous frame there is the hidden state alone. What depends on
    the frame and not on the object comes in convolved already, so that it is done once for all objects: a bias-free
    convolution to 4F channels whose kernel is the reference's slice for the skip connection.

    Args:
        filters: channels F of hidden and cell state.
        kernel_size: side of the kernel (SAME padding, stride 1).
        recurrence: "both", or one of them alone for ablations: "spatial" (without temporal h) or "temporal" (without
            spatial h; no source says where c comes from then: here from the previous frame).
        kernel_initializer: of [k, k, C + F, 4F], or C + 2F with "both".

    Call arguments:
        projected: [B, H, W, 4F], the frame's share of the gates; any height and width.
        h: the hidden states as a list, each [B, H, W, F]: spatial, temporal or both, in this order.
        c: the cell state, [B, H, W, F].
        inputs: optional [B, H, W, C], what depends on the object besides its state.

    Returns:
        (h', c'), each [B, H, W, F].

    Raises:
        ValueError: `recurrence` is none of the three, `filters` or `kernel_size` is not positive, or the tensors'
            channels do not fit.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        recurrence: str = "both",
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if filters < 1 or kernel_size < 1:
            raise ValueError(f"filters and kernel_size must be positive, received {filters} and {kernel_size}")
        if recurrence not in RECURRENCES:
            raise ValueError(f"recurrence: expected one of {', '.join(RECURRENCES)}, received {recurrence!r}")
        self.filters = filters
        self.kernel_size = kernel_size
        self.recurrence = recurrence
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    @property
    def hidden_states(self) -> int:
        """How many hidden states it is given: 2 with both recurrences, else 1."""
        return 2 if self.recurrence == "both" else 1

    def build(self, projected_shape: Shape, h_shape: Any, c_shape: Shape, inputs_shape: Shape | None = None) -> None:
        channels = self.hidden_states * self.filters + (0 if inputs_shape is None else int(inputs_shape[-1] or 0))
        side, gates = self.kernel_size, 4 * self.filters
        self.kernel = self.add_weight(
            name="kernel", shape=(side, side, channels, gates), initializer=self.kernel_initializer
        )
        self.bias = self.add_weight(name="bias", shape=(gates,), initializer="zeros")

    def call(
        self, projected: Tensor, h: list[Tensor], c: Tensor, inputs: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        self._check(projected, h, c)
        maps = h if inputs is None else [inputs, *h]
        x = ops.concatenate(maps, axis=-1) if len(maps) > 1 else maps[0]
        gates = ops.conv(x, self.kernel, padding="same") + projected + self.bias
        i, f, o, candidate = ops.split(gates, 4, axis=-1)
        carry = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(candidate)
        return ops.sigmoid(o) * ops.tanh(carry), carry

    def compute_output_spec(self, projected: Any, h: Any, c: Any, inputs: Any = None) -> Any:
        self._check(projected, h, c)
        shape = (c.shape[0], *projected.shape[1:3], self.filters)
        return keras.KerasTensor(shape, dtype=self.compute_dtype), keras.KerasTensor(shape, dtype=self.compute_dtype)

    def _check(self, projected: Any, h: Any, c: Any) -> None:
        """Refuses what would fail without a name, or broadcast into something else."""
        if projected.shape[-1] != 4 * self.filters:
            raise ValueError(
                f"{self.name}: projected: expected {4 * self.filters} channels, received {list(projected.shape)}"
            )
        shapes = [list(state.shape) for state in (*h, c)]
        if len(h) != self.hidden_states or any(shape[-1] != self.filters for shape in shapes):
            raise ValueError(
                f"{self.name}: h, c: expected {self.hidden_states} hidden states and a cell state with {self.filters} "
                f"channels each, received {shapes}"
            )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "recurrence": self.recurrence,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }

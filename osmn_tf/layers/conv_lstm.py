"""Convolutional LSTM whose output is scaled channel by channel (ReConvNet, Lattari et al., 2018).

`ModulatedConvLSTM2DCell` makes one step with explicit state: streaming networks are built from it.
`ModulatedConvLSTM2D` runs the cell over clips. Both hold their weights as `keras.layers.ConvLSTM2D` does, so
`set_weights` moves between them, and with a scale of 1 the numbers are the same.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

Tensor = Any
Shape = tuple[int | None, ...]


class _ConvLSTM(keras.layers.Layer):
    """Weights and arithmetic that the cell and the sequence form share."""

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        unit_forget_bias: bool = True,
        kernel_initializer: Any = None,
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if filters < 1 or kernel_size < 1:
            raise ValueError(f"filters and kernel_size must be positive, received {filters} and {kernel_size}")
        self.filters = filters
        self.kernel_size = kernel_size
        self.activation = keras.activations.get(activation)
        self.recurrent_activation = keras.activations.get(recurrent_activation)
        self.use_bias = use_bias
        self.unit_forget_bias = unit_forget_bias
        if kernel_initializer is None:
            kernel_initializer = keras.initializers.RandomNormal(stddev=0.001)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = keras.regularizers.get(recurrent_regularizer)

    def build(self, inputs_shape: Shape, *_: Any, **__: Any) -> None:
        channels = inputs_shape[-1]
        side, gates = self.kernel_size, 4 * self.filters
        self.kernel = self.add_weight(
            name="kernel",
            shape=(side, side, channels, gates),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel",
            shape=(side, side, self.filters, gates),
            initializer=self.recurrent_initializer,
            regularizer=self.recurrent_regularizer,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(gates,), initializer=self._initial_bias)

    def _initial_bias(self, shape: Shape, dtype: Any = None) -> Tensor:
        bias = self.bias_initializer(shape, dtype=dtype)
        if not self.unit_forget_bias:
            return bias
        forget = ops.ones((self.filters,), dtype=dtype)
        return ops.concatenate([bias[: self.filters], forget, bias[2 * self.filters :]])

    def project_inputs(self, inputs: Tensor) -> Tensor:
        """The inputs' share of all four gates, [B, H, W, C] -> [B, H, W, 4F]. Needs no state: clips do it at once."""
        gates = ops.conv(inputs, self.kernel, padding="same")
        return gates if self.bias is None else gates + self.bias

    def advance(self, projected: Tensor, states: Any) -> list[Tensor]:
        """One step from `project_inputs`' result and (h, c) to [h', c']."""
        hidden, carry = states
        gates = projected + ops.conv(hidden, self.recurrent_kernel, padding="same")
        i, f, candidate, o = ops.split(gates, 4, axis=-1)
        carry = self.recurrent_activation(f) * carry + self.recurrent_activation(i) * self.activation(candidate)
        return [self.recurrent_activation(o) * self.activation(carry), carry]

    def check(self, scale: Any, states: Any) -> None:
        """Refuses scales and states that would fail without a name, or broadcast into something else."""
        if scale is not None and scale.shape[-1] != self.filters:
            raise ValueError(f"{self.name}: scale: expected {self.filters} channels, received {list(scale.shape)}")
        shapes = [list(state.shape) for state in states or ()]
        if states is not None and (len(shapes) != 2 or any(shape[-1] != self.filters for shape in shapes)):
            raise ValueError(
                f"{self.name}: initial_state: expected h and c with {self.filters} channels each, received {shapes}"
            )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "activation": keras.activations.serialize(self.activation),
            "recurrent_activation": keras.activations.serialize(self.recurrent_activation),
            "use_bias": self.use_bias,
            "unit_forget_bias": self.unit_forget_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "recurrent_initializer": keras.initializers.serialize(self.recurrent_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "recurrent_regularizer": keras.regularizers.serialize(self.recurrent_regularizer),
        }


@keras.saving.register_keras_serializable(package="osmn_tf")
class ModulatedConvLSTM2DCell(_ConvLSTM):
    """One step of a convolutional LSTM (gates i, f, c, o without peepholes) with a modulated output.

    i, f, o = sigmoid(W * x + U * h + b); c' = f c + i tanh(W * x + U * h + b); h' = o tanh(c'); output = scale * h'.
    The scale acts on the output alone: the state that goes to the next frame is not scaled.

    Args:
        filters: channels F of state and output.
        kernel_size: side of the input and the recurrent kernels (SAME padding, stride 1).
        recurrent_activation: activation of the gates i, f, o.
        activation: activation of the candidate and of the cell state.
        unit_forget_bias: start the forget gate's bias at 1.
        kernel_initializer, recurrent_initializer: of [k, k, C, 4F] and [k, k, F, 4F]. The defaults are the paper's
            baseline, N(0, 0.001), and orthogonal.

    Call arguments:
        inputs: [B, H, W, C].
        states: (h, c), each [B, H, W, F]; any height and width, also different from call to call.
        scale: optional [B, F].

    Returns:
        (output, [h', c']), each [B, H, W, F].
    """

    def call(self, inputs: Tensor, states: Any, scale: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        self.check(scale, states)
        hidden, carry = self.advance(self.project_inputs(inputs), states)
        output = hidden if scale is None else hidden * scale[:, None, None]
        return output, [hidden, carry]

    def compute_output_spec(self, inputs: Any, states: Any, scale: Any = None) -> Any:
        self.check(scale, states)
        batch = states[0].shape[0] if scale is None else scale.shape[0]

        def spec() -> keras.KerasTensor:
            return keras.KerasTensor((batch, *inputs.shape[1:3], self.filters), dtype=self.compute_dtype)

        return spec(), [spec(), spec()]


@keras.saving.register_keras_serializable(package="osmn_tf")
class ModulatedConvLSTM2D(_ConvLSTM):
    """`ModulatedConvLSTM2DCell` over a clip.

    Takes the cell's constructor arguments, and:

    Args:
        return_sequences: give every frame's output instead of the last one's.
        return_state: give [h, c] after the last frame too.

    Call arguments:
        sequences: [B, T, H, W, C]; any clip length, height and width.
        scale: optional [B, F], constant over the clip (one object), or [B, T, F].
        initial_state: optional (h, c), each [B, H, W, F]; zeros without it.
        mask: optional bool [B, T]. A False frame changes no state, and its output repeats the one before (zeros at
            the start), as in Keras's own recurrent layers: clips of different lengths are padded and masked.

    Returns:
        [B, T, H, W, F] or, without `return_sequences`, [B, H, W, F]; with `return_state` a list with h and c behind it.

    Example:
        >>> import numpy as np, osmn_tf as osmn
        >>> layer = osmn.ModulatedConvLSTM2D(4, kernel_size=3, return_sequences=True)
        >>> clip, scale = np.zeros((1, 5, 12, 16, 3)), np.ones((1, 4))
        >>> tuple(layer(clip, scale).shape)
        (1, 5, 12, 16, 4)
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        return_sequences: bool = False,
        return_state: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(filters, kernel_size, **kwargs)
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.supports_masking = True

    def compute_mask(self, sequences: Any, mask: Any = None) -> Any:
        output_mask = mask if self.return_sequences else None
        return [output_mask, None, None] if self.return_state else output_mask

    def call(
        self,
        sequences: Tensor,
        scale: Tensor | None = None,
        initial_state: Any = None,
        mask: Tensor | None = None,
    ) -> Any:
        self.check(scale, initial_state)
        batch, length, height, width, channels = ops.shape(sequences)
        frames = ops.reshape(sequences, (batch * length, height, width, channels))
        projected = ops.reshape(self.project_inputs(frames), (batch, length, height, width, 4 * self.filters))
        if initial_state is None:
            zeros = ops.zeros((batch, height, width, self.filters), dtype=self.compute_dtype)
            initial_state = [zeros, zeros]
        hidden, carry = (ops.cast(state, self.compute_dtype) for state in initial_state)

        if mask is not None:
            mask = ops.broadcast_to(ops.cast(mask, "bool"), (batch, length))
        if scale is not None:
            scale = scale if len(scale.shape) == 3 else scale[:, None]
            # Fails where there are scales for another number of frames.
            scale = ops.broadcast_to(scale, (batch, length, self.filters))

        def step(states: Any, projected: Tensor) -> Any:
            *old, t = states
            hidden, carry = self.advance(projected, old[:2])
            output = hidden if scale is None else hidden * ops.take(scale, t, axis=1)[:, None, None]
            new = [hidden, carry, output]
            if mask is not None:
                keep = ops.take(mask, t, axis=1)[:, None, None, None]
                new = [ops.where(keep, x, before) for x, before in zip(new, old)]
            return [*new, t + 1], [*new, t + 1]

        # `ops.scan` on TensorFlow (Keras 3.15) takes clips of unknown length only with a single input, so scales and
        # masks are looked up by the frame's number, and it wants the emitted structure to be the carried one.
        states = [hidden, carry, ops.zeros_like(hidden), ops.zeros((), dtype="int32")]
        (hidden, carry, last, _), (_, _, outputs, _) = ops.scan(step, states, ops.moveaxis(projected, 1, 0))
        outputs = ops.moveaxis(outputs, 0, 1) if self.return_sequences else last
        return [outputs, hidden, carry] if self.return_state else outputs

    def compute_output_spec(
        self, sequences: Any, scale: Any = None, initial_state: Any = None, mask: Any = None
    ) -> Any:
        self.check(scale, initial_state)
        batch, length, height, width, _ = sequences.shape

        def spec(*lead: int | None) -> keras.KerasTensor:
            return keras.KerasTensor((*lead, height, width, self.filters), dtype=self.compute_dtype)

        outputs = spec(batch, length) if self.return_sequences else spec(batch)
        return [outputs, spec(batch), spec(batch)] if self.return_state else outputs

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
        }

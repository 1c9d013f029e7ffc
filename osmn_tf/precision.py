"""In which precision networks compute: Keras's dtype policies by name. Keras itself is imported on use."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

from osmn_tf.errors import InputError

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@functools.cache
def refusal(precision: str) -> str | None:
    """Why the backend cannot compute in one of `PRECISIONS` on this machine, in a line; None if it can.

    It is tried with a small convolution: TensorFlow's oneDNN has none in bfloat16 for processors without AVX-512.
    """
    import keras

    if precision == "float32":
        return None
    dtype = keras.dtype_policies.get(precision).compute_dtype
    try:
        outputs = keras.ops.conv(keras.ops.ones((1, 8, 8, 4), dtype), keras.ops.ones((3, 3, 4, 4), dtype))
        keras.ops.convert_to_numpy(outputs)
    except Exception as error:  # each backend has its own
        return f"the backend {keras.backend.backend()} cannot compute in {dtype} here ({type(error).__name__})"
    return None


@contextlib.contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Inside, new networks compute in `precision`; their weights are float32 in all of them.

    Raises:
        InputError: `precision` is none of `PRECISIONS`, or this machine cannot compute in it.
    """
    import keras

    if precision not in PRECISIONS:
        raise InputError(f"precision: expected one of {', '.join(PRECISIONS)}, received {precision!r}")
    if (reason := refusal(precision)) is not None:
        raise InputError(f"precision: {reason}; use float32")
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)

"""In which precision networks compute: Keras's dtype policies by name. Keras itself is imported on use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from osmn_tf.errors import InputError

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@contextlib.contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Inside, new networks compute in `precision`; their weights are float32 in all of them.

    Raises:
        InputError: `precision` is none of `PRECISIONS`.
    """
    import keras

    if precision not in PRECISIONS:
        raise InputError(f"precision: expected one of {', '.join(PRECISIONS)}, received {precision!r}")
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)

"""Keeps a backend's start-up chatter off the user's screen."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from osmn_tf.inference.engines import check_backend


@contextlib.contextmanager
def captured_stderr() -> Iterator[None]:
    """Holds back what C++ code writes to standard error; shows it after all if an exception comes out."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(saved, 2)
            held_back.seek(0)
            os.write(2, held_back.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def start_backend(initialise: bool = True) -> None:
    """Imports Keras and wakes up its backend.

    Args:
        initialise: initialise the devices too; False where they are still to be configured.

    TensorFlow logs facts about CPU features and missing GPUs before any setting of its log level takes effect.

    Raises:
        MissingDependencyError: Keras or the backend that it is set to is not installed.
    """
    check_backend()
    with captured_stderr():
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.list_physical_devices()
            if initialise:
                tf.zeros(1)

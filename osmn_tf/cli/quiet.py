"""Keeps a backend's start-up chatter off the user's screen."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from osmn_tf.errors import InputError, check_backend


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


_UNUSED = ("jax", "matplotlib", "IPython", "scipy")


@contextlib.contextmanager
def without_unused() -> Iterator[None]:
    """Hides packages that Keras and TensorFlow import where they are installed, for parts of theirs that no command
    uses: that takes a third of the time of importing Keras and TensorFlow. Other backends need some of them."""
    names = [name for name in _UNUSED if name not in sys.modules] if _backend() == "tensorflow" else []
    hidden: dict[str, Any] = dict.fromkeys(names)
    sys.modules.update(hidden)
    try:
        yield
    finally:
        for name in names:
            if sys.modules.get(name) is None:
                sys.modules.pop(name, None)


def _backend() -> str:
    """The backend that Keras is going to have: as it finds it itself."""
    if "KERAS_BACKEND" in os.environ:
        return os.environ["KERAS_BACKEND"]
    home = os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")
    try:
        with open(os.path.join(home, "keras.json"), encoding="utf-8") as file:
            return str(json.load(file)["backend"])
    except (OSError, ValueError, KeyError, TypeError):
        return "tensorflow"


def choose_device(device: str) -> None:
    """Says where the backend computes, before it is imported.

    Args:
        device: "cpu", or "gpu", or one of several as "gpu:1".

    Raises:
        InputError: it is something else.
    """
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "gpu") or (number and not (kind == "gpu" and number.isdecimal())):
        raise InputError(f"--device: expected cpu, gpu or gpu:N, received {device!r}")
    if kind == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        os.environ["JAX_PLATFORMS"] = "cpu"
    elif number:
        os.environ["CUDA_VISIBLE_DEVICES"] = number


def start_backend(initialise: bool = True, threads: int | None = None, needs_gpu: bool = False) -> None:
    """Imports Keras and wakes up its backend.

    Args:
        initialise: initialise the devices too; False where they are still to be configured.
        threads: that it computes with on the processor; None: as many as it likes.
        needs_gpu: whether it is an error that it has none.

    TensorFlow logs facts about CPU features and missing GPUs before any setting of its log level takes effect.

    Raises:
        MissingDependencyError: Keras or the backend that it is set to is not installed.
        InputError: there is no GPU, or the backend computes already, and with another number of threads.
    """
    check_backend()
    with captured_stderr(), without_unused():
        import keras

        backend = keras.backend.backend()
        if backend == "tensorflow":
            import tensorflow as tf

            if threads is not None:
                try:
                    tf.config.threading.set_intra_op_parallelism_threads(threads)
                    tf.config.threading.set_inter_op_parallelism_threads(threads)
                except RuntimeError as error:
                    raise InputError(f"--threads: TensorFlow computes already, received {threads}") from error
            tf.config.list_physical_devices()
            if initialise:
                tf.zeros(1)
        elif threads is not None:
            if backend != "torch":
                raise InputError(f"--threads: the backend {backend} has no such setting, received {threads}")
            import torch

            torch.set_num_threads(threads)
        if needs_gpu and not any("gpu" in name.lower() for name in keras.distribution.list_devices()):
            raise InputError(f"--device: the backend {backend} finds no GPU on this machine")

"""Runs a network that is somewhere else; the state of the video is here."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from osmn_tf.client.transport import Patience, ServerError, Tensors, Transport
from osmn_tf.errors import InputError
from osmn_tf.inference.predictor import GUIDE_OPTIONS, NetworkSource, Prediction, Predictor, PredictorOptions
from osmn_tf.models.hub import is_remote
from osmn_tf.runtime.saved_model import find_saved_model, read_metadata

ENCODINGS = ("png", "jpeg", "raw")
_JPEG_QUALITY = 95
_PER_FRAME = ("frame", "frame_bytes", "mask", "mask_bytes")  # everything else is carried from frame to frame


def find(x: Any) -> NetworkSource | None:
    """See `osmn_tf.inference.predictor.find_network`.

    Raises:
        InputError: the address of a server has another form.
    """
    if not isinstance(x, str):
        return None
    if "://" in x and not is_remote(x):
        address, name = split_address(x)

        def connect(options: PredictorOptions) -> Predictor:
            from osmn_tf.client import GrpcPredictor, RestPredictor

            _refuse(options, "precision", "threads", "network_size", "scale", "merge", *GUIDE_OPTIONS)
            return (RestPredictor if "://" in address else GrpcPredictor)(address, name)

        return NetworkSource("a network on a server", None, False, False, connect)
    folder = find_saved_model(x)
    if folder is None:
        return None

    def load(options: PredictorOptions) -> Predictor:
        from osmn_tf.client.saved_model_predictor import SavedModelPredictor

        _refuse(options, "precision", "threads", "scale", "merge", *GUIDE_OPTIONS)
        if options.network_size is not None:
            metadata = read_metadata(folder, check_files=False)
            if list(options.network_size) != metadata["settings"]["network_size"] or "square" in metadata:
                _refuse(options, "network_size")
        return SavedModelPredictor(folder)

    return NetworkSource("a SavedModel", Path(folder), False, False, load)


def _refuse(options: PredictorOptions, *names: str) -> None:
    options.refuse("an exported network does as it was exported", *names)


def split_address(address: str) -> tuple[str, str]:
    """Server and model of an address: ("HOST:PORT", NAME) of grpc://HOST:PORT/NAME; HTTP keeps its scheme.

    Raises:
        InputError: it has another form.
    """
    place, _, name = address.rstrip("/").rpartition("/")
    scheme, _, host = place.partition("://")
    if scheme not in ("grpc", "http", "https") or not host or not name:
        raise InputError(
            f"network: expected grpc://HOST:PORT/NAME, http://HOST:PORT/NAME or https://HOST:PORT/NAME, received"
            f" {address!r}"
        )
    return host if scheme == "grpc" else place, urllib.parse.unquote(name)


def encode_frame(frame: np.ndarray, encoding: str) -> bytes:
    """RGB uint8 [H, W, 3] as the bytes of a PNG ("png", lossless) or a JPEG of quality 95 ("jpeg")."""
    if encoding == "png":
        # The lowest level: the network is faster than deflate.
        success, data = cv2.imencode(".png", frame[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    else:
        success, data = cv2.imencode(".jpg", frame[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not success:
        raise InputError(f"frame: cannot be written as {encoding} ({frame.shape[1]} x {frame.shape[0]} pixels)")
    return data.tobytes()


def _scalar(data: bytes) -> np.ndarray:
    array = np.empty((), object)
    array[()] = data
    return array


class RemotePredictor(Predictor):
    """A predictor over a `Transport`; see `GrpcPredictor`, `RestPredictor` and `SavedModelPredictor`.

    All that belongs to the video is in this object, one item an object along the first axis of every array, so a
    request can be repeated, and a server that was restarted in the middle of a video goes on with it.

    A video stays with the version of the model with which it was begun, since another version has another state.

    Args:
        transport: the way to the server.
        encoding: how frames are sent: "png" (lossless), "jpeg" (smaller; masks differ a little) or "raw".
        version: of the model; default: the latest at the beginning of a video.
        patience: time-outs and retries.

    Raises:
        InputError: there is no such encoding.
    """

    gives_scores = False

    def __init__(
        self,
        transport: Transport,
        encoding: str = "png",
        version: int | None = None,
        patience: Patience | None = None,
    ) -> None:
        if encoding not in ENCODINGS:
            raise InputError(f"encoding: expected one of {', '.join(ENCODINGS)}, received {encoding!r}")
        self.transport = transport
        self.encoding = encoding
        self.version = version
        self.patience = patience or Patience()
        self._prepared: tuple[np.ndarray, Tensors] | None = None
        self._served_version: int | None = None  # once the video has begun
        self.forget()

    def close(self) -> None:
        self.transport.close()

    @property
    def network_size(self) -> tuple[int, int] | None:
        return None

    @property
    def objects(self) -> int:
        return len(self._ids)

    # Requests ---------------------------------------------------------------------------------------------------

    def _call(self, signature: str, inputs: Tensors) -> Tensors:
        if self._served_version is None:
            version, signatures = self.patience.call(
                lambda: self.transport.describe(self.version), self.transport.address
            )
            for name in (self._modulate, self._step):
                if name not in signatures:
                    raise ServerError(
                        f"{self.transport.address}: model '{self.transport.model}' version {version} has no signature"
                        f" '{name}'; it has {', '.join(sorted(signatures)) or 'none'}. Was it written by 'osmn export'?"
                    )
            self._served_version = version
        version = self._served_version
        return self.patience.call(lambda: self.transport.predict(signature, inputs, version), self.transport.address)

    @property
    def _modulate(self) -> str:
        return "modulate" if self.encoding == "raw" else "modulate_encoded"

    @property
    def _step(self) -> str:
        return "step" if self.encoding == "raw" else "step_encoded"

    def _frame_inputs(self, frame: np.ndarray) -> Tensors:
        if self._prepared is not None and self._prepared[0] is frame:
            return self._prepared[1]
        return self._encoded(frame)

    def _encoded(self, frame: np.ndarray) -> Tensors:
        if self.encoding == "raw":
            return {"frame": frame}
        return {"frame_bytes": _scalar(encode_frame(frame, self.encoding))}

    # The objects ------------------------------------------------------------------------------------------------

    def forget(self) -> None:
        self._carried: Tensors = {}
        self._ids: list[int] = []  # the objects' labels on the server, in their order here
        self._served_version = None

    def begin(self, frame: np.ndarray, masks: np.ndarray | None) -> None:
        masks = np.zeros((0, *frame.shape[:2]), np.uint8) if masks is None else masks
        free = [label for label in range(1, 255) if label not in self._ids][: len(masks)]
        # The labels ascend, as the server's order does; the masks are disjoint.
        mask = (masks * np.array(free, np.uint8)[:, None, None]).max(axis=0)
        given = {"mask": mask}
        if self.encoding != "raw":
            given = {"mask_bytes": _scalar(cv2.imencode(".png", mask)[1].tobytes())}
        begun = self._call(self._modulate, {**self._frame_inputs(frame), **given})
        if self._ids:
            begun = {name: np.concatenate([self._carried[name], value]) for name, value in begun.items()}
        self._carried = begun
        self._ids += free

    def keep(self, indices: Sequence[int]) -> None:
        self._carried = {name: value[list(indices)] for name, value in self._carried.items()}
        self._ids = [self._ids[index] for index in indices]

    def advance(self, frame: np.ndarray) -> Prediction:
        answer = self._call(self._step, {**self._frame_inputs(frame), **self._carried})
        # What stays the same (labels, modulation) is not sent back.
        self._carried.update({name: value for name, value in answer.items() if name not in _PER_FRAME})
        found: np.ndarray | None = answer.get("mask")
        if "mask_bytes" in answer:
            found = cv2.imdecode(np.frombuffer(answer["mask_bytes"].item(), np.uint8), cv2.IMREAD_UNCHANGED)
        if found is None or found.shape != frame.shape[:2]:
            raise ServerError(f"{self.transport.address}: the answer has no mask of the frame's size")
        lookup = np.zeros(256, np.uint8)
        lookup[self._ids] = np.arange(1, len(self._ids) + 1)
        return Prediction(lookup[found])

    # Whole videos -----------------------------------------------------------------------------------------------

    def read_ahead(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The frames; the next one is read and encoded while the server works on this one."""
        source = iter(frames)

        def read() -> tuple[np.ndarray, Tensors] | None:
            frame = next(source, None)
            if frame is None:
                return None
            if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
                return frame, {}  # refused when its turn comes
            # Its own array: the source may fill one buffer again and again.
            frame = frame.copy()
            return frame, self._encoded(frame)

        executor = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        try:
            coming = executor.submit(read)
            while (item := coming.result()) is not None:
                coming = executor.submit(read)
                self._prepared = item if item[1] else None
                yield item[0]
        finally:
            self._prepared = None
            executor.shutdown(wait=True, cancel_futures=True)

    # Interruption -----------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, np.ndarray]:
        return {
            "model": np.array(self.transport.model),
            "version": np.array(self._served_version),
            "ids": np.array(self._ids),
            **{f"carried/{name}": _as_numbers(value) for name, value in self._carried.items()},
        }

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> None:
        """See `Predictor.restore`. The encoding has to be the same too, or both "png" and "jpeg".

        Raises:
            InputError: the snapshot is of another model or version, or of the other kind of encoding.
            ServerError: no answer; a state of other weights under the same name is refused at the next step.
        """
        if not {"model", "version", "ids"} <= set(snapshot):
            raise InputError("snapshot: its state is not of a network on a server")
        began_with = f"{snapshot['model']} version {int(snapshot['version'])}"
        version, signatures = self.patience.call(
            lambda: self.transport.describe(self.version or int(snapshot["version"])), self.transport.address
        )
        served = f"{self.transport.model} version {version}"
        if served != began_with:
            raise InputError(f"snapshot: its state is of {began_with}, this model is {served}")
        inputs = signatures.get(self._step, {})
        carried = {name.removeprefix("carried/"): x for name, x in snapshot.items() if name.startswith("carried/")}
        expected = {name for name in inputs if name not in _PER_FRAME}
        fits = set(carried) == expected
        restored: Tensors = {}
        for name in sorted(expected & set(carried)):
            dtype, shape = inputs[name]
            restored[name] = _from_numbers(carried[name], dtype)
            fits &= restored[name].shape[1:] == tuple(shape[1:])
        if not fits:
            raise InputError(f"snapshot: its state is not of {served} with encoding {self.encoding!r}")
        self._served_version = version
        self._ids = [int(label) for label in snapshot["ids"]]
        self._carried = restored


def _as_numbers(value: np.ndarray) -> np.ndarray:
    """NumPy's files hold neither bytes of any value nor bfloat16 without pickling."""
    if value.dtype == object:
        return np.stack([np.frombuffer(item, np.uint8) for item in value])
    return value.view(np.uint16) if value.dtype.name == "bfloat16" else value


def _from_numbers(value: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "string":
        strings = np.empty(len(value), object)
        strings[:] = [row.tobytes() for row in value]
        return strings
    if dtype == "bfloat16":
        import ml_dtypes

        bfloat16: Any = ml_dtypes.bfloat16
        return value.view(bfloat16)
    return value

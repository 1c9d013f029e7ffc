"""Runs a network on TensorFlow Serving's REST port."""

from __future__ import annotations

import base64
import http.client
import json
import urllib.parse
from typing import Any

import numpy as np

from osmn_tf.client.predictor import RemotePredictor
from osmn_tf.client.transport import Patience, ServerError, Signatures, Tensors, TransientError, Transport, readable
from osmn_tf.errors import InputError

_TRY_AGAIN = (429, 502, 503, 504)


class RestTransport(Transport):
    """JSON over one HTTP connection that is kept open; see `RestPredictor`. Carries strings of bytes only."""

    def __init__(self, address: str, model: str, timeout: float) -> None:
        super().__init__(address, model)
        self.timeout = timeout
        try:
            parts = urllib.parse.urlsplit(address)
            host = (parts.hostname or "").encode("idna").decode()
            if parts.scheme not in ("http", "https") or not host or parts.port == 0 or parts.query or parts.fragment:
                raise ValueError
            connection = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            self._connection = connection(host, parts.port, timeout=timeout)
        except (ValueError, http.client.InvalidURL) as error:
            raise InputError(
                f"address: expected http://HOST:PORT or https://HOST:PORT, received {address!r}"
            ) from error
        self._root = f"{urllib.parse.quote(parts.path.rstrip('/'), safe='/%')}/v1/models/{urllib.parse.quote(model)}"

    def close(self) -> None:
        self._connection.close()

    def describe(self, version: int | None) -> tuple[int, Signatures]:
        path = self._root if version is None else f"{self._root}/versions/{version}"
        document = self._send("GET", f"{path}/metadata", None, version)
        try:
            definitions = document["metadata"]["signature_def"]["signature_def"]
            signatures = {
                name: {key: _parse_info(info) for key, info in definition["inputs"].items()}
                for name, definition in definitions.items()
                if not name.startswith("__")  # TensorFlow's own
            }
            return int(document["model_spec"]["version"]), signatures
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ServerError(f"{self.address}: the answer does not describe a model's signatures") from error

    def predict(self, signature: str, inputs: Tensors, version: int) -> Tensors:
        body = json.dumps(
            {"signature_name": signature, "inputs": {name: _to_json(value) for name, value in inputs.items()}}
        )
        document = self._send("POST", f"{self._root}/versions/{version}:predict", body.encode(), version)
        try:
            outputs = document["outputs"]
            if not isinstance(outputs, dict) or "b64" in outputs:
                # Of a signature with one output, TensorFlow Serving gives the value alone.
                outputs = {"session_bytes": outputs}
            return {name: _from_json(value) for name, value in outputs.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise ServerError(f"{self.address}: the answer has no 'outputs' of base64 strings") from error

    def _send(self, method: str, path: str, body: bytes | None, version: int | None) -> Any:
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            content = response.read()
        except TimeoutError as error:
            self._connection.close()
            raise TransientError(f"no answer within {self.timeout:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise TransientError(f"the server cannot be reached ({error or type(error).__name__})") from error
        try:
            document = json.loads(content)
            message = readable(str(document.get("error", ""))) if response.status != 200 else ""
        except (ValueError, AttributeError) as error:
            if response.status == 200:
                raise ServerError(f"{self.address}: the answer is no JSON object") from error
            message = response.reason
        if response.status in _TRY_AGAIN:
            raise TransientError(f"{message} (HTTP {response.status})")
        if response.status == 404:
            which = f"'{self.model}'" + ("" if version is None else f" version {version}")
            raise ServerError(f"{self.address}: the server has no model {which} ({message})")
        if response.status != 200:
            raise ServerError(f"{self.address}: {message} (HTTP {response.status})")
        self.sent_bytes += len(body or b"")
        self.received_bytes += len(content)
        return document


def _parse_info(info: dict[str, Any]) -> tuple[str, tuple[int | None, ...]]:
    sizes = [int(side["size"]) for side in info["tensor_shape"].get("dim", [])]
    return info["dtype"].removeprefix("DT_").lower(), tuple(None if size < 0 else size for size in sizes)


def _to_json(value: np.ndarray) -> Any:
    if value.ndim:
        return [{"b64": base64.b64encode(item).decode()} for item in value.tolist()]
    return {"b64": base64.b64encode(value.item()).decode()}


def _from_json(value: Any) -> np.ndarray:
    if isinstance(value, list):
        strings = np.empty(len(value), object)
        strings[:] = [base64.b64decode(item["b64"], validate=True) for item in value]
        return strings
    array = np.empty((), object)
    array[()] = base64.b64decode(value["b64"], validate=True)
    return array


class RestPredictor(RemotePredictor):
    """Runs a network on a TensorFlow Serving server over HTTP, with neither TensorFlow nor gRPC here. Of
    `osmn_tf.VideoSegmenter("http://HOST:PORT/NAME")` this is the predictor; made by hand it has more options.

    Args:
        address: "http://host:port"; TensorFlow Serving's REST port is 8501.
        model: name of the model on the server.
        encoding: how frames are sent: "png" (lossless) or "jpeg" (smaller; masks differ a little).
        version, timeout, retry_for: as `osmn_tf.client.grpc_predictor.GrpcPredictor`.

    Raises:
        InputError: an argument is none of its choices.
    """

    def __init__(
        self,
        address: str,
        model: str,
        *,
        version: int | None = None,
        encoding: str = "png",
        timeout: float = 30.0,
        retry_for: float = 60.0,
    ) -> None:
        if encoding == "raw":
            raise InputError(
                "encoding: expected png or jpeg (arrays in JSON would be many times larger), received 'raw'"
            )
        super().__init__(RestTransport(address, model, timeout), encoding, version, Patience(timeout, retry_for))

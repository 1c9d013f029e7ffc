"""Runs a network on TensorFlow Serving's gRPC port."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from osmn_tf.client.predictor import RemotePredictor
from osmn_tf.client.transport import Patience, ServerError, Signatures, Tensors, TransientError, Transport, readable
from osmn_tf.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    import grpc

_CHANNEL_OPTIONS = [
    # A state may be larger than the 4 MiB that gRPC allows by default.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # By default a channel waits up to two minutes before it tries a restarted server again.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class GrpcTransport(Transport):
    """`PredictionService` over a channel; see `GrpcPredictor`."""

    def __init__(self, address: str, model: str, timeout: float, credentials: grpc.ChannelCredentials | None) -> None:
        super().__init__(address, model)
        host, _, port = address.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise InputError(f"address: expected HOST:PORT, received {address!r}")
        self.timeout = timeout
        try:
            import grpc
            from tensorflow_serving.apis import prediction_service_pb2_grpc
        except ModuleNotFoundError as error:
            package = "grpcio" if error.name == "grpc" else "tensorflow-serving-api"
            raise MissingDependencyError(package, "serving", "a network on a gRPC server") from error
        if credentials is None:
            self._channel = grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)
        else:
            self._channel = grpc.secure_channel(address, credentials, options=_CHANNEL_OPTIONS)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def describe(self, version: int | None) -> tuple[int, Signatures]:
        import tensorflow as tf
        from tensorflow_serving.apis import get_model_metadata_pb2

        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._specify(request.model_spec, version)
        response = self._send(self._stub.GetModelMetadata, request)
        definitions = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(definitions)
        signatures = {
            name: {
                key: (
                    tf.as_dtype(info.dtype).name,
                    tuple(None if side.size < 0 else int(side.size) for side in info.tensor_shape.dim),
                )
                for key, info in definition.inputs.items()
            }
            for name, definition in definitions.signature_def.items()
            if not name.startswith("__")  # TensorFlow's own
        }
        return int(response.model_spec.version.value), signatures

    def predict(self, signature: str, inputs: Tensors, version: int) -> Tensors:
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        self._specify(request.model_spec, version)
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(_to_message(value))
        response = self._send(self._stub.Predict, request)
        return {name: tf.make_ndarray(value) for name, value in response.outputs.items()}

    def _specify(self, model_spec: Any, version: int | None) -> None:
        model_spec.name = self.model
        if version is not None:
            model_spec.version.value = version

    def _send(self, method: Any, request: Any) -> Any:
        import grpc

        try:
            response = method(request, timeout=self.timeout)
        except grpc.RpcError as error:
            code, details = error.code(), error.details() or ""
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TransientError(f"no answer within {self.timeout:g} s") from error
            if code == grpc.StatusCode.UNAVAILABLE:
                # The reason stands behind the addresses that were tried.
                raise TransientError(f"the server cannot be reached ({details.rsplit(': ', 1)[-1]})") from error
            if code == grpc.StatusCode.NOT_FOUND:
                version = request.model_spec.version.value
                which = f"'{self.model}'" + (f" version {version}" if version else "")
                raise ServerError(f"{self.address}: the server has no model {which} ({readable(details)})") from error
            raise ServerError(f"{self.address}: {readable(details)} ({code.name})") from error
        self.sent_bytes += request.ByteSize()
        self.received_bytes += response.ByteSize()
        return response


def _to_message(value: np.ndarray) -> Any:
    import tensorflow as tf

    if value.dtype == object:
        return tf.make_tensor_proto(value.tolist(), tf.string)
    return tf.make_tensor_proto(value)


class GrpcPredictor(RemotePredictor):
    """Runs a network on a TensorFlow Serving server over gRPC. Of `osmn_tf.VideoSegmenter("grpc://HOST:PORT/NAME")`
    this is the predictor; made by hand it has more options.

    Args:
        address: "host:port"; TensorFlow Serving's gRPC port is 8500.
        model: name of the model on the server.
        version: of the model; default: the latest at the beginning of a video.
        encoding: how frames are sent: "png" (lossless), "jpeg" (smaller; masks differ a little) or "raw" (arrays, no
            work for either side's codec: for a server on the same machine).
        timeout: seconds for one request.
        retry_for: seconds during which a request that got no answer is sent again, with growing pauses; every request
            can be repeated, so a video survives a restart of the server.
        credentials: of `grpc`, for a server with TLS.

    Raises:
        InputError: an argument is none of its choices.
        MissingDependencyError: without the extra `serving`.
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
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        patience = Patience(timeout, retry_for)
        super().__init__(GrpcTransport(address, model, timeout, credentials), encoding, version, patience)

"""A server for tests that answers as TensorFlow Serving does, in a process without this package.

    python model_server.py NAME=FOLDER ...

FOLDER holds versions (1/, 2/, ...), of which the highest is served. As TensorFlow Serving, it runs the tensors that a
signature names in a TensorFlow session, and states, messages and JSON follow its sources (`predict_util.cc`,
`json_tensor.cc`). It prints {"grpc": PORT, "rest": PORT} and then obeys lines on standard input, answering each with a
line: `stop` and `start` (the same ports again), `delay SECONDS` (of every answer), `modules` (names of interest among
the imported ones), and ends with its standard input.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import sys
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf.config_pb2 import CallableOptions
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.FAILED_PRECONDITION: 412,
    grpc.StatusCode.INTERNAL: 500,
}


class RefusalError(Exception):
    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class Servable:
    """One version of a model in a session, as TensorFlow Serving loads it."""

    def __init__(self, folder: Path) -> None:
        self.version = int(folder.name)
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            graph = tf.compat.v1.saved_model.load(self.session, ["serve"], str(folder))
        self.signatures = dict(graph.signature_def)
        self.callables: dict = {}
        self.lock = threading.Lock()

    def run(self, name: str, inputs: dict, output_filter: list) -> dict:
        if name not in self.signatures:
            raise RefusalError(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
        signature = self.signatures[name]
        if set(inputs) != set(signature.inputs):
            extra, missing = set(inputs) - set(signature.inputs), set(signature.inputs) - set(inputs)
            raise RefusalError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"input size does not match signature: {len(inputs)}!={len(signature.inputs)}. Sent extra:"
                f" {{{','.join(sorted(extra))}}}. Missing but required: {{{','.join(sorted(missing))}}}.",
            )
        outputs = list(output_filter) or sorted(signature.outputs)
        for alias in outputs:
            if alias not in signature.outputs:
                raise RefusalError(
                    grpc.StatusCode.INVALID_ARGUMENT, f"output tensor alias not found in signature: {alias}"
                )
        feeds = sorted(inputs)
        key = (name, *outputs)
        with self.lock:
            if key not in self.callables:
                # `Session.run` would check and convert in Python what TensorFlow Serving gives to the graph as it is.
                options = CallableOptions(
                    feed=[signature.inputs[alias].name for alias in feeds],
                    fetch=[signature.outputs[alias].name for alias in outputs],
                )
                self.callables[key] = self.session._make_callable_from_options(options)
        try:
            values = self.callables[key](*(inputs[alias] for alias in feeds))
        except tf.errors.InvalidArgumentError as error:
            raise RefusalError(grpc.StatusCode.INVALID_ARGUMENT, error.message) from error
        return dict(zip(outputs, values))


class Models:
    def __init__(self, folders: dict) -> None:
        self.servables = {}
        for name, folder in folders.items():
            versions = [child for child in Path(folder).iterdir() if child.name.isdigit()]
            self.servables[name] = Servable(max(versions, key=lambda child: int(child.name)))

    def find(self, name: str, version: int) -> Servable:
        servable = self.servables.get(name)
        if servable is None or version not in (0, servable.version):
            asked = f"Specific({name}, {version})" if version else f"Latest({name})"
            raise RefusalError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {asked}")
        return servable

    def metadata(self, name: str, version: int) -> get_model_metadata_pb2.GetModelMetadataResponse:
        servable = self.find(name, version)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = name
        response.model_spec.version.value = servable.version
        definitions = get_model_metadata_pb2.SignatureDefMap()
        for key, signature in servable.signatures.items():
            definitions.signature_def[key].CopyFrom(signature)
        response.metadata["signature_def"].Pack(definitions)
        return response


class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, models: Models, settings: dict) -> None:
        self.models = models
        self.settings = settings

    def _answer(self, context, function):
        time.sleep(self.settings["delay"])
        try:
            return function()
        except RefusalError as refusal:
            context.abort(refusal.code, str(refusal))

    def GetModelMetadata(self, request, context):  # noqa: N802 (gRPC's name)
        spec = request.model_spec
        return self._answer(context, lambda: self.models.metadata(spec.name, spec.version.value))

    def Predict(self, request, context):  # noqa: N802
        return self._answer(context, lambda: self._predict(request))

    def _predict(self, request):
        spec = request.model_spec
        servable = self.models.find(spec.name, spec.version.value)
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        outputs = servable.run(spec.signature_name or "serving_default", inputs, request.output_filter)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = spec.name
        response.model_spec.version.value = servable.version
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(as_message(value))
        return response


def as_message(value):
    """A tensor as TensorFlow Serving writes it: every value an item of a list, also halves (`AsProtoField`)."""
    value = np.asarray(value)
    if value.dtype.name in ("float16", "bfloat16"):
        message = tf.make_tensor_proto(np.zeros((), value.dtype))
        message.Clear()
        message.dtype = tf.as_dtype(value.dtype).as_datatype_enum
        message.tensor_shape.CopyFrom(tf.TensorShape(value.shape).as_proto())
        message.half_val.extend(value.view(np.uint16).ravel().tolist())
        return message
    return tf.make_tensor_proto(value.tolist() if value.dtype == object else value)


def rest_handler(models: Models, settings: dict):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            match = re.fullmatch(r"/v1/models/([^/]+)(?:/versions/(\d+))?/metadata", self.path)
            self._respond(lambda: self._metadata(match[1], int(match[2] or 0)))

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            match = re.fullmatch(r"/v1/models/([^/]+)(?:/versions/(\d+))?:predict", self.path)
            self._respond(lambda: self._predict(match[1], int(match[2] or 0), json.loads(body)))

        def _metadata(self, name, version):
            response = models.metadata(name, version)
            definitions = get_model_metadata_pb2.SignatureDefMap()
            response.metadata["signature_def"].Unpack(definitions)
            return {
                "model_spec": {"name": name, "signature_name": "", "version": str(response.model_spec.version.value)},
                "metadata": {"signature_def": json_format.MessageToDict(definitions, preserving_proto_field_name=True)},
            }

        def _predict(self, name, version, document):
            def array(value):
                strings = np.empty(len(value) if isinstance(value, list) else (), object)
                if isinstance(value, list):
                    strings[:] = [base64.b64decode(item["b64"]) for item in value]
                else:
                    strings[()] = base64.b64decode(value["b64"])
                return strings

            inputs = {key: array(value) for key, value in document["inputs"].items()}
            outputs = models.find(name, version).run(document["signature_name"], inputs, [])

            def encode(key, value):
                if isinstance(value, np.ndarray) and value.ndim:
                    return [encode(key, item) for item in value]
                data = value if isinstance(value, bytes) else value.item()
                # Only names that end so are written as base64, other strings as they are.
                return {"b64": base64.b64encode(data).decode()} if key.endswith("_bytes") else data.decode()

            values = {key: encode(key, value) for key, value in outputs.items()}
            return {"outputs": values if len(values) > 1 else next(iter(values.values()))}

        def _respond(self, function):
            time.sleep(settings["delay"])
            try:
                status, document = 200, function()
            except RefusalError as refusal:
                status, document = HTTP_STATUS[refusal.code], {"error": str(refusal)}
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def handle(self):
            with contextlib.suppress(ConnectionError):  # the client, or `stop`, hung up
                super().handle()

    return Handler


class Servers:
    def __init__(self, models: Models) -> None:
        self.models = models
        self.settings = {"delay": 0.0}
        self.ports = {"grpc": 0, "rest": 0}

    def start(self) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.grpc = grpc.server(futures.ThreadPoolExecutor(4), options=options)
        service = Service(self.models, self.settings)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, self.grpc)
        self.ports["grpc"] = self.grpc.add_insecure_port(f"127.0.0.1:{self.ports['grpc']}")
        self.grpc.start()
        handler = rest_handler(self.models, self.settings)
        self.connections: list = []
        self.rest = ThreadingHTTPServer(("127.0.0.1", self.ports["rest"]), handler)
        self.rest.daemon_threads = True
        accept = self.rest.get_request

        def remember():
            connection, address = accept()
            self.connections.append(connection)
            return connection, address

        self.rest.get_request = remember
        self.ports["rest"] = self.rest.server_address[1]
        threading.Thread(target=self.rest.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self.grpc.stop(None).wait()
        self.rest.shutdown()
        self.rest.server_close()
        for connection in self.connections:  # a process that ends closes its connections too
            self.rest.shutdown_request(connection)


def main() -> None:
    servers = Servers(Models(dict(argument.split("=", 1) for argument in sys.argv[1:])))
    servers.start()
    print(json.dumps(servers.ports), flush=True)
    for line in sys.stdin:
        command, *arguments = line.split()
        answer = "done"
        if command == "delay":
            servers.settings["delay"] = float(arguments[0])
        elif command == "modules":
            answer = " ".join(sorted(name for name in sys.modules if name.split(".")[0] == "osmn_tf")) or "none"
        else:
            getattr(servers, command)()
        print(answer, flush=True)


if __name__ == "__main__":
    main()

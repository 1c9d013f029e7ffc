"""Warm-up requests: TensorFlow Serving plays them when it loads a version, so that no user waits for the first run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from osmn_tf.errors import import_extra
from osmn_tf.export.session_record import SessionRecord
from osmn_tf.files import atomic_path

WARM_UP_FILE = "tf_serving_warmup_requests"  # in assets.extra; the name is TensorFlow Serving's


def _constant(shape: tuple[int, ...], dtype: tf.DType, value: int) -> Any:
    """A tensor of equal values as a message of a few bytes: the last value given is repeated to the end."""
    message = tf.make_tensor_proto(value, dtype=dtype, shape=(1,) * len(shape))
    for dimension, size in zip(message.tensor_shape.dim, shape):
        dimension.size = size
    if message.tensor_content:  # only lists of values are repeated
        number = tf.make_ndarray(message).ravel()[:1]
        message.ClearField("tensor_content")
        if dtype in (tf.float16, tf.bfloat16):
            message.half_val.append(int(number.view("uint16")[0]))
        elif dtype == tf.float32:
            message.float_val.append(float(number[0]))
        else:
            message.int_val.append(int(number[0]))
    return message


def check_serving_protos() -> None:
    """Raises MissingDependencyError where the messages of TensorFlow Serving are not installed."""
    module = "tensorflow_serving.apis.prediction_log_pb2"
    import_extra(module, "tensorflow-serving-api", "serving", "writing warm-up requests")


def warm_up_inputs(signatures: Mapping[str, Any], record: SessionRecord) -> dict[str, dict[str, Any]]:
    """Inputs for every signature, as TensorProto: a grey frame of network size with one object that fills it.

    Args:
        signatures: name -> concrete function; "modulate_encoded" is run for a valid session.
        record: layout of the sessions.
    """
    frame_size = record.network_size
    pixels = tf.fill((*frame_size, 1), tf.constant(1, tf.uint8))
    frame_bytes = tf.io.encode_png(tf.image.grayscale_to_rgb(127 * pixels))
    mask_bytes = tf.io.encode_png(pixels)
    begun = signatures["modulate_encoded"](frame_bytes=frame_bytes, mask_bytes=mask_bytes)
    shapes = {"modulation": (record.modulation,), "guide_masks": frame_size, **record.state}
    known = {
        "frame": _constant((*frame_size, 3), tf.uint8, 127),
        "frames": _constant((2, *frame_size, 3), tf.uint8, 127),
        "mask": _constant(frame_size, tf.uint8, 1),
        "labels": _constant((1,), tf.int32, 1),
        "frame_bytes": tf.make_tensor_proto(frame_bytes.numpy()),
        "frames_bytes": tf.make_tensor_proto([frame_bytes.numpy()] * 2),
        "mask_bytes": tf.make_tensor_proto(mask_bytes.numpy()),
        "session_bytes": tf.make_tensor_proto(begun["session_bytes"].numpy().tolist()),
    }
    inputs: dict[str, dict[str, Any]] = {}
    for name, function in signatures.items():
        inputs[name] = {}
        for key, spec in function.structured_input_signature[1].items():
            inputs[name][key] = known[key] if key in known else _constant((1, *shapes[key]), spec.dtype, 0)
    return inputs


def write_warm_up(path: str | os.PathLike[str], model_name: str, inputs: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes a TFRecord file of PredictionLog messages, one a signature.

    Raises:
        MissingDependencyError: TensorFlow Serving's messages are not installed.
    """
    check_serving_protos()
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    with atomic_path(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
        for signature, tensors in inputs.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name = model_name
            request.model_spec.signature_name = signature
            for key, tensor in tensors.items():
                request.inputs[key].CopyFrom(tensor)
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())

"""Segments videos on a server: TensorFlow Serving with a model of `osmn export --format saved-model`.

    from osmn_tf.client import GrpcClient
    with GrpcClient("localhost:8500", "reconvnet_lite") as segmenter:
        for frame, mask in segmenter.track(osmn.read_video("dog.mp4"), osmn.read_mask("dog.png")): ...

A client is used as `osmn_tf.VideoSegmenter` is; the network and its weights are the server's. `RestClient` speaks JSON
over HTTP and needs nothing but this package's core; `LocalClient` runs an exported folder in this process.
"""

from __future__ import annotations

from osmn_tf.client.grpc_client import GrpcClient
from osmn_tf.client.local_client import LocalClient
from osmn_tf.client.remote_segmenter import RemoteSegmenter
from osmn_tf.client.rest_client import RestClient
from osmn_tf.client.transport import ServerError

__all__ = ["GrpcClient", "LocalClient", "RemoteSegmenter", "RestClient", "ServerError"]

"""Runs networks on a server: TensorFlow Serving with a model of `osmn export --format saved-model`.

    import osmn_tf as osmn
    with osmn.VideoSegmenter("grpc://localhost:8500/osmn_match_lite") as segmenter:
        for frame, mask in segmenter.track(osmn.read_video("dog.mp4"), osmn.read_mask("dog.png")): ...

The network and its weights are the server's, what belongs to the video is here. The predictors behind such addresses
have further options (version, encoding, time-outs):

    osmn.VideoSegmenter(GrpcPredictor("localhost:8500", "osmn_match_lite", encoding="jpeg"))

`RestPredictor` speaks JSON over HTTP and needs nothing but this package's core; `SavedModelPredictor` runs an exported
folder in this process.
"""

from __future__ import annotations

from osmn_tf.client.grpc_predictor import GrpcPredictor
from osmn_tf.client.predictor import RemotePredictor
from osmn_tf.client.rest_predictor import RestPredictor
from osmn_tf.client.saved_model_predictor import SavedModelPredictor
from osmn_tf.client.transport import ServerError

__all__ = ["GrpcPredictor", "RemotePredictor", "RestPredictor", "SavedModelPredictor", "ServerError"]

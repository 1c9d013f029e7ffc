"""Runs networks exported to LiteRT (TFLite) with NumPy, OpenCV and `ai-edge-litert`: neither Keras nor TensorFlow.

import osmn_tf as osmn
segmenter = osmn.VideoSegmenter("exported/osmn_match_lite")
for frame, mask in segmenter.track(frames, first_mask): ...
"""

from osmn_tf.runtime.predictor import ExportedPredictor

__all__ = ["ExportedPredictor"]

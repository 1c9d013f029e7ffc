"""Runs networks exported to LiteRT (TFLite) with NumPy, OpenCV and `ai-edge-litert`: neither Keras nor TensorFlow.

from osmn_tf import runtime
segmenter = runtime.VideoSegmenter("exported/reconvnet_lite")
for frame, mask in segmenter.track(frames, first_mask): ...
"""

from osmn_tf.runtime.video_segmenter import VideoSegmenter

__all__ = ["VideoSegmenter"]

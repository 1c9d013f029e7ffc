"""Weights of other programs: checkpoints of the original releases (TensorFlow 1), in and out."""

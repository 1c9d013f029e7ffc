"""Data sets as they are published: one index of videos and images for training and for evaluation. No backend."""

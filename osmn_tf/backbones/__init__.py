"""Feature extractors as Keras functional models: VGG-16 and MobileNet-v1."""

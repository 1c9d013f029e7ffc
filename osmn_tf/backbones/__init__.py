"""Feature extractors as Keras functional models: VGG-16, MobileNet-v1 and ResNet."""

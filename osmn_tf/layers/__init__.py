"""Layers of the networks: modulation, modulated ConvLSTM, fixed bilinear upsampling."""

"""Layers of the networks: modulation, modulated ConvLSTM, fusion of side outputs, fixed bilinear upsampling."""

"""Data sets, synthetic clips and augmentation."""

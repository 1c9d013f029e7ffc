"""The DAVIS metrics and protocols."""

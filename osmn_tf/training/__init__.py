"""Training: configurations, stages, callbacks, checkpoints, any number of devices."""

"""Networks for production: SavedModels that TensorFlow and TensorFlow Serving run, and LiteRT files for devices."""

QUANTIZATIONS = ("none", "float16", "compact", "smallest", "dynamic", "int8")
"""Forms of a LiteRT export; here, so that the command line can list them without a backend."""

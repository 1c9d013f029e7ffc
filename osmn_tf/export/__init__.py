"""Networks for production: SavedModels that TensorFlow and TensorFlow Serving run, and LiteRT files for devices."""

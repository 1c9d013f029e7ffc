"""The one place that holds the version number (read by setup.cfg without importing the package)."""

__version__ = "0.1.0"

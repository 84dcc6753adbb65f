"""The one place that knows the package version."""

__version__ = "0.1.0"

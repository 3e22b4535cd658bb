"""The version of Plato."""

__version__ = "0.1.0"

"""Plato answers long questions faster by planning before decoding (arXiv 2402.12280)."""

__version__ = "0.1.0"

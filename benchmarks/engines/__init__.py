"""Plato on the engines that people already run."""

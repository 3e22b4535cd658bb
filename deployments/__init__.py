"""Plato on Ray Serve: each deployment is a thin wrapper around a component of `plato`."""

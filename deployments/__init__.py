"""Plato on Ray Serve: each deployment is a thin shell around a piece of `plato`."""

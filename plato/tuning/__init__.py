"""Tuning a model for plans and parts: so far the examples to learn from."""

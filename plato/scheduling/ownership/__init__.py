"""Ownership of runs: one scheduler drives a run at any time, by a lease with a fencing token.

When that scheduler dies or drains, another one takes the run over: an attached caller sends it
there; a run without a caller is adopted from the context store.
"""

"""Ownership of runs: one scheduler drives a run at any time, by a lease with a fencing token.

When that scheduler dies or drains, another one takes the run over: the caller of an attached run
sends it there, and a detached run is adopted from the context store.
"""

"""Benchmarks of the engine: correctness, speed compared with others, and a profile."""

"""Benchmarks: one module per question, and packages for what they share."""

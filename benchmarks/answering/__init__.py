"""Asking the same questions in several modes, and the bound on their latency."""

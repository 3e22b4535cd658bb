"""Asking the same questions in several ways, and what is possible at best."""

"""Stand-ins for benchmarks and tests; nothing in production imports them."""

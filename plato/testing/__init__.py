"""Stand-ins for measurements and tests."""

"""Shared by all benchmarks: reports, statistics, the fixed workload."""

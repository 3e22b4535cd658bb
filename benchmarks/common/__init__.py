"""What all benchmarks use: reports, statistics, the fixed workload."""

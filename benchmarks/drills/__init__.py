"""What can go wrong while the programs run, done to them on purpose; see `benchmarks.faults`."""

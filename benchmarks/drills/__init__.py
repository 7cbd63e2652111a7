"""Drills: faults that are caused on purpose while the programs run; see `benchmarks.faults`."""

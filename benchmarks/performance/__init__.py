"""Costs in time and memory, as ratios to baselines measured in turn: `python -m benchmarks.performance`."""

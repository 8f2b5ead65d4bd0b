"""What everything costs, as ratios against baselines measured in turn: `python -m benchmarks.performance`."""

"""Programs that time the parts and print ratios. Run one with `python -m benchmarks.NAME`."""

"""Programs that measure the parts: errors, and times as ratios.

Run one with `python -m benchmarks.NAME`.
"""

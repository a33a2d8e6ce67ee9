"""Timing for machines with other work to do: interleaved repetitions and their medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def interleaved_medians(cases: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Run all cases in turn, `repeats` times after one warm-up, and return median times [s].

    Taking turns exposes every case to the same disturbances, and a median forgets a few of them.
    A machine that stays busy still hurts those cases more that use more threads.
    """
    times: dict[str, list[float]] = {name: [] for name in cases}
    for repeat in range(repeats + 1):
        for name, run in cases.items():
            start = time.perf_counter()
            run()
            if repeat > 0:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def table(medians: dict[str, float], reference: str) -> str:
    """Format medians as a table of milliseconds and of ratios to the reference case."""
    width = max(map(len, medians))
    lines = [f"{'case':{width}}  median_ms  times {reference}"]
    for name, seconds in medians.items():
        ratio = seconds / medians[reference]
        shown = f"{ratio:.2f}" if ratio >= 0.1 else f"1/{1 / ratio:.0f}"
        lines.append(f"{name:{width}}  {1e3 * seconds:9.1f}  {shown}")
    return "\n".join(lines)

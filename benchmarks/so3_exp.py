"""Time so3.exp on many rotation vectors beside SciPy's Rotation: `python -m benchmarks.so3_exp`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import scipy
import torch
from scipy.spatial.transform import Rotation

from benchmarks.timing import interleaved_medians, table
from liegroups import so3

SCIPY = "SciPy, float64"


def measure(count: int, repeats: int) -> dict[str, float]:
    """Return the median time [s] of each way to exponentiate `count` rotation vectors."""
    vectors = np.random.default_rng(0).standard_normal((count, 3))
    double = torch.from_numpy(vectors)
    single = double.float()
    gradient = double.clone().requires_grad_()
    cases = {
        SCIPY: lambda: Rotation.from_rotvec(vectors).as_matrix(),
        "so3.exp, float64": lambda: so3.exp(double),
        "so3.exp, float32": lambda: so3.exp(single),
        "so3.exp and its gradient, float64": lambda: so3.exp(gradient).sum().backward(),
    }
    return interleaved_medians(cases, repeats)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="rotation vectors")
    parser.add_argument("--repeats", type=int, default=11, help="repetitions, medians are shown")
    args = parser.parse_args(argv)
    print(
        f"{args.count} rotation vectors, median of {args.repeats} interleaved runs, "
        f"torch {torch.__version__} on {torch.get_num_threads()} threads, "
        f"SciPy {scipy.__version__} on one"
    )
    print(table(measure(args.count, args.repeats), reference=SCIPY))


if __name__ == "__main__":
    main()

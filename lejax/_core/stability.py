"""The kinds of fixed points by the rates of their directions: nodes, spirals, saddles."""

import numpy as np
from jaxtyping import Bool, Float


def name_kinds(
    rates: Float[np.ndarray, "n d"],
    is_complex: Bool[np.ndarray, "n d"],
    tolerance: Float[np.ndarray, " n"],
    found: Bool[np.ndarray, " n"],
) -> list[str]:
    """The kinds of n points from their rates, the largest first; `is_complex` says which directions rotate."""
    kinds = []
    for row, rotates, limit, is_found in zip(rates, is_complex, tolerance, found, strict=True):
        if not is_found:
            kinds.append("not found")
            continue
        num_unstable = int(np.sum(row > limit))
        shape = "spiral" if rotates[-1 if num_unstable else 0] else "node"
        if np.any(np.abs(row) <= limit):
            kinds.append("non-hyperbolic")
        elif 0 < num_unstable < len(row):
            kinds.append("saddle")
        else:
            kinds.append(f"{'unstable' if num_unstable else 'stable'} {shape}")
    return kinds

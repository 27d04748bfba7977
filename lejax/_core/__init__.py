"""Shared ground, which knows nothing of tangent vectors.

- `cell`: the protocols that a cell may follow, and its state as a flat vector.
- `kinds`, `check`, `signature`: the arguments of public functions, checked.
- `closures`: the arrays that a plain function holds, as leaves of a pytree.
- `batching`: `cond` and `while_loop` that stay scalar under `vmap`.
- `statistics`: means and standard errors of correlated blocks.
- `status`, `divergence`: how a run ended, and advice where it diverged.
- `piecewise_linear`: the canonical form of piecewise-linear networks.
- `array_files`, `fingerprint`, `checkpoint`: files that are read safely and written whole.
- `units`: nats per step, or per unit time.
"""

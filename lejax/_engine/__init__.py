"""The Jacobian-QR loop.

Read the files in this order; each imports only earlier ones:

1. `unroll`: the trajectory alone.
2. `push`: one step of the state and of k tangent vectors.
3. `factorization`, `orthonormalize`: Z = QR, its derivative, and the share of the rounding budget that Z used.
4. `frames`, `directions`: the tangent vectors of each diagonal block, and how they lie in the frame of a report.
5. `blocks`: the diagonal blocks that a cell declares.
6. `dependency_rules`, `dependencies`, `strong_components`, `components`: the diagonal blocks found in a program.
7. `adjoint`: how derivatives go back through the loop.
8. `interval`: the number of steps between two orthonormalizations.
9. `carry`: what a run is given, carries and leaves behind.
10. `loop`: push, orthonormalize, add log R_ii.
11. `method`: the loop in sequence, or in parallel chunks.
12. `tangent_dynamics`: the same, one step at a time by hand.
"""

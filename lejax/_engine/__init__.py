"""The Jacobian-QR loop. Read the files in this order:

1. `unroll`: the trajectory alone.
2. `push`: one step of the state and of k tangent vectors.
3. `dependencies`, `components`, `blocks`: the diagonal blocks of a block triangular Jacobian, found or declared.
4. `factorization`, `orthonormalize`: Z = Q R, and the digits it costs.
5. `frames`: the tangent vectors of each block, orthonormal at the end of an interval.
6. `adjoint`: how derivatives go back through the loop.
7. `interval`: how many steps lie between two orthonormalizations.
8. `loop`: push, orthonormalize, add log |R_ii|.
9. `method`: strategies that run the loop, in sequence or in parallel chunks.
10. `tangent_dynamics`: the same by hand, a step at a time.
"""

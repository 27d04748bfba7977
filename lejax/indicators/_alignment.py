"""Generalized alignment indices, GALI_k."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._core.cell import Cell, dtype_of, size_of
from .._core.check_annotations import checked
from .._core.check_cell import check_inputs, check_state
from .._core.check_values import check_count, check_directions
from .._core.closures import compiled
from .._engine.orthonormalize import Exact, orthonormalize
from .._engine.push import tangent_dtype
from .._engine.tangent_dynamics import open_dense, random_frame


@checked
def log_alignment_index(
    cell: Cell,
    state: PyTree,
    inputs: PyTree = None,
    *,
    order: int = 2,
    num_steps: int | None = None,
    key: PRNGKeyArray | None = None,
) -> Float[Array, " T"]:
    r"""The logarithm of GALI_k, the volume that k unit deviation vectors span, after each step.

    $$\mathrm{GALI}_k(t) = |\hat w_1(t) \wedge \dots \wedge \hat w_k(t)|$$

    On a chaotic orbit it falls as $e^{-[(\lambda_1 - \lambda_2) + \dots + (\lambda_1 - \lambda_k)] t}$. On a torus
    of at least k dimensions it stays constant, on a smaller one it falls as a power of t. The smaller alignment index
    (SALI) follows from $\log \mathrm{GALI}_2$: `2 * jnp.sin(jnp.arcsin(jnp.exp(log_gali_2)) / 2)`.

    **Arguments:**

    - `cell`, `state`, `inputs`, `num_steps`: as for `lyapunov_spectrum`.
    - `order`: k, the number of deviation vectors, from 2 to d, default 2.
    - `key`: for the starting vectors, which are orthonormal; `jax.random.key(0)` if `None`.

    **Returns:** (T,), natural logarithms of at most 0, after each of the T steps.

    **Raises:**

    - `ValueError` or `TypeError`: if an argument is unusable, `order` above d for one.

    **Numerics:** the volume of $W = Q T$ with triangular T is $\prod T_{ii} / \prod |T_{\cdot j}|$, computed from sums
    of logarithms of the orthonormalized frame. It uses no singular values, so it is differentiable where vectors align,
    and it continues to fall far below the 1e-16 at which vectors that are only normalized become parallel.
    O(d^2 k + d k^2) a step.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> cat = lejax.indicators.log_alignment_index(lejax.systems.Cat(), jnp.array([0.1, 0.2]), num_steps=100)
        >>> print(((cat[-1] - cat[49]) / 50).round(4))  # minus 2 log((3 + sqrt 5) / 2)
        -1.9248

    Skokos, Bountis & Antonopoulos, Physica D 231 (2007); SALI: Skokos, J. Phys. A 34 (2001).
    """
    state = check_state(state)
    inputs, num_steps = check_inputs(inputs, num_steps, 0)
    order = check_directions("order", check_count("order", order, 2), state)
    return _log_volume(cell, state, inputs, order, num_steps, key)


@compiled
def _log_volume(cell, state, inputs, order, num_steps, key):
    random = random_frame(key, size_of(state), order, tangent_dtype(dtype_of(state)))
    push, vector, frame = open_dense(cell, state, inputs, random)
    frame = orthonormalize(Exact(), frame).columns

    def step(carry, input):
        vector, frame, triangle = carry
        vector, pushed = push(input, vector, frame)
        out = orthonormalize(None, pushed, False)
        with jax.default_matmul_precision("highest"):
            triangle = out.triangle @ triangle
        length = jnp.sqrt(jnp.sum(triangle**2, axis=0))
        # Every column has the same scale, which cancels.
        diagonal = out.log_growth - jnp.log(out.scale)
        change = jnp.sum(diagonal - jnp.log(length))
        return (vector, out.columns, triangle / length[None]), change

    zeros = jnp.zeros_like(frame, shape=order)
    start = (vector, frame, jnp.diag(zeros + 1))
    # A cumulative sum in a tree of pairs keeps the digits of float32, one along the scan loses them.
    return jnp.cumsum(jax.lax.scan(step, start, inputs, length=num_steps)[1])

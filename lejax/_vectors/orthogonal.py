r"""The orthogonal Lyapunov vectors: those of the past (Gram-Schmidt) and those of the future (adjoint)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._core.cell import Cell, ravel
from .._core.check_annotations import checked
from .._core.closures import compiled
from .._engine.factorization import Householder
from .._engine.orthonormalize import orthonormalize
from .covariant import check_run, prepare, raise_if_nonfinite


class LyapunovVectors(eqx.Module):
    """Orthonormal vectors along a run of T steps; d numbers in the state, k vectors.

    **Fields:**

    - `states`: The states at which the vectors stand, with leading axis T: the first is where the transient
        ended.
    - `vectors` (T, d, k): Orthonormal columns at each state, in the order of the exponents.
    - `exponents` (k,): In nats per step or per unit of `dt`.
    """

    states: PyTree
    vectors: Float[Array, "T d k"]
    exponents: Float[Array, " k"]


@checked
def backward_lyapunov_vectors(
    cell: Cell,
    state: PyTree,
    inputs: PyTree = None,
    *,
    num_exponents: int | None = None,
    num_steps: int | None = None,
    transient: int = 100,
    dt: float | Float[Array, ""] | None = None,
    key: PRNGKeyArray | None = None,
    throw: bool = True,
) -> LyapunovVectors:
    r"""The backward (Gram-Schmidt) Lyapunov vectors, set by the far past.

    $$Q_{t+1} R_{t+1} = J_t Q_t$$

    The first i of them span the space of all tangent vectors that shrank slowest, looking back: that of the first i
    covariant vectors. They depend on the metric and their order, and none but the first is mapped to itself.

    **Arguments:** as for `covariant_lyapunov_vectors`; the frame settles during the `transient`.

    **Returns:** a `LyapunovVectors`. Cost: that of a spectrum that orthonormalizes (by Householder reflections) at each
    step; memory for all vectors, O(T d k).

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> run = lejax.backward_lyapunov_vectors(lejax.systems.Henon(), jnp.zeros(2), num_steps=50)
        >>> run.vectors.shape
        (50, 2, 2)

    Legras & Vautard (1996); Kuptsov & Parlitz, J. Nonlinear Sci. 22 (2012).
    """
    run = check_run(cell, state, inputs, num_exponents, num_steps, transient, 0, dt)
    out = _backward_lyapunov_vectors(run, key)
    if throw:
        raise_if_nonfinite(out.exponents, cell, state, inputs)
    return out


@checked
def forward_lyapunov_vectors(
    cell: Cell,
    state: PyTree,
    inputs: PyTree = None,
    *,
    num_exponents: int | None = None,
    num_steps: int | None = None,
    transient: int = 0,
    backward_transient: int = 100,
    dt: float | Float[Array, ""] | None = None,
    key: PRNGKeyArray | None = None,
    throw: bool = True,
) -> LyapunovVectors:
    r"""The forward (adjoint) Lyapunov vectors, set by the far future.

    $$P_t L_t = J_t^\top P_{t+1}$$

    with orthonormal $P_t$ and upper triangular $L_t$, backward in time. The first one is the gradient of growth: the
    perturbation now that will have grown most. The first i are orthogonal to every covariant vector after the i-th.

    **Arguments:** as for `covariant_lyapunov_vectors`; the frame settles during the `backward_transient`.

    **Returns:** a `LyapunovVectors`, whose exponents are those of the spectrum. Cost: one cell call, its transposed
    tangent and a Householder orthonormalization at each step; memory O(T d k).

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> henon = lejax.systems.Henon()
        >>> future = lejax.forward_lyapunov_vectors(henon, jnp.zeros(2), num_steps=50, transient=100)
        >>> covariant = lejax.covariant_lyapunov_vectors(henon, jnp.zeros(2), num_steps=50, transient=100)
        >>> abs(future.vectors[0, :, 0] @ covariant.vectors[0, :, 1]) < 1e-6
        Array(True, dtype=bool)

    Kuptsov & Parlitz, J. Nonlinear Sci. 22 (2012).
    """
    run = check_run(
        cell, state, inputs, num_exponents, num_steps, transient, backward_transient, dt
    )
    out = _forward_lyapunov_vectors(run, key)
    if throw:
        raise_if_nonfinite(out.exponents, cell, state, inputs)
    return out


@compiled
def _backward_lyapunov_vectors(run, key):
    cell, state, inputs, dt, count, steps = run
    push, vector, frame, _ = prepare(cell, state, inputs, count, key)

    def step(carry, input):
        following, pushed = push(input, *carry)
        out = orthonormalize(Householder(), pushed)
        return (following, out.columns), (carry, out.log_growth)

    total = steps.transient + steps.counted
    _, ((points, frames), rates) = jax.lax.scan(step, (vector, frame), inputs, length=total)
    return _report(state, points, frames, rates, steps, dt)


@compiled
def _forward_lyapunov_vectors(run, key):
    cell, state, inputs, dt, count, steps = run
    push, vector, frame, _ = prepare(cell, state, inputs, count, key)

    def step(vector, input):
        return push.step(input, vector), vector

    total = steps.transient + steps.counted + steps.backward
    _, points = jax.lax.scan(step, vector, inputs, length=total)
    points, inputs = jax.tree.map(lambda x: x[steps.transient :], (points, inputs))

    def back(frame, along):
        point, input = along
        _, pull = jax.vjp(lambda columns: push(input, point, columns)[1], frame)
        out = orthonormalize(Householder(), pull(frame)[0])
        return out.columns, (out.columns, out.log_growth)

    _, (frames, rates) = jax.lax.scan(back, frame, (points, inputs), reverse=True)
    return _report(state, points, frames, rates, steps._replace(transient=0), dt)


def _report(state, points, frames, rates, steps, dt):
    counted = slice(steps.transient, steps.transient + steps.counted)
    points, frames, rates = (x[counted] for x in (points, frames, rates))
    exponents = jnp.mean(rates, axis=0) / jnp.asarray(dt, rates.dtype)
    return LyapunovVectors(jax.vmap(ravel(state)[1])(points), frames, exponents)

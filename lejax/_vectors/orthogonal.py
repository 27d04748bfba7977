r"""The orthogonal Lyapunov vectors: backward ones (Gram-Schmidt) and forward ones (adjoint)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._core.cell import Cell, ravel
from .._core.check_annotations import checked
from .._core.closures import compiled
from .._engine.orthonormalize import Exact, orthonormalize
from .vector_run import VectorRun, check_run, open_run, raise_if_nonfinite


class LyapunovVectors(eqx.Module):
    """Orthonormal vectors along a run of T steps; d numbers in the state, k vectors.

    **Fields:**

    - `states`: the states at which the vectors are given, with leading axis T; the first is the state at the end of
        the transient.
    - `vectors`: (T, d, k), orthonormal columns at each state, in the order of the exponents.
    - `exponents`: (k,), in nats per step or per unit of `dt`.
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
    r"""The backward (Gram-Schmidt) Lyapunov vectors, determined by the far past.

    $$Q_{t+1} R_{t+1} = J_t Q_t$$

    The first i of them span the tangent vectors that shrink slowest backward in time, which is the space of the first i
    covariant vectors. They depend on the metric and on their order, and only the first is covariant.

    **Arguments:**

    - `cell`, `state`, `inputs`, `num_exponents`, `num_steps`, `dt`, `throw`: as for `covariant_lyapunov_vectors`.
    - `transient`: leading steps in which the frame converges, default 100.
    - `key`: for the starting frame; `jax.random.key(0)` if `None`.

    **Returns:** a `LyapunovVectors`.

    **Raises:**

    - `ValueError` or `TypeError`: if an argument is unusable.
    - `RuntimeError`: if the run is not finite and `throw` is set.

    **Numerics:** the cost of a spectrum that orthonormalizes at each step, by Householder reflections. Memory is
    O(T d k), for all vectors.

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
    r"""The forward (adjoint) Lyapunov vectors, determined by the far future.

    $$P_t L_t = J_t^\top P_{t+1}$$

    with orthonormal $P_t$ and upper triangular $L_t$, backward in time. The first vector is the gradient of growth: the
    perturbation at t that grows most in the long run. The first i are orthogonal to every covariant vector after the
    i-th.

    **Arguments:**

    - `cell`, `state`, `inputs`, `num_exponents`, `num_steps`, `dt`, `throw`: as for `covariant_lyapunov_vectors`.
    - `transient`: leading steps that move the state only, default 0.
    - `backward_transient`: steps after the last reported one, in which the frame converges, default 100.
    - `key`: for the starting frame; `jax.random.key(0)` if `None`.

    **Returns:** a `LyapunovVectors`, whose exponents are those of the spectrum.

    **Raises:**

    - `ValueError` or `TypeError`: if an argument is unusable.
    - `RuntimeError`: if the run is not finite and `throw` is set.

    **Numerics:** one cell call, its transposed tangent and a Householder orthonormalization a step. Memory is O(T d k).

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
def _backward_lyapunov_vectors(run: VectorRun, key):
    push, vector, frame, _ = open_run(run, key)

    def step(carry, input):
        new_vector, pushed = push(input, *carry)
        out = orthonormalize(Exact(), pushed)
        return (new_vector, out.columns), (carry, out.log_growth)

    first, steps = run.steps.transient, run.steps.transient + run.steps.counted
    _, out = jax.lax.scan(step, (vector, frame), run.inputs, length=steps)
    (points, frames), rates = jax.tree.map(lambda x: x[first:], out)
    return _report(run, points, frames, rates)


@compiled
def _forward_lyapunov_vectors(run: VectorRun, key):
    push, vector, frame, _ = open_run(run, key)
    first, steps = run.steps.transient, sum(run.steps)

    def step(vector, input):
        return push.step(input, vector), vector

    _, points = jax.lax.scan(step, vector, run.inputs, length=steps)
    points, inputs = jax.tree.map(lambda x: x[first:], (points, run.inputs))

    def back(frame, along):
        point, input = along
        _, pull = jax.vjp(lambda columns: push(input, point, columns)[1], frame)
        out = orthonormalize(Exact(), pull(frame)[0])
        return out.columns, (out.columns, out.log_growth)

    _, (frames, rates) = jax.lax.scan(back, frame, (points, inputs), reverse=True)
    return _report(run, *(x[: run.steps.counted] for x in (points, frames, rates)))


def _report(run: VectorRun, points, frames, rates):
    exponents = jnp.mean(rates, axis=0) / jnp.asarray(run.dt, rates.dtype)
    return LyapunovVectors(jax.vmap(ravel(run.state)[1])(points), frames, exponents)

r"""Covariant Lyapunov vectors: stored by `covariant_lyapunov_vectors`, reduced by `covariant_statistics`."""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._core.cell import Cell, ravel, vary_with
from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.closures import compiled
from .ginelli import Covariant, forward, forward_and_back
from .vector_run import VectorRun, check_run, open_run, raise_if_nonfinite


class CovariantVectors(eqx.Module):
    """Covariant vectors along a run of T steps; d numbers in the state, k vectors.

    **Fields:**

    - `states`: the states at which the vectors are given, with leading axis T; the first is the state at the end of
        the transient.
    - `vectors`: (T, d, k), unit vectors, one a column; `vectors[t]` belongs to `states[t]`.
    - `growth`: (T, k), the step from `states[t]` maps `vectors[t]` to `growth[t] * vectors[t + 1]`.
    - `exponents`: (k,), the means of log(growth), in nats per step or per unit of `dt`.
    - `unresolved`: (k,), the number of steps at which a direction was below floating-point resolution. From the first
        index i with `unresolved[i] > 0`, vectors are not covariant at these steps: vector i is the direction that is
        lost there, and its growth an upper bound.
    - `dt`: (), the duration of a step.
    """

    states: PyTree
    vectors: Float[Array, "T d k"]
    growth: Float[Array, "T k"]
    exponents: Float[Array, " k"]
    unresolved: Int[Array, " k"]
    dt: Float[Array, ""]

    @property
    def local_exponents(self) -> Float[Array, "T k"]:
        """(T, k), log(growth) / dt: the rates along the vectors at each step."""
        return jnp.log(self.growth) / self.dt


class CovariantStep(NamedTuple):
    """One step of a run as a `CovariantReducer` gets it; d numbers in the state, k vectors.

    **Fields:**

    - `state`: the state before the step.
    - `vectors`: (d, k), the unit covariant vectors at `state`, one a column.
    - `growth`: (k,), the factors by which the step stretches the vectors.
    - `dt`: (), the duration of the step.
    """

    state: PyTree
    vectors: Float[Array, "d k"]
    growth: Float[Array, " k"]
    dt: Float[Array, ""]


class CovariantReducer(eqx.Module):
    """A sum over the steps of a run, taken backward in time: the base class of reducers.

    A subclass has three methods:

    - `start(step)`: the empty total, a pytree of arrays.
    - `add(total, step)`: the total with one more `CovariantStep`.
    - `finish(total, num_steps)`: the result.
    """

    @abc.abstractmethod
    def start(self, step: CovariantStep) -> PyTree:
        """The empty total, a pytree of arrays; `step` shows shapes and dtypes."""
        raise NotImplementedError

    @abc.abstractmethod
    def add(self, total: PyTree, step: CovariantStep) -> PyTree:
        """The total with one more step."""
        raise NotImplementedError

    @abc.abstractmethod
    def finish(self, total: PyTree, num_steps: int) -> Any:
        """The result, from the total of all `num_steps` steps."""
        raise NotImplementedError


@checked
def covariant_lyapunov_vectors(
    cell: Cell,
    state: PyTree,
    inputs: PyTree = None,
    *,
    num_exponents: int | None = None,
    num_steps: int | None = None,
    transient: int = 0,
    backward_transient: int = 100,
    qr_interval: int = 1,
    dt: float | Float[Array, ""] | None = None,
    key: PRNGKeyArray | None = None,
    throw: bool = True,
) -> CovariantVectors:
    r"""The covariant Lyapunov vectors of a recurrent cell along one trajectory.

    $$J_t v_i(t) = \gamma_i(t)\, v_i(t+1), \qquad \lambda_i = \frac{1}{T\,dt} \sum_t \log \gamma_i(t),
      \qquad |v_i(t)| = 1$$

    They are the directions that grow at the rates $\lambda_i$, forward and backward in time. Unlike the orthonormal
    frames of the spectrum they do not depend on the metric. The first k vectors span the same space as the first k
    columns of the frame.

    **Arguments:**

    - `cell`, `state`, `inputs`: as for `lyapunov_spectrum`.
    - `num_exponents`: k, the number of leading vectors; default: all d.
    - `num_steps`: T, the number of steps at which vectors are reported. Required when `inputs` is `None`; default:
        the length of the inputs minus both transients.
    - `transient`: leading steps in which the frame converges to the backward Lyapunov vectors, default 0.
    - `backward_transient`: steps after the last reported one, in which the vectors converge, backward in time, to the
        covariant ones, default 100. Errors decay in it exponentially at the gaps between exponents.
    - `qr_interval`: steps between orthonormalizations, default 1. Vectors in between are cheaper; their error is the
        `rounding_error` that `lyapunov_spectrum` reports for this interval.
    - `dt`: as for `lyapunov_spectrum`.
    - `key`: for the random frame of the forward pass and the random coefficients of the backward pass;
        `jax.random.key(0)` if `None`.
    - `throw`: whether a call outside `jit` and `vmap` raises if the run is not finite, default `True`.

    **Returns:** a `CovariantVectors`.

    **Raises:**

    - `ValueError` or `TypeError`: if an argument is unusable.
    - `RuntimeError`: if the run is not finite and `throw` is set.

    **Numerics:** each step is computed twice, O(d^2 k), each time with 1/qr_interval orthonormalizations, O(d k^2). The
    backward pass adds 1/qr_interval triangular solves, O(k^3), and a product, O(d k^2), a step. Memory is
    O((T + backward_transient) d k); `covariant_statistics` needs O(sqrt(T) d k). $J_t v_i(t) = \gamma_i(t) v_i(t+1)$
    holds to rounding. Vectors of equal or nearly equal exponents do not converge: only the space they span does. Where
    a Jacobian is singular see `unresolved`.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> henon = lejax.systems.Henon()
        >>> run = lejax.covariant_lyapunov_vectors(henon, jnp.zeros(2), num_steps=500, transient=100)
        >>> _, pushed = lejax.push_forward(henon, run.states[7], None, run.vectors[7])
        >>> bool(jnp.allclose(pushed, run.growth[7] * run.vectors[8]))
        True

    Ginelli, Poggi, Turchi, Chate, Livi & Politi, Phys. Rev. Lett. 99 (2007); J. Phys. A 46 (2013).
    """
    run = check_run(
        cell, state, inputs, num_exponents, num_steps, transient, backward_transient, dt
    )
    out = _covariant_lyapunov_vectors(run, check_count("qr_interval", qr_interval, 1), key)
    if throw:
        raise_if_nonfinite(out.exponents, cell, state, inputs)
    return out


@checked
def covariant_statistics(
    cell: Cell,
    state: PyTree,
    inputs: PyTree = None,
    *,
    reducer: PyTree,
    num_exponents: int | None = None,
    num_steps: int | None = None,
    transient: int = 0,
    backward_transient: int = 100,
    qr_interval: int = 1,
    dt: float | Float[Array, ""] | None = None,
    key: PRNGKeyArray | None = None,
    throw: bool = True,
) -> Any:
    r"""Statistics of the covariant Lyapunov vectors along one trajectory, without storing the vectors.

    $$S = \sum_t s\!\left(v_1(t), \dots, v_k(t);\, \gamma_1(t), \dots, \gamma_k(t)\right)$$

    for sums s that a reducer defines, with vectors and growth as in `covariant_lyapunov_vectors`.

    **Arguments:**

    - `reducer`: a `CovariantReducer`, or a pytree of them (a tuple, a dict). `VectorStatistics()` gives growth, angles
        and participation, `AngleHistogram(split)` the angles between two groups of vectors.
    - `cell`, `state`, `inputs`: as for `covariant_lyapunov_vectors`.
    - `num_exponents`, `num_steps`, `transient`, `backward_transient`: as for `covariant_lyapunov_vectors`.
    - `qr_interval`, `dt`, `key`, `throw`: as for `covariant_lyapunov_vectors`.

    **Returns:** the result of the reducer's `finish`; for a pytree of reducers the same pytree of results. With
    `throw=False` a run that is not finite gives NaN.

    **Raises:**

    - `TypeError`: if `reducer` is neither a `CovariantReducer` nor a pytree of them.
    - `ValueError` or `TypeError`: if another argument is unusable.
    - `RuntimeError`: if the run is not finite and `throw` is set.

    **Numerics:** memory is O(sqrt(T) d k) for T steps: the forward pass keeps a state and a frame for each of sqrt(T)
    segments, the backward pass computes one segment at a time again. The time is at least twice that of a spectrum
    that orthonormalizes at each step.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> henon = lejax.systems.Henon()
        >>> statistics = lejax.covariant_statistics(
        ...     henon, jnp.zeros(2), num_steps=2000, transient=100, reducer=lejax.VectorStatistics())
        >>> statistics.mean_log_growth.shape, bool(statistics.smallest_angle[0, 1] < 0.1)
        ((2,), True)

    Ginelli et al., Phys. Rev. Lett. 99 (2007).
    """
    leaves = jax.tree.leaves(reducer, is_leaf=_is_reducer)
    if not leaves or not all(map(_is_reducer, leaves)):
        raise TypeError(f"reducer must be a CovariantReducer or a pytree of them, got {reducer!r}.")
    run = check_run(
        cell, state, inputs, num_exponents, num_steps, transient, backward_transient, dt
    )
    qr_interval = check_count("qr_interval", qr_interval, 1)
    results, growth = _covariant_statistics(run, qr_interval, key, reducer)
    if throw:
        raise_if_nonfinite(growth, cell, state, inputs)
    return results


def _is_reducer(x: Any) -> bool:
    return isinstance(x, CovariantReducer)


@compiled
def _covariant_lyapunov_vectors(run: VectorRun, qr_interval, key):
    def visit(lost, covariant: Covariant, index):
        is_counted = index < run.steps.counted
        return lost + (covariant.lost & is_counted).astype(jnp.int32), covariant[:3]

    def zeros(frame):
        return jnp.zeros_like(frame, shape=run.num_vectors, dtype=jnp.int32)

    unresolved, out = _run(run, qr_interval, key, visit, zeros)
    points, vectors, growth = (x[: run.steps.counted] for x in out)
    dt = jnp.asarray(run.dt, growth.dtype)
    exponents = jnp.mean(jnp.log(growth), axis=0) / dt
    states = jax.vmap(ravel(run.state)[1])(points)
    return CovariantVectors(states, vectors, growth, exponents, unresolved, dt)


@compiled
def _covariant_statistics(run: VectorRun, qr_interval, key, reducer):
    """The results of the reducers, and the sum of all growth, which is NaN if the run is not finite."""
    reducers, structure = jax.tree.flatten(reducer, is_leaf=_is_reducer)
    unravel = ravel(run.state)[1]

    def step_of(point, vectors, growth):
        return CovariantStep(unravel(point), vectors, growth, jnp.asarray(run.dt, growth.dtype))

    def start(frame):
        example = step_of(ravel(run.state)[0], frame, frame[0])
        totals = vary_with([r.start(example) for r in reducers], frame)
        return totals, jnp.zeros_like(frame, shape=())

    def visit(carry, covariant: Covariant, index):
        totals, growth = carry

        def add(totals):
            step = step_of(*covariant[:3])
            return [r.add(total, step) for r, total in zip(reducers, totals, strict=True)]

        totals = jax.lax.cond(index < run.steps.counted, add, lambda totals: totals, totals)
        return (totals, growth + jnp.sum(covariant.growth)), None

    (totals, growth), _ = _run(run, qr_interval, key, visit, start)
    results = [r.finish(x, run.steps.counted) for r, x in zip(reducers, totals, strict=True)]
    return jax.tree.unflatten(structure, results), growth


def _run(run: VectorRun, qr_interval, key, visit, start):
    """Both passes of Ginelli's algorithm, from random coefficients; `start(frame)` is the total to begin with."""
    count, steps = run.num_vectors, run.steps
    push, vector, frame, key = open_run(run, key)
    random = jr.normal(jr.fold_in(key, 1), (count, count), jnp.float32).astype(frame.dtype)
    coefficients = vary_with(jnp.triu(random, 1) + jnp.eye(count, dtype=frame.dtype), frame)
    coefficients = coefficients / jnp.linalg.norm(coefficients, axis=0)[None]
    early = jax.tree.map(lambda x: x[: steps.transient], run.inputs)
    settled = forward(push, vector, frame, early, steps.transient)
    return forward_and_back(
        push,
        settled,
        coefficients,
        jax.tree.map(lambda x: x[steps.transient :], run.inputs),
        steps.counted + steps.backward,
        qr_interval,
        visit,
        start(frame),
    )

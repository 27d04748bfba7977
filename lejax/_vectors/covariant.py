r"""Covariant Lyapunov vectors: `covariant_lyapunov_vectors`, and statistics of them that need not store them."""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._core.cell import Cell, dtype_of, is_traced, ravel, size_of, time_step, vary_with
from .._core.check_annotations import checked
from .._core.check_cell import check_inputs, check_state
from .._core.check_values import check_count, check_directions, check_positive
from .._core.closures import compiled
from .._core.status import RESULTS, raise_failure
from .._engine.factorization import Householder
from .._engine.orthonormalize import orthonormalize
from .._engine.push import CellPush, tangent_dtype
from .._engine.tangent_dynamics import open_whole, random_frame
from .ginelli import Covariant, forward, forward_and_back


class CovariantVectors(eqx.Module):
    """Covariant vectors along a run of T steps; d numbers in the state, k vectors.

    **Fields:**

    - `states`: The states at which the vectors stand, with leading axis T: the first is where the transient
        ended.
    - `vectors` (T, d, k): Unit vectors, one a column; `vectors[t]` stands at `states[t]`.
    - `growth` (T, k): The step from `states[t]` maps `vectors[t]` to `growth[t] * vectors[t + 1]`.
    - `exponents` (k,): The means of log(growth), in nats per step or per unit of `dt`.
    - `unresolved` (k,): Steps at which a direction was below floating-point resolution. From the first i where it
        is not 0 the vectors are no longer covariant at these steps: the i-th is the direction that is lost there,
        and its growth an upper bound.
    - `dt`: The duration of a step.
    """

    states: PyTree
    vectors: Float[Array, "T d k"]
    growth: Float[Array, "T k"]
    exponents: Float[Array, " k"]
    unresolved: Int[Array, " k"]
    dt: Float[Array, ""]

    @property
    def local_exponents(self) -> Float[Array, "T k"]:
        """log(growth) / dt: the rates along the vectors at each step."""
        return jnp.log(self.growth) / self.dt


class CovariantStep(NamedTuple):
    """What a `CovariantReducer` sees of one step.

    **Fields:**

    - `dt`: The duration of a step.
    """

    state: PyTree
    vectors: Float[Array, "d k"]
    growth: Float[Array, " k"]
    dt: Float[Array, ""]


class CovariantReducer(eqx.Module):
    """A sum over the steps of a run, taken backward in time."""

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
        """What to report."""
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
    every: int = 1,
    dt: float | Float[Array, ""] | None = None,
    key: PRNGKeyArray | None = None,
    throw: bool = True,
) -> CovariantVectors:
    r"""The covariant Lyapunov vectors of a recurrent cell along one trajectory.

    $$J_t v_i(t) = \gamma_i(t)\, v_i(t+1), \qquad \lambda_i = \frac{1}{T\,dt} \sum_t \log \gamma_i(t),
      \qquad |v_i(t)| = 1$$

    The directions that grow at the rates $\lambda_i$, forward and backward in time; unlike the orthonormal frames
    of the spectrum they do not depend on the metric. The first k span what the first k frame columns span.

    **Arguments:**

    - `cell`, `state`, `inputs`: as for `lyapunov_spectrum`.
    - `num_exponents`: k, the leading vectors to compute; all d by default.
    - `num_steps`: T, the steps at which vectors are reported. Required when `inputs` is `None`, else the length of
        the inputs less both transients.
    - `transient`: leading steps in which the frame turns into that of the past.
    - `backward_transient`: steps after the last reported one, in which the vectors turn, backward in time, into the
        covariant ones. Errors fall in it like the exponential of the gaps between exponents.
    - `every`: steps between orthonormalizations. Vectors between them cost less and are as good as the digits that
        `lyapunov_spectrum` reports lost, in `rounding_error`, with this interval.
    - `dt`: as for `lyapunov_spectrum`.
    - `key`: for the frame and the coefficients both passes start from; `jax.random.key(0)` if `None`.
    - `throw`: whether a call outside `jit` and `vmap` raises where the run left the floating-point numbers.

    **Returns:** a `CovariantVectors`. Memory: all of it, O((T + backward_transient) d k);
    `covariant_statistics` needs O(sqrt(T) d k).

    **Numerics:** every step is computed twice, O(d^2 k), each time with 1/every orthonormalizations, O(d k^2), and
    once more with 1/every triangular solves, O(k^3), and a product, O(d k^2). $J_t v_i(t) = \gamma_i(t) v_i(t+1)$ holds to rounding. Vectors of equal or nearly equal
    exponents do not settle: only the space they span does. Where a Jacobian is singular see `unresolved`.

    **Raises:** `ValueError` or `TypeError` for unusable arguments; `RuntimeError` if the run is not finite.

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
    out = _covariant_lyapunov_vectors(run, check_count("every", every, 1), key)
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
    every: int = 1,
    dt: float | Float[Array, ""] | None = None,
    key: PRNGKeyArray | None = None,
    throw: bool = True,
) -> Any:
    r"""What a reducer makes of the covariant Lyapunov vectors, which are not stored.

    **Arguments:** as for `covariant_lyapunov_vectors`, and `reducer`: a `CovariantReducer`, or a pytree of them
    (a tuple, a dict). `VectorStatistics()` gives growth, angles and participation, `AngleHistogram(split)` the
    angles between two groups of vectors. Write another with three methods: `start`, `add`, `finish`.

    **Returns:** what the reducer's `finish` returns; for a pytree of reducers the same pytree of results. With
    `throw=False` a run that left the floating-point numbers gives NaN.

    **Numerics:** memory O(sqrt(T) d k) for T steps: the forward pass keeps a state and a frame for each of sqrt(T)
    segments, the backward pass computes one segment anew at a time. The time is at least twice that of a spectrum that
    orthonormalizes at each step.

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
    cell, state, inputs, duration, count, steps = check_run(
        cell, state, inputs, num_exponents, num_steps, transient, backward_transient, dt
    )
    every = check_count("every", every, 1)
    results, total = _covariant_statistics(
        cell, state, inputs, duration, count, steps, every, key, reducer
    )
    if throw:
        raise_if_nonfinite(total, cell, state, inputs)
    return results


def _is_reducer(x: Any) -> bool:
    return isinstance(x, CovariantReducer)


class Steps(NamedTuple):
    """The three parts of a run, in the order of time."""

    transient: int
    counted: int
    backward: int


def check_run(
    cell: Cell,
    state: PyTree,
    inputs: PyTree,
    num_exponents: int | None,
    num_steps: int | None,
    transient: int,
    backward_transient: int,
    dt: float | Array | None,
) -> tuple:
    """The arguments of a run with vectors, checked: cell, state, inputs, dt, k and the steps."""
    state = check_state(state)
    backward = check_count("backward_transient", backward_transient, 0)
    if num_steps is not None:
        num_steps = check_count("num_steps", num_steps, 1) + backward
    inputs, both = check_inputs(inputs, num_steps, transient)
    if both <= backward:
        raise ValueError(
            f"backward_transient ({backward}) leaves nothing to report: after the transient there are {both} steps."
        )
    size = size_of(state)
    count = check_directions(
        "num_exponents", size if num_exponents is None else num_exponents, state
    )
    duration = check_positive("dt", time_step(cell) if dt is None else dt)
    duration = duration if eqx.is_array(duration) else np.asarray(duration)
    steps = Steps(int(transient), both - backward, backward)
    return cell, state, inputs, duration, count, steps


def prepare(
    cell: Cell, state: PyTree, inputs: PyTree, count: int, key: PRNGKeyArray | None
) -> tuple[CellPush, Float[Array, " d"], Float[Array, "d k"], PRNGKeyArray]:
    """The push, the raveled state, an orthonormal frame, and the key."""
    dtype = tangent_dtype(dtype_of(state))
    key = jr.key(0) if key is None else key
    random = random_frame(key, size_of(state), count, dtype)
    push, vector, frame = open_whole(cell, state, inputs, random)
    return push, vector, orthonormalize(Householder(), frame).columns, key


@compiled
def _covariant_lyapunov_vectors(run, every, key):
    cell, state, inputs, dt, count, steps = run

    def visit(lost, covariant: Covariant, index):
        counted = covariant.lost & (index < steps.counted)
        return lost + counted.astype(jnp.int32), covariant[:3]

    def nothing(frame):
        return jnp.zeros_like(frame, shape=count, dtype=jnp.int32)

    unresolved, out = _run(cell, state, inputs, count, steps, every, key, visit, nothing)
    points, vectors, growth = (x[: steps.counted] for x in out)
    dt = jnp.asarray(dt, growth.dtype)
    exponents = jnp.mean(jnp.log(growth), axis=0) / dt
    states = jax.vmap(ravel(state)[1])(points)
    return CovariantVectors(states, vectors, growth, exponents, unresolved, dt)


@compiled
def _covariant_statistics(cell, state, inputs, dt, count, steps, every, key, reducer):
    reducers, structure = jax.tree.flatten(reducer, is_leaf=_is_reducer)
    unravel = ravel(state)[1]

    def start(frame):
        example = CovariantStep(state, frame, frame[0], jnp.asarray(dt, frame.dtype))
        return vary_with([r.start(example) for r in reducers], frame)

    def visit(totals, covariant: Covariant, index):
        def add(totals):
            duration = jnp.asarray(dt, covariant.growth.dtype)
            step = CovariantStep(
                unravel(covariant.vector), covariant.vectors, covariant.growth, duration
            )
            return [r.add(total, step) for r, total in zip(reducers, totals, strict=True)]

        totals, sound = totals
        sound = sound + jnp.sum(covariant.growth)
        return (jax.lax.cond(index < steps.counted, add, lambda t: t, totals), sound), None

    def begin(frame):
        return start(frame), jnp.zeros_like(frame, shape=())

    (totals, sound), _ = _run(cell, state, inputs, count, steps, every, key, visit, begin)
    results = [r.finish(total, steps.counted) for r, total in zip(reducers, totals, strict=True)]
    return jax.tree.unflatten(structure, results), sound


def _run(cell, state, inputs, count, steps: Steps, every, key, visit, start):
    push, vector, frame, key = prepare(cell, state, inputs, count, key)
    random = jr.normal(jr.fold_in(key, 1), (count, count), jnp.float32).astype(frame.dtype)
    coefficients = vary_with(jnp.triu(random, 1) + jnp.eye(count, dtype=frame.dtype), frame)
    coefficients = coefficients / jnp.linalg.norm(coefficients, axis=0)[None]
    early = jax.tree.map(lambda x: x[: steps.transient], inputs)
    settled = forward(push, vector, frame, early, steps.transient)
    return forward_and_back(
        push,
        settled,
        coefficients,
        jax.tree.map(lambda x: x[steps.transient :], inputs),
        steps.counted + steps.backward,
        every,
        visit,
        start(frame),
    )


def raise_if_nonfinite(exponents, cell, state, inputs) -> None:
    if not is_traced(exponents) and np.any(np.isnan(exponents)):
        raise_failure(RESULTS.nonfinite, cell, state, inputs)

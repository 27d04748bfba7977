"""The exact flow of a piecewise-linear vector field: a cell with a fixed time step, and states at given times."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core.cell import TangentCell, TimedCell, VectorField, is_traced, name_of, vary_with
from .._core.check_annotations import checked
from .._core.check_cell import check_state
from .._core.check_values import check_count, check_positive
from .._core.closures import compiled
from .._core.piecewise_linear import PiecewiseLinearCell, piecewise_linear
from .._engine.push import tangent_dtype
from ._taylor_series import sample, solve


class EventExactFlow(TimedCell, TangentCell):
    r"""The time-`dt` map of a piecewise-linear vector field, exact to rounding, and its exact tangent map.

    $$z(t) = e^{J_D t} z_0 + \int_0^t e^{J_D s} b_D \, ds \text{ between switches}, \qquad
    \frac{\partial z(dt)}{\partial z(0)} = e^{J_{D_n} t_n} \cdots e^{J_{D_1} t_1}$$

    The field is continuous, so that the switches add no term of their own to the tangent map.

    **Arguments:**

    - `field`: a `PiecewiseLinearField`, a `ContinuousALRNN`, or any `lejax.VectorField` that inherits from
        `PiecewiseLinearCell`. The input is held constant over the step.
    - `dt`: the duration of the step. A float is a static setting; an array is a leaf for `grad` and `vmap`.
    - `max_pieces`: the largest number of Taylor series in a step. Each of them ends at a switch or after about two
        times $1/\|J_D\|$. A large value costs nothing in a forward pass; derivatives with respect to weights need
        memory for each piece.

    **Raises:**

    - `TypeError`: if `field` is not a piecewise-linear vector field.
    - `RuntimeError`: when it is called outside `jit`, if `max_pieces` does not suffice. Under a trace the state
        becomes NaN instead.

    **Numerics:** a Taylor series of order 24 (12 in float32) with a bounded remainder, so that singular and defective
    generators $J_D$ are no special case. The same series is a polynomial for each hidden unit. The signs of its
    Bernstein coefficients certify that it has no zero on a piece, or exactly one, which Newton's method then finds. No
    unit is on the wrong side of its hyperplane by more than 64 eps times the size of its terms, at any angle of the
    crossing: a tangency is neither missed nor counted twice. Each piece costs 24 products of $J_D$ with the state and
    the tangent vectors. Derivatives in both modes and of higher order move the switches by the implicit function
    theorem.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> W = jnp.array([[0.0, 2.0], [-2.0, 0.0]])
        >>> field = lejax.plrnn.ContinuousALRNN.from_weights(a=-0.2 * jnp.ones(2), W=W, h=jnp.ones(2), num_relu=1)
        >>> flow = lejax.plrnn.EventExactFlow(field, dt=1.0)
        >>> spectrum = lejax.lyapunov_spectrum(flow, jnp.ones(2), num_steps=200)
        >>> print(f"{spectrum.exponents.sum():.2f}")  # the trace of the generator in both regions
        -0.40

    Monfared & Durstewitz, ICML (2020); Farouki & Rajan, Comput. Aided Geom. Des. 4 (1987), for the polynomials.
    """

    field: VectorField
    dt: float | Array
    max_pieces: int = eqx.field(static=True)

    @checked
    def __init__(self, field: VectorField, dt: float | Array, max_pieces: int = 64):
        self.field = check_field(field)
        self.dt = check_positive("dt", dt)
        self.max_pieces = check_count("max_pieces", max_pieces, 1)

    def __call__(self, input: PyTree, state: Float[Array, " m"]) -> Float[Array, " m"]:
        return self._advance(input, state, jnp.zeros((jnp.size(state), 0)))[0]

    def push_forward(self, input, state, tangent):
        return self._advance(input, state, tangent)

    def _advance(self, input, state, tangent):
        state, columns, is_done = _advance(
            self.field, input, self.dt, state, tangent, max_pieces=self.max_pieces
        )
        if not is_traced(is_done) and not is_done:
            raise RuntimeError(
                _too_few("a step", self.max_pieces, f"EventExactFlow(..., dt={self.dt}")
            )
        return state, columns

    def time_step(self) -> float | Array:
        return self.dt


@checked
def sample_flow(
    field: VectorField,
    state: Float[Array, " m"],
    times: Float[Array, " n"],
    input: PyTree = None,
    *,
    max_pieces: int = 64,
) -> Float[Array, "n m"]:
    r"""The exact solution of a piecewise-linear vector field at given times, evenly spaced or not.

    $$\dot z = A z + W_1 \max(W_2 z + h_2, 0) + h_1, \qquad z(0) = z_0$$

    **Arguments:**

    - `field`: the vector field, as for `EventExactFlow`.
    - `state`: the state $z_0$ (M,) at time 0.
    - `times`: the times (n,), not negative and not decreasing, in the time units of the field.
    - `input`: the constant input of the field, or `None`.
    - `max_pieces`: the largest number of Taylor series between one time and the next.

    **Returns:** the states (n, M). They are differentiable with respect to the state, the times, the weights and the
    input, in both modes.

    **Raises:**

    - `TypeError`: if `field` is not a piecewise-linear vector field, or `times` is complex.
    - `ValueError`: if `times` is no vector, is negative or decreases.
    - `RuntimeError`: outside `jit` and `vmap`, if `max_pieces` does not suffice. Under a trace the states from there
        on are NaN; so are all states from the first time that decreases.

    **Numerics:** as for `EventExactFlow`. One Taylor series gives all samples on its piece to rounding, without
    interpolation. Derivatives need at least one series for each sample.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> weights = {"a": -jnp.ones(1), "W": jnp.zeros((1, 1)), "h": jnp.zeros(1)}
        >>> decay = lejax.plrnn.ContinuousALRNN.from_weights(**weights, num_relu=1)
        >>> lejax.plrnn.sample_flow(decay, jnp.ones(1), jnp.log(jnp.array([1.0, 2.0, 5.0])))[:, 0].round(12)
        Array([1. , 0.5, 0.2], dtype=...)
    """
    check_field(field)
    state = check_state(state)
    times = jnp.asarray(times)
    if times.ndim != 1:
        raise ValueError(f"times must have shape (n,), got {times.shape}.")
    if jnp.issubdtype(times.dtype, jnp.complexfloating):
        raise TypeError(f"times must be real, got {times.dtype}.")
    if not is_traced(times):
        steps = np.diff(np.asarray(times, float), prepend=0.0)
        if not np.all(steps >= 0):
            raise ValueError(
                "times must begin at 0 or later and must not decrease, but "
                f"times[{int(np.argmin(steps >= 0))}] is {times[int(np.argmin(steps >= 0))]}."
            )
    max_pieces = check_count("max_pieces", max_pieces, 1)
    states, is_done = _sample(field, input, state, times, max_pieces)
    if not is_traced(is_done) and not np.all(is_done):
        index = int(np.argmin(is_done))
        raise RuntimeError(
            _too_few(f"the solution up to times[{index}]", max_pieces, "sample_flow(...")
        )
    return states


def check_field(field: VectorField) -> VectorField:
    """A field that is a piecewise-linear vector field."""
    if not isinstance(field, VectorField):
        raise TypeError(
            f"{name_of(field)} is not a VectorField: PiecewiseLinearField makes one from a piecewise-linear map."
        )
    if not isinstance(field, PiecewiseLinearCell):
        raise TypeError(
            f"{name_of(field)} is not known to be piecewise linear: use lejax.systems.Flow, or inherit from "
            "PiecewiseLinearCell."
        )
    return field


def _too_few(what: str, max_pieces: int, call: str) -> str:
    return (
        f"{what} takes more than max_pieces={max_pieces} Taylor series, each of which ends at a switch or before: pass "
        f"{call}, max_pieces={4 * max_pieces}), or shorter steps."
    )


def _network(field, input, state):
    """The canonical form in the dtype of the computation, and this dtype."""
    network = piecewise_linear(field, input)
    if state.shape != network.h1.shape:
        raise ValueError(
            f"the state has shape {state.shape}, but the field has {network.h1.size} state variables."
        )
    dtype = tangent_dtype(jnp.result_type(network.h1, state))
    return jax.tree.map(lambda x: x.astype(dtype), network), dtype


@compiled
def _advance(field, input, duration, state, tangent, *, max_pieces):
    network, dtype = _network(field, input, state)
    columns = jnp.concatenate([state[:, None].astype(dtype), tangent.astype(dtype)], axis=1)
    duration = jnp.asarray(duration, dtype)
    with jax.default_matmul_precision("highest"):
        columns, is_done = solve((network, duration, columns), max_pieces=max_pieces)
    is_done &= duration >= 0
    columns = jnp.where(is_done, columns, jnp.nan)
    return columns[:, 0].astype(state.dtype), columns[:, 1:].astype(tangent.dtype), is_done


@compiled
def _sample(field, input, state, times, max_pieces):
    return _samples((field, input, state, times), max_pieces=max_pieces)


@eqx.filter_custom_jvp
def _samples(arguments, *, max_pieces):
    field, input, state, times = arguments
    network, dtype = _network(field, input, state)
    with jax.default_matmul_precision("highest"):
        states, is_done = sample(network, times.astype(dtype), state.astype(dtype), max_pieces)
    return states.astype(state.dtype), is_done


@_samples.def_jvp
@jax.default_matmul_precision("highest")
def _samples_jvp(primals, tangents, *, max_pieces):
    """Differentiate the same solution from sample to sample: reverse mode needs a bound on the number of pieces."""

    def run(arguments):
        field, input, state, times = arguments

        def move(state, duration):
            no_tangent = jnp.zeros((state.size, 0), state.dtype)
            state, _, is_done = _advance(
                field, input, duration, state, no_tangent, max_pieces=max_pieces
            )
            return state, (state, is_done)

        steps = jnp.diff(times, prepend=jnp.zeros_like(times, shape=1))
        return jax.lax.scan(move, vary_with(state, arguments), steps)[1]

    return eqx.filter_jvp(run, primals, tangents)

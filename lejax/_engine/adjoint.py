"""Adjoints: how a run is differentiated. An adjoint is given the body of the loop and scans it."""

import abc
import math
from collections.abc import Callable
from typing import ClassVar, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._core.cell import without_gradient
from .._core.check_values import check_count
from .orthonormalize import FACTORS


Carry = TypeVar("Carry")
Body = Callable[[Carry, PyTree], tuple[Carry, PyTree]]


class Adjoint(eqx.Module):
    """A way to scan `carry, out = body(carry, input)` over a run, and to differentiate that.

    A subclass of your own must define `scan(body, carry, inputs, length) -> (carry, outs)`, with the arguments and the
    result of `jax.lax.scan`:

    - `body`: `body(carry, input) -> (carry, out)`, one interval of the run, a pure function of pytrees of arrays.
    - `carry`: the carry before the first interval: state, frames and counters.
    - `inputs`: a pytree of arrays with intervals as first axis.
    - `length`: the number of intervals, a Python int.

    It returns the last carry, and the `out` of all intervals stacked along a new first axis. It may define

    - `trajectory(step, state, inputs, length, starts)`: the same for the state alone, where `ParallelQR` computes it
        before the frames; `starts` are the steps at which its chunks begin. One `jax.lax.scan` by default.
    - `truncates`: class attribute, whether derivatives end somewhere on the way. The run is then orthonormalized
        after each step, so that no growth crosses such an end. `False` by default.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> class Unrolled(lejax.Adjoint):  # write your own: four steps at once
        ...     def scan(self, body, carry, inputs, length):
        ...         return jax.lax.scan(body, carry, inputs, length=length, unroll=4)
        >>> def leading(a):
        ...     logistic, options = lejax.systems.Logistic(a), {"num_steps": 100, "transient": 100}
        ...     return lejax.lyapunov_spectrum(logistic, jnp.array(0.3), adjoint=Unrolled(), **options).exponents[0]
        >>> print(f"{jax.grad(leading)(2.5):.3f}")  # a fixed point of slope 2 - a
        2.000
    """

    truncates: ClassVar[bool] = False

    @abc.abstractmethod
    def scan(self, body: Body, carry: Carry, inputs: PyTree, length: int) -> tuple[Carry, PyTree]:
        """The last carry, and the outputs of `body`, stacked."""
        raise NotImplementedError

    def trajectory(
        self, step: Body, state: Carry, inputs: PyTree, length: int, starts: np.ndarray
    ) -> tuple[Carry, PyTree]:
        """`scan` of the state alone, along which chunks of the run begin at the steps `starts`."""
        return jax.lax.scan(step, state, inputs, length=length)


class DirectAdjoint(Adjoint):
    """One `jax.lax.scan`: exact derivatives in forward and reverse mode.

    **Numerics:** memory O(T) in reverse mode, about six frames a step, twice what a short run keeps with
    `CheckpointedAdjoint`. The gradient is exactly that of the run; `WindowedAdjoint` says what such gradients lack for
    chaotic and for piecewise-linear cells.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> def leading(a):
        ...     logistic, options = lejax.systems.Logistic(a), {"num_steps": 100, "transient": 100}
        ...     options["adjoint"] = lejax.DirectAdjoint()
        ...     return lejax.lyapunov_spectrum(logistic, jnp.array(0.3), **options).exponents[0]
        >>> print(f"{jax.grad(leading)(2.5):.3f}")  # a fixed point of slope 2 - a
        2.000
    """

    def scan(self, body, carry, inputs, length):
        return jax.lax.scan(body, carry, inputs, length=length)


class CheckpointedAdjoint(Adjoint):
    r"""Exact gradients in little memory: $O(\sqrt T)$ by default.

    A long run is divided into segments of equal length. Reverse mode keeps the state and the frame at the start of each
    segment, goes back from segment to segment, and runs each again. Forward mode keeps nothing.

    **Arguments:**

    - `segments`: the most segments, at least 1; about $2 \sqrt T$ if `None`. With `None` a run whose states and frames
        fill at most 2 MiB has no segments: it keeps up to 6 MiB, orthonormalizes nothing twice, and its program is
        smaller; under `vmap` that holds for each member.

    **Raises:**

    - `ValueError`: if `segments` is below 1.

    **Numerics:** the gradient of `DirectAdjoint` up to rounding. Each step is computed twice, but the memory stays in
    the cache; a step of a segment that runs again keeps two or three frames. Exact gradients of a chaotic run grow as
    $e^{\lambda_1 T}$ and say nothing of the mean over long times: there use `WindowedAdjoint`, which also says what
    derivatives of piecewise-linear cells lack.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> def leading(a):
        ...     logistic = lejax.systems.Logistic(a)
        ...     options = {"num_steps": 500, "transient": 100, "adjoint": lejax.CheckpointedAdjoint()}
        ...     return lejax.lyapunov_spectrum(logistic, jnp.array(0.3), **options).exponents[0]
        >>> print(f"{jax.grad(leading)(2.5):.3f}")  # a fixed point of slope 2 - a
        2.000

    Griewank, Optimization Methods and Software 1 (1992); Chen, Xu, Zhang & Guestrin, arXiv:1604.06174 (2016).
    """

    segments: int | None = eqx.field(
        static=True,
        default=None,
        converter=lambda count: None if count is None else check_count("segments", count, 1),
    )

    def scan(self, body, carry, inputs, length):
        if self.segments is not None:
            steps = -(-length // min(self.segments, length))
        elif length * sum(x.nbytes for x in jax.tree.leaves(carry)) <= _KEPT_BYTES:
            return jax.lax.scan(_recompute_push(body), carry, inputs, length=length)
        else:
            steps = _segment_steps(length)
        return _scan_segments(body, carry, inputs, length, steps)

    def trajectory(self, step, state, inputs, length, starts):
        return jax.lax.scan(jax.checkpoint(step, prevent_cse=False), state, inputs, length=length)


class WindowedAdjoint(Adjoint):
    r"""Gradients of long chaotic runs: exact inside windows of `window` steps, truncated between them.

    Each window treats the state and the frame at its start as constants. The gradient contains the effect of a weight
    on the exponents within the same window and lacks its later effects: it does not grow with the length of the run,
    and it is biased.

    **Arguments:**

    - `window`: W, steps, at least 1; `suggest_window` derives one from a spectrum.

    **Raises:**

    - `ValueError`: if `window` is below 1.

    **Numerics:** memory for one window, and for the state and the frame at the start of each. The bias falls with the
    window as correlations do, the variance grows as $e^{2 \lambda_1 W}$: the best windows last one to two Lyapunov
    times $1 / \lambda_1$. Measured over 30 random tanh networks of 64 units and runs of 500 steps, relative to the
    derivative of $\lambda_1$ by the gain: at 1.2 to 1.4 Lyapunov times a root mean square bias of 6 to 7 % and a
    spread of 6 to 8 %; at half of that 12 % and 3 to 5 %; at twice up to 12 % and 14 to 37 %; from four times on the
    spread is a multiple of the derivative. The derivative of the sum of 8 exponents is off by 11 to 47 % at best.

    For a piecewise-linear cell (ReLU networks, tents, Lozi's map) no derivative of a run, in windows or not, contains
    how a weight moves the time spent in each region: the slopes are constant there, and most of the gradient may be
    missing at any window. Take the difference of exponents of long runs at two values of the weight instead, from
    many starts, whose spread is its error (second example). With 6 million steps at each value the error was .24 %
    for a tent and steps of a sixth of the parameter, whose width biased the result by 1 %; and .13 % for Lozi's map
    and steps of 3 %, where smaller steps gave 1 to 4 % more: exponents are rough functions of a parameter. Compare
    two widths.

    Where $\lambda_1 \le 0$ there is nothing to truncate: use an exact adjoint. The gradient by the starting state is
    that of the first window; with `ParallelQR`, whose chunks all begin with a window, it is zero.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> def leading(a):
        ...     adjoint = lejax.WindowedAdjoint(3)
        ...     henon = lejax.systems.Henon(a, 0.3)
        ...     return lejax.lyapunov_spectrum(henon, jnp.zeros(2), num_steps=5000, adjoint=adjoint).exponents[0]
        >>> bool(jnp.isfinite(jax.grad(leading)(1.4)))
        True
        >>> def leading(a, start):
        ...     lozi, options = lejax.systems.Lozi(a, 0.5), {"num_steps": 5000, "transient": 100}
        ...     return lejax.lyapunov_spectrum(lozi, start, num_exponents=1, **options).exponents[0]
        >>> starts = jax.random.uniform(jax.random.key(0), (2, 64, 2), maxval=0.1)
        >>> runs = jax.vmap(jax.vmap(leading, (None, 0)))(jnp.array([1.65, 1.75]), starts)  # (2, 64)
        >>> slope = (runs[1].mean() - runs[0].mean()) / 0.1
        >>> error = jnp.sqrt(jnp.sum(runs.var(axis=1, ddof=1) / 64)) / 0.1
        >>> bool(abs(slope - 1.0675) < 5 * error), bool(error < 0.01)  # windows of 5 steps: 0.68
        (True, True)

    Williams & Peng, Neural Computation 2 (1990).
    """

    window: int = eqx.field(static=True, converter=lambda window: check_count("window", window, 1))
    truncates: ClassVar[bool] = True

    def scan(self, body, carry, inputs, length):
        steps = min(self.window, length)
        return _scan_segments(body, carry, inputs, length, steps, truncates=True)

    def trajectory(self, step, state, inputs, length, starts):
        steps = np.arange(length)
        chunk = np.searchsorted(starts, steps, side="right") - 1
        begins_window = (chunk >= 0) & ((steps - starts[chunk]) % self.window == 0)

        def truncated_step(state, along):
            begins_window, input = along
            state = jnp.where(begins_window, jax.lax.stop_gradient(state), state)
            return step(state, input)

        body = jax.checkpoint(truncated_step, prevent_cse=False)
        return jax.lax.scan(body, state, (begins_window, inputs))


_KEPT_BYTES = 2**21
"""The most bytes of states and frames of a run that is kept without segments; then no step is orthonormalized again."""


def _recompute_push(body: Body) -> Body:
    """The body, recomputed by a derivative from the carry before it and the factors of its orthonormalization.

    That moves less through memory than to keep everything, and halves the program.
    """
    policy = jax.checkpoint_policies.save_only_these_names(FACTORS)
    return jax.checkpoint(body, policy=policy, prevent_cse=False)


def _segment_steps(length: int) -> int:
    """About sqrt(length) / 2, and a divisor of the length if one is near.

    Then there is no shorter last segment, which would need a program of its own.
    """
    ideal = max(1, math.isqrt(length) // 2)
    nearby = range(-(-ideal // 2), min(2 * ideal, length) + 1)
    return min(nearby, key=lambda steps: (length % steps > 0, abs(math.log(steps / ideal))))


def _scan_segments(
    body: Body, carry: Carry, inputs: PyTree, length: int, steps: int, truncates: bool = False
) -> tuple[Carry, PyTree]:
    """A scan over segments of `steps` steps, each of which a derivative runs again.

    The remaining steps are one more, shorter segment. `truncates` ends all derivatives between segments.
    """

    def segment(steps):
        def run(carry, along):
            is_first, inputs = along
            if truncates:
                constant = without_gradient(carry)
                carry = jax.tree.map(lambda x, y: jnp.where(is_first, x, y), carry, constant)
            return jax.lax.scan(_recompute_push(body), carry, inputs, length=steps)

        return jax.checkpoint(run, prevent_cse=False)

    count, rest = divmod(length, steps)
    full = jax.tree.map(lambda x: x[: count * steps].reshape(count, steps, *x.shape[1:]), inputs)
    carry, out = jax.lax.scan(segment(steps), carry, (np.arange(count) == 0, full), length=count)
    out = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), out)
    if rest:
        remaining = jax.tree.map(lambda x: x[count * steps :], inputs)
        carry, last = segment(rest)(carry, (np.asarray(count == 0), remaining))
        out = jax.tree.map(lambda *x: jnp.concatenate(x), out, last)
    return carry, out

"""How a run is differentiated: an adjoint is handed the body of the loop and scans it."""

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
    """A way to scan `carry, out = body(carry, input)` over all steps, and to differentiate that.

    **Fields:**

    - `cuts`: Whether derivatives end somewhere on the way: what a frame has grown must be divided out before.

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

    cuts: ClassVar[bool] = False

    @abc.abstractmethod
    def scan(self, body: Body, carry: Carry, inputs: PyTree, length: int) -> tuple[Carry, PyTree]:
        """The last carry, and what `body` gave out at each step."""
        raise NotImplementedError

    def trajectory(
        self, step: Body, state: Carry, inputs: PyTree, length: int, starts: np.ndarray
    ) -> tuple[Carry, PyTree]:
        """`scan` of the state alone. Loops along it begin at the steps `starts`."""
        return jax.lax.scan(step, state, inputs, length=length)


class DirectAdjoint(Adjoint):
    """One `jax.lax.scan`: exact, forward and reverse mode, and in reverse mode memory O(T).

    Each step keeps about six frames, twice what a short run keeps with `CheckpointedAdjoint`. Exact is the gradient of
    the run; of chaotic and of piecewise-linear cells `WindowedAdjoint` says what that lacks.
    """

    def scan(self, body, carry, inputs, length):
        return jax.lax.scan(body, carry, inputs, length=length)


class CheckpointedAdjoint(Adjoint):
    r"""Exact gradients in little memory: $O(\sqrt T)$ by default.

    A long run is cut into segments of equal length. Reverse mode keeps the state and the frame where each segment
    starts, goes back from segment to segment, and runs each again. Forward mode keeps nothing, as ever.

    **Arguments:** `segments`, how many at most; about $2 \sqrt T$ if `None`: a step of a segment that runs again keeps
    two or three frames. A short run, whose states and frames fill no more than 2 MiB, is not cut then: it keeps up to 6 MiB,
    orthonormalizes nothing twice, and its program is smaller. Under `vmap` each member may; a number of `segments` cuts
    every run.

    **Numerics:** the same gradient as `DirectAdjoint` up to rounding. It takes each step twice, but its memory stays in
    the cache. Exact gradients of a chaotic run grow as $e^{\lambda_1 T}$ and say nothing of the mean over long times:
    there use `WindowedAdjoint`, which also says what derivatives of piecewise-linear cells lack.

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
            return jax.lax.scan(_push_again(body), carry, inputs, length=length)
        else:
            steps = _segment_steps(length)
        return _scan_segments(body, carry, inputs, length, steps)

    def trajectory(self, step, state, inputs, length, starts):
        return jax.lax.scan(jax.checkpoint(step, prevent_cse=False), state, inputs, length=length)


class WindowedAdjoint(Adjoint):
    r"""Gradients of long chaotic runs: exact inside windows of `window` steps, cut between them.

    Each window takes state and frame from the one before as given. What a change of a weight does to the exponents
    within a window counts, what it does to them later does not: the gradient does not grow with the length of the
    run, and it is biased.

    **Arguments:** `window`, in steps; `suggest_window` derives one from a spectrum.

    **Numerics:** the bias falls with the window as correlations do, the variance grows as $e^{2 \lambda_1 W}$: the
    best windows last one to two Lyapunov times $1 / \lambda_1$. Measured over 30 random tanh networks of 64 units and
    runs of 500 steps, relative to the derivative of $\lambda_1$ by the gain: at 1.2 to 1.4 Lyapunov times a root mean
    square bias of 6 to 7 % and a spread of 6 to 8 %; at half of that 12 % and 3 to 5 %; at twice up to 12 % and 14 to
    37 %; from four times on the spread is a multiple of the derivative. The derivative of the sum of 8 exponents is off
    by 11 to 47 % at best.
    Of a piecewise-linear cell (ReLU networks, tents, Lozi's map) no derivative of a run, in windows or not, sees how a weight
    moves the time spent in each region: the slopes are constant there, and most of the gradient may be missing at any
    window. Take the difference of exponents of long runs at two values of the weight instead, from many starts, whose
    spread is its error (second example). With 6 million steps at each value it was .24 % for a tent, steps of a sixth of
    the parameter, whose width biased it by 1 %; and .13 % for Lozi's map with steps of 3 %, where narrower ones gave 1 to
    4 % more: exponents are rough functions of a parameter. Compare two widths.
    Where $\lambda_1 \le 0$ there is nothing to cut: use an exact adjoint. The gradient by the starting state is that of
    the first window; with `ParallelQR`, of which every chunk begins with a window, it is zero. Memory: one window,
    and state and frame for each.

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
    cuts: ClassVar[bool] = True

    def scan(self, body, carry, inputs, length):
        return _scan_segments(body, carry, inputs, length, min(self.window, length), cut=True)

    def trajectory(self, step, state, inputs, length, starts):
        steps = np.arange(length)
        chunk = np.searchsorted(starts, steps, side="right") - 1
        is_cut = (chunk >= 0) & ((steps - starts[chunk]) % self.window == 0)

        def cut(state, numbered):
            is_cut, input = numbered
            return step(jnp.where(is_cut, jax.lax.stop_gradient(state), state), input)

        return jax.lax.scan(jax.checkpoint(cut, prevent_cse=False), state, (is_cut, inputs))


_KEPT_BYTES = 2**21
"""States and frames of a run that are kept whole, and with them no step is orthonormalized again."""


def _push_again(body: Body) -> Body:
    """The body, of which a derivative keeps where a step starts and the factors of its orthonormalization, and does the
    rest again: less to move through memory, and half the program."""
    policy = jax.checkpoint_policies.save_only_these_names(FACTORS)
    return jax.checkpoint(body, policy=policy, prevent_cse=False)


def _segment_steps(length: int) -> int:
    """About sqrt(length) / 2, and a divisor of the length if there is one nearby: the last segment then needs no
    program of its own."""
    ideal = max(1, math.isqrt(length) // 2)
    nearby = range(-(-ideal // 2), min(2 * ideal, length) + 1)
    return min(nearby, key=lambda steps: (length % steps > 0, abs(math.log(steps / ideal))))


def _scan_segments(
    body: Body, carry: Carry, inputs: PyTree, length: int, steps: int, cut: bool = False
) -> tuple[Carry, PyTree]:
    """A scan over segments of `steps` steps, each of which is run again where it is differentiated; what is left
    over is one more, shorter segment. `cut` ends all derivatives between segments."""

    def segment(steps):
        def run(carry, given):
            is_first, inputs = given
            if cut:
                fixed = without_gradient(carry)
                carry = jax.tree.map(lambda x, y: jnp.where(is_first, x, y), carry, fixed)
            return jax.lax.scan(_push_again(body), carry, inputs, length=steps)

        return jax.checkpoint(run, prevent_cse=False)

    count, rest = divmod(length, steps)
    whole = jax.tree.map(lambda x: x[: count * steps].reshape(count, steps, *x.shape[1:]), inputs)
    carry, out = jax.lax.scan(segment(steps), carry, (np.arange(count) == 0, whole), length=count)
    out = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), out)
    if rest:
        left = jax.tree.map(lambda x: x[count * steps :], inputs)
        carry, last = segment(rest)(carry, (np.asarray(count == 0), left))
        out = jax.tree.map(lambda *x: jnp.concatenate(x), out, last)
    return carry, out

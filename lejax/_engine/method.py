"""Methods: the steps of a run one after another, or in chunks side by side."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._core.cell import without_gradient
from .._core.check_annotations import check_fields
from .._core.check_values import check_count, check_positive
from .adjoint import Adjoint
from .blocks import BlockPush
from .carry import Growth, Plan
from .components import Blocks, FoundBlocks
from .factorization import Orthonormalizer
from .frames import Frames
from .interval import AdaptiveInterval
from .loop import Push, run_intervals


def _check_every(every: int | None) -> int | None:
    return None if every is None else check_count("every", every, 1)


def _check_tolerance(
    tolerance: float | Float[Array, ""] | None,
) -> float | Float[Array, ""] | None:
    return None if tolerance is None else check_positive("tolerance", tolerance)


class Method(eqx.Module):
    """A way to run the tangent dynamics along a whole trajectory.

    A method of your own decides how the methods of lejax run: their `run` takes what yours receives and returns what
    yours has to return, and two runs may follow each other. For a loop of your own use `TangentDynamics`.

    A subclass must have a field `blocks`, `FoundBlocks()` or `DeclaredBlocks()`, and define
    `run(push, vector, frames, inputs, plan, adjoint) -> growth`. It receives

    - `push`: the tangent dynamics, `push(input, vector, frames) -> (vector, frames)`, one step of the state and of the
        frames; `push.step(input, vector) -> vector` is a step of the state alone.
    - `vector`: (d,), the raveled starting state.
    - `frames`: a tuple with a frame for each diagonal block of the Jacobian, k followed directions in all, not
        orthonormal yet.
    - `inputs`: a pytree of arrays with the steps of the run as first axis, transient included, or `None`.
    - `plan`: a named tuple of the integers `transient`, `num_steps` (counted), `num_blocks` (b, of the counted steps)
        and `num_chunks`; `plan.block_steps` (b,) are the steps of each block, `plan._replace(transient=0)` is another
        plan.
    - `adjoint`: the `Adjoint` of the call.

    and returns a named tuple, that of another `run` or a copy with other numbers by its `_replace`, with the fields

    - `vector`: (d,), the state after the last step.
    - `frames`: as received, orthonormal, after the last step.
    - `log_growth`: (b, k), the sums of log R_ii over each block of steps.
    - `rounding_error`: (k,), an estimate of the error of the sums over all counted steps from floating point, in nats.
    - `avoidable_error`: (k,), the part of it that shorter intervals would spare.
    - `unresolved`: (k,), how many orthonormalizations found the direction below floating-point resolution.
    - `num_orthonormalizations`, `longest_interval`, `first_bad_step`: int32 numbers, as in `Diagnostics`.
    - `overlap_bias`: (k,), a bias in nats per step.

    It may define `check(plan) -> plan`, which returns the plan that `run` will receive, with another number of blocks
    for example, or raises a `ValueError` for one that it cannot follow.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> class ByLength(lejax.Method):  # write your own: the number of steps decides the interval
        ...     blocks: lejax.DeclaredBlocks = lejax.DeclaredBlocks()
        ...
        ...     def run(self, push, vector, frames, inputs, plan, adjoint):
        ...         method = lejax.SequentialQR(every=1 if plan.num_steps < 100 else 5)
        ...         return method.run(push, vector, frames, inputs, plan, adjoint)
        >>> henon, options = lejax.systems.Henon(), {"num_steps": 1000, "transient": 10}
        >>> spectrum = lejax.lyapunov_spectrum(henon, jnp.zeros(2), method=ByLength(), **options)
        >>> int(spectrum.diagnostics.longest_interval)
        5
    """

    blocks: eqx.AbstractVar[Blocks]

    def check(self, plan: Plan) -> Plan:
        """The plan that this method follows; raises a `ValueError` if it cannot."""
        return plan

    @abc.abstractmethod
    def run(
        self,
        push: BlockPush,
        vector: Float[Array, " d"],
        frames: Frames,
        inputs: PyTree,
        plan: Plan,
        adjoint: Adjoint,
    ) -> Growth:
        """The whole run."""
        raise NotImplementedError


class SequentialQR(Method):
    """Step by step, with an orthonormalization after every interval and at the end of each block.

    **Arguments:**

    - `every`: the longest interval in steps, at least 1; the intervals of a block are as equal as possible. `None`, the
        default, adapts the interval along the way: the product of an interval is accepted or rejected by what rounding
        left of each column, and intervals are shortened and lengthened as ODE solvers adapt a step. Members of a batch
        (`vmap`) share their intervals; on a CPU members with frames of 1024 numbers or more run one by one, with
        intervals of their own. Derivatives orthonormalize at each step. A number compiles to loops of fixed length,
        for which a GPU need not wait for its host at each step; another number is another program. Too long an
        interval costs the lower exponents their digits, and the run ends with `RESULTS.interval_too_long`. The
        adaptive interval sees a product at its end only: where contraction and expansion by more than e^19 alternate
        within some dozens of steps, columns may lose digits inside a product and regain their length before its end;
        give a number there.
    - `orthonormalizer`: `Householder()`, `Cholesky()`, `GramSchmidt()` or `Panels()`; chosen from k if `None`, the
        default.
    - `blocks`: `FoundBlocks()`, the default, finds the diagonal blocks of a block triangular Jacobian;
        `DeclaredBlocks()` takes only those that a cell declares.
    - `tolerance`: what rounding may cost every exponent, in nats per step, where the interval adapts; 1e-8 in float64
        and 1e-4 in float32 if `None`, the default. The fast orthonormalizers may end an interval sooner, where
        columns are nearly parallel: a looser tolerance then has an effect with `Householder()` only. Another Python
        number is another program, another array is not.
    - `max_interval`: the longest interval where it adapts, in steps, at least 1; 128 by default.

    **Raises:**

    - `ValueError`: if `every` or `max_interval` is below 1, or `tolerance` is not positive.

    **Numerics:** per step one push, O(d^2 k), per interval one orthonormalization, O(d k^2).

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> method = lejax.SequentialQR(every=4, orthonormalizer=lejax.Householder())
        >>> options = {"num_steps": 1000, "num_blocks": 1, "method": method}
        >>> spectrum = lejax.lyapunov_spectrum(lejax.systems.Henon(), jnp.zeros(2), **options)
        >>> int(spectrum.diagnostics.num_orthonormalizations)
        250

    Benettin, Galgani, Giorgilli & Strelcyn, Meccanica 15 (1980); Geist, Parlitz & Lauterborn,
    Prog. Theor. Phys. 83 (1990); for the control of the interval Gustafsson, ACM Trans. Math. Softw. 17 (1991).
    """

    every: int | None = eqx.field(static=True, converter=_check_every, default=None)
    orthonormalizer: Orthonormalizer | None = None
    blocks: Blocks = FoundBlocks()
    tolerance: float | Float[Array, ""] | None = eqx.field(converter=_check_tolerance, default=None)
    max_interval: int = eqx.field(
        static=True, converter=lambda count: check_count("max_interval", count, 1), default=128
    )

    def __check_init__(self):
        check_fields(self)

    def run(
        self,
        push: Push,
        vector: Float[Array, " d"],
        frames: Frames,
        inputs: PyTree,
        plan: Plan,
        adjoint: Adjoint,
    ) -> Growth:
        adaptive = AdaptiveInterval(self.tolerance, self.max_interval)
        interval = adaptive if self.every is None else self.every
        return run_intervals(
            push,
            vector,
            frames,
            inputs,
            interval,
            plan=plan,
            orthonormalizer=self.orthonormalizer,
            adjoint=adjoint,
        )


class ParallelQR(Method):
    r"""The trajectory first, then the tangent dynamics of `num_chunks` equal chunks of it side by side.

    Each chunk starts from the same frame, `overlap` steps early; these steps are not counted. In them the frame turns
    into the one that a sequential run would have brought there, at the rate of the gaps between the exponents. For long
    runs of one network on a device with capacity for a batch: a GPU.

    **Arguments:**

    - `num_chunks`: the number of chunks, at least 2. It must divide `num_steps`; the number of blocks is rounded up
        to a multiple of it.
    - `overlap`: the steps by which each chunk starts early, at least 1. The first chunk takes them from the
        `transient`, which must be as long.
    - `every`: as for `SequentialQR`.
    - `orthonormalizer`: as for `SequentialQR`.
    - `blocks`: as for `SequentialQR`.

    **Raises:**

    - `ValueError`: if `num_chunks`, `overlap` or `every` is too small; from the run, if `transient` is below
        `overlap` or `num_steps` is no multiple of `num_chunks`.

    **Numerics:** the work of num_chunks overlap + T steps, in as many sequential steps as overlap and chunk have: let
    a chunk be longer than its overlap. Memory O(T d) for the trajectory, and num_chunks frames. What is left of the
    starting frame makes the exponents of neighbors a little too equal; the bias falls with the overlap, and as
    1 / length of a chunk. The angles between the frame at the end of a chunk and the frame of the next one after its
    overlap give an estimate, `LyapunovSpectrum.diagnostics.overlap_bias`; where it exceeds twice the standard error
    the run ends with `RESULTS.overlap_too_short`. On fixed points and limit cycles with complex multipliers frames
    rotate for ever and never agree: there no overlap is long enough.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> options = {"num_steps": 8000, "transient": 100, "method": lejax.ParallelQR(num_chunks=8, overlap=100)}
        >>> spectrum = lejax.lyapunov_spectrum(lejax.systems.Henon(), jnp.zeros(2), **options)
        >>> print(f"{spectrum.exponents.sum():.4f}")  # log 0.3: the map contracts areas evenly
        -1.2040
    """

    num_chunks: int = eqx.field(
        static=True, converter=lambda count: check_count("num_chunks", count, 2)
    )
    overlap: int = eqx.field(static=True, converter=lambda count: check_count("overlap", count, 1))
    every: int | None = eqx.field(static=True, converter=_check_every, default=None)
    orthonormalizer: Orthonormalizer | None = None
    blocks: Blocks = FoundBlocks()

    def __check_init__(self):
        check_fields(self)

    def check(self, plan):
        if plan.transient < self.overlap:
            raise ValueError(
                f"transient is {plan.transient}, but ParallelQR takes the overlap of its first chunk from it, "
                f"which is {self.overlap}."
            )
        if plan.num_steps % self.num_chunks:
            raise ValueError(
                f"num_steps is {plan.num_steps}, which is not a multiple of num_chunks, {self.num_chunks}."
            )
        length = plan.num_steps // self.num_chunks
        blocks = min(-(-plan.num_blocks // self.num_chunks), length)
        return plan._replace(num_blocks=blocks * self.num_chunks, num_chunks=self.num_chunks)

    def run(self, push, vector, frames, inputs, plan, adjoint):
        def step(vector, input):
            return push.step(input, vector), vector

        total = plan.transient + plan.num_steps
        length = plan.num_steps // self.num_chunks
        starts = plan.transient + length * np.arange(self.num_chunks)
        vector, points = adjoint.trajectory(step, vector, inputs, total, starts)
        overlap = Plan(0, self.overlap, 1)
        counted = Plan(0, length, plan.num_blocks // self.num_chunks)
        sequential = SequentialQR(every=self.every, orthonormalizer=self.orthonormalizer)

        def run_chunk(early_start):
            def cut(first, steps):
                return jax.tree.map(
                    lambda x: jax.lax.dynamic_slice_in_dim(x, first, steps), (inputs, points)
                )

            def run(push, frames, along, plan):
                push = _PushAlong(push)
                return sequential.run(push, along[1][0], frames, along, plan, adjoint)

            early = push, frames, cut(early_start, self.overlap)
            early = without_gradient(early) if adjoint.truncates else early
            warm = run(*early, overlap).frames
            return warm, run(push, warm, cut(early_start + self.overlap, length), counted)

        warm, growth = jax.vmap(run_chunk)(jnp.asarray(starts - self.overlap, jnp.int32))
        points = jnp.concatenate([points, vector[None]])
        return Growth(
            vector,
            jax.tree.map(lambda x: x[-1], growth.frames),
            growth.log_growth.reshape(-1, growth.log_growth.shape[-1]),
            jnp.sum(growth.rounding_error, axis=0),
            jnp.sum(growth.avoidable_error, axis=0),
            jnp.sum(growth.unresolved, axis=0),
            num_orthonormalizations=jnp.sum(growth.num_orthonormalizations, dtype=jnp.int32),
            longest_interval=jnp.max(growth.longest_interval),
            first_bad_step=_first_bad_step(points, starts, growth.first_bad_step),
            overlap_bias=jnp.concatenate(
                [end.misfit(start) / length for end, start in zip(growth.frames, warm, strict=True)]
            ),
        )


def _first_bad_step(
    points: Float[Array, "t+1 d"], starts: Int[np.ndarray, " c"], of_chunks: Int[Array, " c"]
) -> Int[Array, ""]:
    """The first bad step of a run, from its states and from those of its chunks, which count from their own starts."""
    never = len(points)
    is_bad = ~jnp.all(jnp.isfinite(points), axis=1)
    of_states = jnp.where(jnp.any(is_bad), jnp.argmax(is_bad).astype(jnp.int32), never)
    of_frames = jnp.min(jnp.where(of_chunks < 0, never, np.int32(starts) + of_chunks))
    first = jnp.minimum(of_frames, of_states)
    return jnp.where(first >= never, -1, first).astype(jnp.int32)


class _PushAlong(eqx.Module):
    """The push along a known trajectory: the input of a step comes with the state that it starts from."""

    push: BlockPush

    def __call__(self, input, vector, frames):
        input, point = input
        return self.push(input, point, frames)

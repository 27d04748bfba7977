"""How the steps of a run are ordered in time: one after the other, or in chunks side by side."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core.cell import without_gradient
from .._core.check_annotations import check_fields
from .._core.check_values import check_count, check_positive
from .adjoint import Adjoint
from .blocks import BlockPush
from .components import Blocks, FoundBlocks
from .factorization import Orthonormalizer
from .frames import Frames
from .interval import AdaptiveInterval
from .loop import Growth, Plan, Push, follow


def _interval(every: int | None) -> int | None:
    return None if every is None else check_count("every", every, 1)


def _tolerance(tolerance: float | Float[Array, ""] | None) -> float | Float[Array, ""] | None:
    return None if tolerance is None else check_positive("tolerance", tolerance)


class Method(eqx.Module):
    """A way to run the tangent dynamics of a whole trajectory.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> class ByLength(lejax.Method):  # write your own: an interval that the number of steps decides
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
        """The plan this method follows, or a `ValueError` if it cannot."""
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
        """The whole run, from frames that need not be orthonormal. Cost per step: one push, O(d^2 k), and one
        orthonormalization an interval, O(d k^2)."""
        raise NotImplementedError


class SequentialQR(Method):
    """Step by step, with an orthonormalization after every interval and at the end of each block.

    **Arguments:**

    - `every`: the longest interval in steps, 1 or more; those of a block are as equal as can be. `None` adapts it along the
        way: the product of an interval is accepted or thrown away, by what rounding left of each column, and intervals are
        shortened and lengthened as an ODE solver does with its steps. Under `vmap` the members of a batch share their intervals;
        on a CPU members with frames of 1024 numbers or more run one by one, with intervals of their own. A derivative
        orthonormalizes at each step.
        A number compiles to loops of known length, for which a GPU need not wait for its host at each step; another number is
        another program. A too long one makes the lower exponents rounding noise, and the run ends with
        `RESULTS.interval_too_long`. What columns lose inside a product and regain before its end no interval shows that is
        judged at its end: where contraction and expansion by more than e^19 alternate within some dozens of steps, give a number.
    - `tolerance`: what rounding may cost every exponent, in nats per step, where the interval adapts; 1e-8 in float64 and 1e-4
        in float32 if `None`. The fast orthonormalizers may end an interval sooner, of columns that are nearly parallel: a
        looser tolerance then changes nothing, but with `Householder()`. A Python number is another program, an array is not.
    - `max_interval`: the longest interval where it adapts.
    - `orthonormalizer`: `Householder()`, `Cholesky()`, `GramSchmidt()` or `Panels()`; chosen from k if `None`.
    - `blocks`: `FoundBlocks()`, which finds the blocks of a Jacobian that is block triangular, or `DeclaredBlocks()`, which
        takes none but those that a cell declares.

    Benettin, Galgani, Giorgilli & Strelcyn, Meccanica 15 (1980); Geist, Parlitz & Lauterborn,
    Prog. Theor. Phys. 83 (1990); for the control of steps Gustafsson, ACM Trans. Math. Softw. 17 (1991).
    """

    every: int | None = eqx.field(static=True, converter=_interval, default=None)
    orthonormalizer: Orthonormalizer | None = None
    blocks: Blocks = FoundBlocks()
    tolerance: float | Float[Array, ""] | None = eqx.field(converter=_tolerance, default=None)
    max_interval: int = eqx.field(
        static=True, converter=lambda count: check_count("max_interval", count, 1), default=128
    )

    def __check_init__(self):
        check_fields(self)

    def run(self, push, vector, frames, inputs, plan, adjoint):
        return self.follow(push, vector, frames, inputs, plan, adjoint)

    def follow(
        self,
        push: Push,
        vector: Float[Array, " d"],
        frames: Frames,
        inputs: PyTree,
        plan: Plan,
        adjoint: Adjoint,
    ) -> Growth:
        """`run` for any push, that of a cell or one along a known trajectory."""
        adaptive = AdaptiveInterval(self.tolerance, self.max_interval)
        interval = adaptive if self.every is None else self.every
        return follow(
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

    Each chunk starts from the same frame `overlap` steps early, which are not counted: its frame turns into the one
    that the whole run would have brought there, at the rate of the gaps between the exponents. For long runs of one
    network on a device that has room for a batch: a GPU.

    **Arguments:**

    - `num_chunks`: the chunks; `num_steps` must be a multiple of it, and so is the number of blocks.
    - `overlap`: the steps each chunk starts early. The first one takes them from the `transient`, which
        must be as long.
    - `every`, `orthonormalizer`, `blocks`: as for `SequentialQR`.

    What is left of the start makes the exponents of neighbors a little too equal; the bias falls with the overlap and
    as 1/chunk length. Its size is estimated from the angles between the frame at the end of a chunk and the warmed
    frame of the next, `LyapunovSpectrum.diagnostics.overlap_bias`; where that exceeds twice the standard error the run ends with
    `RESULTS.overlap_too_short`. On fixed points and limit cycles with complex multipliers frames rotate for ever and
    never agree: there no overlap is long enough.

    Memory: the trajectory, O(T d), and num_chunks frames.
    """

    num_chunks: int = eqx.field(
        static=True, converter=lambda count: check_count("num_chunks", count, 2)
    )
    overlap: int = eqx.field(static=True, converter=lambda count: check_count("overlap", count, 1))
    every: int | None = eqx.field(static=True, converter=_interval, default=None)
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
        counted_from = plan.transient + length * np.arange(self.num_chunks)
        vector, points = adjoint.trajectory(step, vector, inputs, total, counted_from)
        starts = counted_from - self.overlap
        warm_up = Plan(0, self.overlap, 1)
        counted = Plan(0, length, plan.num_blocks // self.num_chunks)
        sequential = SequentialQR(every=self.every, orthonormalizer=self.orthonormalizer)

        def chunk(start):
            def cut(first, steps):
                return jax.tree.map(
                    lambda x: jax.lax.dynamic_slice_in_dim(x, first, steps), (inputs, points)
                )

            def run(push, frames, along, plan):
                return sequential.follow(_Along(push), along[1][0], frames, along, plan, adjoint)

            early = (push, frames, cut(start, self.overlap))
            warm = run(*(without_gradient(early) if adjoint.cuts else early), warm_up).frames
            return warm, run(push, warm, cut(start + self.overlap, length), counted)

        warm, growth = jax.vmap(chunk)(jnp.asarray(starts, jnp.int32))
        # Chunks count from their own start; the state is bad from the first point that is not finite on.
        bad = ~jnp.all(jnp.isfinite(jnp.concatenate([points, vector[None]])), axis=1)
        of_chunk = jnp.where(
            growth.first_bad_step < 0, total + 1, np.int32(counted_from) + growth.first_bad_step
        )
        first = jnp.minimum(
            jnp.min(of_chunk), jnp.where(jnp.any(bad), jnp.argmax(bad).astype(jnp.int32), total + 1)
        )
        return Growth(
            vector,
            jax.tree.map(lambda x: x[-1], growth.frames),
            growth.log_growth.reshape(-1, growth.log_growth.shape[-1]),
            jnp.sum(growth.rounding_error, axis=0),
            jnp.sum(growth.avoidable_error, axis=0),
            jnp.sum(growth.unresolved, axis=0),
            num_orthonormalizations=jnp.sum(growth.num_orthonormalizations, dtype=jnp.int32),
            longest_interval=jnp.max(growth.longest_interval),
            first_bad_step=jnp.where(first > total, -1, first).astype(jnp.int32),
            overlap_bias=jnp.concatenate(
                [end.misfit(start) / length for end, start in zip(growth.frames, warm, strict=True)]
            ),
        )


class _Along(eqx.Module):
    """The push along a known trajectory: the input of a step comes with the point it starts from."""

    push: BlockPush

    def __call__(self, input, vector, frames):
        input, point = input
        return self.push(input, point, frames)

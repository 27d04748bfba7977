r"""Teacher forcing: during training the state of a network is pulled towards the data.

From a predicted state $z_t = F(\tilde z_{t-1})$ and its estimate $\hat z_t$ from the data, the next step starts at

$$\tilde z_t = (1 - \alpha_t)\, z_t + \alpha_t\, \hat z_t$$

in the units that the data determine, and at $z_t$ in the others. The loss is that of the prediction $z_t$.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core.check_annotations import checked
from .._core.check_types import check_number
from .._core.check_values import check_count, check_fraction
from .._engine.push import jacobian
from ._observation import ObservedCell


class TeacherForcing(eqx.Module):
    """The base class of teacher forcing: its strength at each step of a sequence, and how it changes during training.

    `reconstruct` calls `check` once, starts from `initial()`, and calls `adapt` and `strengths` in each update.
    """

    @abc.abstractmethod
    def initial(self) -> float:
        """The initial strength."""
        raise NotImplementedError

    @abc.abstractmethod
    def strengths(self, alpha: Float[Array, ""], num_steps: int) -> Float[Array, " t"]:
        """The strength after each step."""
        raise NotImplementedError

    def check(self, model: ObservedCell) -> None:
        """Raise a `ValueError` if a model cannot be forced in this way."""

    def adapt(
        self,
        alpha: Float[Array, ""],
        number: Array,
        model: ObservedCell,
        estimates: Float[Array, "b t m"],
        inputs: PyTree,
    ) -> Float[Array, ""]:
        """The strength in update `number`, from the estimated states and the inputs of its batch. Default: `alpha`."""
        return alpha


class SparseTeacherForcing(TeacherForcing):
    r"""The data overwrite the state in regular intervals: $\alpha_t = 1$ at every n-th step and 0 otherwise.

    With an `IdentityObservation` this is identity teacher forcing. No gradient passes an overwritten unit, so in
    chaos `every` should be about the Lyapunov time or less.

    **Arguments:**

    - `every`: n, 16 by default; 1 gives the loss of one-step predictions.

    **Raises:**

    - `ValueError`: if `every` is below 1.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> lejax.reconstruction.SparseTeacherForcing(every=2).strengths(jnp.array(1.0), 5)
        Array([0., 1., 0., 1., 0.], dtype=...)

    Brenner et al., ICML (2022); Mikhaeil, Monfared & Durstewitz, NeurIPS 35 (2022).
    """

    every: int = eqx.field(
        static=True, converter=lambda every: check_count("every", every, 1), default=16
    )

    def initial(self) -> float:
        return 1.0

    def adapt(self, alpha, number, model, estimates, inputs):
        return jnp.full_like(alpha, self.initial())

    def strengths(self, alpha, num_steps):
        return (jnp.arange(1, num_steps + 1) % self.every == 0).astype(alpha.dtype)


class GeneralizedTeacherForcing(TeacherForcing):
    r"""The same weighted mean of prediction and data at every step.

    The Jacobian of a forced step is $(1 - \alpha) J$: gradients stay bounded for $\alpha \ge 1 - 1/\sigma_{max}(J)$.

    **Arguments:**

    - `alpha`: the strength, from 0 (a free run) to 1 (the loss of one-step predictions).

    **Raises:**

    - `ValueError`: if `alpha` is outside 0 .. 1.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> lejax.reconstruction.GeneralizedTeacherForcing(0.25).strengths(jnp.array(0.25), 2)
        Array([0.25, 0.25], dtype=...)

    Doya, IEEE ISCAS (1992); Hess, Monfared, Brenner & Durstewitz, ICML (2023).
    """

    alpha: float = eqx.field(static=True, converter=lambda alpha: _check_fraction("alpha", alpha))

    def initial(self) -> float:
        return self.alpha

    def strengths(self, alpha, num_steps):
        return jnp.full((num_steps,), alpha)

    def adapt(self, alpha, number, model, estimates, inputs):
        return jnp.full_like(alpha, self.alpha)  # also after a training that used another forcing


class AdaptiveTeacherForcing(TeacherForcing):
    r"""Generalized teacher forcing with the smallest strength that keeps the gradients bounded.

    $$\alpha^* = \max(0, 1 - 1/\kappa), \qquad
      \kappa = \max_{batch} \exp \langle \log \sigma_{max}(J(\hat z_t)) \rangle_t$$

    Every n updates $\alpha$ becomes $\alpha^*$ if $\alpha^* > \alpha$, and $\gamma \alpha + (1 - \gamma) \alpha^*$
    otherwise. The data must determine all units of the model.

    **Arguments:**

    - `update_every`: n, 5 by default.
    - `decay`: $\gamma$, 0.999 by default.
    - `start`: the initial $\alpha$, 1 by default.

    **Raises:**

    - `ValueError`: if `update_every` is below 1, or `decay` or `start` is outside 0 .. 1.

    !!! example

        >>> import lejax
        >>> lejax.reconstruction.AdaptiveTeacherForcing().decay
        0.999

    Hess, Monfared, Brenner & Durstewitz, ICML (2023).
    """

    update_every: int = eqx.field(
        static=True, converter=lambda every: check_count("update_every", every, 1), default=5
    )
    decay: float = eqx.field(
        static=True, converter=lambda decay: _check_fraction("decay", decay), default=0.999
    )
    start: float = eqx.field(
        static=True, converter=lambda alpha: _check_fraction("start", alpha), default=1.0
    )

    def initial(self) -> float:
        return self.start

    def strengths(self, alpha, num_steps):
        return jnp.full((num_steps,), alpha)

    def check(self, model):
        determined = model.observation.determined()
        if not bool(jnp.all(determined)):
            raise ValueError(
                f"adaptive teacher forcing needs data that determine all {determined.shape[-1]} units of the network, "
                f"but these determine only {int(jnp.sum(determined))}; use generalized or sparse teacher forcing."
            )

    def adapt(self, alpha, number, model, estimates, inputs):
        def log_norm(state, input):
            return jnp.log(jnp.linalg.norm(jacobian(model, state, input), 2))

        def adapted():
            logs = jax.vmap(jax.vmap(log_norm))(estimates, inputs)
            needed = jnp.maximum(0, 1 - jnp.exp(-jnp.max(jnp.mean(logs, axis=1))))
            slow = self.decay * alpha + (1 - self.decay) * needed
            return jnp.where(needed > alpha, needed, slow).astype(alpha.dtype)

        return jax.lax.cond(number % self.update_every == 0, adapted, lambda: alpha)


@checked
def forced_states(
    model: ObservedCell,
    start: Float[Array, " m"],
    estimates: Float[Array, "t m"],
    strengths: Float[Array, " t"],
    inputs: PyTree = None,
) -> Float[Array, "t m"]:
    r"""The predictions of a network with teacher forcing.

    $$z_t = F(u_t, \tilde z_{t-1}), \qquad \tilde z_t = (1 - \alpha_t)\, z_t + \alpha_t\, \hat z_t$$

    in the units that the data determine, and $\tilde z_t = z_t$ in the others.

    **Arguments:**

    - `model`: an `ObservedCell` F with m units.
    - `start` (m,): the initial state $\tilde z_0$.
    - `estimates` (t, m): the states $\hat z_1 .. \hat z_T$ according to the data.
    - `strengths` (t,): $\alpha_1 .. \alpha_T$.
    - `inputs`: a pytree of arrays (t, ...); the first input drives the first step. Default: none, for an autonomous
        model.

    **Returns:** the predictions $z_1 .. z_T$, (t, m).

    **Raises:**

    - `ValueError`: if shapes do not fit the model or each other.
    - `TypeError`: if `start`, `estimates` and `strengths` differ in dtype.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.ALRNN(5, 2, key=jax.random.key(0))
        >>> model = lejax.reconstruction.ObservedCell(cell, lejax.reconstruction.IdentityObservation(5, 5))
        >>> data = jnp.ones((10, 5))
        >>> states = lejax.reconstruction.forced_states(model, data[0], data, jnp.ones(10))
        >>> bool(jnp.allclose(states, cell(None, data[0])))  # completely forced: the same step each time
        True
    """
    determined = model.observation.determined()
    size, length = determined.shape[0], jnp.shape(strengths)[:1]
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(inputs)} | {jnp.shape(estimates)[:1]}
    if lengths != {length} or not length:
        raise ValueError(
            f"estimates, strengths and inputs must have time as first axis, all of one length, got shapes "
            f"{jnp.shape(estimates)}, {jnp.shape(strengths)} and {[jnp.shape(x) for x in jax.tree.leaves(inputs)]}."
        )
    shapes = jnp.shape(start), jnp.shape(estimates), jnp.shape(strengths)
    if shapes != ((size,), (*length, size), length):
        raise ValueError(
            f"the model has {size} units, so start must be ({size},), estimates (t, {size}) and strengths (t,), got "
            f"{shapes[0]}, {shapes[1]} and {shapes[2]}."
        )

    dtypes = {str(jnp.result_type(x)) for x in (start, estimates, strengths)}
    if len(dtypes) > 1:
        raise TypeError(
            f"start, estimates and strengths must be of one dtype, got {', '.join(sorted(dtypes))}: cast them to that "
            "of the model."
        )

    def step(state, data):
        estimate, strength, input = data
        predicted = model(input, state)
        alpha = jnp.where(determined, strength, 0).astype(predicted.dtype)
        return (1 - alpha) * predicted + alpha * estimate, predicted

    # Two steps an iteration: the overhead of the loop is as large as the step of a small network.
    return jax.lax.scan(step, start, (estimates, strengths, inputs), unroll=2)[1]


def _check_fraction(name: str, value: float) -> float:
    return float(check_fraction(name, check_number(name, value)))

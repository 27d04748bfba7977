r"""Teacher forcing: while a network is trained, its state is pulled to the data.

Of a predicted state $z_t = F(\tilde z_{t-1})$ and an estimate $\hat z_t$ of it from the data, the next step starts at

$$\tilde z_t = (1 - \alpha_t)\, z_t + \alpha_t\, \hat z_t$$

in the units that the data determine. The loss is that of the prediction $z_t$, before it is pulled.
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
    """How strongly the state is pulled at each step of a sequence, and how that changes during training."""

    @abc.abstractmethod
    def initial(self) -> float:
        """The strength with which training begins."""
        raise NotImplementedError

    @abc.abstractmethod
    def strengths(self, alpha: Float[Array, ""], num_steps: int) -> Float[Array, " t"]:
        """The strength after each step."""
        raise NotImplementedError

    def check(self, model: ObservedCell) -> None:
        """Raise if a model cannot be forced in this way."""

    def adapt(
        self,
        alpha: Float[Array, ""],
        number: Array,
        model: ObservedCell,
        estimates: Float[Array, "b t m"],
        inputs: PyTree,
    ) -> Float[Array, ""]:
        """The strength for update `number`, whose batch has these estimated states and inputs."""
        return alpha


class SparseTeacherForcing(TeacherForcing):
    r"""Now and then the data overwrite what they determine: $\alpha_t = 1$ at every n-th step and 0 between.

    Called identity teacher forcing where the first units are measured. No gradient passes an overwritten unit, so
    that in chaos `every` should be about the Lyapunov time or less.

    **Arguments:** `every` n; 1 makes the loss that of the prediction of one step.

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
    r"""At every step the same mixture of prediction and data.

    The Jacobian of a forced step is $(1 - \alpha) J$: gradients stay bounded for $\alpha \ge 1 - 1/\sigma_{max}(J)$.

    **Arguments:** `alpha`, from 0 (the network runs free) to 1 (the loss is that of the prediction of one step).

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> lejax.reconstruction.GeneralizedTeacherForcing(0.25).strengths(jnp.array(0.25), 2)
        Array([0.25, 0.25], dtype=...)

    Doya, IEEE ISCAS (1992); Hess, Monfared, Brenner & Durstewitz, ICML (2023).
    """

    alpha: float = eqx.field(static=True, converter=lambda alpha: _check_share("alpha", alpha))

    def initial(self) -> float:
        return self.alpha

    def strengths(self, alpha, num_steps):
        return jnp.full((num_steps,), alpha)

    def adapt(self, alpha, number, model, estimates, inputs):
        return jnp.full_like(alpha, self.alpha)  # whatever an earlier training ended with


class AdaptiveTeacherForcing(TeacherForcing):
    r"""Generalized teacher forcing, no stronger than the Jacobians of the network ask for.

    $$\alpha^* = \max(0, 1 - 1/\kappa), \qquad
      \kappa = \max_{batch} \exp \langle \log \sigma_{max}(J(\hat z_t)) \rangle_t$$

    Every n updates $\alpha$ becomes $\alpha^*$ if that is more, and $\gamma \alpha + (1 - \gamma) \alpha^*$ otherwise.

    **Arguments:** `update_every` n, `decay` $\gamma$, and `start`, the first $\alpha$. For models all of whose units are
    determined by the data.

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
        static=True, converter=lambda decay: _check_share("decay", decay), default=0.999
    )
    start: float = eqx.field(
        static=True, converter=lambda alpha: _check_share("start", alpha), default=1.0
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
                f"but they determine only {int(jnp.sum(determined))}; use generalized or sparse teacher forcing."
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
    r"""The predictions $z_1 .. z_T$ of a network that is pulled to the data after each of them.

    **Arguments:** `model`; `start` $\tilde z_0$; `estimates` $\hat z_1 .. \hat z_T$ (t, m) and `strengths`
    $\alpha_1 .. \alpha_T$ (t,), which have no effect on units that the data do not determine; `inputs`, a pytree of arrays
    (t, ...) of which the first drives the first step.

    **Returns:** (t, m), each as it was before it was pulled.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.ALRNN.draw(5, 2, key=jax.random.key(0))
        >>> model = lejax.reconstruction.ObservedCell(cell, lejax.reconstruction.IdentityObservation(5, 5))
        >>> data = jnp.ones((10, 5))
        >>> states = lejax.reconstruction.forced_states(model, data[0], data, jnp.ones(10))
        >>> bool(jnp.allclose(states, cell(None, data[0])))  # forced all the way: always the same step
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
            f"the model has {size} units, so start must be ({size},), estimates (t, {size}) and strengths (t,), got {shapes[0]}, "
            f"{shapes[1]} and {shapes[2]}."
        )

    dtypes = {str(jnp.result_type(x)) for x in (start, estimates, strengths)}
    if len(dtypes) > 1:
        raise TypeError(
            f"start, estimates and strengths must be of one dtype, got {', '.join(sorted(dtypes))}: cast them to that of the model."
        )

    def step(state, now):
        estimate, strength, input = now
        predicted = model(input, state)
        share = jnp.where(determined, strength, 0).astype(predicted.dtype)
        return (1 - share) * predicted + share * estimate, predicted

    # Two steps at a time: the loop itself costs as much as the step of a small network.
    return jax.lax.scan(step, start, (estimates, strengths, inputs), unroll=2)[1]


def _check_share(name: str, value: float) -> float:
    return float(check_fraction(name, check_number(name, value)))

"""The piecewise-linear recurrent network."""

import jax
import jax.numpy as jnp

from ._abstract_plrnn import AbstractPLRNN


class PLRNN(AbstractPLRNN):
    r"""The piecewise-linear recurrent network: M rectified units, at most $2^M$ regions.

    $$z' = a \odot z + W \max(z, 0) + h + C u$$

    **Arguments:**

    - `size`: the number of units M.
    - `input_size`: the number of inputs I, by default 0: an autonomous network, called with `input=None`.
    - `dtype`: of the weights, by default that of JAX.
    - `key`: of the weights. `a` is the diagonal and `W` the rest of a random positive definite matrix of norm 1, `h` is
        zero, `C` is uniform in $\pm 1/\sqrt{I}$.

    **Fields:** (also the arguments of `PLRNN.from_weights`)

    - `a`: linear part (M,).
    - `W`: couplings (M, M).
    - `h`: offset (M,).
    - `C`: input weights (M, I).

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.PLRNN(3, key=jax.random.key(0))
        >>> cell(None, cell.initial_state()).shape
        (3,)
        >>> cell = lejax.cells.PLRNN.from_weights(a=jnp.array([0.5]), W=jnp.array([[-1.0]]), h=jnp.array([1.0]))
        >>> cell(None, jnp.array([1.0]))
        Array([0.5], dtype=...)

    Durstewitz, PLoS Comput. Biol. 13 (2017).
    """

    def _autonomous_step(self, state):
        return self.a * state + self.W @ jax.nn.relu(state) + self.h

    def _autonomous_form(self):
        eye = jnp.eye(self.h.size, dtype=self.h.dtype)
        return jnp.diag(self.a), self.W, eye, self.h, jnp.zeros_like(self.h)

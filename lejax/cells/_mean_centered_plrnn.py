"""The mean-centered PLRNN."""

import jax
import jax.numpy as jnp

from ._abstract_plrnn import AbstractPLRNN


class MeanCenteredPLRNN(AbstractPLRNN):
    r"""A PLRNN that subtracts the mean over units before the nonlinearity.

    $$z' = a \odot z + W \max(z - \bar z, 0) + h + C u$$

    It has fewer than $2^M$ regions, because not all units lie on one side of their mean.

    **Arguments:**

    - `size`: the number of units M.
    - `input_size`: the number of inputs I, by default 0: an autonomous network, called with `input=None`.
    - `dtype`: of the weights, by default that of JAX.
    - `key`: of the weights, which are drawn as those of a `PLRNN`.

    **Fields:** (also the arguments of `MeanCenteredPLRNN.from_weights`)

    - `a`: linear part (M,).
    - `W`: couplings (M, M).
    - `h`: offset (M,).
    - `C`: input weights (M, I).

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.MeanCenteredPLRNN(3, key=jax.random.key(0))
        >>> cell(None, cell.initial_state()).shape
        (3,)

    Brenner et al., ICML (2022).
    """

    def _autonomous_step(self, state):
        return self.a * state + self.W @ jax.nn.relu(state - jnp.mean(state)) + self.h

    def _autonomous_form(self):
        centering = jnp.eye(self.h.size, dtype=self.h.dtype) - 1 / self.h.size
        return jnp.diag(self.a), self.W, centering, self.h, jnp.zeros_like(self.h)

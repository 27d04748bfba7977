"""The mean-centered PLRNN."""

import jax
import jax.numpy as jnp

from ._plrnn import PLRNN


class MeanCenteredPLRNN(PLRNN):
    r"""A PLRNN with the mean over units taken out before the nonlinearity.

    $$z' = a \odot z + W \max(z - \bar z, 0) + h + C u$$

    **Arguments:** as for `PLRNN`. Fewer than 2^M regions: not all units lie on one side of their mean.

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.MeanCenteredPLRNN.draw(3, key=jax.random.key(0))
        >>> cell(None, cell.initial_state()).shape
        (3,)

    Brenner et al., ICML (2022).
    """

    def _free(self, state):
        return self.a * state + self.W @ jax.nn.relu(state - jnp.mean(state)) + self.h

    def _form(self):
        A, W1, eye, h1, h2 = super()._form()
        return A, W1, eye - 1 / self.h.size, h1, h2

"""The clipped shallow PLRNN."""

import jax
import jax.numpy as jnp

from ._shallow_plrnn import ShallowPLRNN


class ClippedShallowPLRNN(ShallowPLRNN):
    r"""The clipped shallow PLRNN, which stays bounded wherever all $|a_i| < 1$.

    $$z' = a \odot z + W_1 [\max(W_2 z + h_2, 0) - \max(W_2 z, 0)] + h_1 + C u$$

    **Arguments:** as for `ShallowPLRNN`. Its canonical form has 2 H hyperplanes, in parallel pairs.

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.ClippedShallowPLRNN.draw(3, 50, key=jax.random.key(0))
        >>> cell(None, cell.initial_state()).shape
        (3,)

    Hess, Monfared, Brenner & Durstewitz, ICML (2023).
    """

    def _free(self, state):
        hidden = self.W2 @ state
        clipped = jax.nn.relu(hidden + self.h2) - jax.nn.relu(hidden)
        return self.a * state + self.W1 @ clipped + self.h1

    def _form(self):
        W1 = jnp.concatenate([self.W1, -self.W1], axis=1)
        W2 = jnp.concatenate([self.W2, self.W2])
        h2 = jnp.concatenate([self.h2, jnp.zeros_like(self.h2)])
        return jnp.diag(self.a), W1, W2, self.h1, h2

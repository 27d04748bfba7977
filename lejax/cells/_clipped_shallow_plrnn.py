"""The clipped shallow PLRNN."""

import jax
import jax.numpy as jnp

from ._abstract_shallow_plrnn import AbstractShallowPLRNN


class ClippedShallowPLRNN(AbstractShallowPLRNN):
    r"""The clipped shallow PLRNN, whose states stay bounded wherever all $|a_i| < 1$.

    $$z' = a \odot z + W_1 [\max(W_2 z + h_2, 0) - \max(W_2 z, 0)] + h_1 + C u$$

    Its canonical form has 2 H hyperplanes, in parallel pairs.

    **Arguments:**

    - `size`: the number of units M.
    - `hidden_size`: the number of hidden units H.
    - `input_size`: the number of inputs I, by default 0: an autonomous network, called with `input=None`.
    - `dtype`: of the weights, by default that of JAX.
    - `key`: of the weights, which are drawn as those of a `ShallowPLRNN`.

    **Fields:** (also the arguments of `ClippedShallowPLRNN.from_weights`)

    - `a`: linear part (M,).
    - `W1`: weights from the hidden layer (M, H).
    - `W2`: weights to the hidden layer (H, M).
    - `h1`: offset (M,).
    - `h2`: thresholds of the hidden layer (H,).
    - `C`: input weights (M, I).

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.ClippedShallowPLRNN(3, 50, key=jax.random.key(0))
        >>> cell(None, cell.initial_state()).shape
        (3,)

    Hess, Monfared, Brenner & Durstewitz, ICML (2023).
    """

    def _autonomous_step(self, state):
        hidden = self.W2 @ state
        clipped = jax.nn.relu(hidden + self.h2) - jax.nn.relu(hidden)
        return self.a * state + self.W1 @ clipped + self.h1

    def _autonomous_form(self):
        W1 = jnp.concatenate([self.W1, -self.W1], axis=1)
        W2 = jnp.concatenate([self.W2, self.W2])
        h2 = jnp.concatenate([self.h2, jnp.zeros_like(self.h2)])
        return jnp.diag(self.a), W1, W2, self.h1, h2

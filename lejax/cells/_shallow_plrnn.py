"""The shallow PLRNN."""

import jax
import jax.numpy as jnp

from ._abstract_shallow_plrnn import AbstractShallowPLRNN


class ShallowPLRNN(AbstractShallowPLRNN):
    r"""The shallow PLRNN: M units coupled through one hidden layer of H rectified units.

    $$z' = a \odot z + W_1 \max(W_2 z + h_2, 0) + h_1 + C u$$

    It has at most $\sum_{i \le M} \binom{H}{i}$ regions.

    **Arguments:**

    - `size`: the number of units M.
    - `hidden_size`: the number of hidden units H.
    - `input_size`: the number of inputs I, by default 0: an autonomous network, called with `input=None`.
    - `dtype`: of the weights, by default that of JAX.
    - `key`: of the weights. `a` is the diagonal of a random positive definite matrix of norm 1; `W1` is uniform in
        $\pm 1/\sqrt{H}$, `W2` and `h2` in $\pm 1/\sqrt{M}$, `C` in $\pm 1/\sqrt{I}$; `h1` is zero.

    **Fields:** (also the arguments of `ShallowPLRNN.from_weights`)

    - `a`: linear part (M,).
    - `W1`: weights from the hidden layer (M, H).
    - `W2`: weights to the hidden layer (H, M).
    - `h1`: offset (M,).
    - `h2`: thresholds of the hidden layer (H,).
    - `C`: input weights (M, I).

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.ShallowPLRNN(3, 50, key=jax.random.key(0))
        >>> cell(None, cell.initial_state()).shape
        (3,)

    Hess, Monfared, Brenner & Durstewitz, ICML (2023).
    """

    def _autonomous_step(self, state):
        return self.a * state + self.W1 @ jax.nn.relu(self.W2 @ state + self.h2) + self.h1

    def _autonomous_form(self):
        return jnp.diag(self.a), self.W1, self.W2, self.h1, self.h2

"""Gated cells: the two GRUs that frameworks mean by the name, and an LSTM that knows its zero state."""

import functools as ft

import equinox as eqx
import jax.nn as jnn
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._cell import RecurrentCell, TangentCell
from .._check import check_count
from .._signature import checked
from ._rate import drive, uniform


class GRUCell(RecurrentCell, TangentCell):
    r"""The gated recurrent unit, in both forms.

    $$r = \sigma(W_r u + U_r h + b_r), \quad z = \sigma(W_z u + U_z h + b_z), \quad h' = (1 - z)\, n + z\, h$$

    with $n = \tanh(W_n u + b_n + r\,(U_n h + c_n))$ if `reset_after` (PyTorch, cuDNN, Keras, Equinox) and
    $n = \tanh(W_n u + b_n + U_n (r\,h))$ if not (the original paper).

    **Arguments:** `input_size` I (0: autonomous), `hidden_size` H, `use_bias`, `reset_after`, `dtype`, `key`.
    The rows of `weight_ih` (3H, I), `weight_hh` (3H, H) and `bias` (3H) are in the order r, z, n;
    `bias_n` (H) is $c_n$, `None` unless `reset_after`.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.GRUCell(3, 8, reset_after=False, key=jax.random.key(0))
        >>> cell(jnp.ones(3), cell.initial_state()).shape
        (8,)

    Cho et al., EMNLP (2014).
    """

    weight_ih: Float[Array, "3*h i"]
    weight_hh: Float[Array, "3*h h"]
    bias: Float[Array, " 3*h"] | None
    bias_n: Float[Array, " h"] | None
    reset_after: bool = eqx.field(static=True)

    @checked
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        use_bias: bool = True,
        reset_after: bool = True,
        dtype=None,
        *,
        key: PRNGKeyArray,
    ):
        input_size = check_count("input_size", input_size, 0)
        size = check_count("hidden_size", hidden_size, 1)
        key_ih, key_hh, key_bias, key_n = jr.split(key, 4)
        self.weight_ih = uniform(key_ih, (3 * size, input_size), size, dtype)
        self.weight_hh = uniform(key_hh, (3 * size, size), size, dtype)
        self.bias = uniform(key_bias, (3 * size,), size, dtype) if use_bias else None
        self.bias_n = uniform(key_n, (size,), size, dtype) if use_bias and reset_after else None
        self.reset_after = reset_after

    def __call__(
        self, input: Float[Array, " i"] | None, state: Float[Array, " h"]
    ) -> Float[Array, " h"]:
        _, update, new, _ = self._gates(input, state)
        return new + update * (state - new)

    def push_forward(self, input, state, tangent):
        reset, update, new, inner = self._gates(input, state)
        size = state.shape[0]
        slope = (1 - update) * (1 - new**2)
        of_update = (state - new) * update * (1 - update)
        if self.reset_after:
            of_reset = slope * inner * reset * (1 - reset)
            coefficients = (of_reset, of_update, slope * reset)
            pushed = _weigh(coefficients, self.weight_hh, tangent)
        else:
            turned = _weigh((state * reset * (1 - reset),), self.weight_hh[:size], tangent)
            turned = turned + reset[:, None] * tangent
            pushed = _weigh((of_update,), self.weight_hh[size : 2 * size], tangent)
            pushed = pushed + _weigh((slope,), self.weight_hh[2 * size :], turned)
        return new + update * (state - new), pushed + update[:, None] * tangent

    def _gates(self, input, state):
        """r, z, n and what r multiplies in n."""
        size = state.shape[0]
        driven = jnp.zeros(3 * size, state.dtype) + drive(self.weight_ih, input)
        if self.bias is not None:
            driven = driven + self.bias
        if self.reset_after:
            recurrent = self.weight_hh @ state
            gates, inner = recurrent[: 2 * size], recurrent[2 * size :]
            inner = inner if self.bias_n is None else inner + self.bias_n
            reset, update = jnp.split(jnn.sigmoid(driven[: 2 * size] + gates), 2)
            turned = reset * inner
        else:
            gates = self.weight_hh[: 2 * size] @ state
            reset, update = jnp.split(jnn.sigmoid(driven[: 2 * size] + gates), 2)
            inner = state
            turned = self.weight_hh[2 * size :] @ (reset * state)
        return reset, update, jnp.tanh(driven[2 * size :] + turned), inner

    def initial_state(self) -> Float[Array, " h"]:
        return jnp.zeros(self.weight_hh.shape[1], self.weight_hh.dtype)


class LSTMCell(RecurrentCell, TangentCell):
    r"""The long short-term memory cell; its state is the pair (h, c).

    $$i, f, o = \sigma(W u + U h + b), \quad g = \tanh(W_g u + U_g h + b_g), \quad
      c' = f\,c + i\,g, \quad h' = o \tanh(c')$$

    **Arguments:** `input_size` I (0: autonomous), `hidden_size` H, `use_bias`, `dtype`, `key`.
    The rows of `weight_ih` (4H, I), `weight_hh` (4H, H) and `bias` (4H) are in the order i, f, g, o.
    Same equations as `equinox.nn.LSTMCell`, with `initial_state` and `output` (h).

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.LSTMCell(3, 8, key=jax.random.key(0))
        >>> hidden, memory = cell(jnp.ones(3), cell.initial_state())

    Hochreiter & Schmidhuber, Neural Computation 9 (1997).
    """

    weight_ih: Float[Array, "4*h i"]
    weight_hh: Float[Array, "4*h h"]
    bias: Float[Array, " 4*h"] | None

    @checked
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        use_bias: bool = True,
        dtype=None,
        *,
        key: PRNGKeyArray,
    ):
        input_size = check_count("input_size", input_size, 0)
        size = check_count("hidden_size", hidden_size, 1)
        key_ih, key_hh, key_bias = jr.split(key, 3)
        self.weight_ih = uniform(key_ih, (4 * size, input_size), size, dtype)
        self.weight_hh = uniform(key_hh, (4 * size, size), size, dtype)
        self.bias = uniform(key_bias, (4 * size,), size, dtype) if use_bias else None

    def __call__(
        self,
        input: Float[Array, " i"] | None,
        state: tuple[Float[Array, " h"], Float[Array, " h"]],
    ) -> tuple[Float[Array, " h"], Float[Array, " h"]]:
        _, _, _, o, squashed, memory = self._gates(input, state)
        return o * squashed, memory

    def push_forward(self, input, state, tangent):
        i, f, g, o, squashed, memory = self._gates(input, state)
        of_hidden, of_memory = tangent
        split = 3 * g.shape[0]
        coefficients = (g * i * (1 - i), state[1] * f * (1 - f), i * (1 - g**2))
        pushed = _weigh(coefficients, self.weight_hh[:split], of_hidden) + f[:, None] * of_memory
        shown = _weigh((squashed * o * (1 - o),), self.weight_hh[split:], of_hidden)
        shown = shown + (o * (1 - squashed**2))[:, None] * pushed
        return (o * squashed, memory), (shown, pushed)

    def _gates(self, input, state):
        """i, f, g, o, tanh(c') and c'."""
        hidden, memory = state
        total = self.weight_hh @ hidden + drive(self.weight_ih, input)
        total = total if self.bias is None else total + self.bias
        i, f, g, o = jnp.split(total, 4)
        i, f, g, o = jnn.sigmoid(i), jnn.sigmoid(f), jnp.tanh(g), jnn.sigmoid(o)
        memory = f * memory + i * g
        return i, f, g, o, jnp.tanh(memory), memory

    def initial_state(self) -> tuple[Float[Array, " h"], Float[Array, " h"]]:
        zeros = jnp.zeros(self.weight_hh.shape[1], self.weight_hh.dtype)
        return zeros, zeros

    def output(self, state):
        return state[0]


def _weigh(
    coefficients: tuple[Float[Array, " h"], ...],
    weight: Float[Array, "gates*h h"],
    tangent: Float[Array, "h k"],
) -> Float[Array, "h k"]:
    r"""$\sum_a \mathrm{diag}(c_a)\, W_a\, Z$ over the gates a.

    For many columns one product with the sum of the weighted matrices: that is what an own tangent saves.
    """
    weights = jnp.split(weight, len(coefficients))
    pairs = zip(coefficients, weights, strict=True)
    if tangent.shape[1] < 16:
        return ft.reduce(jnp.add, (c[:, None] * (w @ tangent) for c, w in pairs))
    return ft.reduce(jnp.add, (c[:, None] * w for c, w in pairs)) @ tangent

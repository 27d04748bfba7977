"""The scalar long short-term memory of xLSTM: exponential gates and recurrent connections within heads."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.cell import RecurrentCell
from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.weights import make_from_weights
from .._engine.blocks import BlockTriangularCell, DenseBlock, DiagonalBlock
from ._drive import drive, uniform
from ._exponential_gates import forget_biases, log_forget, stabilize


class SLSTMCell(RecurrentCell, BlockTriangularCell):
    r"""The sLSTM of xLSTM: d = H N units in H heads, with a memory c, a normalizer n and exponential gates.

    $$c' = f c + i z, \quad n' = f n + i, \quad h' = o\, \frac{c'}{n'}, \quad
      (\log i,\, \tilde f,\, \tilde z,\, \tilde o) = W u + R h + b$$

    with $z = \tanh \tilde z$, $o = \sigma(\tilde o)$ and $f = \sigma(\tilde f)$, or $f = \exp \tilde f$ with
    `exponential_forget`. R connects units of the same head. The block around it, with a convolution, a normalization
    and projections, is left out.

    Exponentials overflow, so the paper stores $\bar c = e^{-m} c$ and $\bar n = e^{-m} n$ with
    $m' = \max(\log f + m, \log i)$, or $m' = \log i$ where n = 0, and so does this cell: its state is ($\bar c$,
    $\bar n$, h, m), each (d,), its output h. One number of each unit is redundant: the memory (c, n) is the same at
    $(e^{-s} \bar c,\, e^{-s} \bar n,\, m + s)$ for every s, and so is the output at all times. The 4 d exponents are

    - 3 d of (c, n, h), computed in the coordinates $e^{-m} (\delta c, \delta n)$ and $\delta h$. They sum to
        $2 \sum \langle\log f + m - m'\rangle + \sum \langle\log |o (1 - o)\, c' / n'|\rangle + \log |\det R_o|$, where
        $\langle\cdot\rangle$ is the mean over time and the sums are over units. As long as m stays bounded, which it
        does for sigmoids and bounded inputs, they are those of the equations above, without m. If exponential forget
        gates are above 1 on the whole, c, n and m grow without bound; then the exponents are those of the stored
        numbers, which do not grow.
    - d of m along the redundant direction: $-\infty$ once $m' = \log i$ at a step of the run, 0 before. These say
        nothing about the network.

    `lyapunov_spectrum` follows the 3 d as one block. A verb that takes all 4 d numbers as one block, or a `ClosedLoop`,
    meets the redundant directions too. They keep their length between two steps with $m' = \log i$, so that rounding
    errors along them may outgrow strongly contracting directions: trust the leading exponents there.

    **Arguments:**

    - `input_size`: the number of inputs I; 0 for an autonomous cell, called with `input=None`.
    - `hidden_size`: the number of units d.
    - `num_heads`: H, a divisor of d, by default 1.
    - `exponential_forget`: whether forget gates are exponentials, by default `False`.
    - `dtype`: of the weights, by default that of JAX.
    - `key`: of the weights. W is uniform in $\pm 1/\sqrt{d}$, R in $\pm 1/\sqrt{N}$. Biases are 0, except that those of
        forget gates alone give $\sigma(3)$ to $\sigma(6)$, evenly spaced over the units of a head.

    **Fields:** (also the arguments of `SLSTMCell.from_weights`; the first axis is in the order i, f, z, o)

    - `weight_ih`: W (4, H, N, I).
    - `weight_hh`: R (4, H, N, N).
    - `bias`: b (4, H, N).
    - `exponential_forget`: as above.

    **Raises:**

    - `ValueError`: if `num_heads` does not divide `hidden_size`.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.SLSTMCell(3, 4, 2, key=jax.random.key(0))
        >>> inputs = jax.random.normal(jax.random.key(1), (200, 3))
        >>> spectrum = lejax.lyapunov_spectrum(cell, cell.initial_state(), inputs)
        >>> jnp.isneginf(spectrum.exponents).sum()  # the redundant ones
        Array(4, dtype=...)

    Beck et al., arXiv 2405.04517 (2024).
    """

    weight_ih: Float[Array, "4 h n i"]
    weight_hh: Float[Array, "4 h n n"]
    bias: Float[Array, "4 h n"]
    exponential_forget: bool = eqx.field(static=True)

    @checked
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_heads: int = 1,
        exponential_forget: bool = False,
        dtype=None,
        *,
        key: PRNGKeyArray,
    ):
        input_size = check_count("input_size", input_size, 0)
        size = check_count("hidden_size", hidden_size, 1)
        heads = check_count("num_heads", num_heads, 1)
        if size % heads:
            raise ValueError(
                f"num_heads must divide hidden_size, but {heads} does not divide {size}."
            )
        dtype = dtype or jnp.result_type(float)
        units = size // heads
        key_ih, key_hh = jr.split(key)
        self.weight_ih = uniform(key_ih, (4, heads, units, input_size), size, dtype)
        self.weight_hh = uniform(key_hh, (4, heads, units, units), units, dtype)
        forget = forget_biases(units, exponential_forget, dtype)
        self.bias = jnp.zeros((4, heads, units), dtype).at[1].set(forget)
        self.exponential_forget = exponential_forget

    @classmethod
    @checked
    def from_weights(
        cls,
        *,
        weight_hh: Array,
        weight_ih: Array | None = None,
        bias: Array,
        exponential_forget: bool = False,
    ):
        """A cell with the given weights, named and shaped as its fields; without `weight_ih` it is autonomous.

        **Raises:**

        - `ValueError`: if shapes do not fit each other.
        - `TypeError`: if an array is not real.
        """
        if weight_ih is None:
            weight_ih = jnp.zeros_like(jnp.asarray(weight_hh))[..., :0]
        weights = {"weight_hh": weight_hh, "weight_ih": weight_ih, "bias": bias}
        return make_from_weights(cls, weights, exponential_forget=exponential_forget)

    def __call__(
        self,
        input: Float[Array, " i"] | None,
        state: tuple[
            Float[Array, " d"], Float[Array, " d"], Float[Array, " d"], Float[Array, " d"]
        ],
    ) -> tuple[Float[Array, " d"], Float[Array, " d"], Float[Array, " d"], Float[Array, " d"]]:
        return self.blocks(input, state)[0]

    def blocks(self, input, state):
        memory, normalizer, hidden, m = state
        _, heads, units, inputs = self.weight_ih.shape
        size = heads * units
        total = self._mix(hidden[:, None])[..., 0]
        total = total + (
            drive(self.weight_ih.reshape(4 * size, inputs), input) + self.bias.ravel()
        ).reshape(4, size)
        log_i, forget, cell_input, output = total
        log_f = log_forget(forget, self.exponential_forget)
        m, log_kept, written, is_carried = stabilize(log_f, log_i, m, normalizer == 0)
        kept, z, o = jnp.exp(log_kept), jnp.tanh(cell_input), jax.nn.sigmoid(output)
        new_memory = kept * memory + written * z
        new_normalizer = kept * normalizer + written
        ratio = new_memory / new_normalizer
        slope = jnp.ones_like(forget) if self.exponential_forget else jax.nn.sigmoid(-forget)

        def tangent(columns):
            # Changes of c and n are those at a fixed m. How m changes has no effect on c, n and h.
            of_memory, of_normalizer, of_hidden = jnp.split(columns, 3)
            of_i, of_f, of_z, of_o = self._mix(of_hidden)
            of_f = (kept * slope)[:, None] * of_f
            of_i = written[:, None] * of_i
            of_z = (written * (1 - z**2))[:, None] * of_z
            of_memory = (
                kept[:, None] * of_memory + memory[:, None] * of_f + z[:, None] * of_i + of_z
            )
            of_normalizer = kept[:, None] * of_normalizer + normalizer[:, None] * of_f + of_i
            of_ratio = (of_memory - ratio[:, None] * of_normalizer) / new_normalizer[:, None]
            of_hidden = o[:, None] * of_ratio + (o * (1 - o) * ratio)[:, None] * of_o
            return jnp.concatenate([of_memory, of_normalizer, of_hidden])

        redundant = DiagonalBlock.of_entries(is_carried.astype(m.dtype))
        return (new_memory, new_normalizer, o * ratio, m), (
            DenseBlock(tangent, 3 * size),
            redundant,
        )

    def _mix(self, columns: Float[Array, "d k"]) -> Float[Array, "4 d k"]:
        """R times the columns."""
        heads = columns.reshape(*self.bias.shape[1:], -1)
        return jnp.einsum("ghnm,hmk->ghnk", self.weight_hh, heads).reshape(4, *columns.shape)

    def initial_state(
        self,
    ) -> tuple[Float[Array, " d"], Float[Array, " d"], Float[Array, " d"], Float[Array, " d"]]:
        zeros = jnp.zeros_like(self.bias[0].ravel())
        return zeros, zeros, zeros, zeros

    def output(self, state):
        return state[2]

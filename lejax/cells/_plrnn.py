"""Piecewise-linear recurrent networks: the networks of dynamical systems reconstruction."""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._cell import RecurrentCell
from .._check import check_count
from .._piecewise_linear import PiecewiseLinearCell, PiecewiseLinearMap, check_arrays
from .._signature import checked
from ._rate import drive, uniform


class PiecewiseLinearNetwork(RecurrentCell, PiecewiseLinearCell):
    """What all networks here share: the input, which enters as C u, and the zero state.

    `C` (M, I) is empty for a network without inputs, which is then called with `input=None`.
    """

    C: Float[Array, "m i"]

    def __call__(
        self, input: Float[Array, " i"] | None, state: Float[Array, " m"]
    ) -> Float[Array, " m"]:
        return self._free(state) + drive(self.C, input)

    def canonical(self, input: Float[Array, " i"] | None = None) -> PiecewiseLinearMap:
        A, W1, W2, h1, h2 = self._form()
        return PiecewiseLinearMap(A, W1, W2, h1 + drive(self.C, input), h2)

    @abc.abstractmethod
    def _free(self, state):
        """The step without input."""
        raise NotImplementedError

    @abc.abstractmethod
    def _form(self):
        """A, W1, W2, h1, h2 of the canonical form."""
        raise NotImplementedError

    def initial_state(self) -> Float[Array, " m"]:
        return jnp.zeros(self.C.shape[0], self.C.dtype)


class PLRNN(PiecewiseLinearNetwork):
    r"""The piecewise-linear recurrent network.

    $$z' = a \odot z + W \max(z, 0) + h + C u$$

    **Arguments:** arrays `a` (M,), `W` (M, M), `h` (M,), and `C` (M, I) for a driven one. At most 2^M regions.

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.PLRNN.draw(3, key=jax.random.key(0))
        >>> cell(None, cell.initial_state()).shape
        (3,)

    Durstewitz, PLoS Comput. Biol. 13 (2017).
    """

    a: Float[Array, " m"]
    W: Float[Array, "m m"]
    h: Float[Array, " m"]

    @checked
    def __init__(self, a: Array, W: Array, h: Array, C: Array | None = None):
        self.a, self.W, self.h, self.C = check_arrays(
            {"a": (a, "m"), "W": (W, "mm"), "h": (h, "m"), "C": (inputs(C, h), "mi")}
        )

    @classmethod
    @checked
    def draw(cls, size: int, input_size: int = 0, *, dtype=None, key: PRNGKeyArray):
        """`a` the diagonal and `W` the rest of a random positive matrix of norm 1; `h` zero."""
        key, key_C = jr.split(key)
        a, W = _positive_definite(key, size, dtype)
        return cls(a, W, jnp.zeros_like(a), draw_inputs(key_C, size, input_size, dtype))

    def _free(self, state):
        return self.a * state + self.W @ jax.nn.relu(state) + self.h

    def _form(self):
        eye = jnp.eye(self.h.size, dtype=self.h.dtype)
        return jnp.diag(self.a), self.W, eye, self.h, jnp.zeros_like(self.h)


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


class ALRNN(PiecewiseLinearNetwork):
    r"""The almost-linear recurrent network: only the last P of M units have a nonlinearity.

    $$z' = a \odot z + W \phi(z) + h + C u, \qquad \phi(z) = (z_1 .. z_{M-P}, \max(z_{M-P+1}, 0) .. \max(z_M, 0))$$

    **Arguments:** arrays `a` (M,), `W` (M, M), `h` (M,); `num_relu` P, at most 2^P regions; `C` (M, I) for a driven one.

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.ALRNN.draw(20, 2, key=jax.random.key(0))
        >>> cell(None, cell.initial_state()).shape
        (20,)

    Brenner, Hemmer, Monfared & Durstewitz, NeurIPS 37 (2024).
    """

    a: Float[Array, " m"]
    W: Float[Array, "m m"]
    h: Float[Array, " m"]
    num_relu: int = eqx.field(static=True)

    @checked
    def __init__(self, a: Array, W: Array, h: Array, num_relu: int, C: Array | None = None):
        self.a, self.W, self.h, self.C = check_arrays(
            {"a": (a, "m"), "W": (W, "mm"), "h": (h, "m"), "C": (inputs(C, h), "mi")}
        )
        self.num_relu = check_num_relu(num_relu, self.h.size)

    @classmethod
    @checked
    def draw(cls, size: int, num_relu: int, input_size: int = 0, *, dtype=None, key: PRNGKeyArray):
        """`a` the diagonal of a random positive matrix of norm 1, `W` normal of deviation .01, `h` zero."""
        key_a, key_W, key_C = jr.split(key, 3)
        a, _ = _positive_definite(key_a, size, dtype)
        W = 0.01 * jr.normal(key_W, (size, size), a.dtype)
        C = draw_inputs(key_C, size, input_size, dtype)
        return cls(a, W, jnp.zeros_like(a), num_relu, C)

    def _free(self, state):
        return self.a * state + self.W @ almost_linear(state, self.num_relu) + self.h

    def _form(self):
        return almost_linear_form(self.a, self.W, self.h, self.num_relu)


class ShallowPLRNN(PiecewiseLinearNetwork):
    r"""The shallow PLRNN: one hidden layer of H units.

    $$z' = a \odot z + W_1 \max(W_2 z + h_2, 0) + h_1 + C u$$

    **Arguments:** arrays `a` (M,), `W1` (M, H), `W2` (H, M), `h1` (M,), `h2` (H,), and `C` (M, I) for a driven one. At most
    $\sum_{i \le M} \binom{H}{i}$ regions.

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.ShallowPLRNN.draw(3, 50, key=jax.random.key(0))
        >>> cell(None, cell.initial_state()).shape
        (3,)

    Hess, Monfared, Brenner & Durstewitz, ICML (2023).
    """

    a: Float[Array, " m"]
    W1: Float[Array, "m h"]
    W2: Float[Array, "h m"]
    h1: Float[Array, " m"]
    h2: Float[Array, " h"]

    @checked
    def __init__(
        self, a: Array, W1: Array, W2: Array, h1: Array, h2: Array, C: Array | None = None
    ):
        self.a, self.W1, self.W2, self.h1, self.h2, self.C = check_arrays(
            {
                "a": (a, "m"),
                "W1": (W1, "mh"),
                "W2": (W2, "hm"),
                "h1": (h1, "m"),
                "h2": (h2, "h"),
                "C": (inputs(C, h1), "mi"),
            }
        )

    @classmethod
    @checked
    def draw(
        cls, size: int, hidden_size: int, input_size: int = 0, *, dtype=None, key: PRNGKeyArray
    ):
        """`a` the diagonal of a random positive matrix of norm 1; `W1` from U(+-1/sqrt(H)); `W2` and `h2` from
        U(+-1/sqrt(M)); `h1` zero."""
        hidden_size = check_count("hidden_size", hidden_size, 1)
        key_a, key_W1, key_W2, key_h2, key_C = jr.split(key, 5)
        a, _ = _positive_definite(key_a, size, dtype)
        W1 = uniform(key_W1, (size, hidden_size), hidden_size, dtype)
        W2 = uniform(key_W2, (hidden_size, size), size, dtype)
        h2 = uniform(key_h2, (hidden_size,), size, dtype)
        return cls(a, W1, W2, jnp.zeros_like(a), h2, draw_inputs(key_C, size, input_size, dtype))

    def _free(self, state):
        return self.a * state + self.W1 @ jax.nn.relu(self.W2 @ state + self.h2) + self.h1

    def _form(self):
        return jnp.diag(self.a), self.W1, self.W2, self.h1, self.h2


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


class DendriticPLRNN(PiecewiseLinearNetwork):
    r"""The dendritic PLRNN: each unit's nonlinearity is a linear spline of B pieces.

    $$z' = a \odot z + W \sum_{b=1}^{B} \alpha_b \max(z - \theta_b, 0) + h + C u$$

    **Arguments:** arrays `a` (M,), `W` (M, M), `alpha` (B,), `theta` (M, B), `h` (M,), and `C` (M, I) for a driven one. At
    most $(B + 1)^M$ regions.

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.DendriticPLRNN.draw(3, 5, key=jax.random.key(0))
        >>> cell(None, cell.initial_state()).shape
        (3,)

    Brenner et al., ICML (2022).
    """

    not_weights: ClassVar[tuple[str, ...]] = ("theta",)

    a: Float[Array, " m"]
    W: Float[Array, "m m"]
    alpha: Float[Array, " b"]
    theta: Float[Array, "m b"]
    h: Float[Array, " m"]

    @checked
    def __init__(
        self, a: Array, W: Array, alpha: Array, theta: Array, h: Array, C: Array | None = None
    ):
        self.a, self.W, self.alpha, self.theta, self.h, self.C = check_arrays(
            {
                "a": (a, "m"),
                "W": (W, "mm"),
                "alpha": (alpha, "b"),
                "theta": (theta, "mb"),
                "h": (h, "m"),
                "C": (inputs(C, h), "mi"),
            }
        )

    @classmethod
    @checked
    def draw(
        cls, size: int, num_branches: int, input_size: int = 0, *, dtype=None, key: PRNGKeyArray
    ):
        """`a` and `W` as in `PLRNN`; `alpha` from U(+-1/sqrt(B)); `theta` standard normal; `h` zero."""
        num_branches = check_count("num_branches", num_branches, 1)
        key_a, key_alpha, key_theta, key_C = jr.split(key, 4)
        a, W = _positive_definite(key_a, size, dtype)
        alpha = uniform(key_alpha, (num_branches,), num_branches, dtype)
        theta = jr.normal(key_theta, (size, num_branches), a.dtype)
        C = draw_inputs(key_C, size, input_size, dtype)
        return cls(a, W, alpha, theta, jnp.zeros_like(a), C)

    def _free(self, state):
        spline = jax.nn.relu(state[:, None] - self.theta) @ self.alpha
        return self.a * state + self.W @ spline + self.h

    def _form(self):
        size, branches = self.theta.shape
        W1 = jnp.concatenate(self.alpha[:, None, None] * self.W, axis=1)
        W2 = jnp.tile(jnp.eye(size, dtype=self.h.dtype), (branches, 1))
        return jnp.diag(self.a), W1, W2, self.h, -self.theta.T.ravel()


def almost_linear(state: Float[Array, " m"], num_relu: int) -> Float[Array, " m"]:
    """The last units rectified, the others as they are."""
    linear = state.size - num_relu
    return jnp.concatenate([state[:linear], jax.nn.relu(state[linear:])])


def almost_linear_form(a, W, h, num_relu: int):
    """A, W1, W2, h1, h2 of `a * z + W phi(z) + h`, where only the last units are rectified."""
    linear = h.size - num_relu
    A = jnp.diag(a).at[:, :linear].add(W[:, :linear])
    W2 = jnp.eye(h.size, dtype=h.dtype)[linear:]
    return A, W[:, linear:], W2, h, jnp.zeros_like(h, shape=num_relu)


def check_num_relu(num_relu: int, size: int) -> int:
    num_relu = check_count("num_relu", num_relu, 0)
    if num_relu > size:
        raise ValueError(f"num_relu is {num_relu}, but the state has only {size} units.")
    return num_relu


def inputs(C: Array | None, like: Array) -> Array:
    """`C`, or one without columns for as many units, in a dtype that raises no other."""
    if C is not None:
        return C
    like = jnp.asarray(like)
    return jnp.zeros((*like.shape[:1], 0), like.dtype)


def draw_inputs(key, size, input_size, dtype):
    input_size = check_count("input_size", input_size, 0)
    return uniform(key, (size, input_size), max(input_size, 1), dtype)


def _positive_definite(key, size, dtype):
    """Diagonal and off-diagonal part of K / lambda_max(K), K = R'R / M + 1, R normal (Talathi & Vartak, 2015)."""
    size = check_count("size", size, 1)
    R = jr.normal(key, (size, size), dtype or jnp.result_type(float))
    K = R.T @ R / size + jnp.eye(size, dtype=R.dtype)
    K = K / jnp.linalg.eigvalsh(K)[-1]
    a = jnp.diag(K)
    return a, K - jnp.diag(a)

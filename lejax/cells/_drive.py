"""Inputs of cells, random weights, and derivatives of activations."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray


def uniform(key: PRNGKeyArray, shape: tuple[int, ...], hidden_size: int, dtype) -> Array:
    """U(-1/sqrt(H), 1/sqrt(H)), as PyTorch and Equinox draw recurrent weights."""
    limit = hidden_size**-0.5
    return jr.uniform(key, shape, dtype or jnp.result_type(float), minval=-limit, maxval=limit)


def input_weights(weight: Array | None, like: Array) -> Array:
    """`weight`, or weights of no inputs: as many rows as `like` has, no columns, the same dtype."""
    if weight is not None:
        return weight
    like = jnp.asarray(like)
    return jnp.zeros((*like.shape[:1], 0), like.dtype)


def drive(
    weight: Float[Array, "g i"], input: Float[Array, " i"] | None
) -> Float[Array, " g"] | float:
    """W u; 0 for an autonomous cell, which is called without an input."""
    if input is None and weight.shape[1] == 0:
        return 0.0
    return weight @ check_input(weight.shape[1], input)


def check_input(size: int, input: Float[Array, " i"] | None) -> Float[Array, " i"]:
    """A real input of shape (size,)."""
    if input is None:
        raise TypeError(f"the cell takes inputs of size {size}, got None.")
    if jnp.shape(input) != (size,):
        raise ValueError(f"the cell takes inputs of shape ({size},), got {jnp.shape(input)}.")
    if jnp.iscomplexobj(input):
        raise TypeError(f"the cell takes real inputs, got {jnp.result_type(input)}.")
    return input


def check_relu(activation: Callable[[Array], Array]) -> None:
    """Refuse a network that is not piecewise linear."""
    if activation is not jax.nn.relu:
        raise TypeError(
            f"a network is piecewise linear with activation=jax.nn.relu, but this one has {activation!r}."
        )


def activate(
    activation: Callable[[Array], Array], x: Float[Array, " h"], columns: Float[Array, "h k"]
) -> tuple[Float[Array, " h"], Float[Array, "h k"]]:
    """The activation at x, and its derivative there times the columns."""
    if (
        activation is jnp.tanh
    ):  # compute the slope once, not a product of two factors for each column
        y = jnp.tanh(x)
        return y, (1 - y**2)[:, None] * columns
    y, tangent = jax.linearize(activation, x)
    return y, jax.vmap(tangent, in_axes=1, out_axes=1)(columns)

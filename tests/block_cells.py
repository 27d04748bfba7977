"""Cells with known blocks: a diagonal recurrence and a network of low rank."""

import jax
import jax.numpy as jnp

import lejax


class Gate(lejax.BlockTriangularCell):
    """h' = sigmoid(a + u) h + u: a diagonal recurrence."""

    bias: jax.Array

    def __call__(self, input, state):
        return jax.nn.sigmoid(self.bias + input) * state + input

    def blocks(self, input, state):
        return self(input, state), (lejax.DiagonalBlock(jax.nn.log_sigmoid(self.bias + input)),)


class LowRank(lejax.BlockTriangularCell):
    """h' = (1 - a) h + a M N^T tanh(h): the columns of M span an invariant space, the complement decays by 1 - a."""

    left: jax.Array
    right: jax.Array
    leak: float

    def __call__(self, input, state):
        return (1 - self.leak) * state + self.leak * self.left @ (self.right.T @ jnp.tanh(state))

    def blocks(self, input, state):
        size, rank = self.left.shape
        slope = 1 - jnp.tanh(state) ** 2
        reduced = self.right.T @ (slope[:, None] * self.left)

        def tangent(columns):
            return (1 - self.leak) * columns + self.leak * reduced @ columns

        complement = jnp.full(size - rank, 1 - self.leak, state.dtype)
        return self(input, state), (
            lejax.DenseBlock(tangent, rank),
            lejax.DiagonalBlock.of_entries(complement),
        )

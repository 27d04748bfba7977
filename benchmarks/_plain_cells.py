"""Cells whose blocks are hidden from the engine, to which structured tangents are compared."""

import equinox as eqx
import jax
from jax.flatten_util import ravel_pytree

import lejax


class WithoutBlocks(lejax.BlockTriangularCell):
    """A cell as one dense block, whatever blocks it declares."""

    cell: eqx.Module

    def __call__(self, input, state):
        return self.cell(input, state)

    def blocks(self, input, state):
        return one_dense_block(self, input, state)


class MemoryOnly(lejax.BlockTriangularCell):
    """The memory alone, as one dense block, of a cell whose state is (memory, output)."""

    cell: eqx.Module

    def __call__(self, input, state):
        return self.cell(input, (state, self.cell.initial_state()[1]))[0]

    def blocks(self, input, state):
        return one_dense_block(self, input, state)


def one_dense_block(cell, input, state):
    """The new state, and the Jacobian as one block."""
    vector, unravel = ravel_pytree(state)

    def step(vector):
        return ravel_pytree(cell(input, unravel(vector)))[0]

    new_vector, tangent = jax.linearize(step, vector)
    columns = jax.vmap(tangent, in_axes=1, out_axes=1)
    return unravel(new_vector), (lejax.DenseBlock(columns, vector.size),)

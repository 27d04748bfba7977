"""Cells that hide from the engine what they say of their blocks: what structured tangents are compared with."""

import equinox as eqx


class Whole(eqx.Module):
    """The same cell, which says nothing of its blocks."""

    cell: eqx.Module

    def __call__(self, input, state):
        return self.cell(input, state)


class MemoryOnly(eqx.Module):
    """The memory of a cell with the state (memory, output) alone, which says nothing of its blocks."""

    cell: eqx.Module

    def __call__(self, input, state):
        return self.cell(input, (state, self.cell.initial_state()[1]))[0]

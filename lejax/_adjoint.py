"""How a run is differentiated: an adjoint is handed the body of the loop and scans it."""

import abc
from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
from jaxtyping import PyTree


Carry = TypeVar("Carry")


class Adjoint(eqx.Module):
    """A way to run `carry = body(carry, input)` over all steps, and to differentiate it."""

    @abc.abstractmethod
    def loop(
        self,
        body: Callable[[Carry, PyTree], Carry],
        carry: Carry,
        inputs: PyTree,
        length: int,
    ) -> Carry:
        raise NotImplementedError


class DirectAdjoint(Adjoint):
    """One `jax.lax.scan`: forward and reverse mode, memory O(T) in reverse mode."""

    def loop(self, body, carry, inputs, length):
        return jax.lax.scan(lambda c, x: (body(c, x), None), carry, inputs, length=length)[0]

"""The arrays of a network that its framework changes in place, as a node of a pytree."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.tree_util as jtu
from jaxtyping import PyTree

from .._core.check_cell import StepError


@jtu.register_pytree_with_keys_class
class LiveArrays:
    """`read()` gives the present arrays and what else a step depends on; each flattening reads anew.

    A program therefore gets the arrays of the moment at which it is called, and is compiled again only if `static`
    differs. What JAX unflattens, such as a gradient or a copy, is detached: it keeps the arrays that it got.
    """

    def __init__(self, read: Callable[[], tuple[PyTree, Any]]):
        self.read = read

    def tree_flatten_with_keys(self):
        arrays, static = self.read()
        return ((jtu.GetAttrKey("arrays"), arrays),), static

    @classmethod
    def tree_unflatten(cls, static, children):
        (arrays,) = children
        return cls(lambda: (arrays, static))


def check_unchanged(name: str, before: Sequence, after: Sequence, names: Sequence[str]) -> None:
    """Refuse a step that changes arrays which are not in its carry: the changes would be lost."""
    changed = [n for n, old, new in zip(names, before, after, strict=True) if old is not new]
    if changed:
        raise StepError(
            f"a step of {name} changes {', '.join(changed[:3])}, which its carry does not hold, so that it is no map "
            "of the carry: switch off what draws random numbers or gathers statistics, such as dropout and batch "
            "normalization."
        )

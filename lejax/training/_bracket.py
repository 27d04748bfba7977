"""A root of a noisy function of one number in a bracket, down to the error of the function."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree


class Point(NamedTuple):
    """A measured point: x, the value f(x), its standard error, 0 if unknown, and what else the measurement says."""

    x: Float[Array, ""]
    value: Float[Array, ""]
    error: Float[Array, ""]
    status: PyTree = None


class Search(NamedTuple):
    """The state of a search: the last point, the one across the root, the one before, and how often f was measured."""

    newest: Point
    across: Point
    before: Point
    slope: Float[Array, ""]
    num_measured: Int[Array, ""]

    @property
    def best(self) -> Point:
        """The end of the bracket that is nearer to the root."""
        is_newest = jnp.abs(self.newest.value) <= jnp.abs(self.across.value)
        return _choose(is_newest, self.newest, self.across)

    @property
    def is_finite(self) -> Bool[Array, ""]:
        """Whether no value is NaN; infinite values have a sign."""
        return ~(jnp.isnan(self.newest.value) | jnp.isnan(self.across.value))

    @property
    def has_root(self) -> Bool[Array, ""]:
        """Whether the values at both ends differ in sign."""
        return jnp.sign(self.newest.value) != jnp.sign(self.across.value)

    @property
    def tolerance(self) -> Float[Array, ""]:
        """Half the width below which the bracket says no more than the error of the value does."""
        best = self.best
        rounding = 2 * float(jnp.finfo(best.x.dtype).eps) * jnp.abs(best.x)
        return rounding + jnp.nan_to_num(best.error / jnp.abs(self.slope), posinf=0.0) / 2

    @property
    def is_done(self) -> Bool[Array, ""]:
        """Whether the bracket is within the error, or its end is a root."""
        width = jnp.abs(self.newest.x - self.across.x)
        return (width <= 2 * self.tolerance) | (self.best.value == 0)


def search_bracket(
    measure: Callable[[Float[Array, ""]], Point],
    lower: Float[Array, ""],
    upper: Float[Array, ""],
    max_count: int,
) -> Search:
    """The search from both ends of a bracket: inverse quadratic interpolation where it is safe, else bisection.

    The algorithm of Chandrupatla, Adv. Eng. Softw. 28 (1997). It stops at `max_count` measurements, at once where a
    value is NaN, and where the bracket has no root.
    """
    ends = measure(upper), measure(lower)
    start = Search(*ends, ends[1], _slope(*ends), jnp.asarray(2, jnp.int32))

    def goes_on(search):
        is_open = search.is_finite & search.has_root & ~search.is_done
        return is_open & (search.num_measured < max_count)

    def step(search):
        a, b, _ = search.newest, search.across, search.before
        share = jnp.where(search.num_measured == 2, 0.5, _share(search))
        least = jnp.minimum(search.tolerance / jnp.abs(b.x - a.x), 0.5)
        new = measure(a.x + jnp.clip(share, least, 1 - least) * (b.x - a.x))
        stays = jnp.sign(new.value) == jnp.sign(a.value)
        across, before = _choose(stays, b, a), _choose(stays, a, b)
        # A secant of points nearer than their errors would be noise.
        difference = jnp.abs(new.value - across.value)
        is_clear = jnp.isfinite(difference) & (difference >= 4 * (new.error + across.error))
        is_clear |= ~jnp.isfinite(search.slope)
        slope = jnp.where(is_clear, _slope(new, across), search.slope)
        return Search(new, across, before, slope, search.num_measured + 1)

    return jax.lax.while_loop(goes_on, step, start)


def _share(search: Search) -> Float[Array, ""]:
    """The next point as a share of the way from the newest point to the one across."""
    (a, fa, *_), (b, fb, *_), (c, fc, *_) = search.newest, search.across, search.before
    xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
    is_safe = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi)
    share = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
    return jnp.where(is_safe & jnp.isfinite(share), share, 0.5)


def _slope(one: Point, other: Point) -> Float[Array, ""]:
    return (one.value - other.value) / (one.x - other.x)


def _choose(condition: Bool[Array, ""], one: Point, other: Point) -> Point:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), one, other)

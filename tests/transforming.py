"""A table of the transformations of JAX: each takes a function and its argument, and traces or runs the result."""

from functools import cache, partial

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec
from verbs import function_of, numbers


# JAX's check of how values vary over a mesh (`check_vma`) refuses the implicit root where a branch mixes varying and
# unvarying numbers; the values are right.
UNCHECKED = ("orbits.find_fixed_points", "training.tune_parameter")


def pair(x):
    """A batch of two members."""
    return jnp.stack([x, 0.9 * x])


def scalar(function):
    return lambda x: jnp.sum(numbers(function(x)))


def on_two_devices(function, check_vma=True):
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("batch")
    return jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=check_vma)


def _in_scan(function, x):
    return jax.lax.scan(lambda carry, _: (carry, function(carry)), x, length=2)[1]


def _in_cond(function, x):
    def zeros(x):
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(function, x))

    return jax.lax.cond(jnp.sum(x) > 0, function, zeros, x)


# name -> (function, x) -> value of the transformed function at x, or at a batch that `pair` makes of x
TRANSFORMATIONS = {
    "jit": lambda f, x: jax.jit(f)(x),
    "vmap": lambda f, x: jax.vmap(f)(pair(x)),
    "jit of vmap": lambda f, x: jax.jit(jax.vmap(f))(pair(x)),
    "grad": lambda f, x: jax.grad(scalar(f))(x),
    "vmap of grad": lambda f, x: jax.vmap(jax.grad(scalar(f)))(pair(x)),
    "grad of vmap": lambda f, x: jax.grad(scalar(jax.vmap(f)))(pair(x)),
    "jvp": lambda f, x: jax.jvp(f, (x,), (x,)),
    "jacfwd of vmap": lambda f, x: jax.jacfwd(jax.vmap(f))(pair(x)),
    "shard_map": lambda f, x, **o: on_two_devices(jax.vmap(f), **o)(pair(x)),
    "grad under shard_map": lambda f, x, **o: on_two_devices(jax.vmap(jax.grad(scalar(f))), **o)(
        pair(x)
    ),
    "checkpoint": lambda f, x: jax.grad(scalar(jax.checkpoint(f)))(x),
    "scan": _in_scan,
    "cond": _in_cond,
}


@cache
def compiled(function):
    """Return the jitted function; all transformations share this object, so it is traced once."""
    return jax.jit(function)


def trace(transformation, name, table):
    """Trace a transformed entry of a table into a jaxpr, without compilation, as if JAX multiplied in bfloat16."""
    function, x = table[name]
    options = {}
    if "shard_map" in transformation:
        options["check_vma"] = function_of(name) not in UNCHECKED
    transformed = partial(TRANSFORMATIONS[transformation], compiled(function), **options)
    with jax.default_matmul_precision("bfloat16"):
        return jax.make_jaxpr(transformed)(x)

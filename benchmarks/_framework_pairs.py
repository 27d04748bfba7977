"""Recurrent networks of frameworks that run on JAX, each beside the cell that lejax makes of it.

A function of this file yields `(layer, pair)` for one number of layers and one dtype. All biases are drawn, since
frameworks start them at zero.
"""

import functools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple


os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree

from lejax.cells import Stack
from lejax.interop import from_flax, from_haiku, from_keras, from_keras_file, from_scan_step


SIZES = (3, 5, 4, 6)


class Pair(NamedTuple):
    """A cell, and the framework's own run of the same network; states are vectors in the order of the cell."""

    cell: Any
    outputs: Callable[[Any], Any]  # of the highest layer along inputs, by the framework's own loop
    states: Callable[[Any, Any], Any]  # from a start along inputs
    jacobians: Callable[[Any, Any], Any]  # at states, for inputs


Pairs = Iterator[tuple[str, Pair]]


def pair_in_jax(cells: Sequence[Any], loops: Sequence[Callable[[Any, Any], Any]]):
    """The pair of layers whose loops are `loop(carry, inputs) -> (outputs, carry)` and can be traced."""
    cell = cells[0] if len(cells) == 1 else Stack(cells)
    start, unravel = ravel_pytree(cell.initial_state())

    def run(state, inputs):
        states, new = [state] if len(loops) == 1 else state, []
        for loop, carry in zip(loops, states, strict=True):
            inputs, carry = loop(carry, inputs)
            new.append(carry)
        return inputs, new[0] if len(loops) == 1 else tuple(new)

    def step(vector, x):
        return ravel_pytree(run(unravel(vector), x[None])[1])[0]

    def states(vector, inputs):
        def body(vector, x):
            new = step(vector, x)
            return new, new

        return jax.lax.scan(body, vector, inputs)[1]

    jacobians = jax.vmap(jax.jacfwd(step))
    return Pair(cell, lambda xs: run(unravel(start), xs)[0], jax.jit(states), jax.jit(jacobians))


def shake(tree: Any, seed: int) -> Any:
    """The arrays plus normal numbers of a tenth."""
    noise = iter(jr.split(jr.key(seed), 100))
    return jax.tree.map(lambda x: x + 0.1 * jr.normal(next(noise), x.shape, x.dtype), tree)


def flax_nnx(num_layers: int, dtype: str) -> Pairs:
    from flax import nnx

    def loop(module):
        # A module cannot be used inside a transformation that it comes from outside of.
        def run(carry, xs):
            return nnx.RNN(nnx.clone(module), return_carry=True)(xs, initial_carry=carry)[::-1]

        return run

    for kind in (nnx.SimpleCell, nnx.GRUCell, nnx.LSTMCell, nnx.OptimizedLSTMCell):
        dtypes = dict.fromkeys(("dtype", "param_dtype"), jnp.dtype(dtype))
        modules = [kind(*SIZES[i : i + 2], **dtypes, rngs=nnx.Rngs(i)) for i in range(num_layers)]
        for i, module in enumerate(modules):
            nnx.update(module, shake(nnx.state(module, nnx.Param), i))
        yield (
            kind.__name__,
            pair_in_jax([from_flax(m) for m in modules], [loop(m) for m in modules]),
        )


def flax_linen(num_layers: int, dtype: str) -> Pairs:
    from flax import linen

    def loop(module, variables):
        rnn = linen.RNN(module, return_carry=True)
        variables = {"params": {"cell": variables["params"]}}
        return lambda carry, xs: rnn.apply(variables, xs, initial_carry=carry)[::-1]

    for kind in (
        linen.SimpleCell, linen.GRUCell, linen.MGUCell, linen.LSTMCell, linen.OptimizedLSTMCell,
    ):  # fmt: skip
        layers = []
        for i in range(num_layers):
            module, x = kind(SIZES[i + 1], param_dtype=jnp.dtype(dtype)), jnp.zeros(SIZES[i], dtype)
            carry = module.initialize_carry(jr.key(0), x.shape)
            layers.append((module, shake(module.init(jr.key(i), carry, x), i)))
        yield (
            kind.__name__,
            pair_in_jax(
                [from_flax(*layer) for layer in layers], [loop(*layer) for layer in layers]
            ),
        )


def haiku(num_layers: int, dtype: str) -> Pairs:
    import haiku as hk

    def layer(kind, i):
        def make():
            return kind(SIZES[i + 1])

        step = hk.transform(lambda x, state: make()(x, state))
        loop = hk.without_apply_rng(
            hk.transform(lambda xs, state: hk.dynamic_unroll(make(), xs, state))
        )
        start = hk.without_apply_rng(hk.transform(lambda: make().initial_state(None))).apply({})
        start = jax.tree.map(lambda x: x.astype(dtype), start)
        parameters = step.init(jr.key(i), jnp.ones(SIZES[i], dtype), start)
        parameters = shake(jax.tree.map(lambda x: x.astype(dtype), parameters), i)
        cell = from_haiku(step, parameters, initial_state=start)
        return cell, lambda carry, xs: loop.apply(parameters, xs, carry)

    for kind in (hk.VanillaRNN, hk.GRU, hk.LSTM):
        cells, loops = zip(*(layer(kind, i) for i in range(num_layers)), strict=True)
        yield kind.__name__, pair_in_jax(cells, loops)


def _keras_models(num_layers: int, dtype: str):
    import keras

    layers = keras.layers
    kinds = {
        "SimpleRNN": layers.SimpleRNN,
        "GRU": layers.GRU,
        "GRU, reset_after=False": functools.partial(layers.GRU, reset_after=False),
        "LSTM": layers.LSTM,
    }
    for name, kind in kinds.items():
        keras.utils.set_random_seed(0)
        options = {"return_sequences": True, "return_state": False, "dtype": dtype}
        made = [
            kind(n, bias_initializer="random_normal", **options) for n in SIZES[1:][:num_layers]
        ]
        yield name, keras.Sequential([keras.Input((None, SIZES[0])), *made])


def _keras_loop(layer):
    def loop(carry, xs):
        sequence, *new = layer(xs[None], initial_state=[x[None] for x in jax.tree.leaves(carry)])
        new = [x[0] for x in new]
        return sequence[0], new[0] if len(new) == 1 else tuple(new)

    return loop


def _keras_pair(model, cells, dtype):
    for layer in model.layers:
        layer.return_state = True
        if dtype == "float64":  # the tanh of Keras is in float32 on the JAX backend
            layer.cell.activation = jnp.tanh
    return pair_in_jax(cells, [_keras_loop(layer) for layer in model.layers])


def keras_layers(num_layers: int, dtype: str) -> Pairs:
    for name, model in _keras_models(num_layers, dtype):
        yield name, _keras_pair(model, [from_keras(layer) for layer in model.layers], dtype)


def keras_files(num_layers: int, dtype: str) -> Pairs:
    for name, model in _keras_models(num_layers, dtype):
        with tempfile.TemporaryDirectory() as folder:
            model.save(path := Path(folder) / "model.keras")
            cell = from_keras_file(path)
        cells = cell.layers if isinstance(cell, Stack) else [cell]
        yield name, _keras_pair(model, cells, dtype)


def _tanh(params, carry, x):
    new = jnp.tanh(params["w"] @ carry + params["v"] @ x + params["b"])
    return new, new


def _gru(params, carry, x):
    ours, theirs = jnp.split(params["v"] @ x + params["b"], 3), jnp.split(params["w"], 3)
    z, r = (jax.nn.sigmoid(ours[i] + theirs[i] @ carry) for i in (0, 1))
    new = z * carry + (1 - z) * jnp.tanh(ours[2] + theirs[2] @ (r * carry))
    return new, new


def _lstm(params, carry, x):
    h, c = carry
    i, f, g, o = jnp.split(params["w"] @ h + params["v"] @ x + params["b"], 4)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def scan_steps(num_layers: int, dtype: str) -> Pairs:
    """One step for all layers, whose carry is a list."""
    for name, step, gates in (("simple RNN", _tanh, 1), ("GRU", _gru, 3), ("LSTM", _lstm, 4)):
        rng, params, start = np.random.default_rng(0), [], []
        for inputs, size in zip(SIZES, SIZES[1:][:num_layers], strict=False):
            shapes = {"w": (gates * size, size), "v": (gates * size, inputs), "b": (gates * size,)}
            params.append(
                {k: jnp.asarray(rng.normal(size=s) / 2, dtype) for k, s in shapes.items()}
            )
            zeros = jnp.zeros(size, dtype)
            start.append((zeros, zeros) if gates == 4 else zeros)

        def whole(params, carry, x, step=step):
            new = []
            for own, part in zip(params, carry, strict=True):
                part, x = step(own, part, x)
                new.append(part)
            return new, x

        def loop(carry, xs, whole=whole, params=params):
            last, outputs = jax.lax.scan(lambda c, x: whole(params, c, x), carry, xs)
            return outputs, last

        yield name, pair_in_jax([from_scan_step(whole, params, initial_state=start)], [loop])

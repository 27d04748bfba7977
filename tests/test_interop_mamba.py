"""Checkpoints of Mamba and Mamba-2 against the published equations in NumPy, and those that cannot be imported."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from dense_exponents import dense_exponents
from jax.flatten_util import ravel_pytree
from safetensors.numpy import save_file
from torch_files import save, state_dict

import lejax
from lejax.cells import Mamba2Cell, MambaCell
from lejax.interop import from_mamba


SIZE, INNER, STATES, RANK, WIDTH, HEADS = 4, 8, 3, 2, 4, 4
TOLERANCES = {"float64": 1e-12, "float32": 1e-5}
KINDS = [("Mamba", 1), ("Mamba-2", 1), ("Mamba-2", 2)]
LAYER = "backbone.layers.{}."


def checkpoint(kind="Mamba", num_layers=1, groups=1, dtype="float64", seed=0, scale=1):
    """A state dict with the names and shapes of a language model of the published code."""
    rng = np.random.default_rng(seed)
    size, inner, states, heads = scale * SIZE, scale * INNER, scale * STATES, scale * HEADS
    arrays = {"backbone.embedding.weight": rng.normal(size=(5, size))}
    for layer in range(num_layers):
        if kind == "Mamba":
            channels, rows, A = inner, 2 * inner, (inner, states)
            shapes = {"x_proj.weight": (RANK + 2 * states, inner), "dt_proj.weight": (inner, RANK)}
            shapes |= {"dt_proj.bias": (inner,), "D": (inner,)}
        else:
            channels, A = inner + 2 * groups * states, (heads,)
            rows = inner + channels + heads
            shapes = {"dt_bias": (heads,), "D": (heads,)}
        shapes |= {"conv1d.weight": (channels, 1, WIDTH), "conv1d.bias": (channels,)}
        shapes |= {"in_proj.weight": (rows, size), "out_proj.weight": (size, inner)}
        weights = {
            f"mixer.{n}": rng.uniform(-1, 1, s) / np.sqrt(s[-1] if len(s) > 1 else 1)
            for n, s in shapes.items()
        }
        weights["mixer.A_log"] = np.log(rng.uniform(0.1, 2, A))
        weights["norm.weight"] = rng.uniform(0.5, 1.5, size)
        if kind == "Mamba-2":
            weights["mixer.norm.weight"] = rng.uniform(0.5, 1.5, inner)
        arrays |= {LAYER.format(layer) + name: array for name, array in weights.items()}
    arrays |= {
        "backbone.norm_f.weight": np.ones(size),
        "lm_head.weight": rng.normal(size=(5, size)),
    }
    return {name: array.astype(dtype) for name, array in arrays.items()}


def draw_inputs(num_steps=200, dtype="float64", size=SIZE):
    return np.random.default_rng(1).normal(size=(num_steps, size)).astype(dtype)


# --- the published equations


def softplus(x):
    return np.log(1 + np.exp(x))


def silu(x):
    return x / (1 + np.exp(-x))


def normalize(x, weight, groups=1):
    parts = x.reshape(groups, -1)
    mean = (parts * parts).mean(axis=1, keepdims=True)
    return (parts / np.sqrt(mean + 1e-5)).ravel() * weight


def mamba(w, x, state):
    """One step of a layer of Mamba; also the logarithms of the decays (E, N)."""
    buffer, h, _ = state
    v, z = np.split(w["mixer.in_proj.weight"] @ normalize(x, w["norm.weight"]), 2)
    buffer = np.concatenate([buffer, v[None]])
    convolved = np.einsum("ek,ke->e", w["mixer.conv1d.weight"][:, 0], buffer)
    c = silu(convolved + w["mixer.conv1d.bias"])
    N = h.shape[1]
    step, B, C = np.split(w["mixer.x_proj.weight"] @ c, [-2 * N, -N])
    delta = softplus(w["mixer.dt_proj.weight"] @ step + w["mixer.dt_proj.bias"])
    decay = delta[:, None] * -np.exp(w["mixer.A_log"])
    h = np.exp(decay) * h + np.outer(delta * c, B)
    y = (h @ C + w["mixer.D"] * c) * silu(z)
    return (buffer[1:], h, x + w["mixer.out_proj.weight"] @ y), decay


def mamba2(w, x, state, groups):
    """One step of a layer of Mamba-2, head by head; also the logarithms of the decays (H, P, N)."""
    buffer, h, _ = state
    heads, width, N = h.shape
    inner = heads * width
    all_rows = w["mixer.in_proj.weight"] @ normalize(x, w["norm.weight"])
    z, v, step = np.split(all_rows, [inner, len(all_rows) - heads])
    buffer = np.concatenate([buffer, v[None]])
    convolved = np.einsum("ek,ke->e", w["mixer.conv1d.weight"][:, 0], buffer)
    c = silu(convolved + w["mixer.conv1d.bias"])
    x_heads, B, C = np.split(c, [inner, inner + groups * N])
    new, y, decays = [], [], []
    for head in range(heads):
        group = head * groups // heads
        b, read = (m[group * N : (group + 1) * N] for m in (B, C))
        own = x_heads[head * width : (head + 1) * width]
        delta = softplus(step[head] + w["mixer.dt_bias"][head])
        decay = -np.exp(w["mixer.A_log"][head]) * delta
        new.append(np.exp(decay) * h[head] + delta * np.outer(own, b))
        y.append(new[-1] @ read + w["mixer.D"][head] * own)
        decays.append(np.full((width, N), decay))
    gated = normalize(np.concatenate(y) * silu(z), w["mixer.norm.weight"], groups)
    output = x + w["mixer.out_proj.weight"] @ gated
    return (buffer[1:], np.array(new), output), np.array(decays)


def published(arrays, kind, groups, states, inputs):
    """The states after each step, and the logarithms of the decays at each step."""
    layers = [
        {n.removeprefix(LAYER.format(i)): a for n, a in arrays.items() if LAYER.format(i) in n}
        for i in range(len(states))
    ]
    all_states, decays = [], []
    for x in inputs:
        new, logs = [], []
        for w, state in zip(layers, states, strict=True):
            state, log = mamba(w, x, state) if kind == "Mamba" else mamba2(w, x, state, groups)
            new.append(state)
            logs.append(log.ravel())
            x = state[2]
        states = tuple(new)
        all_states.append(states)
        decays.append(np.concatenate(logs))
    return all_states, np.array(decays)


def ravel(states):
    return np.concatenate([np.ravel(part) for state in states for part in state])


def in_float64(tree):
    return jax.tree.map(lambda x: np.asarray(x, float), tree)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize(("kind", "groups"), KINDS)
def test_states_and_jacobian_are_those_of_the_published_equations(kind, groups, num_layers, dtype):
    arrays = checkpoint(kind, num_layers, groups, dtype)
    stack, inputs = from_mamba(arrays, num_groups=groups), draw_inputs(dtype=dtype)
    assert [type(layer) for layer in stack.layers] == [
        {"Mamba": MambaCell, "Mamba-2": Mamba2Cell}[kind]
    ] * num_layers
    start = stack.initial_state()
    states = lejax.unroll(stack, start, inputs)
    arrays, inputs, start = in_float64((arrays, inputs, start))
    expected, _ = published(arrays, kind, groups, start, inputs)
    ours = jax.vmap(lambda state: ravel_pytree(state)[0])(states)
    assert ours.dtype == dtype
    of_states = np.abs(ours - np.stack([ravel(state) for state in expected])).max()
    np.testing.assert_array_equal(jax.vmap(stack.output)(states), states[-1][2])

    vector, unravel = ravel(expected[99]), ravel_pytree(start)[1]
    shapes = [[part.shape for part in state] for state in expected[99]]

    def step(vector):
        ends = np.cumsum([np.prod(shape) for layer in shapes for shape in layer])[:-1]
        parts = iter(np.split(vector, ends))
        state = [tuple(next(parts).reshape(shape) for shape in layer) for layer in shapes]
        return ravel(published(arrays, kind, groups, state, inputs[100:101])[0][0])

    # Complex steps give derivatives to the last digit.
    columns = [step(vector + 1e-30j * unit).imag / 1e-30 for unit in np.eye(vector.size)]
    state = jax.tree.map(lambda x: x.astype(dtype), unravel(jnp.asarray(vector)))
    jacobian = lejax.jacobian(stack, state, inputs[100].astype(dtype))
    of_jacobian = np.abs(jacobian - np.stack(columns, axis=1)).max()
    print(f"states {of_states:.1e}, Jacobian {of_jacobian:.1e}")
    assert max(of_states, of_jacobian) < TOLERANCES[dtype]


@pytest.mark.parametrize(("kind", "groups"), KINDS)
def test_a_state_of_more_than_1024_numbers(kind, groups):
    arrays = checkpoint(kind, 2, groups, scale=5)
    stack, inputs = from_mamba(arrays, num_groups=groups), draw_inputs(size=5 * SIZE)
    start = stack.initial_state()
    assert ravel(start).size > 1024
    states, decays = published(arrays, kind, groups, in_float64(start), inputs)
    last = ravel_pytree(lejax.unroll(stack, start, inputs[:150]))[0]
    assert last.size == 150 * ravel(start).size
    spectrum = lejax.lyapunov_spectrum(stack, start, inputs, num_exponents=decays.shape[1])
    np.testing.assert_allclose(ravel(spectrum.state), ravel(states[-1]), atol=1e-11)
    np.testing.assert_allclose(spectrum.exponents, np.sort(decays.mean(axis=0))[::-1], rtol=1e-11)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("kind", "groups"), KINDS)
def test_exponents_are_the_rates_times_the_mean_steps(kind, groups, dtype):
    arrays = checkpoint(kind, 2, groups, dtype)
    stack, inputs = from_mamba(arrays, num_groups=groups), draw_inputs(dtype=dtype)
    start = stack.initial_state()
    spectrum = lejax.lyapunov_spectrum(stack, start, inputs)
    decays = published(*in_float64([arrays]), kind, groups, *in_float64((start, inputs)))[1]
    count = 2 * INNER * STATES
    expected = np.sort(decays.mean(axis=0))[::-1]
    assert expected.size == count
    np.testing.assert_allclose(spectrum.exponents[:count], expected, rtol=TOLERANCES[dtype])
    assert np.isneginf(spectrum.exponents[count:]).all()
    assert spectrum.exponents.size == ravel(start).size
    if kind == "Mamba-2":  # one number a head, for each of its P N memories
        assert len(np.unique(expected.round(6))) == 2 * HEADS


@pytest.mark.parametrize(("kind", "groups"), KINDS)
def test_exponents_by_a_dense_qr_of_an_opaque_step(kind, groups):
    # One layer without its output: the frame aligns with the axes, and the difference decays exponentially.
    arrays = checkpoint(kind, 1, groups)
    if kind == "Mamba":  # leading exponents that are far from each other
        rates = np.full((INNER, STATES), 4.0)
        rates[[0, 3, 5], [0, 1, 2]] = 0.1, 0.5, 1
        arrays[LAYER.format(0) + "mixer.A_log"] = np.log(rates)
    stack = from_mamba(arrays, num_groups=groups)
    inputs, start = draw_inputs(600), stack.initial_state()
    count = 3 if kind == "Mamba" else INNER // HEADS * STATES
    exact = lejax.lyapunov_spectrum(
        stack, start, inputs, num_exponents=count, transient=300
    ).exponents
    (buffer, memory, output) = start[0]

    def step(input, state):
        return stack(input, ((*state, output),))[0][:2]

    dense = dense_exponents(step, (buffer, memory), inputs, count, transient=300)
    np.testing.assert_allclose(np.sort(dense)[::-1], exact, rtol=1e-9)
    # In two layers the directions turn with the inputs: a difference of the order of one over the steps remains.
    stack = from_mamba(checkpoint(kind, 2, groups), num_groups=groups)
    start = stack.initial_state()
    exact = lejax.lyapunov_spectrum(
        stack, start, inputs, num_exponents=count, transient=300
    ).exponents
    dense = dense_exponents(lambda u, s: stack(u, s), start, inputs, count, transient=300)
    np.testing.assert_allclose(np.sort(dense)[::-1], exact, atol=5 / 300)


def test_derivatives_batches_and_programs():
    stack, inputs = from_mamba(checkpoint("Mamba-2", 2, 2), num_groups=2), draw_inputs(40)
    size = INNER * STATES

    def exponents(stack, inputs=inputs):
        start = stack.initial_state()
        return lejax.lyapunov_spectrum(stack, start, inputs, num_exponents=2 * size).exponents

    _, second = published(
        checkpoint("Mamba-2", 2, 2), "Mamba-2", 2, in_float64(stack.initial_state()), inputs
    )
    heads = second.mean(axis=0)[size:].reshape(HEADS, -1)
    gradient = eqx.filter_grad(lambda stack: exponents(stack).sum())(stack)
    # A rate of the last layer changes its own exponents only: d lambda / d log_A = lambda.
    np.testing.assert_allclose(gradient.layers[1].log_A, heads.sum(axis=1), rtol=1e-10)
    assert np.any(gradient.layers[0].weight_out)
    both = jnp.stack([inputs, inputs[::-1]])
    batch = eqx.filter_jit(jax.vmap(lambda inputs: exponents(stack, inputs)))(both)
    np.testing.assert_allclose(batch[0], exponents(stack), rtol=1e-12)
    np.testing.assert_allclose(batch[1], exponents(stack, inputs[::-1]), rtol=1e-12)


# --- where the arrays come from


def same(a, b):
    return bool(eqx.tree_equal(a, b))


def test_files_and_mappings_give_the_same_stack(tmp_path):
    arrays = checkpoint("Mamba-2", 2, dtype="float32")
    stack = from_mamba(arrays)
    np.savez(tmp_path / "m.npz", **arrays)
    save_file(arrays, tmp_path / "m.safetensors")
    paths = [tmp_path / "m.npz", tmp_path / "m.safetensors"]
    paths.append(save(state_dict(arrays), tmp_path / "m.pt"))
    for path in paths:
        assert same(from_mamba(path), stack)
    assert same(from_mamba({name: jnp.asarray(array) for name, array in arrays.items()}), stack)
    assert same(from_mamba(dict(reversed(arrays.items()))), stack)


def test_layers_of_both_kinds_and_twelve_of_them():
    arrays = checkpoint("Mamba", 12)
    second = {n: a for n, a in checkpoint("Mamba-2", 12).items() if ".layers.11." in n}
    arrays = {n: a for n, a in arrays.items() if ".layers.11." not in n} | second
    stack = from_mamba(arrays)
    assert [type(layer) for layer in stack.layers] == [MambaCell] * 11 + [Mamba2Cell]
    np.testing.assert_array_equal(
        stack.layers[10].weight_in, arrays["backbone.layers.10.mixer.in_proj.weight"]
    )


def test_prefixes():
    one, other = (
        checkpoint(),
        {n.replace("backbone", "decoder"): a for n, a in checkpoint(seed=1).items()},
    )
    assert same(from_mamba(one | other, prefix="backbone."), from_mamba(one))
    assert same(from_mamba(one | other, prefix="decoder."), from_mamba(other))
    bare = {n.removeprefix("backbone."): a for n, a in one.items()}
    assert same(from_mamba(bare), from_mamba(one))
    encoder = {"encoder.layers.0.self_attn.in_proj_weight": np.ones((3, 3))}
    assert same(from_mamba(one | encoder), from_mamba(one))
    with pytest.raises(
        ValueError, match=r"several Mamba networks, .*: 'backbone\.', 'decoder\.'\."
    ):
        from_mamba(one | other)
    with pytest.raises(ValueError, match=r"has the prefix 'model', only 'backbone\.'\."):
        from_mamba(one, prefix="model")


def test_precision():
    arrays = checkpoint(dtype="float32")
    halves = {n: a.astype(jnp.bfloat16) for n, a in arrays.items()}

    def dtypes(stack):
        return {str(leaf.dtype) for leaf in jax.tree.leaves(eqx.filter(stack, eqx.is_array))}

    assert dtypes(from_mamba(halves)) == {"bfloat16"}
    rate = LAYER.format(0) + "mixer.A_log"
    assert dtypes(from_mamba(halves | {rate: arrays[rate]})) == {"float32"}
    wide = from_mamba(halves, dtype=jnp.float64)
    assert dtypes(wide) == {"float64"}
    np.testing.assert_array_equal(wide.layers[0].selective.log_A, halves[rate].astype(float))
    with pytest.raises(ValueError, match=r"'backbone\.layers\.0\.mixer\.D' .*\(as float16\)"):
        from_mamba(arrays | {LAYER.format(0) + "mixer.D": np.full(INNER, 1e6)}, dtype="float16")
    with pytest.raises(TypeError, match="dtype must be a real floating-point dtype"):
        from_mamba(arrays, dtype=int)


# --- what is refused


ROLES = {
    kind: sorted(n.removeprefix(LAYER.format(1)) for n in checkpoint(kind, 2) if ".layers.1." in n)
    for kind in ("Mamba", "Mamba-2")
}
EACH = [(kind, role) for kind, roles in ROLES.items() for role in roles]


@pytest.mark.parametrize(("kind", "role"), EACH)
def test_each_missing_misshaped_or_broken_array_is_named(kind, role):
    arrays, name = checkpoint(kind, 2), LAYER.format(1) + role
    array = arrays[name]
    without = {n: a for n, a in arrays.items() if n != name}
    with pytest.raises(ValueError, match=rf"^'{name}' missing: a layer of {kind} has norm\.weight"):
        from_mamba(without)
    with pytest.raises(ValueError, match=rf"^'{name}' .* (1|all) non-finite value"):
        from_mamba(arrays | {name: np.where(array == array.ravel()[0], np.nan, array)})
    with pytest.raises(ValueError, match=rf"^'{name}' has shape \(.*, 1\), but its layer asks for"):
        from_mamba(arrays | {name: array[..., None]})
    with pytest.raises(ValueError, match=r"^'backbone\.layers\.1\.\S*' has (shape|\d+ channels)"):
        from_mamba(arrays | {name: np.concatenate([array, array[:1]])})
    with pytest.raises(TypeError, match=rf"^'{name}' has dtype complex128"):
        from_mamba(arrays | {name: array + 1j})


def test_other_parts_are_refused_by_name():
    arrays, layer = checkpoint("Mamba", 2), LAYER.format(1)
    for part in ("mixer.in_proj.bias", "norm.bias", "mlp.fc1.weight", "mixer.dt_layernorm.weight"):
        with pytest.raises(
            ValueError, match=rf"^'{layer}{part}' is no part of a layer of Mamba as published"
        ):
            from_mamba(arrays | {layer + part: np.ones(SIZE)})
    attention = {n: a for n, a in arrays.items() if layer not in n}
    attention |= {
        layer + "norm.weight": np.ones(SIZE),
        layer + "mixer.in_proj.weight": np.ones((12, 4)),
    }
    with pytest.raises(
        ValueError, match=rf"^'{layer}norm\.weight' belongs to a layer without .* attention"
    ):
        from_mamba(attention)
    with pytest.raises(ValueError, match=r"from 0 without a gap, but 'backbone\.' has \[0, 1, 3\]"):
        from_mamba(arrays | {LAYER.format(3) + "mixer.D": np.ones(INNER)})
    with pytest.raises(ValueError, match=r"^no weights of Mamba .* among 'weight_hh_l0'\."):
        from_mamba({"weight_hh_l0": np.eye(2)})
    with pytest.raises(TypeError, match="must be a mapping or a path, got list"):
        from_mamba([np.ones(3)])


def test_sizes_that_do_not_fit():
    first, second, name = checkpoint("Mamba"), checkpoint("Mamba-2", groups=2), LAYER.format(0)
    with pytest.raises(
        ValueError, match=r"num_groups can be chosen for Mamba-2 only, but '.*A_log'"
    ):
        from_mamba(first, num_groups=2)
    with pytest.raises(
        ValueError, match=r"'.*A_log' has shape \(4,\), .* multiple of num_groups=3"
    ):
        from_mamba(second, num_groups=3)
    with pytest.raises(
        ValueError, match=r"'.*conv1d\.weight' has 20 channels, but num_groups=4 .* 8 \+ 8 N\."
    ):
        from_mamba(second, num_groups=4)
    with pytest.raises(ValueError, match="num_groups must be an integer of at least 1, got 0"):
        from_mamba(second, num_groups=0)
    short = first | {name + "mixer.conv1d.weight": np.ones((INNER, 1, 1))}
    with pytest.raises(
        ValueError, match=r"'.*conv1d\.weight' has shape \(8, 1, 1\), .* at least 2"
    ):
        from_mamba(short)
    with pytest.raises(ValueError, match=r"'.*A_log' has shape \(8, 0\): it is empty\."):
        from_mamba(first | {name + "mixer.A_log": np.ones((INNER, 0))})
    wide = {n.replace(".0.", ".1."): a for n, a in checkpoint(scale=2).items() if ".0." in n}
    with pytest.raises(
        ValueError, match=r"'.*1\.mixer\.out_proj\.weight' has shape \(8, 16\), .* \(4, E\)"
    ):
        from_mamba(first | wide)


def test_a_cell_of_mamba2_refuses_heads_that_do_not_fit():
    with pytest.raises(ValueError, match="6 channels cannot be divided into 4 equal heads"):
        Mamba2Cell(3, 2, 4, key=jr.key(0))
    with pytest.raises(ValueError, match="3 heads cannot be divided into 2 equal groups"):
        Mamba2Cell(3, 2, 3, num_groups=2, key=jr.key(0))
    cell = Mamba2Cell(3, 2, 2, num_groups=2, key=jr.key(0))
    assert cell.initial_state()[1].shape == (2, 3, 2)
    fields = {name: getattr(cell, name) for name in cell.__dataclass_fields__}
    with pytest.raises(ValueError, match=r"kernel has shape \(4, 16\), .* \(4, 6 \+ 4 N\)"):
        Mamba2Cell.from_weights(**fields | {"kernel": jnp.ones((4, 16)), "bias": jnp.ones(16)})
    with pytest.raises(ValueError, match=r"weight_in has shape \(21, 3\), .* ask for \(22, 3\)"):
        Mamba2Cell.from_weights(**fields | {"weight_in": jnp.ones((21, 3))})
    with pytest.raises(ValueError, match=r"the width of kernel must be .* at least 2, got 1"):
        Mamba2Cell.from_weights(**fields | {"kernel": jnp.ones((1, 14))})

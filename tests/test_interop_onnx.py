"""ONNX files against the reference evaluator of onnx and their Jacobians by JAX's derivative of ONNX's equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree


onnx = pytest.importorskip("onnx")

import onnx.helper as oh  # noqa: E402
import onnx.numpy_helper as onh  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

import lejax  # noqa: E402
from lejax.interop import from_onnx  # noqa: E402


GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
SIZES = (4, 5, 3)


def weights(kind, inputs, size, dtype, rng, use_bias=True):
    rows = GATES[kind] * size
    shapes = [(1, rows, inputs), (1, rows, size)] + [(1, 2 * rows)] * use_bias
    return [rng.uniform(-0.6, 0.6, shape).astype(dtype) for shape in shapes]


def build(
    kind,
    num_layers=1,
    dtype="float64",
    use_bias=True,
    layout=0,
    start=None,
    raw=True,
    seed=0,
    **options,
):
    """A model of stacked operators; with starting states, its outputs are the sequences of all layers."""
    rng, nodes, constants, outputs = np.random.default_rng(seed), [], {}, []
    source, inputs = "X", 3
    for i, size in zip(range(num_layers), SIZES, strict=False):
        arrays = weights(kind, inputs, size, dtype, rng, use_bias)
        names = [f"{part}{i}" for part in "WRB"[: len(arrays)]]
        constants |= dict(zip(names, arrays, strict=True))
        operands = [source, *names]
        if start is not None:
            operands += [""] * (5 - len(operands)) + [f"h{i}"] + [f"c{i}"] * (kind == "LSTM")
            constants |= {name: value for name, value in start.items() if name[1:] == str(i)}
        finals = [f"Y{i}", f"Yh{i}"] + [f"Yc{i}"] * (kind == "LSTM")
        nodes.append(
            oh.make_node(
                kind, operands, finals, name=f"layer{i}", hidden_size=size, layout=layout, **options
            )
        )
        constants["axis"] = np.array([2 if layout else 1])
        nodes.append(oh.make_node("Squeeze", [f"Y{i}", "axis"], [f"S{i}"]))
        source, inputs = f"S{i}", size
        outputs.append(f"S{i}")
    kinds = {
        "float64": onnx.TensorProto.DOUBLE,
        "float32": onnx.TensorProto.FLOAT,
        "float16": onnx.TensorProto.FLOAT16,
    }
    info = [oh.make_tensor_value_info(name, kinds[dtype], None) for name in ["X", *outputs]]
    graph = oh.make_graph(
        nodes, "g", info[:1], info[1:], [make_tensor(k, v, raw) for k, v in constants.items()]
    )
    return oh.make_model(graph, opset_imports=[oh.make_opsetid("", 21)])


def make_tensor(name, array, raw):
    if raw or array.dtype.kind == "i":
        return onh.from_array(array, name)
    return oh.make_tensor(
        name, oh.np_dtype_to_tensor_dtype(array.dtype), array.shape, array.ravel().tolist()
    )


def saved(tmp_path, model):
    onnx.save(model, path := tmp_path / "m.onnx")
    return path


def theirs(kind, arrays, after=False):
    """One step in ONNX's own equations and orders, as a function of the state."""
    kernel, recurrent, *bias = (jnp.asarray(a[0]) for a in arrays)
    rows = recurrent.shape[0]
    outer, inner = jnp.split(bias[0], 2) if bias else (jnp.zeros(rows), jnp.zeros(rows))

    def step(x, state):
        if kind == "RNN":
            return jnp.tanh(kernel @ x + outer + recurrent @ state + inner)
        if kind == "LSTM":
            h, c = state
            i, o, f, g = jnp.split(kernel @ x + outer + recurrent @ h + inner, 4)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            return jax.nn.sigmoid(o) * jnp.tanh(c), c
        (wz, wr, wh), (rz, rr, rh) = jnp.split(kernel @ x + outer, 3), jnp.split(recurrent, 3)
        bz, br, bh = jnp.split(inner, 3)
        z, r = jax.nn.sigmoid(wz + rz @ state + bz), jax.nn.sigmoid(wr + rr @ state + br)
        inside = r * (rh @ state + bh) if after else rh @ (r * state) + bh
        return (1 - z) * jnp.tanh(wh + inside) + z * state

    return step


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("num_layers", "use_bias"), [(1, True), (1, False), (2, True), (3, True)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("RNN", {}),
        ("GRU", {"linear_before_reset": 0}),
        ("GRU", {"linear_before_reset": 1}),
        ("LSTM", {}),
    ],
)
def test_states_and_jacobians_agree_with_onnx(tmp_path, kind, options, num_layers, use_bias, dtype):
    rng = np.random.default_rng(1)
    start = {
        f"{part}{i}": rng.uniform(-1, 1, (1, 1, size)).astype(dtype)
        for i, size in enumerate(SIZES[:num_layers])
        for part in ("hc" if kind == "LSTM" else "h")
    }
    model = build(kind, num_layers, dtype, use_bias, start=start, **options)
    cell = from_onnx(saved(tmp_path, model))
    inputs = rng.normal(size=(200, 1, 3)).astype(dtype)
    expected = ReferenceEvaluator(model).run(None, {"X": inputs})
    state = cell.initial_state()
    flat, unravel = ravel_pytree(state)
    names = [f"{part}{i}" for i in range(num_layers) for part in ("hc" if kind == "LSTM" else "h")]
    state = unravel(jnp.concatenate([jnp.asarray(start[name].ravel()) for name in names]))
    states = lejax.unroll(cell, state, inputs[:, 0])
    assert flat.dtype == dtype
    hidden = [s[0] if kind == "LSTM" else s for s in (states if num_layers > 1 else (states,))]
    differences = [float(np.abs(h - e[:, 0]).max()) for h, e in zip(hidden, expected, strict=True)]

    arrays = {t.name: onh.to_array(t) for t in model.graph.initializer}
    steps = [
        theirs(
            kind,
            [arrays[f"{p}{i}"] for p in "WRB" if f"{p}{i}" in arrays],
            options.get("linear_before_reset") == 1,
        )
        for i in range(num_layers)
    ]

    def whole(vector, x):
        parts, new = unravel(vector), []
        for step, part in zip(steps, parts if num_layers > 1 else (parts,), strict=True):
            new.append(step(x, part))
            x = new[-1][0] if kind == "LSTM" else new[-1]
        return ravel_pytree(new)[0]

    vectors = jax.vmap(lambda s: ravel_pytree(s)[0])(states)[:-1]
    reference = jax.vmap(jax.jacfwd(whole))(vectors, inputs[1:, 0])
    ours = jax.vmap(lambda v, x: lejax.jacobian(cell, unravel(v), x))(vectors, inputs[1:, 0])
    differences.append(float(jnp.abs(ours - reference).max()))
    assert max(differences) < TOLERANCE[dtype]


def test_activations_layouts_types_and_constants(tmp_path):
    cell = from_onnx(saved(tmp_path, build("RNN", activations=["Relu"])))
    assert cell.activation is jax.nn.relu
    plain = from_onnx(saved(tmp_path, build("GRU", 2)))
    for model in (
        build("GRU", 2, layout=1),
        build("GRU", 2, raw=False),
        build("GRU", 2, activations=["Sigmoid", "TANH"]),
    ):
        same = from_onnx(saved(tmp_path, model))
        assert all(map(np.array_equal, jax.tree.leaves(plain), jax.tree.leaves(same)))
    for dtype in ("float16", "float32"):
        half = from_onnx(saved(tmp_path, build("LSTM", dtype=dtype)))
        assert half.weight_hh.dtype == dtype
        assert (
            from_onnx(saved(tmp_path, build("LSTM", dtype=dtype)), dtype=jnp.float64).bias.dtype
            == jnp.float64
        )
    model = build("GRU", 1)
    kept = [t for t in model.graph.initializer if t.name != "W0"]
    array = next(t for t in model.graph.initializer if t.name == "W0")
    array.name = "hidden"
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    model.graph.node.insert(0, oh.make_node("Constant", [], ["other"], value=array))
    model.graph.node.insert(1, oh.make_node("Identity", ["other"], ["W0"]))
    same = from_onnx(saved(tmp_path, model))
    np.testing.assert_array_equal(same.weight_ih, plain.layers[0].weight_ih)


def test_bfloat16(tmp_path):
    model = build("GRU", dtype="float32")
    for tensor in model.graph.initializer:
        if tensor.name != "axis":
            array = onh.to_array(tensor).astype(jnp.bfloat16)
            tensor.raw_data, tensor.data_type = array.tobytes(), onnx.TensorProto.BFLOAT16
    cell = from_onnx(saved(tmp_path, model))
    assert cell.weight_hh.dtype == jnp.bfloat16


def test_several_networks(tmp_path):
    """What is fed by a final state, or through a dense layer, is a network of its own."""
    model = build("GRU", 2)
    rng = np.random.default_rng(3)
    for name, source in (("dec", "Yh1"), ("dec.2", "dense"), ("", "S1")):
        arrays = weights("RNN", 5, 2, "float64", rng)
        names = [f"{name}.{part}" for part in "WRB"]
        model.graph.initializer.extend(map(onh.from_array, arrays, names))
        model.graph.node.append(oh.make_node("RNN", [source, *names], [f"{name}.Y"], name=name))
    model.graph.node.append(oh.make_node("MatMul", ["S1", "S1"], ["dense"]))
    path = saved(tmp_path, model)
    with pytest.raises(
        ValueError,
        match=r"several recurrent networks, choose one by prefix=: 'dec', 'dec\.2', 'layer0 > layer1 > \.Y'",
    ):
        from_onnx(path)
    assert type(from_onnx(path, prefix="dec")) is type(from_onnx(path, prefix="dec.2"))
    assert len(from_onnx(path, prefix="layer").layers) == 3
    with pytest.raises(ValueError, match=r"no recurrent operator has the prefix 'enc', only 'dec'"):
        from_onnx(path, prefix="enc")


@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_network_whose_final_state_alone_is_read(tmp_path, num_layers):
    """Exporters give an output that nobody reads the empty name."""
    model = build("GRU", num_layers)
    plain = from_onnx(saved(tmp_path, model))
    model.graph.node.pop()
    model.graph.node[-1].output[0] = ""
    same = from_onnx(saved(tmp_path, model))
    assert type(same) is type(plain)
    assert all(map(np.array_equal, jax.tree.leaves(plain), jax.tree.leaves(same)))


def test_any_value_but_zero_sets_linear_before_reset(tmp_path):
    assert from_onnx(saved(tmp_path, build("GRU", linear_before_reset=2))).reset_after


def test_a_number_of_eight_bytes_is_refused(tmp_path):
    path = saved(tmp_path, build("GRU", clip=1.0))
    number = b"clip\x15\x00\x00\x80\x3f"  # field 2 with 4 bytes
    data, start = path.read_bytes(), path.read_bytes().index(number)
    # A field of the same length whose bytes have another length: a text of 3 bytes.
    path.write_bytes(data[:start] + b"clip\x12\x03abc" + data[start + len(number) :])
    with pytest.raises(ValueError, match=r"its protocol buffer has 3 bytes in place of a number"):
        from_onnx(path)


def edited(change, *args, **options):
    model = build(*args, **options)
    change(model.graph)
    return model


def array_of(graph, name):
    return next(t for t in graph.initializer if t.name == name)


def replace(name, array):
    return lambda graph: array_of(graph, name).CopyFrom(onh.from_array(array, name))


def external(graph):
    tensor = array_of(graph, "W0")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


REFUSED = {
    "bidirectional": (
        lambda: build("GRU", direction="bidirectional"),
        r"GRU 'layer0' has direction='bidirectional': it reads its input from the end",
    ),
    "reverse": (lambda: build("LSTM", direction="reverse"), r"direction='reverse'"),
    "gates": (
        lambda: build("GRU", activations=["HardSigmoid", "Tanh"]),
        r"the activations hardsigmoid, tanh, but lejax's GRUCell has sigmoid, tanh",
    ),
    "plain": (
        lambda: build("RNN", activations=["Elu"]),
        r"the activations elu, but lejax's RNNCell has tanh, relu",
    ),
    "parameters": (
        lambda: build("RNN", activations=["Relu"], activation_alpha=[0.3]),
        r"activations with parameters",
    ),
    "clip": (lambda: build("GRU", clip=1.0), r"has clip, which lejax's GRUCell lacks"),
    "clip at zero": (lambda: build("GRU", clip=0.0), r"has clip, which"),
    "type of an attribute": (
        lambda: build("GRU", activations=3),
        r"GRU 'layer0' has activations of a type that ONNX does not give it",
    ),
    "no type of an attribute": (
        lambda: edited(lambda g: g.node[0].attribute[0].ClearField("type"), "GRU"),
        r"GRU 'layer0' has hidden_size of a type",
    ),
    "attribute of a function": (
        lambda: edited(
            lambda g: setattr(g.node[0].attribute[0], "ref_attr_name", "units"),
            "GRU",
        ),
        r"GRU 'layer0' has hidden_size of a type",
    ),
    "constant that is no array": (
        lambda: edited(
            lambda g: (
                g.initializer.remove(array_of(g, "W0"))
                or g.node.insert(0, oh.make_node("Constant", [], ["W0"], value=3))
            ),
            "GRU",
        ),
        r"W of GRU 'layer0' is 'W0', which is computed",
    ),
    "many inputs": (
        lambda: edited(lambda g: g.node[0].input.extend([""] * 40), "GRU"),
        r"GRU 'layer0' has more than 30 parts",
    ),
    "input_forget": (lambda: build("LSTM", input_forget=1), r"has input_forget"),
    "peepholes": (
        lambda: edited(lambda g: g.node[0].input.extend(["", "", "", "B0"]), "LSTM"),
        r"has peepholes",
    ),
    "no recurrent operator": (
        lambda: edited(lambda g: g.node.pop(0), "RNN"),
        r"contains no RNN, GRU or LSTM operator",
    ),
    "computed": (
        lambda: edited(lambda g: g.node[0].input.__setitem__(1, "S0"), "GRU"),
        r"W of GRU 'layer0' is 'S0', which is computed",
    ),
    "no weights": (
        lambda: edited(lambda g: g.node[0].input.__delitem__(slice(2, None)), "GRU"),
        r"has no W or R",
    ),
    "another file": (
        lambda: edited(external, "GRU"),
        r"'W0' is stored in another file.*save_as_external_data=False",
    ),
    "integers": (
        lambda: edited(replace("W0", np.ones((1, 12, 3), int)), "GRU"),
        r"'W0' has ONNX's type 7, but weights are floating-point",
    ),
    "shape": (
        lambda: edited(replace("B0", np.ones((1, 12))), "GRU"),
        r"B of GRU 'layer0' has shape \(1, 12\), but \(1, 24\) is needed",
    ),
    "widths": (
        lambda: edited(replace("W1", np.ones((1, 15, 7))), "GRU", 2),
        r"'layer1' takes 7 inputs, but 'layer0' below has 4 units",
    ),
    "dtypes": (
        lambda: edited(replace("B0", np.ones((1, 24), np.float32)), "GRU"),
        r"B of GRU 'layer0' is float32, but R is float64",
    ),
    "hidden size": (
        lambda: edited(
            lambda g: (
                g.node[0].attribute.__delitem__(slice(None))
                or g.node[0].attribute.append(oh.make_attribute("hidden_size", 9))
            ),
            "GRU",
        ),
        r"hidden_size=9, but R has 4 units",
    ),
    "nan": (
        lambda: edited(replace("W0", np.full((1, 12, 3), np.nan)), "GRU"),
        r"'W of layer0' holds 36 non-finite values",
    ),
    "few bytes": (
        lambda: edited(lambda g: setattr(array_of(g, "W0"), "raw_data", b"x" * 9), "GRU"),
        r"'W0' declares float64\[1, 12, 3\], 288 bytes, but holds 9",
    ),
    "huge shape": (
        lambda: edited(
            lambda g: array_of(g, "W0").dims.__setitem__(slice(None), [2**40, 2**40]), "GRU"
        ),
        r"'W0' declares float64",
    ),
    "negative shape": (
        lambda: edited(lambda g: array_of(g, "W0").dims.__setitem__(slice(None), [-1, -36]), "GRU"),
        r"declares float64\[-1, -36\]",
    ),
    "one name": (
        lambda: edited(lambda g: setattr(g.node[2], "name", "layer0"), "GRU", 2),
        r"two operators have the name 'layer0'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_sentence(tmp_path, case):
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as caught:
        from_onnx(saved(tmp_path, make()))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty"),
        (b"hello, world", r"its protocol buffer|it is no ONNX model"),
        (b"\x08\x07", r"it is no ONNX model: it has 0 graphs"),
        (b"\x3a\x7f", r"ends too early"),
        (b"\x38\x05", r"it is no ONNX model"),
        (b"\xff" * 20, r"an integer of more than 10 bytes"),
        (b"\x3b", r"a field of wire type 3"),
    ],
)
def test_a_file_that_is_no_model(tmp_path, content, message):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        from_onnx(tmp_path / "m.onnx")
    with pytest.raises(FileNotFoundError, match=r"gone\.onnx"):
        from_onnx(tmp_path / "gone.onnx")

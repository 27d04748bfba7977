"""The table of docs/how-to/frameworks.md: what is read of each framework, and how well it agrees with it."""

from typing import Any

from .common import digits, mebibytes, plain, power, read, source


HEADER = ["You have", "Two lines", "What is read", "What is refused, and why"]
HEADER += ["Check: largest difference of states, of the Jacobian"]
# The part of benchmarks/frameworks.py that checks it, if it is not only checked by tests, then the cells.
ROWS = (
    (
        "Flax nnx",
        "Flax `nnx`",
        "`cell = from_flax(module)`<br>`state = cell.initial_state()`",
        "`SimpleCell`, `GRUCell`, `LSTMCell`, `OptimizedLSTMCell`, and any `nnx.Module` called as "
        "`module(carry, x) -> (carry, y)`",
        "`Bidirectional`: it reads the future. `RNN`: it runs over a sequence, pass its cell. "
        "Active dropout and batch statistics: they change arrays outside the carry, call "
        "`module.eval()`",
    ),
    (
        "Flax linen",
        "Flax `linen`",
        "`cell = from_flax(module, variables)`<br>`state = cell.initial_state()`",
        "the same cells, `MGUCell`, and your own",
        "the same",
    ),
    (
        "Haiku",
        "Haiku",
        "`cell = from_haiku(transformed, params, initial_state=state)`<br>`state = "
        "cell.initial_state()`",
        "`haiku.transform` of a step `(input, state) -> (output, state)`: `VanillaRNN`, `GRU`, "
        "`LSTM`, `DeepRNN`, your own",
        "`transform_with_state`: its state is not in the carry. Random numbers: a step has no key",
    ),
    (
        "Keras",
        "Keras on JAX",
        "`cell = from_keras(layer)`<br>`state = cell.initial_state()`",
        "`SimpleRNN`, `GRU` with both values of `reset_after`, `LSTM`, their cells, "
        "`StackedRNNCells`, a `Sequential` of such layers, cells of your own",
        "`Bidirectional`, `go_backwards`: they read the future. Other backends: JAX cannot trace "
        "them. A `Dense` between recurrent layers: put both into one cell",
    ),
    (
        "jax.lax.scan",
        "`jax.lax.scan`",
        "`cell = from_scan_step(step, params, initial_state=carry)`<br>`state = "
        "cell.initial_state()`",
        "any `step(params, carry, x) -> (carry, y)`",
        "a step that does not return a pair",
    ),
    (
        "PyTorch file",
        "a PyTorch file: `.pt`, `.pth`, `.bin`, `.ckpt`, `.safetensors`",
        '`cell = from_torch("model.pt")`<br>`state = cell.initial_state()`',
        "`nn.RNN`, `nn.GRU`, `nn.LSTM` with and without `proj_size`, see [Bring your "
        "network](bring-your-network.md)",
        "bidirectional networks; anything in a pickle but a state dict, which would run code",
    ),
    (
        "Keras file",
        "a Keras file: `.keras`, `.weights.h5`",
        '`cell = from_keras_file("model.keras")`<br>`state = cell.initial_state()`',
        "`SimpleRNN`, `GRU` with both values of `reset_after`, `LSTM`, stacks of them",
        "`Bidirectional`, `go_backwards`; links and compressed arrays in HDF5",
    ),
    (
        "ONNX file",
        "an ONNX file",
        '`cell = from_onnx("model.onnx")`<br>`state = cell.initial_state()`',
        "operators `RNN`, `GRU` with both values of `linear_before_reset`, `LSTM`",
        "bidirectional operators; operators inside `Loop`, `If`, `Scan`",
    ),
    (
        None,
        "a checkpoint of Mamba or Mamba-2",
        '`cell = from_mamba("model.safetensors")`<br>`state = cell.initial_state()`',
        "`backbone.layers.N.norm` and `.mixer.*` under their public names",
        "attention and feed-forward layers; biases of `in_proj`",
    ),
    (
        None,
        "the arrays of reservoirpy",
        '`cell, readout = from_reservoirpy("esn.npz")`<br>`loop = ClosedLoop(cell, readout)`',
        "`W`, `Win`, `bias`, `lr`, `Wout` and `bias_out`, dense or sparse",
        "feedback `Wfb`; another `lr` for each unit; other activations than tanh, which the arrays "
        "do not tell",
    ),
)


def frameworks() -> str:
    rows = []
    for part, *cells in ROWS:
        check = "by tests: the published equations in NumPy"
        if part is not None:
            check = ", ".join(map(power, largest(result(part), "float64")))
        rows.append([*cells, check])
    return plain(HEADER, rows)


def framework_checks() -> str:
    parts = [part for part, *_ in ROWS if part is not None]
    single = zip(*(largest(result(part), "float32") for part in parts), strict=True)
    single = "states {}, Jacobian {}".format(*(power(max(values)) for values in single))
    flossing = result("flossing")
    rows = [
        ["In float32, over all frameworks, layers and numbers of layers", single],
        [
            f"An LSTM of Flax, flossed for {flossing['steps']} steps by `nnx.Optimizer`: exponents at each step "
            "against those of a fresh import",
            f"largest difference {power(flossing['largest_difference'])}; "
            f"{flossing['compilations_after_it']} compilations after the first step",
        ],
    ]
    for suffix in (".pt", ".keras", ".onnx"):
        memory, mutants = result(f"memory of {suffix}"), result(f"mutants of {suffix}")
        rows.append(
            [
                f"Memory to read a GRU from a `{suffix}` file of {memory['file_bytes'] / 1e6:.0f} MB",
                f"{mebibytes(memory['memory_bytes'])} MiB, less than twice the file and 200 MiB: "
                f"{digits(memory['bound_bytes'] / 2**20, 3)} MiB",
            ]
        )
        outcomes = mutants["outcomes"]
        if not {*outcomes} <= {"refused", "same", "other"}:
            raise ValueError(f"{suffix}: {outcomes}")
        rows.append(
            [
                f"{mutants['files']} damaged `{suffix}` files, each read",
                f"{outcomes['refused']} refused in one sentence, "
                f"{mutants['files'] - outcomes['refused']} read; nothing executed",
            ]
        )
    seconds = result("newcomer")
    names = {"Python, two lines": "`from_torch`, `lyapunov_spectrum`, `plot_spectrum` in Python"}
    for name in ("Python, two lines", "lejax spectrum", "lejax report"):
        title = names.get(name, f"`{name} m.pt --inputs x.npy`")
        rows.append(
            [
                f"From `torch.save` of a GRU of 64 units to its spectrum along 2000 inputs, with a picture: {title}",
                f"{digits(seconds[name]['fastest'])} s with imports and compilation, of which the processor "
                f"worked {digits(seconds[name]['processor_seconds'])} s",
            ]
        )
    load = (
        f"The seconds are the fastest of three processes, while {digits(seconds['load_average'])} programs shared the "
        "2 cores.\n\n"
    )
    return plain(["What", "Result"], rows) + "\n\n" + load + source("frameworks")


def result(part: str) -> Any:
    return read("frameworks")["parts"][part]["result"]


def largest(rows: list[dict[str, Any]], dtype: str) -> tuple[float, float]:
    """The largest difference of states and outputs, and that of the Jacobian."""
    rows = [row for row in rows if row["dtype"] == dtype]
    if not all(row["within_limit"] for row in rows):
        raise ValueError(f"A difference in {dtype} is above its limit.")
    return max(max(r["states"], r["outputs"]) for r in rows), max(r["jacobian"] for r in rows)


TABLES = {"frameworks": frameworks, "framework_checks": framework_checks}

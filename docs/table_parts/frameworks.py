"""The table of docs/how-to/frameworks.md: what is read of each framework, and how well it agrees with it."""

from .common import plain


HEADER = ["You have", "Two lines", "What is read", "What is refused, and why"]
ROWS = (
    (
        "Flax `nnx`",
        "`cell = from_flax(module)`<br>`state = cell.initial_state()`",
        "`SimpleCell`, `GRUCell`, `LSTMCell`, `OptimizedLSTMCell`, and any `nnx.Module` called as "
        "`module(carry, x) -> (carry, y)`",
        "`Bidirectional`: it reads the future. `RNN`: it runs over a sequence, pass its cell. "
        "Active dropout and batch statistics: they change arrays outside the carry, call "
        "`module.eval()`",
    ),
    (
        "Flax `linen`",
        "`cell = from_flax(module, variables)`<br>`state = cell.initial_state()`",
        "the same cells, `MGUCell`, and your own",
        "the same",
    ),
    (
        "Haiku",
        "`cell = from_haiku(transformed, params, initial_state=state)`<br>`state = "
        "cell.initial_state()`",
        "`haiku.transform` of a step `(input, state) -> (output, state)`: `VanillaRNN`, `GRU`, "
        "`LSTM`, `DeepRNN`, your own",
        "`transform_with_state`: its state is not in the carry. Random numbers: a step has no key",
    ),
    (
        "Keras on JAX",
        "`cell = from_keras(layer)`<br>`state = cell.initial_state()`",
        "`SimpleRNN`, `GRU` with both values of `reset_after`, `LSTM`, their cells, "
        "`StackedRNNCells`, a `Sequential` of such layers, cells of your own",
        "`Bidirectional`, `go_backwards`: they read the future. Other backends: JAX cannot trace "
        "them. A `Dense` between recurrent layers: put both into one cell",
    ),
    (
        "`jax.lax.scan`",
        "`cell = from_scan_step(step, params, initial_state=carry)`<br>`state = "
        "cell.initial_state()`",
        "any `step(params, carry, x) -> (carry, y)`",
        "a step that does not return a pair",
    ),
    (
        "a PyTorch file: `.pt`, `.pth`, `.safetensors`",
        '`cell = from_torch("model.pt")`<br>`state = cell.initial_state()`',
        "`nn.RNN`, `nn.GRU`, `nn.LSTM` with and without `proj_size`, see [Bring your "
        "network](bring-your-network.md)",
        "bidirectional networks; anything in a pickle but a state dict, which would run code",
    ),
    (
        "a Keras file: `.keras`, `.weights.h5`",
        '`cell = from_keras_file("model.keras")`<br>`state = cell.initial_state()`',
        "`SimpleRNN`, `GRU` with both values of `reset_after`, `LSTM`, stacks of them",
        "`Bidirectional`, `go_backwards`; links and compressed arrays in HDF5",
    ),
    (
        "an ONNX file",
        '`cell = from_onnx("model.onnx")`<br>`state = cell.initial_state()`',
        "operators `RNN`, `GRU` with both values of `linear_before_reset`, `LSTM`",
        "bidirectional operators; operators inside `Loop`, `If`, `Scan`",
    ),
)


def frameworks() -> str:
    return plain(HEADER, ROWS)


TABLES = {"frameworks": frameworks}

r"""Recurrent layers of Keras on its JAX backend as cells."""

import inspect
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._core.cell import RecurrentCell, name_of, packages_of
from .._core.check_annotations import checked
from .._core.check_cell import StepError
from ..cells import Stack
from ._live_arrays import LiveArrays, check_unchanged
from ._scan_step import part_of


class KerasCell(RecurrentCell):
    r"""A recurrent cell of Keras as a cell, made by `from_keras`.

    $$(y, h') = F(u, h)$$

    The state is an array, or a tuple of arrays such as (h, c), without the batch axis. The cell looks at the layer: it
    has the layer's present variables at each call.

    **Fields:**

    - `watched`: the layer's present variables and its settings.
    """

    watched: LiveArrays

    @property
    def parameters(self) -> list[Array]:
        """The values of `layer.trainable_variables`."""
        return self.watched.read()[0][0]

    def __call__(self, input: PyTree, state: PyTree) -> PyTree:
        (trainable, others), settings = self.watched.read()
        cell, (leaves, structure) = settings.cell, jax.tree.flatten(state)
        sizes = jax.tree.structure(_sizes(cell))
        if sizes.num_leaves != len(leaves):
            raise StepError(f"{name_of(cell)} has {sizes.num_leaves} states, got {len(leaves)}.")
        options = {"training": False} if _takes_training(cell) else {}
        out, after = cell.stateless_call(
            trainable,
            others,
            jax.tree.map(lambda x: x[None], input),
            jax.tree.unflatten(sizes, [leaf[None] for leaf in leaves]),
            **options,
        )
        names = [variable.path for variable in cell.non_trainable_variables]
        check_unchanged(cell.name, others, after, names)
        states = [new[0] for new in jax.tree.leaves(part_of(out, 1, name_of(cell)))]
        if len(states) != len(leaves):
            raise StepError(f"{name_of(cell)} returned {len(states)} states for {len(leaves)}.")
        return jax.tree.unflatten(structure, states)

    def initial_state(self) -> PyTree:
        """The cell's `get_initial_state`, or zeros of its `state_size`."""
        import keras

        (trainable, others), settings = self.watched.read()
        cell = settings.cell
        variables = [*cell.trainable_variables, *cell.non_trainable_variables]
        with keras.StatelessScope(
            state_mapping=list(zip(variables, [*trainable, *others], strict=True))
        ):
            if hasattr(cell, "get_initial_state"):
                states = [x[0] for x in jax.tree.leaves(cell.get_initial_state(batch_size=1))]
            else:
                states = [jnp.zeros(n, cell.compute_dtype) for n in jax.tree.leaves(_sizes(cell))]
        return jax.tree.unflatten(jax.tree.structure(_as_state(cell.state_size)), states)

    def output(self, state):
        return state[0] if isinstance(state, tuple) else state


@checked
def from_keras(layer: Any) -> KerasCell | Stack:
    r"""A recurrent network of Keras on the JAX backend as a cell: `SimpleRNN`, `GRU`, `LSTM`, or your own.

    $$(y, h') = F(u, h)$$

    The output y is dropped: what a cell with several states passes on is the first, h of an LSTM.

    **Arguments:**

    - `layer`: a `keras.layers.SimpleRNN`, `GRU`, `LSTM` or `RNN`; a cell, such as `GRUCell` or your own with
        `state_size` and `call(inputs, states) -> (output, new_states)`; a `StackedRNNCells`; or a `keras.Sequential`
        of recurrent layers, whose readout behind the last of them is ignored. All must have their weights.

    **Returns:** a `KerasCell`; a `Stack` of them if there are several layers. Its arrays are leaves, and derivatives
    with respect to it come back as the list of `layer.trainable_variables`, `gradient.parameters`. The state is an
    array, for an LSTM the tuple (h, c), for a stack the tuple of the layers' states.

    **Raises:**

    - `RuntimeError`: if Keras runs on another backend than JAX.
    - `ValueError`: if the network is bidirectional, reads its input backwards, has no weights yet, or if other layers
        stand before or between the recurrent ones.
    - `TypeError`: if `layer` is no recurrent layer or cell of Keras; at a step, if it does not return a pair, or
        changes variables that are not in its states, as a drawn random number does.

    **Numerics:** the computation is that of Keras with `training=False`: `dropout` and `recurrent_dropout` are omitted.
    Masks are ignored, and so are the states that a layer with `stateful=True` keeps: the run starts from the state that
    you pass. On the JAX backend the tanh of Keras is in float32 even in a layer of `dtype="float64"`; for exponents in
    float64 write `activation=jax.numpy.tanh`, also later, `layer.cell.activation = jax.numpy.tanh`. A `KerasCell` looks
    at the layer and does not copy it: after training in place the next call has the new weights, without a new
    compilation. What `jax.tree.map` or a transformation makes of the cell is a copy, and so is a cell of
    `keras.models.clone_model` with `set_weights`. A cell of your own must read nothing that changes but its attributes.

    !!! example

        >>> import os
        >>> os.environ["KERAS_BACKEND"] = "jax"
        >>> import jax.numpy as jnp, keras, lejax
        >>> layer = keras.layers.LSTM(8)
        >>> layer.build((None, None, 3))
        >>> cell = lejax.interop.from_keras(layer)
        >>> inputs = jnp.ones((100, 3), jnp.float32)
        >>> lejax.lyapunov_spectrum(cell, cell.initial_state(), inputs).exponents.shape
        (16,)
    """
    if inspect.isclass(layer) or "keras" not in packages_of(layer):
        hint = f"; pass an instance, {layer.__name__}(...)" if inspect.isclass(layer) else ""
        raise TypeError(
            f"layer must be a recurrent layer or cell of Keras, got {name_of(layer)}{hint}."
        )
    import keras

    backend = keras.backend.backend()
    if backend != "jax":
        raise RuntimeError(
            f"Keras runs on {backend}, whose computation JAX cannot trace: set the environment variable "
            "KERAS_BACKEND=jax before keras is imported."
        )
    cells = _cells(layer)
    return cells[0] if len(cells) == 1 else Stack(cells)


def _cells(layer: Any) -> list[KerasCell]:
    """The cells of a layer, from the lowest to the highest."""
    import keras

    name = f"{name_of(layer)} {getattr(layer, 'name', '')!r}"
    if isinstance(layer, keras.Sequential):
        return _cells_of_sequence(layer)
    if isinstance(layer, keras.layers.Bidirectional):
        raise ValueError(
            f"{name} reads its input from both ends and is therefore not a map from one state to the next."
        )
    if isinstance(layer, keras.layers.RNN):
        if layer.go_backwards:
            raise ValueError(
                f"{name} reads its input backwards: pass its cell, layer.cell, and reversed inputs."
            )
        return _cells(layer.cell)
    if isinstance(layer, keras.layers.StackedRNNCells) and all(map(_passes_state_on, layer.cells)):
        return [cell for inner in layer.cells for cell in _cells(inner)]
    if isinstance(layer, keras.Model) and not hasattr(layer, "state_size"):
        raise TypeError(
            f"{name} is a model, and only keras.Sequential says the order of its layers: put them together, "
            "lejax.cells.Stack([from_keras(layer) for layer in layers])."
        )
    if not hasattr(layer, "state_size"):
        raise TypeError(
            f"{name} has no state: a cell of Keras has state_size and call(inputs, states)."
        )
    sizes = jax.tree.leaves(_sizes(layer))
    if not sizes or not all(isinstance(size, int) for size in sizes):
        raise TypeError(
            f"{name} must have a number or a list of numbers as state_size, got {layer.state_size!r}."
        )
    if not layer.built:
        raise ValueError(
            f"{name} has no weights yet: call it once, or build it with the shape of its inputs."
        )

    def read():
        trainable = [variable.value for variable in layer.trainable_variables]
        others = [variable.value for variable in layer.non_trainable_variables]
        return (trainable, others), _Settings(layer)

    return [KerasCell(LiveArrays(read))]


def _cells_of_sequence(model: Any) -> list[KerasCell]:
    import keras

    recurrent = keras.layers.RNN | keras.layers.Bidirectional
    omitted = keras.layers.InputLayer | keras.layers.Dropout | keras.layers.SpatialDropout1D
    layers = [layer for layer in model.layers if not isinstance(layer, omitted)]
    places = [i for i, layer in enumerate(layers) if isinstance(layer, recurrent)]
    if not places:
        raise TypeError(f"{name_of(model)} {model.name!r} has no recurrent layer.")
    for place, layer in enumerate(layers[: places[-1]]):
        if place in places:
            if not _passes_state_on(layer):
                raise ValueError(
                    f"{name_of(layer)} {layer.name!r} has a cell whose output may differ from its state: put the cells "
                    "of all layers into a keras.layers.StackedRNNCells."
                )
        else:
            raise ValueError(
                f"{name_of(layer)} {layer.name!r} stands before the recurrent layer {layers[places[-1]].name!r}, and "
                "only recurrent layers can be stacked: put both into one cell of your own."
            )
    return [cell for place in places for cell in _cells(layers[place])]


def _as_state(size: Any) -> Any:
    """The sizes in the structure of the state: a number, or a tuple."""
    return tuple(map(_as_state, size)) if isinstance(size, list | tuple) else size


def _sizes(cell: Any) -> list:
    """The sizes in the structure in which Keras passes states: always a list."""

    def listed(size):
        return list(map(listed, size)) if isinstance(size, list | tuple) else size

    sizes = listed(cell.state_size)
    return sizes if isinstance(sizes, list) else [sizes]


def _passes_state_on(layer: Any) -> bool:
    """Whether the output of a layer or cell is its (first) state, as in Keras's own cells."""
    import keras

    layer = layer.cell if isinstance(layer, keras.layers.RNN) else layer
    if isinstance(layer, keras.layers.StackedRNNCells):
        return all(map(_passes_state_on, layer.cells))
    own = (keras.layers.SimpleRNNCell, keras.layers.GRUCell, keras.layers.LSTMCell)
    return type(layer) in own


def _takes_training(cell: Any) -> bool:
    return "training" in inspect.signature(cell.call).parameters


class _Settings:
    """A cell of Keras, equal to itself as long as its attributes keep their values; JAX compiles again if not."""

    def __init__(self, cell: Any):
        self.cell = cell
        self._key = tuple(
            (layer_id, name, *_comparable(value))
            for layer_id, layer in enumerate(cell._flatten_layers())
            for name, value in sorted(vars(layer).items())
            if not name.startswith("_")
        )

    def __hash__(self):
        return hash(id(self.cell))

    def __eq__(self, other):
        return isinstance(other, _Settings) and self.cell is other.cell and self._key == other._key


def _comparable(value: Any) -> tuple[type, Hashable]:
    """Numbers and texts by their value, other objects by their identity."""
    is_plain = value is None or isinstance(value, bool | int | float | str)
    return type(value), value if is_plain else id(value)

r"""The chaotic flows and maps of dysts as vector fields and cells, traced from the equations in dysts."""

import difflib
import functools
import importlib.metadata
import importlib.util
import inspect
import types
import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core.cell import VectorField, name_of
from .._core.check_annotations import checked
from .._core.check_values import check_positive


class DystsField(VectorField):
    r"""A flow of dysts with its parameters as leaves, made by `from_dysts`.

    $$\dot x = f(x; p)$$

    If f depends on the time, the time is the last number of the state, $\dot t = 1$.

    **Fields:**

    - `parameters`: p, a dict of arrays by their names in dysts, of JAX's default float.
    - `start`: the starting state from dysts, d numbers near the attractor.
    - `period`: the dominant period from dysts, or `None`.
    - `carries_time`: whether the last number of the state is the time.
    - `equations`: the class in dysts.
    """

    parameters: dict[str, Array]
    start: tuple[float, ...] = eqx.field(static=True)
    period: float | None = eqx.field(static=True)
    carries_time: bool = eqx.field(static=True)
    equations: type = eqx.field(static=True)

    def __call__(self, input: None, state: Float[Array, " d"]) -> Float[Array, " d"]:
        x, time = (state[:-1], state[-1]) if self.carries_time else (state, 0.0)
        slope = _stack(_Traced(self.equations, self.parameters, state).rhs(x, time), state)
        return jnp.append(slope, jnp.ones_like(time)) if self.carries_time else slope

    def initial_state(self) -> Float[Array, " d"]:
        """`start` as an array."""
        return jnp.asarray(self.start, float)


class DystsMap(eqx.Module):
    r"""A map of dysts as a cell with its parameters as leaves, made by `from_dysts`.

    $$x' = f(x; p)$$

    **Fields:**

    - `parameters`: p, a dict of arrays by their names in dysts, of JAX's default float.
    - `start`: the starting state from dysts, d numbers.
    - `equations`: the class in dysts.
    """

    parameters: dict[str, Array]
    start: tuple[float, ...] = eqx.field(static=True)
    equations: type = eqx.field(static=True)

    def __call__(self, input: None, state: Float[Array, " d"]) -> Float[Array, " d"]:
        traced = _Traced(self.equations, self.parameters, state)
        return _stack(traced._rhs(*state, *traced.param_list), state)

    def initial_state(self) -> Float[Array, " d"]:
        """`start` as an array."""
        return jnp.asarray(self.start, float)


@checked
def from_dysts(system: Any) -> DystsField | DystsMap:
    r"""A chaotic system of the dysts collection as a vector field or, if it is a map, as a cell.

    $$\dot x = f(x; p) \qquad \text{or} \qquad x' = f(x; p)$$

    dysts (`pip install 'lejax[dysts]'`) contains the equations of more than 130 chaotic flows and 20 maps as NumPy
    functions. Here JAX traces the same functions, so that they are differentiable in state and parameters.

    **Arguments:**

    - `system`: the name of a system, such as `"Thomas"` (`"Duffing"`, the name of a flow and of a map, is the flow); or
        an instance of a class of dysts or of your subclass of `dysts.base.DynSys` or `DynMap`, whose parameters and
        initial condition are used.

    **Returns:** a `DystsMap`, or for a flow a `DystsField`: wrap it, `lejax.systems.Flow(field, dt)`, where
    `dt = field.period / 100` is short enough for most systems. Both have a dict of arrays `parameters` and start at
    the point from dysts, `initial_state()`. The state is one vector (d,).

    **Raises:**

    - `ModuleNotFoundError`: if a name is given and dysts is not installed.
    - `ValueError`: if the name is unknown, if the system is a delay equation, or if JAX cannot trace its equations.
    - `TypeError`: if `system` is neither a name nor a system of dysts.

    **Numerics:** values agree with dysts up to rounding. Most forced systems of dysts have the phase of the force
    in the state; where equations read the time itself, it becomes the last number of the state. The exponents stored
    in dysts are rough; `lejax.systems.gallery()` contains spectra measured with these fields.

    !!! example

        >>> import lejax
        >>> field = lejax.interop.from_dysts("Lorenz")
        >>> {name: float(value) for name, value in field.parameters.items() if name != "beta"}
        {'rho': 28.0, 'sigma': 10.0}
        >>> flow = lejax.systems.Flow(field, dt=field.period / 150)
        >>> spectrum = lejax.lyapunov_spectrum(flow, field.initial_state(), num_steps=10_000)
        >>> print(f"{spectrum.exponents.sum():.2f}")  # minus (10 + 1 + 2.667)
        -13.67

    W. Gilpin, Chaos as an interpretable benchmark for forecasting and data-driven modelling, NeurIPS (2021).
    """
    system = _find(system) if isinstance(system, str) else system
    bases = {kind.__name__ for kind in type(system).__mro__ if kind.__module__ == "dysts.base"}
    name = name_of(system)
    if "DynSysDelay" in bases:
        raise ValueError(
            f"{name} is a delay equation, whose state is a function of time, not a vector: lejax has no such cell."
        )
    if not bases & {"DynSys", "DynMap"}:
        hint = f"; pass an instance, {system.__name__}()" if inspect.isclass(system) else ""
        raise TypeError(f"system must be a name or a system of dysts, got {system!r}{hint}.")
    start = np.atleast_1d(np.asarray(getattr(system, "ic", ()), float))
    if start.ndim != 1 or start.size == 0:
        raise ValueError(
            f"{name} must have one initial condition `ic` of shape (d,), got shape {start.shape}."
        )
    parameters = {key: jnp.asarray(value, float) for key, value in system.params.items()}
    equations, start = type(system), tuple(start.tolist())
    if "DynMap" in bases:
        cell = DystsMap(parameters, start, equations)
        return _check_trace(name, cell, cell.initial_state())
    period = getattr(system, "period", None)
    period = None if period is None else float(check_positive("period", float(period)))
    field = DystsField(parameters, start, period, False, equations)
    _check_trace(name, field, field.initial_state())
    if _reads_time(field):
        field = DystsField(parameters, (*start, 0.0), period, True, equations)
    return field


def _reads_time(field: DystsField) -> bool:
    """Whether the slope depends on the time, in a comparison too."""
    state = field.initial_state()

    def slope(time):
        return _stack(_Traced(field.equations, field.parameters, state).rhs(state, time), state)

    program = jax.make_jaxpr(slope)(0.0).jaxpr
    dependent = {id(variable) for variable in program.invars}
    for equation in program.eqns:
        if any(id(variable) in dependent for variable in equation.invars):
            dependent |= {id(variable) for variable in equation.outvars}
    return any(id(variable) in dependent for variable in program.outvars)


def _find(name: str) -> Any:
    """An instance of the class of dysts of this name, with its stored parameters."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # dysts warns that numba is missing, which is not needed here
            import dysts.base
            import dysts.flows
            import dysts.maps
    except ModuleNotFoundError as error:
        if importlib.util.find_spec("dysts") is not None:  # a dependency of dysts is missing
            raise
        raise ModuleNotFoundError(
            f"{name!r} names a system of dysts, which is not installed: pip install 'lejax[dysts]'.",
            name="dysts",
        ) from error
    bases = (dysts.base.DynSys, dysts.base.DynSysDelay, dysts.base.DynMap)
    for module in (dysts.flows, dysts.maps):
        equations = getattr(module, name, None)
        if inspect.isclass(equations) and issubclass(equations, bases) and equations not in bases:
            return equations()
    names = [n for module in (dysts.flows, dysts.maps) for n in vars(module)]
    by_lower = {n.lower(): n for n in names if inspect.isclass(getattr(dysts.flows, n, None))}
    close = [by_lower[n] for n in difflib.get_close_matches(name.lower(), by_lower)]
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise ValueError(
        f"dysts {importlib.metadata.version('dysts')} has no system {name!r}.{hint} "
        "list(lejax.systems.gallery()) lists the names."
    )


def _check_trace(name: str, cell: Any, state: Array) -> Any:
    """The cell; JAX must be able to trace it and get as many numbers as the state has."""
    try:
        out = eqx.filter_eval_shape(cell, None, state)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"JAX cannot trace the equations of {name}. It said: {type(error).__name__}: {reason}"
        ) from error
    if out.shape != state.shape:
        raise ValueError(
            f"the equations of {name} give {out.shape[0]} numbers for a state of {state.shape[0]}."
        )
    return cell


def _stack(parts: Any, state: Array) -> Array:
    """The result of the equations, an array or a tuple of numbers, as one array of the state's dtype."""
    if not isinstance(parts, tuple | list):
        return jnp.atleast_1d(jnp.asarray(parts, state.dtype))
    return jnp.stack([jnp.asarray(part, state.dtype) for part in parts])


class _Traced:
    """Replaces `self` in the equations of a class: parameters are traced, and methods call JAX instead of NumPy."""

    def __init__(self, equations: type, parameters: dict[str, Array], state: Array):
        parameters = {name: value.astype(state.dtype) for name, value in parameters.items()}
        self._equations, self._parameters = equations, parameters
        self.param_list = [parameters[name] for name in sorted(parameters)]

    def __getattr__(self, name: str) -> Any:
        if name in self._parameters:
            return self._parameters[name]
        value = inspect.getattr_static(self._equations, name)
        if isinstance(value, staticmethod):
            while isinstance(value, staticmethod):
                value = value.__func__
            return _rebuild(value)
        if callable(value):
            return functools.partial(_rebuild(value), self)
        return value


def _rebuild(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """A function with the same code, for which the names of NumPy in its module mean JAX.

    The module itself is not changed.
    """
    function = getattr(function, "py_func", function)  # the Python function that numba compiled
    if not isinstance(function, types.FunctionType):
        raise TypeError(f"{function!r} is not a Python function")
    names = {name: _JAX if value is np else value for name, value in function.__globals__.items()}
    # These builtins need truth values, which traced numbers do not have.
    names |= {"max": jnp.maximum, "min": jnp.minimum}
    copy = types.FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


class _Writable:
    """A JAX array with item assignment, for equations that fill a NumPy array."""

    def __init__(self, array: Array):
        self._array = array

    def __getitem__(self, index: Any) -> Array:
        return self._array[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self._array = self._array.at[index].set(value)

    def __jax_array__(self) -> Array:
        return self._array


class _NumPyOfJAX:
    """`jax.numpy`, with arrays that can be filled from `zeros` and `empty`."""

    def __getattr__(self, name: str) -> Any:
        function = getattr(jnp, name)
        if name not in ("empty", "empty_like", "zeros", "zeros_like"):
            return function
        return lambda *args, **options: _Writable(function(*args, **options))


_JAX = _NumPyOfJAX()

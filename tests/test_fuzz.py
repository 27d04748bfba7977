"""Random bad input to every public function: lejax accepts it or raises its own error, and no other code raises one.

Nothing is compiled: a call that reaches a compiled function only traces it, and has then passed all checks.
"""

import collections
import contextlib
import dis
import signal
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import equinox as eqx
import hypothesis
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings, strategies as st
from valid_calls import NOT_CALLED, public, valid_calls

import lejax
from lejax._core.closures import compiled


OURS = (ValueError, TypeError, RuntimeError, FileNotFoundError, ModuleNotFoundError)
NEEDS_A_FILE = {
    "populations.load_population",
    "populations.save_population",
    "training.append_record",
    "training.read_records",
}
CALLS = 25  # per function
PACKAGE = str(Path(lejax.__file__).parent)


class Traced(BaseException):
    """Raised when a call has passed all checks and reached a compiled function."""


class Hangs(BaseException):
    """Raised when a call takes longer than any check may."""


def _trace_only(function):
    def traced(*args, **options):
        eqx.filter_eval_shape(function, *args, **options)
        raise Traced

    return traced


@contextlib.contextmanager
def nothing_compiles():
    """In the modules of lejax, replace each compiled function by one that traces it and raises `Traced`."""
    programs = type(eqx.filter_jit(lambda: None)), type(jax.jit(lambda: None))
    code = compiled(lambda: None).__code__
    replaced = []
    for name, module in list(sys.modules.items()):
        if name.startswith("lejax"):
            for attribute, value in list(vars(module).items()):
                is_program = isinstance(value, programs) or getattr(value, "__code__", None) is code
                if is_program and value.__module__.startswith("lejax"):
                    replaced.append((module, attribute, value))
                    setattr(module, attribute, _trace_only(value.__wrapped__))
    try:
        yield
    finally:
        for module, attribute, value in replaced:
            setattr(module, attribute, value)


def _masked(x):
    return np.ma.masked_array(x, np.arange(x.size).reshape(x.shape) == 0)


def _with_nan(x):
    x = np.array(x)
    x.flat[:1] = np.nan
    return x


class AnyClass:
    pass


# Values that replace an argument.
STRANGERS = {
    "None": None,
    "text": "x",
    "bytes": b"x",
    "-1": -1,
    "0": 0,
    "3": 3,
    ".5": 0.5,
    "95": 95.0,
    "nan": float("nan"),
    "inf": float("inf"),
    "2**31": 2**31,
    "1e308": 1e308,
    "True": True,
    "1j": 1j,
    "complex": np.ones(3) * 1j,
    "integers": np.arange(3),
    "objects": np.array([None, "x", 3], object),
    "strings": np.array(["a", "b"]),
    "dates": np.array(["2020-01-01"], "datetime64[D]"),
    "masked": np.ma.masked_array([1.0, 2.0, 3.0], [False, True, False]),
    "big-endian": np.ones(3, ">f8"),
    "float16": np.ones(3, np.float16),
    "bfloat16": jnp.ones(3, jnp.bfloat16),
    "empty": np.zeros(0),
    "scalar": jnp.array(0.5),
    "vector": np.ones(2),
    "matrix": np.ones((2, 2)),
    "batch": np.ones((2, 3, 3)),
    "infinite": np.full(3, np.inf),
    "list": [1.0, 2.0],
    "ragged": [[1.0], [1.0, 2.0]],
    "tuple": (),
    "dictionary": {"a": 1.0},
    "set": {1, 2},
    "key": jr.key(0),
    "old key": jr.PRNGKey(0),
    "keys": jr.split(jr.key(0), 3),
    "old keys": jr.split(jr.PRNGKey(0), 3),
    "function": lambda *args: args,
    "constant": lambda *args, **options: 1.0,
    "class": AnyClass,
    "object": AnyClass(),
    "type": float,
    "module": np,
}
# Changes of the arrays in an argument.
SPOILED = {
    "complex": lambda x: x.astype(np.complex128) + 1j,
    "integers": lambda x: x.astype(np.int64),
    "half": lambda x: x.astype(np.float16),
    "single": lambda x: x.astype(np.float32),
    "masked": _masked,
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "nan": lambda x: _with_nan(x.astype(float)),
    "inf": lambda x: -np.inf * np.ones_like(x, float),
    "objects": lambda x: x.astype(object),
    "list": lambda x: x.tolist(),
    "batch": lambda x: np.stack([x, x]),
    "longer": lambda x: np.concatenate([np.atleast_1d(x), np.atleast_1d(x)]),
    "shorter": lambda x: np.atleast_1d(x)[:-1],
    "empty": lambda x: np.atleast_1d(x)[:0],
    "flat": lambda x: x.reshape(-1),
    "none": lambda x: None,
}


def _is_numbers(leaf):
    return eqx.is_array(leaf) and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def spoiled(value: Any, how: str) -> Any:
    """Change the arrays of a valid argument."""

    def spoils(leaf):
        # In a module, change real arrays only, as a cast of the module would.
        return _is_numbers(leaf) and (
            eqx.is_inexact_array(leaf) or not isinstance(value, eqx.Module)
        )

    return jtu.tree_map(lambda x: SPOILED[how](np.asarray(x)) if spoils(x) else x, value)


def ways(value: Any) -> list[str]:
    """Names of all replacements (`= name`) and changes (`~ name`) of an argument."""
    if not any(map(_is_numbers, jtu.tree_leaves(value))):
        spoils = []
    elif isinstance(value, eqx.Module):  # users cast modules, but do not change shapes in them
        spoils = ["half", "single", "masked", "big-endian", "nan", "objects"]
    else:
        spoils = list(SPOILED)
    return [f"= {name}" for name in STRANGERS] + [f"~ {name}" for name in spoils]


def replaced(value: Any, way: str) -> Any:
    return STRANGERS[way[2:]] if way[0] == "=" else spoiled(value, way[2:])


def outcome(function, args, options) -> str:
    """How a call ends: `taken`, `traced`, `refused`, `hangs`, or `foreign` and the exception."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # NumPy warns if a cast drops the imaginary part of an array that no check has looked at.
            warnings.filterwarnings("error", category=np.exceptions.ComplexWarning)
            function(*args, **options)
        return "taken"
    except Traced:
        return "traced"
    except Hangs:
        return "hangs"
    except Exception as error:
        if isinstance(error, OURS) and _is_raised_here(error):
            return "refused"
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if f.filename.startswith(PACKAGE)]
        where = f"{own[-1].filename[len(PACKAGE) + 1 :]}:{own[-1].lineno}" if own else "?"
        message = str(error).partition("\n")[0][:150]
        return f"foreign {type(error).__name__} in {where}: {message}"


def _is_raised_here(error: BaseException) -> bool:
    """Whether a `raise` statement of lejax raised the error."""
    last = error.__traceback__
    while last.tb_next is not None:
        last = last.tb_next
    code = last.tb_frame.f_code
    raises = code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return raises and code.co_filename.startswith(PACKAGE)


def call(name: str, changes: dict[int | str, str]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", np.exceptions.ComplexWarning)
        args, options = _changed(*valid_calls()[name], changes)
    return outcome(public()[name], args, options)


def _changed(args, options, changes):
    args = [replaced(x, changes[i]) if i in changes else x for i, x in enumerate(args)]
    options = {n: replaced(x, changes[n]) if n in changes else x for n, x in options.items()}
    return args, options


def _alarm(*_):
    raise Hangs


@pytest.fixture
def watched(monkeypatch, tmp_path):
    """Prevent compilation, and make SIGALRM raise `Hangs`; files are written into a temporary folder."""
    monkeypatch.chdir(tmp_path)
    filtering = jax.config.jax_traceback_filtering
    jax.config.update("jax_traceback_filtering", "off")
    previous = signal.signal(signal.SIGALRM, _alarm)
    with nothing_compiles():
        yield
    signal.signal(signal.SIGALRM, previous)
    jax.config.update("jax_traceback_filtering", filtering)


@pytest.mark.slow
def test_every_public_function_has_a_valid_call():
    skipped = {f"{package}.{name}" for package, names in NOT_CALLED.items() for name in names}
    assert skipped.isdisjoint(valid_calls())
    assert skipped | set(valid_calls()) == set(public())


@pytest.mark.slow
def test_no_call_ends_in_an_exception_from_outside_lejax(watched):
    """Change one or two random arguments of a valid call of each function."""
    ended: dict[str, list] = collections.defaultdict(list)

    def fuzz(name, given):
        change = st.sampled_from(list(given)).flatmap(
            lambda key: st.tuples(st.just(key), st.sampled_from(ways(given[key])))
        )

        @settings(
            max_examples=CALLS,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @hypothesis.given(st.lists(change, min_size=1, max_size=2, unique_by=lambda pair: pair[0]))
        def run(changes):
            signal.setitimer(signal.ITIMER_REAL, 30)
            try:
                end = call(name, dict(changes))
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            ended[end.partition(" ")[0]].append((name, changes, end))

        run()

    for name, (args, options) in valid_calls().items():
        assert call(name, {}) in ("taken", "traced", "refused" if name in NEEDS_A_FILE else "taken")
        fuzz(name, {**dict(enumerate(args)), **options})

    counts = {kind: len(calls) for kind, calls in ended.items()}
    print(counts)
    wrong = ended["foreign"] + ended["hangs"]
    assert wrong == [], "\n".join(map(str, wrong))
    assert sum(counts.values()) >= 4000

"""Every example runs: those of the docstrings, those of the README, and the notebooks."""

import ast
import dataclasses
import doctest
import inspect
import re
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reduced_notebooks import WHERE_X64, reduce

import lejax


ROOT = Path(__file__).parent.parent
NEEDS = {
    "lejax.interop.from_dysts": "dysts", "lejax.interop.from_flax": "flax", "lejax.interop.from_haiku": "haiku",
    "lejax.interop.from_keras": "keras", "lejax.populations.Autoencoder": "sklearn",
}  # fmt: skip
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def public_objects():
    for name in lejax.__all__:
        value = getattr(lejax, name)
        if not inspect.ismodule(value):
            yield f"lejax.{name}", value
            continue
        for inner in dir(value):
            member = getattr(value, inner)
            home = getattr(member, "__module__", "")
            if not inner.startswith("_") and str(home).startswith(f"lejax.{name}"):
                yield f"lejax.{name}.{inner}", member


OBJECTS = dict(public_objects())
VERBS = [name for name, value in OBJECTS.items() if inspect.isfunction(value)]


def examples_of(name):
    finder = doctest.DocTestFinder(recurse=False)
    return [t for t in finder.find(OBJECTS[name], name, module=False) if t.examples]


@pytest.mark.parametrize("name", [n for n in OBJECTS if examples_of(n)])
def test_docstring_example(name, tmp_path, monkeypatch):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    monkeypatch.chdir(tmp_path)
    for test in examples_of(name):
        test.globs = {}
        result = doctest.DocTestRunner(optionflags=FLAGS).run(test)
        assert result.failed == 0


def test_the_example_of_the_package_runs():
    (test,) = doctest.DocTestFinder(recurse=False).find(lejax, "lejax")
    assert test.examples
    assert doctest.DocTestRunner(optionflags=FLAGS).run(test).failed == 0


@pytest.mark.parametrize("name", OBJECTS)
def test_every_public_name_is_documented(name):
    assert inspect.getdoc(OBJECTS[name])


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_an_example(name):
    assert examples_of(name)


def documented(docstring: str) -> set[str]:
    """The names that a docstring explains: those in front of the colon of a bullet."""
    found = set()
    for line in inspect.cleandoc(docstring or "").splitlines():
        if match := re.match(r"\s*- ((?:`\w+`[^:]*?)+):", line):
            found.update(re.findall(r"`(\w+)`", match[1]))
    return found


def declared(kind: type) -> list[str]:
    """The public fields of a class of ours, or of a named tuple."""
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
    else:
        names = list(getattr(kind, "_fields", ()))
    return [name for name in names if not name.startswith("_")]


CLASSES = [name for name, value in OBJECTS.items() if inspect.isclass(value) and declared(value)]


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_field_stands_in_the_docstring_of_its_class(name):
    missing = set(declared(OBJECTS[name])) - documented(OBJECTS[name].__doc__)
    assert not missing


@pytest.mark.parametrize("name", [n for n, v in OBJECTS.items() if callable(v)])
def test_every_argument_is_a_bullet(name):
    value = OBJECTS[name]
    # Fields are arguments of a class without an `__init__` of its own; reports are made by functions only.
    if inspect.isclass(value) and "__init__" not in vars(value):
        return
    function = value.__init__ if inspect.isclass(value) else value
    parameters = set(inspect.signature(function).parameters) - {"self", "args", "kwargs"}
    assert not parameters - documented(value.__doc__)


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_that_raises_says_so(name):
    value = OBJECTS[name]
    tree = ast.parse(textwrap.dedent(inspect.getsource(value)))
    if any(isinstance(node, ast.Raise) for node in ast.walk(tree)):
        assert "**Raises:**" in value.__doc__


SOURCES = sorted(Path(lejax.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_no_field_is_documented_where_python_drops_it(path):
    for kind in ast.walk(ast.parse(path.read_text())):
        if isinstance(kind, ast.ClassDef):
            for field, text in zip(kind.body, kind.body[1:], strict=False):
                dropped = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
                assert not (isinstance(field, ast.AnnAssign) and dropped), (kind.name, text.lineno)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_prose_is_at_most_120_columns_wide(name):
    for line in (ROOT / name).read_text().splitlines():
        assert len(line) <= 120 or line.startswith("|") or "http" in line


def blocks(language):
    text = (ROOT / "README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_quick_start_is_two_commands_of_one_line():
    text = (ROOT / "README.md").read_text()
    section = text.split("## Quick start", 1)[1].split("\n## ", 1)[0]
    commands = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert len(commands) == 2
    assert all(command.count("\n") == 1 for command in commands)
    assert "lejax spectrum" in commands[0]
    assert "pytest" in commands[1]


def test_readme_has_no_gaps():
    assert re.findall(r"\{[A-Z_]+\}|TODO|FIXME|XXX", (ROOT / "README.md").read_text()) == []


@pytest.mark.slow
def test_readme_blocks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = blocks("python")
    assert found
    namespace = {"jax": jax, "jnp": jnp, "np": np}
    for block in found:
        exec(compile(block, "README.md", "exec"), namespace)


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_notebook_has_outputs_and_a_badge(path):
    """`python notebooks/execute.py` writes the outputs, without errors and paths of its machine."""
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert (
        f"colab.research.google.com/github/lejax/lejax/blob/main/notebooks/{path.name}"
        in "".join(cell.source for cell in notebook.cells[:2])
    )
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert all(output.output_type != "error" for output in outputs)
    texts = [o.get("text", o.get("data", {}).get("text/plain", "")) for o in outputs]
    assert not re.search(r"/(home|root|tmp|work|usr|opt)/", "".join(texts))
    assert path.stat().st_size < 1_500_000


def test_notebooks_are_numbered_without_a_gap():
    assert [int(path.name[:2]) for path in NOTEBOOKS] == list(range(1, len(NOTEBOOKS) + 1))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_notebook_keeps_the_jax_of_colab_and_takes_float64_where_there_is_any(path):
    nbformat = pytest.importorskip("nbformat")
    first, model = (nbformat.read(p, as_version=4).cells[1].source for p in (path, NOTEBOOKS[0]))
    assert first.replace("lejax[dysts]", "lejax") == model
    sources = [cell.source for cell in nbformat.read(path, as_version=4).cells]
    assert sum(source.count(WHERE_X64) for source in sources) == 1
    assert sum(source.count("jnp.float64") for source in sources) == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_notebook_runs(path, precision, tmp_path):
    """At reduced size."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(path, as_version=4)
    reduce(notebook, path.name, precision)
    (tmp_path / "weights").symlink_to(path.parent / "weights")
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()

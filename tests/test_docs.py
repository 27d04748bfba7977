"""Every example runs: those of the docstrings, those of the README, and the notebooks."""

import doctest
import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lejax


ROOT = Path(__file__).parent.parent
NEEDS = {"lejax.interop.from_dysts": "dysts"}
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


@pytest.mark.parametrize("name", OBJECTS)
def test_every_public_name_is_documented(name):
    assert inspect.getdoc(OBJECTS[name])


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_an_example(name):
    assert examples_of(name)


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
def test_notebook_is_stripped_and_has_a_badge(path):
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert (
        f"colab.research.google.com/github/lejax/lejax/blob/main/notebooks/{path.name}"
        in "".join(cell.source for cell in notebook.cells[:2])
    )
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_notebook_runs(path, tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()

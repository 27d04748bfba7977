"""The house: imports point down only, files fit in one sitting, `--help` does not wait for JAX."""

import ast
import importlib
import inspect
import pkgutil
import pydoc
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import lejax


PACKAGE = Path(lejax.__file__).parent
# From the ground up. A file may import from its own folder, from folders named before it in its layer, and from lower
# layers.
LAYERS = {
    "core": ["_core"],
    "engine": ["_engine"],
    "exponents": ["_spectrum", "_vectors"],
    "models": ["cells", "systems", "interop", "data"],
    "analysis": ["indicators", "orbits", "plrnn", "training", "reconstruction", "populations"],
    "running": ["run", "plot", "_report", "_command_line"],
}
FOLDERS = [folder for layer in LAYERS.values() for folder in layer]
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[tuple[str, str]]:
    """The modules of lejax a file imports, as (folder, file)."""
    package = path.parent.relative_to(PACKAGE).parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [a.name.split(".") for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ["lejax", *package][: len(package) + 2 - node.level] if node.level else []
            base += node.module.split(".") if node.module else []
            names = [[*base, a.name] for a in node.names]
        else:
            continue
        for first, folder, *rest in (name for name in names if len(name) > 1):
            if first == "lejax" and folder in FOLDERS:
                found.add((folder, rest[0] if rest else ""))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    own, *rest = path.relative_to(PACKAGE).parts
    below = (
        FOLDERS[: FOLDERS.index(own)] if rest else {"__init__.py": [], "__main__.py": FOLDERS}[own]
    )
    for folder, module in imported(path):
        assert folder in (own, *below), f"{own} imports {folder}.{module}, which is not below it"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_private_files_of_other_packages_are_not_imported(path):
    for folder, module in imported(path):
        assert folder == path.parent.name or not module.startswith("_")


@pytest.mark.parametrize("folder", [p for p in PACKAGE.iterdir() if (p / "__init__.py").exists()])
def test_no_circles_inside_a_folder(folder):
    edges = {
        path.stem: {name for other, name in imported(path) if other == folder.name}
        for path in folder.glob("*.py")
        if path.stem != "__init__"
    }
    while edges:
        free = {name for name, below in edges.items() if not below & edges.keys() - {name}}
        assert free, f"circular imports among {sorted(edges)}"
        edges = {name: below for name, below in edges.items() if name not in free}


def test_every_folder_has_a_layer():
    assert {path.parent.name for path in FILES} == {PACKAGE.name, *FOLDERS}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_fit_in_one_sitting(path):
    assert len(path.read_text().splitlines()) <= 400


def test_every_class_is_abstract_or_final():
    for module in pkgutil.walk_packages(lejax.__path__, "lejax."):
        if module.name == "lejax.__main__":
            continue
        home = importlib.import_module(module.name)
        for kind in filter(inspect.isclass, vars(home).values()):
            if kind.__module__ == module.name:
                bases = [base for base in kind.__bases__ if base.__module__.startswith("lejax.")]
                assert all(map(inspect.isabstract, bases)), kind


def test_the_floors_of_the_core_tests_are_those_of_the_package():
    root = PACKAGE.parent
    if not (root / ".ci" / "floors.txt").exists():
        pytest.skip("installed without its repository")
    lines = (root / ".ci" / "floors.txt").read_text().splitlines()
    held = dict(line.split()[0].split("==") for line in lines if not line.startswith("#"))
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    for dependency in project["dependencies"]:
        name, floor = dependency.split(">=")
        assert (held[name] + ".").startswith(floor + ".")
    assert held["jaxlib"] == held["jax"]
    # Whose data these are is said where they are, and beside the license of the code.
    assert project["license-files"] == ["LICENSE", "lejax/data/README.md"]


def test_public_list_resolves_lazily():
    code = "import sys, lejax; assert 'jax' not in sys.modules; lejax.unroll; assert 'jax' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert lejax.__all__ == sorted(lejax.__all__)
    for name in lejax.__all__:
        assert getattr(lejax, name).__doc__


def test_packages_show_their_public_names_and_nothing_else():
    for path in PACKAGE.glob("[!_]*/__init__.py"):
        package, imported_by_star = getattr(lejax, path.parent.name), {}
        assert dir(package) == sorted(package.__all__)
        exec(f"from {package.__name__} import *", imported_by_star)
        del imported_by_star["__builtins__"]
        assert sorted(imported_by_star) == dir(package)
        for name, value in imported_by_star.items():
            assert not inspect.ismodule(value)
            assert value.__module__.startswith(f"{package.__name__}._"), name


def test_the_docstring_at_the_top_leads_to_names_that_exist():
    named = re.findall("`([a-zA-Z_]+)`", lejax.__doc__)
    assert {"lyapunov_spectrum", "report"} <= set(named)
    for name in set(named) - {"print"}:
        assert hasattr(lejax, name)
    packages = {p.parent.name for p in PACKAGE.glob("[!_]*/__init__.py")}
    assert packages <= set(named)


def test_help_on_a_package_lists_its_names():
    for path in PACKAGE.glob("[!_]*/__init__.py"):
        package = getattr(lejax, path.parent.name)
        text = pydoc.render_doc(package, renderer=pydoc.plaintext)
        names = package.__all__
        assert names
        assert all(f" {name}" in text or f".{name}" in text for name in names)

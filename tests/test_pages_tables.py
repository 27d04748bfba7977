"""The tables of pages and notebooks are those that docs/tables.py makes of the results."""

import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))
try:
    import tables
    from table_parts import claims, common
finally:
    sys.path.pop(0)


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.stem)
def test_the_tables_of_a_page_are_those_of_the_results(page):
    text = page.read_text()
    assert tables.with_tables(text) == text, "python docs/tables.py writes them"


@pytest.mark.parametrize("notebook", tables.NOTEBOOKS, ids=lambda path: path.stem)
def test_the_tables_of_a_notebook_are_those_of_the_results(notebook):
    text = notebook.read_text()
    assert tables.notebook_with_tables(text) == text, "python docs/tables.py writes them"
    assert "<!-- table: " in text


def test_every_table_stands_on_one_page():
    found = [m[2] for page in tables.PAGES for m in tables.MARKED.finditer(page.read_text())]
    assert sorted(found) == sorted(tables.TABLES)


def test_every_result_is_in_a_table():
    text = "".join(page.read_text() for page in tables.PAGES)
    for path in common.RESULTS.glob("*.json"):
        assert f"`benchmarks/{path.stem.removesuffix('_gpu')}.py`, " in text, path.name


def test_a_verdict_that_the_numbers_do_not_support_is_refused():
    row = claims.claim("A claim.", "A (2000)", "1", "x.py", "refined: if so", when=True)
    assert row == ["A claim. *A (2000)*", "1", "x.py", "**refined**: if so"]
    with pytest.raises(ValueError, match="no longer say 'open'"):
        claims.claim("A claim.", "A (2000)", "1", "x.py", "open", when=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (8.04, "8.0"), (0.996, "1.0"), (98.4, "98"), (2755, "2800"), (5e-5, "5.0e-5")],
)
def test_numbers_have_two_digits(value, text):
    assert common.digits(value) == text


def test_what_was_not_recorded_is_called_so(monkeypatch):
    monkeypatch.setattr(common, "read", lambda name: {"machine": {"cores": 2}})
    line = " ".join(common.source("speed").split())
    assert line == (
        "*`benchmarks/speed.py`, on a day that was not recorded: processor not recorded, 2 cores, "
        "Python not recorded, JAX not recorded, lejax not recorded.*"
    )

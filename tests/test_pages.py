"""The documentation builds without a warning, its code runs and prints what it shows, and it has every public name."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lejax


ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))
try:
    import pages
finally:
    sys.path.pop(0)
PAGES = sorted(DOCS.rglob("*.md"))
CODE = re.compile(r"^ *```python$", re.MULTILINE)


def public_names():
    for name in lejax.__all__:
        value = getattr(lejax, name)
        if inspect.ismodule(value):
            yield from (f"lejax.{name}.{inner}" for inner in value.__all__)
        else:
            yield f"lejax.{name}"


def test_the_reference_has_every_public_name_once():
    text = "\n".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    assert sorted(re.findall(r"^::: (\S+)$", text, re.MULTILINE)) == sorted(public_names())


def test_the_gallery_draws_every_plot():
    text = "\n".join(page.read_text() for page in (DOCS / "gallery").glob("*.md"))
    for name in lejax.plot.__all__:
        assert f"plot.{name}(" in text, name


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(DOCS)))
def test_prose_is_at_most_120_columns_wide(page):
    for line in page.read_text().splitlines():
        assert len(line) <= 120 or line.startswith(("|", "![")) or "http" in line


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(DOCS)))
def test_no_page_or_output_is_empty(page):
    text = page.read_text()
    assert len(text.split()) > 10
    assert not re.search(r"^ *```\w+\n *```$", text, re.MULTILINE)


def test_pictures_are_described_small_and_used():
    used = set()
    for page in PAGES:
        for text, name in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text()):
            assert len(text) > 20, (page, name)
            used.add((page.parent / name).resolve())
    drawn = {path.resolve() for path in (DOCS / "pictures").iterdir()}
    assert drawn == used
    assert all(path.stat().st_size < 300_000 for path in drawn)


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("λ = 0.906, 3 zeros\n", "λ =  0.912, 3 zeros", True),
        ("0.906", "0.95", False),
        ("-14.5", "14.5", False),
        ("0.001", "0.015", True),
        ("1e-3 chaotic", "1e-3 periodic", False),
        ("1 2", "1 2 3", False),
        ("[-0.274 -0.3]", "[-0.27  -0.301]", True),
    ],
)
def test_printed_numbers_agree_within_tolerances_and_words_exactly(shown, printed, same):
    assert pages.is_same(shown, printed) is same


def test_a_block_has_what_it_prints_and_draws():
    page = "```python\nprint(1)\n```\n\n```text\n1\n```\n\n![A line.](pictures/a.png)\n\n```python\n2\n```\n"
    first, second = pages.BLOCK.finditer(page)
    assert (first["code"], first["printed"], first["picture"]) == (
        "print(1)\n",
        "1\n",
        "pictures/a.png",
    )
    assert (second["code"], second["text"], second["picture"]) == ("2\n", None, None)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is missing: pip install 'lejax[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 30_000_000
    for path in tmp_path.rglob("*.html"):  # nothing is loaded from elsewhere
        assert (
            re.findall(
                r'<(?:script|link|img|iframe)[^>]*(?:src|href)="https?:(?!//github)',
                path.read_text(),
            )
            == []
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [p for p in PAGES if CODE.search(p.read_text())], ids=lambda p: str(p.relative_to(DOCS))
)
def test_page_runs_and_prints_what_it_shows(page):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, str(DOCS / "pages.py"), str(page)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr

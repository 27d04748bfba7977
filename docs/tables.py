"""Write the tables of some pages from the results of the benchmarks.

    python docs/tables.py

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; what is between them is replaced. NAME is a function
that a file of `table_parts` lists in TABLES, or has itself.
"""

import re
from pathlib import Path

from table_parts import frameworks, monitor, performance, validation


DOCS = Path(__file__).parent
PAGES = (
    DOCS / "performance.md",
    DOCS / "validation.md",
    DOCS / "how-to" / "frameworks.md",
    DOCS / "how-to" / "monitor.md",
    DOCS / "how-to" / "reconstruct.md",
)
TABLES = performance.TABLES | validation.TABLES | frameworks.TABLES | {"monitor": monitor.monitor}
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """The text of a page with its tables made anew."""
    return MARKED.sub(lambda m: f"{m[1]}\n{TABLES[m[2]]()}\n\n{m[3]}", text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_tables(page.read_text()))

"""Write the tables of some pages and notebooks from the results of the benchmarks.

    python docs/tables.py

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; what is between them is replaced. NAME is a function
that a file of `table_parts` lists in TABLES, or has itself.
"""

import json
import re
from pathlib import Path

from table_parts import (
    float32,
    flossing_limits,
    frameworks,
    long_sequences,
    monitor,
    onset_of_chaos,
    performance,
    pruning,
    robustness,
    selection,
    validation,
)


DOCS = Path(__file__).parent
PAGES = (
    DOCS / "performance.md",
    DOCS / "validation.md",
    DOCS / "how-to" / "accelerators.md",
    DOCS / "how-to" / "frameworks.md",
    DOCS / "how-to" / "monitor.md",
    DOCS / "how-to" / "prune.md",
    DOCS / "how-to" / "reconstruct.md",
    DOCS / "how-to" / "when-exponents-help.md",
)
TABLES = (
    performance.TABLES
    | validation.TABLES
    | frameworks.TABLES
    | {
        function.__name__: function
        for function in (
            float32.float32_chaotic,
            float32.float32_settled,
            float32.float32_parts,
            monitor.monitor,
            pruning.pruning,
            pruning.pruned_exponents,
            flossing_limits.flossing_limits,
            flossing_limits.flossing_limits_diagnosis,
            flossing_limits.flossing_limits_factors,
            long_sequences.long_sequences,
            onset_of_chaos.onset_of_chaos,
            robustness.robustness,
            selection.selection,
            selection.selection_strategies,
        )
    }
)
NOTEBOOKS = tuple(
    DOCS.parent / "notebooks" / f"{name}.ipynb"
    for name in ("02_flossing", "03_spectra_and_performance")
)
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """The text of a page with its tables made anew."""
    return MARKED.sub(lambda m: f"{m[1]}\n{TABLES[m[2]]()}\n\n{m[3]}", text)


def notebook_with_tables(text: str) -> str:
    """The text of a notebook with the tables in its Markdown made anew."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = with_tables("".join(cell["source"])).splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_tables(page.read_text()))
    for notebook in NOTEBOOKS:
        notebook.write_text(notebook_with_tables(notebook.read_text()))

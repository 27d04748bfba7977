"""The table of a page on starts, penalties and clipping for long sequences of real data."""

from .common import markdown, read, source


TASKS = {
    "pixels": "64 pixels",
    "permuted": "64 permuted pixels",
    "padded": "8 rows, 504 steps of noise",
}
CELLS = ("tanh", "GRU", "LSTM", "LRU")
TITLES = {
    "plain": "plain",
    "no clipping": "no clipping",
    "orthogonal": "orthogonal start",
    "critical": "gain for $\\lambda_1 = 0$",
    "gate": "gate bias for $\\lambda_8 = -1/T$",
    "gate of one": "gate bias for $\\lambda_1 = -1/T$",
    "chrono": "chrono gate bias",
    "ring": "ring start",
    "decay": "decay for $\\lambda_8 = -1/T$",
    "flossed": "flossed before",
    "penalty": "penalty, 8 exponents",
    "penalty on one": "penalty, $\\lambda_1$",
}


def long_sequences() -> str:
    """One line for each task and variant, one column for each cell: plain accuracies, and paired differences."""
    rows = {
        (r["task"], r["cell"], r["variant"]): r["summary"] for r in read("long_sequences")["rows"]
    }
    cells = [cell for cell in CELLS if any(cell == other for _, other, _ in rows)]
    table = []
    for task, title in TASKS.items():
        for variant, name in TITLES.items():
            found = [rows.get((task, cell, variant)) for cell in cells]
            if any(found):
                table.append([title, name, *(_entry(variant, x) for x in found)])
    return markdown(["task", "variant", *cells], table, left=2) + "\n\n" + source("long_sequences")


def _entry(variant: str, found: dict | None) -> str:
    if found is None:
        return ""
    if variant == "plain":
        return f"{found['accuracy']:.2f}"
    text = f"{found['difference']:+.2f} ± {found['half_interval']:.2f}"
    is_clear = abs(found["difference"]) > found["half_interval"]
    return f"**{text}**" if is_clear else text

"""The table of docs/how-to/monitor.md: what a call costs."""

from .common import markdown, quartiles, read, source


def monitor() -> str:
    rows = [
        [
            f"{row['cell'].removesuffix('Cell')} of {row['size']} units",
            f"{row['exponents']}",
            quartiles(row["over_plain_steps"]),
            quartiles(row["over_training_step"]),
        ]
        for row in read("monitor")["rows"]
    ]
    header = ["network", "exponents", "over plain steps", "over an update"]
    return markdown(header, rows) + "\n\n" + source("monitor")

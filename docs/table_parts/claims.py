"""Claims of papers, each with our number and a verdict that must follow from it."""

from .common import plain, source


HEADER = ["claim", "our number", "script", "verdict"]
VERDICTS = ("reproduced", "refined", "refuted", "open")


def claim(text: str, paper: str, ours: str, script: str, verdict: str, *, when: bool) -> list[str]:
    """A row. `when` is what the numbers must fulfil for the verdict."""
    assert verdict.partition(":")[0] in VERDICTS
    if not when:
        raise ValueError(f"{paper}: {text} The numbers no longer say {verdict!r}: {ours}")
    word, colon, rest = verdict.partition(":")
    return [
        f"{text} *{paper}*",
        ours,
        script.rpartition("/")[2],
        f"**{word}**{colon}{rest}",
    ]


def table(rows: list[list[str]], *names: str) -> str:
    """The table of some claims and where its numbers come from."""
    return f"{plain(HEADER, rows)}\n\n{source(*names)}"


def span(values, places: int = 2) -> str:
    return f"{min(values):.{places}f} to {max(values):.{places}f}"

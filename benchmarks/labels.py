"""How cells and numbers are written, in the terminal, in Markdown and in the chart."""

from __future__ import annotations

DIRECTIONS = {
    "forward": "forward",
    "backward": "forward+backward",
    "double": "double backward",
    "double-whole": "f+b+double b.",
    "jvp": "forward+jvp",
    "gradient": "forward+gradient",
}


def times(ratio: float) -> str:
    """A ratio with the digits that mean something: "0.94x", "6.2x"."""
    return f"{ratio:.2f}x" if ratio < 2 else f"{ratio:.1f}x"


def work_label(case: dict) -> str:
    """What is done, with the one gradient or tangent that is asked for if it is one alone."""
    to = "along" if case["direction"] == "jvp" else "to"
    only = f", {to} {case['wrt'][0]} only" if len(case["wrt"]) == 1 else ""
    return case["work"] + only


def threads_label(count: int) -> str:
    """ "1 thread", "2 threads"."""
    return "1 thread" if count == 1 else f"{count} threads"


def line(columns: list[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(columns) + " |"


def rule(numbers: int) -> str:
    """The line under a Markdown table's titles: one column of text, then so many of numbers."""
    return "|---|" + "---:|" * numbers

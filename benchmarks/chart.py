"""The chart: for every piece of work, how many times as fast as torch."""

from __future__ import annotations

import io
import math

from .cases import FIRST
from .labels import DIRECTIONS, threads_label, times, work_label
from .report import headline

SHADES = ("#9ecae1", "#3182bd", "#08519c", "#08306b")
SLOWER = "#d6604d"
INCHES_PER_BAR = 0.17


def draw(results: dict) -> bytes | None:
    """PNG of horizontal bars, one panel per direction; None without matplotlib or without cells."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    ratios: dict[str, dict[str, dict[int, float]]] = {}  # direction -> work -> threads -> ratio
    for cell in results["cells"]:
        best = headline(cell)
        if best is not None:
            panel = ratios.setdefault(cell["case"]["direction"], {})
            name, ratio = best
            mark = " †" if cell["peers"][name]["wrong"] else ""
            row = panel.setdefault(work_label(cell["case"]) + mark, {})
            row[cell["threads"]] = ratio["median"]
    # Derivatives beyond a gradient have no work in common with the others.
    ratios = {name: panel for name, panel in ratios.items() if name in FIRST} or ratios
    if not ratios:
        return None

    threads = sorted(
        {count for panel in ratios.values() for row in panel.values() for count in row}
    )
    rows = max(len(panel) for panel in ratios.values())
    height = 1.9 + INCHES_PER_BAR * rows * (len(threads) + 0.6)
    figure = Figure(figsize=(8.5 * len(ratios), height), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(ratios), squeeze=False)[0]
    for axes, direction in zip(panels, sorted(ratios, reverse=True), strict=True):
        axes.set_title(DIRECTIONS[direction])
        _panel(axes, ratios[direction], threads)
        axes.set_ylim(rows - 0.4, -0.6)
    _scale(
        panels,
        [value for panel in ratios.values() for row in panel.values() for value in row.values()],
    )
    handles = [
        panels[0].barh(0, 0, color=SHADES[min(index, len(SHADES) - 1)])
        for index in range(len(threads))
    ]
    labels = [threads_label(count) for count in threads]
    figure.legend(handles, labels, loc="outside lower center", ncols=len(threads), frameon=False)
    facts = results["environment"]
    on_cuda = facts.get("device") == "cuda"
    kernels = f"CUDA {facts['gpu']['cuda']}" if on_cuda else facts["stn_cuda"]["cpu_isa"]
    figure.suptitle(
        f"stn_cuda against torch {facts['torch']}: time of torch / time of stn_cuda "
        f"(†: torch's result is wrong)\n"
        f"{facts['device_name']}, {kernels}, {facts['date'][:10]}",
        fontsize=10,
    )
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return buffer.getvalue()


def _panel(axes, panel: dict[str, dict[int, float]], threads: list[int]) -> None:
    height = 1 / (len(threads) + 0.6)
    for position, row in enumerate(panel.values()):
        for index, count in enumerate(threads):
            if count not in row:
                continue
            value = row[count]
            shade = SLOWER if value < 1 else SHADES[min(index, len(SHADES) - 1)]
            middle = position + (index - (len(threads) - 1) / 2) * height
            # On a logarithmic scale a bar starts at 1: twice as fast and half as fast are as long.
            axes.barh(middle, value - 1, height=height, left=1, color=shade)
            axes.annotate(
                times(value),
                (max(value, 1), middle),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=6,
            )
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(panel)), list(panel), fontsize=7)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _scale(panels, values: list[float]) -> None:
    """One scale for all panels: powers of two, around everything and around 1."""
    low = math.floor(math.log2(min(1, *values)))
    high = math.ceil(math.log2(max(2, *values)) + 0.25)
    ticks = [2.0**exponent for exponent in range(low, high + 1)]
    for axes in panels:
        axes.set_xscale("log", base=2)
        axes.set_xlim(ticks[0], ticks[-1])
        axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])

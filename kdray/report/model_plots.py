"""Numbers of the three models on the test split become pictures as SVG. Knows nothing about the page they stand on."""

from typing import Any

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.ticker import MaxNLocator

from kdray.report.figure import COLOURS, DATA, HEAT, INK, SOFT, canvas, svg

_FEW = 5
"""Units below which a bar of a reliability diagram is pale."""
_NUMBERED, _NAMED = 12, 40
"""Labels up to which a confusion matrix has numbers in its cells, or names at its sides."""


def intervals(test: dict[str, Any], titles: dict[str, str], metric: str) -> str:
    """Test metric of each model, by its title, with its 95 % interval."""
    with canvas(5.6, 0.9 + 0.42 * len(test)) as figure:
        area = figure.subplots()
        for place, (name, scores) in enumerate(reversed(test.items())):
            score = scores[metric]
            area.plot([score["low"], score["high"]], [place, place], color=COLOURS[name], linewidth=3, gid=DATA)
            area.plot(score["value"], place, "o", color=COLOURS[name], markersize=9)
        area.set_yticks(range(len(test)), [titles[name] for name in reversed(test)])
        area.set(ylim=(-0.6, len(test) - 0.4), xlabel=f"test {metric}")
        area.xaxis.set_major_locator(MaxNLocator(5))
        area.grid(axis="x", color=SOFT, alpha=0.3)
        return svg(figure, f"Test {metric} with 95 % intervals")


def reliability(name: str, calibration: dict[str, Any]) -> str:
    """How often the model `name` is right at each confidence, and below it how often it is so confident."""
    bins = calibration["bins"]
    count = np.array([part["count"] for part in bins])
    middles = (np.arange(len(bins)) + 0.5) / len(bins)
    with canvas(3.8, 4.0) as figure:
        upper, lower = figure.subplots(2, height_ratios=(4, 1), sharex=True)
        upper.plot([0, 1], [0, 1], color=SOFT, linestyle="--", linewidth=1, zorder=3)
        for middle, part in zip(middles, bins, strict=True):
            if part["count"]:
                upper.bar(middle, part["accuracy"], 1 / len(bins), edgecolor=INK, linewidth=0.5, gid=DATA,
                          color=to_rgba(COLOURS[name], 0.75 if part["count"] >= _FEW else 0.2))
        lower.bar(middles, count / max(1, count.sum()), 1 / len(bins), color=SOFT)
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="share right")
        lower.set(xlabel="confidence", ylabel="share", ylim=(0, 1))
        return svg(figure, f"Calibration of the {name}")


def confusion(name: str, labels: list[str], matrix: list[list[int]]) -> str:
    """Truth by row, the answer of the model `name` by column; a cell is as dark as its share of the row."""
    counts = np.array(matrix)
    share = counts / np.maximum(1, counts.sum(1, keepdims=True))
    side = min(7.0, max(3.8, 1.8 + 0.5 * len(labels) if len(labels) <= _NUMBERED else 1.8 + 0.16 * len(labels)))
    with canvas(side, side) as figure:
        area = figure.subplots()
        rows, columns = np.nonzero(counts)
        area.add_collection(PolyCollection(
            [[(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)] for y, x in zip(rows, columns, strict=True)],
            facecolors=[to_rgba(HEAT, 0.08 + 0.92 * share[y, x]) for y, x in zip(rows, columns, strict=True)],
            gid=DATA))
        if len(labels) <= _NUMBERED:
            for y, x in np.ndindex(counts.shape):
                area.text(x + 0.5, y + 0.5, f"{counts[y, x]}", ha="center", va="center", fontsize=9)
        named = labels if len(labels) <= _NAMED else []
        middles = np.arange(len(named)) + 0.5
        small = 9 if len(labels) <= _NUMBERED else 6.5
        area.set_xticks(middles, [_short(label) for label in named], rotation=90 if len(named) > 3 else 0,
                        fontsize=small)
        area.set_yticks(middles, [_short(label) for label in named], fontsize=small)
        area.set(xlim=(0, len(labels)), ylim=(len(labels), 0), aspect="equal", xlabel=f"{name} says", ylabel="truth")
        area.tick_params(length=0)
        return svg(figure, f"Confusion of the {name}")


def scatter(name: str, points: dict[str, list[float]]) -> str:
    """The number that the model `name` says by the true one."""
    truth, said = np.array(points["truth"]), np.array(points["said"])
    ends = [min(truth.min(), said.min()), max(truth.max(), said.max())]
    with canvas(3.8, 3.8) as figure:
        area = figure.subplots()
        area.plot(ends, ends, color=SOFT, linestyle="--", linewidth=1, zorder=3)
        area.scatter(truth, said, 9, color=to_rgba(COLOURS[name], 0.4), linewidths=0, gid=DATA)
        area.set(xlabel="truth", ylabel=f"{name} says")
        return svg(figure, f"Numbers of the {name}")


def _short(label: str) -> str:
    return label if len(label) <= 16 else f"{label[:15]}…"

"""The table of trials becomes pictures as SVG. Knows nothing about the page they stand on."""

import io
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot
from matplotlib.ticker import MaxNLocator

_STYLE: Any = {"svg.fonttype": "none", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
          "savefig.transparent": True, "font.family": "sans-serif", "figure.constrained_layout.use": True,
          "text.color": "#808080", "axes.labelcolor": "#808080", "axes.edgecolor": "#808080",
          "xtick.color": "#808080", "ytick.color": "#808080", "svg.hashsalt": "kdray"}
_BASELINE, _WINNER, _OTHER = "#d98200", "#0a7d5a", "#8899aa"


def trial_map(trials: list[dict[str, Any]], winner: str, metric: str) -> str | None:
    """Temperature x alpha of the distilled trials, coloured by the validation metric; None without both axes."""
    shown = [row for row in trials if {"temperature", "alpha"} <= row["point"].keys() and row["best"] is not None]
    if not shown:
        return None
    with pyplot.rc_context(_STYLE):
        figure, axes = pyplot.subplots(figsize=(5.2, 3.8))
        x, y = [row["point"]["temperature"] for row in shown], [row["point"]["alpha"] for row in shown]
        marks = axes.scatter(x, y, c=[row["best"] for row in shown], s=90, cmap="viridis")
        best = [row for row in shown if row["student"] == winner]
        axes.scatter([row["point"]["temperature"] for row in best], [row["point"]["alpha"] for row in best],
                     s=260, facecolors="none", edgecolors=_WINNER, linewidths=2.2, label="winner")
        axes.set_xlabel("temperature")
        axes.set_ylabel("alpha (weight of the hard labels)")
        figure.colorbar(marks, label=f"validation {metric}")
        axes.legend(frameon=False)
        return _svg(figure)


def learning_curves(trials: list[dict[str, Any]], winner: str, metric: str) -> str:
    """Validation metric by epoch of every trial; a stopped trial's is its best so far."""
    with pyplot.rc_context(_STYLE):
        figure, axes = pyplot.subplots(figsize=(5.2, 3.8))
        for row in sorted(trials, key=lambda row: (row["student"] == winner, row["baseline"])):
            color, label = _look(row, winner)
            history = row["history"]
            axes.plot([entry["epoch"] for entry in history],
                      [entry.get(metric, entry.get("best")) for entry in history], marker="o", color=color,
                      label=label, linewidth=2.2 if label else 1.0)
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"validation {metric}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False)
        return _svg(figure)


def intervals(test: dict[str, Any], metric: str) -> str:
    """Test metric of teacher, baseline and winner with 95 % intervals."""
    with pyplot.rc_context(_STYLE):
        figure, axes = pyplot.subplots(figsize=(5.2, 2.2))
        for place, (name, scores) in enumerate(reversed(test.items())):
            score = scores[metric]
            axes.plot([score["low"], score["high"]], [place, place], color=_color(name), linewidth=2.2)
            axes.plot(score["value"], place, "o", color=_color(name), markersize=8)
        axes.set_yticks(range(len(test)), list(reversed(test)))
        axes.set_ylim(-0.6, len(test) - 0.4)
        axes.set_xlabel(f"test {metric}")
        return _svg(figure)


def _look(row: dict[str, Any], winner: str) -> tuple[str, str | None]:
    if row["student"] == winner:
        return _WINNER, "winner"
    return (_BASELINE, "baseline") if row["baseline"] else (_OTHER, None)


def _color(name: str) -> str:
    return {"baseline": _BASELINE, "winner": _WINNER}.get(name, _OTHER)


def _svg(figure: Any) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return text.getvalue()[text.getvalue().index("<svg"):]

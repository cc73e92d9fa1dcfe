"""The table of trials becomes pictures as SVG. Knows nothing about the page they stand on."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from kdray.report.figure import BACK, BASELINE, DATA, FAILED, INK, SCALE, SOFT, WINNER, canvas, svg
from kdray.report.trials import Axis, Trial, axes, axis, names, role, setting

_MARKERS = "osD^vP*X"
_LINES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
_SPREAD = 4
"""Largest over smallest temperature from which they are spread by ratio."""
_PALEST = 10
"""Percentile of the metric below which all trials have the colour of the worst, so that outliers do not take it all."""


def trial_map(trials: list[Trial], winner: str, metric: str, training: dict[str, Any]) -> str | None:
    """Temperature x alpha of all trials, coloured by the validation metric; None where all are at one place.

    Full marks are finished, hollow ones were stopped early, crosses failed; a mark's form is the student's name.
    """
    x, y = ([setting(trial, name, training) for trial in trials] for name in ("temperature", "alpha"))
    apart = {place for place, trial in zip(zip(x, y, strict=True), trials, strict=True) if not trial["baseline"]}
    if len(apart) < 2:
        return None
    norm, forms = _norm(trials), {name: _MARKERS[index % len(_MARKERS)] for index, name in enumerate(names(trials))}
    with canvas(5.6, 4.2) as figure:
        area = figure.subplots()
        for trial, across, up in zip(trials, x, y, strict=True):
            _mark(area, trial, across, up, role(trial, winner), forms.get(trial.get("name") or "", "o"), norm)
        for what, mark, look in (("winner", "o", _ring(WINNER)), ("baseline", "o", _ring(BASELINE)),
                                 ("stopped", "o", _ring(SOFT)), ("failed", "x", {"color": FAILED})):
            if any(role(trial, winner) == what for trial in trials):
                area.plot([], [], mark, label=what, **look)
        for name, form in forms.items() if len(forms) > 1 else ():
            area.plot([], [], form, color=SOFT, label=name)
        _temperature_axis(area, x)
        area.set(xlabel="temperature", ylabel="alpha (weight of the hard labels)", ylim=(-0.06, 1.06))
        _scale(figure, area, norm, metric)
        figure.legend(loc="outside upper left", ncols=4, fontsize=9)
        return svg(figure, "Temperature and alpha of all trials")


def _mark(area: Axes, trial: Trial, x: float, y: float, what: str, form: str, norm: Normalize) -> None:
    """One trial, with a ring where it is the winner or a baseline."""
    if trial["state"] == "failed" or trial["best"] is None:
        area.plot(x, y, "x", color=FAILED, markersize=8, markeredgewidth=2, gid=DATA)
        return
    colour = SCALE(norm(trial["best"]))
    hollow = trial["state"] == "stopped"
    area.scatter(x, y, s=50 if hollow else 85, marker=form, gid=DATA, zorder=2, linewidths=2 if hollow else 0.7,
                 facecolors=BACK if hollow else [colour], edgecolors=[colour] if hollow else INK)
    if what in ("winner", "baseline"):
        area.scatter(x, y, s=260, marker="o", facecolors="none", linewidths=2.4, zorder=3,
                     edgecolors=WINNER if what == "winner" else BASELINE)


def _ring(colour: str) -> dict[str, Any]:
    return {"markerfacecolor": "none", "markeredgecolor": colour, "markeredgewidth": 2}


def _temperature_axis(area: Axes, values: list[float]) -> None:
    if max(values) / min(values) >= _SPREAD:
        area.set_xscale("log", base=2)
        area.xaxis.set_major_locator(LogLocator(2))
        area.xaxis.set_major_formatter(ScalarFormatter())
        area.xaxis.set_minor_formatter(NullFormatter())


def learning_curves(trials: list[Trial], winner: str, field: str, label: str) -> str | None:
    """`field` of each epoch of every trial; None where no trial has it. A stopped trial's metric is its best so far."""
    shown = [(trial, [(entry["epoch"], value) for entry in trial["history"]
                      if (value := entry.get(field, entry.get("best"))) is not None]) for trial in trials]
    shown = [(trial, points) for trial, points in shown if points]
    if not any(field in entry for trial in trials for entry in trial["history"]) or not shown:
        return None
    styles = {name: _LINES[index % len(_LINES)] for index, name in enumerate(names(trials))}
    with canvas(5.6, 4.2) as figure:
        area = figure.subplots()
        for trial, points in sorted(shown, key=lambda item: _rank(role(item[0], winner))):
            what = role(trial, winner)
            end = {"stopped": "|", "failed": "x"}.get(what, "o")
            area.plot(*zip(*points, strict=True), marker=end, markevery=[len(points) - 1], gid=DATA,
                      linestyle=styles.get(trial.get("name") or "", "-"), **_line(what))
        for what in sorted({role(trial, winner) for trial, _ in shown}, key=_rank, reverse=True):
            area.plot([], [], label=what, marker={"stopped": "|", "failed": "x"}.get(what, "o"), **_line(what))
        for name, style in styles.items() if len(styles) > 1 else ():
            area.plot([], [], color=SOFT, linestyle=style, label=name)
        area.set(xlabel="epoch", ylabel=label)
        area.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside upper left", ncols=4, fontsize=9)
        return svg(figure, f"Learning curves: {label}")


def _rank(what: str) -> int:
    return ("failed", "stopped", "finished", "baseline", "winner").index(what)


def _line(what: str) -> dict[str, Any]:
    colour = {"winner": WINNER, "baseline": BASELINE, "failed": FAILED}.get(what, SOFT)
    bold = what in ("winner", "baseline")
    return {"color": colour, "linewidth": 2.6 if bold else 1.0, "alpha": 1.0 if bold else 0.7,
            "zorder": 3 if bold else 2, "markersize": 8 if what in ("stopped", "failed") else 4}


def parallel(trials: list[Trial], winner: str, metric: str, training: dict[str, Any]) -> str | None:
    """A line a trial over its settings to its validation metric, which is the colour; None where there is nothing.

    Dashed trials were stopped early, dotted ones failed; one without a metric ends before it.
    """
    columns = axes(trials, training)
    known = [trial["best"] for trial in trials if trial["best"] is not None]
    if not columns or not known:
        return None
    norm, last = _norm(trials), iter(axis(f"validation {metric}", known).places)
    places = [[*(column.places[row] for column in columns), next(last) if trial["best"] is not None else np.nan]
              for row, trial in enumerate(trials)]
    columns.append(axis(f"validation {metric}", known))
    with canvas(max(5.6, 1.5 * len(columns)), 3.8) as figure:
        area = figure.subplots()
        for trial, line in sorted(zip(trials, places, strict=True), key=lambda item: item[0]["best"] or -np.inf):
            area.plot(range(len(columns)), line, gid=DATA, **_strand(trial, role(trial, winner), norm))
        for place, column in enumerate(columns):
            _upright(area, place, column)
        area.set(xlim=(-0.25, len(columns) - 0.55), ylim=(-0.04, 1.04), yticks=[],
                 xticks=range(len(columns)), xticklabels=[column.name for column in columns])
        area.tick_params(axis="x", length=0, labelsize=9)
        for spine in area.spines.values():
            spine.set_visible(False)
        return svg(figure, "Settings of all trials and what they gave")


def _strand(trial: Trial, what: str, norm: Normalize) -> dict[str, Any]:
    if trial["best"] is None or trial["state"] == "failed":
        return {"color": FAILED, "linestyle": ":", "linewidth": 1.6}
    if what in ("winner", "baseline"):
        return {"color": WINNER if what == "winner" else BASELINE, "linewidth": 3.2, "zorder": 4}
    return {"color": SCALE(norm(trial["best"])), "linewidth": 1.4,
            "linestyle": (0, (4, 2)) if trial["state"] == "stopped" else "-"}


def _upright(area: Axes, place: int, column: Axis) -> None:
    area.axvline(place, color=SOFT, linewidth=1, zorder=3)
    for height, text in column.ticks:
        area.text(place + 0.03, height, text, fontsize=8.5, va="center", zorder=5,
                  bbox={"facecolor": BACK, "alpha": 0.75, "edgecolor": "none", "pad": 0.6})


def pareto(students: dict[str, dict[str, Any]], measure: str, limit: float | None, metric: str,
           chosen: str | None) -> str | None:
    """Students by `bytes` (shown in MB) or `milliseconds` and their validation metric; the line joins the Pareto front.

    `limit`, in the unit shown, is the constraint; `chosen` is the sweep's. None where there is one student.
    """
    if len(students) < 2:
        return None
    unit = 1e6 if measure == "bytes" else 1.0
    points = {name: (student[measure] / unit, student["best"]) for name, student in students.items()}
    with canvas(5.6, 3.8) as figure:
        area = figure.subplots()
        area.plot(*zip(*front(list(points.values())), strict=True), color=SOFT, linestyle="--", zorder=1)
        for name, point in points.items():
            area.plot(*point, "o", color=WINNER if name == chosen else INK, markersize=9, gid=DATA)
            area.annotate(name, point, (0, 9), textcoords="offset points", ha="center", fontsize=9)
        if limit is not None:
            area.axvline(limit, color=FAILED, linestyle=":", label=f"limit {limit:g}")
            area.legend(fontsize=9)
        area.margins(0.18)
        area.set(xlabel="MB of the file that is served" if measure == "bytes" else "ms of one text (p50)",
                 ylabel=f"validation {metric}")
        return svg(figure, f"Pareto front: {measure} and validation {metric}")


def front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (cost, gain), those that no other beats in one without losing in the other, by rising cost."""
    kept: list[tuple[float, float]] = []
    for cost, gain in sorted(points, key=lambda point: (point[0], -point[1])):
        if not kept or gain > kept[-1][1]:
            kept.append((cost, gain))
    return kept


def _norm(trials: list[Trial]) -> Normalize:
    known = [trial["best"] for trial in trials if trial["best"] is not None] or [0.0]
    low, high = float(np.percentile(known, _PALEST)), max(known)
    return Normalize(low, high if high > low else low + 1e-9, clip=True)


def _scale(figure: Any, area: Axes, norm: Normalize, metric: str) -> None:
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(ScalarMappable(norm, SCALE), ax=area, label=f"validation {metric}", aspect=28, extend="min",
                          extendfrac=0.03)
    bar.outline.set_visible(False)

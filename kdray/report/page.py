"""The content of report.json becomes the page: its pictures, its tables and the words between them.

Knows nothing about storage or models: the same content gives the same page.
"""

from pathlib import Path
from typing import Any

import jinja2
import yaml

from kdray.evaluation.comparison import told
from kdray.report.model_plots import confusion, intervals, reliability, scatter
from kdray.report.sweep_plots import learning_curves, parallel, pareto, trial_map
from kdray.report.table import NAMES, title
from kdray.report.trials import Trial, names, role
from kdray.search.describe import describe
from kdray.search.selection import mark
from kdray.tasks import TASKS

Facts = dict[str, Any]
_MODELS = ("teacher", "baseline", "winner")
_FEW = 12
"""Rows of a table that is shown open."""
_SHOWN = 6
"""Examples that are shown open."""


def draw(facts: Facts) -> str:
    """The page: HTML with everything in it, from the content of report.json."""
    files = jinja2.FileSystemLoader(Path(__file__).parent)
    page = jinja2.Environment(loader=files, autoescape=True, trim_blocks=True, lstrip_blocks=True,
                              undefined=jinja2.StrictUndefined).get_template("page.html")
    numbers, breakdown = facts["numbers"], facts["breakdown"]
    metric, chosen, task = numbers["metric"], _chosen(facts), TASKS[facts["task"]]
    titles = {name: title(name, numbers) for name in NAMES}
    return page.render(
        facts, metric=metric, models=_MODELS, served=titles["served"], kept=_kept(numbers),
        limits=_limits(facts["constraint"]), sides=_sides(numbers, breakdown), few=_FEW, shown=_SHOWN,
        classes=_classes(breakdown), chosen=chosen,
        interval_plot=intervals(numbers["test"], titles, metric),
        confusions=[confusion(name, facts["labels"], part) for name, part in _parts(breakdown, "confusion")],
        reliabilities=[(name, reliability(name, part), part["ece"]) for name, part in _parts(breakdown, "calibration")],
        scatters=[scatter(name, part) for name, part in _parts(breakdown, "scatter")],
        unit=task.unit, tempered=bool(task.output.tempered), labelled=task.labelled, sure=task.output.sure,
        piped=task.cut_by_pipeline(0) is not None, named_labels=task.output.named,
        sweep_plots=_sweep_plots(facts, chosen), named=len(names(facts["trials"])) > 1, trials=_trials(facts),
        gain=told(numbers["seeds"], metric), baselines=sum(row["baseline"] and row.get("name") == chosen
                                                           for row in facts["trials"] if not _again(row)),
        again=sum(map(_again, facts["trials"])),
        errors=any(row["error"] for row in facts["trials"]),
        cost=_cost(facts), settings=yaml.safe_dump(facts["config"], sort_keys=False, allow_unicode=True))


def _parts(breakdown: Facts, part: str) -> list[tuple[str, Any]]:
    """That part of what is known of each model; none where the task has no such part."""
    return [(name, breakdown[name][part]) for name in _MODELS if part in breakdown[name]]


def _chosen(facts: Facts) -> str | None:
    """Name of the winning student where there are several."""
    return next((row.get("name") for row in facts["trials"] if role(row, facts["winner"]) == "winner"), None)


def _kept(numbers: Facts) -> dict[str, float]:
    """What the winner, as served, has of the teacher: shares and factors."""
    test, metric = numbers["test"], numbers["metric"]
    size, speed = numbers["bytes"], numbers["speed"]
    teacher = test["teacher"][metric]["value"]
    return {"quality": test["served"][metric]["value"] / teacher if teacher else 0.0,
            "smaller": size["teacher"] / size["served"],
            "faster": speed["served"]["examples_per_second"] / speed["teacher"]["examples_per_second"],
            "sooner": speed["teacher"]["p50"] / speed["served"]["p50"]}


def _limits(constraint: Facts | None) -> list[dict[str, str]]:
    """Each limit that was set, and by how much the winner is above it, empty where it is not."""
    told = {"max_mb": "MB for the file that is served", "max_ms": "ms for one text (p50)"}
    return [{"limit": f"{constraint[name]:g} {unit}",
             "above": f"{constraint['excess'][name] * 100:.0f} %" if constraint["excess"].get(name) else ""}
            for name, unit in told.items() if constraint[name] is not None] if constraint else []


def _sides(numbers: Facts, breakdown: Facts) -> list[tuple[str, list[tuple[str, str]]]]:
    """Lines of the table of models side by side: a title, and for each model a value and what stands behind it."""
    test, speed = numbers["test"], numbers["speed"]
    rate = speed["teacher"]["examples_per_second"]
    lines = [(f"test {name}", [_score(test[model][name]) for model in NAMES]) for name in test["winner"]]
    error = {name: f"{part['ece']:.4f}" for name, part in _parts(breakdown, "calibration")}
    chosen = {name: f"{scores[numbers['metric']]:.4f}" for name, scores in numbers["validation"].items()}
    return [
        *lines,
        *([("calibration error (ECE)", [(error.get(name, ""), "") for name in NAMES])] if error else []),
        (f"validation {numbers['metric']}", [(chosen.get(name, ""), "") for name in NAMES]),
        ("parameters", [(f"{numbers['parameters'][name] / 1e6:.1f} M", "") for name in NAMES]),
        ("file", [(f"{numbers['bytes'][name] / 1e6:.1f} MB", "") for name in NAMES]),
        ("one text, p50", [(f"{speed[name]['p50']:.1f} ms", "") for name in NAMES]),
        ("one text, p99", [(f"{speed[name]['p99']:.1f} ms", "") for name in NAMES]),
        ("examples/s", [(f"{speed[name]['examples_per_second']:.0f}",
                         f"{speed[name]['examples_per_second'] / rate:.1f}x") for name in NAMES]),
    ]


def _score(score: Facts) -> tuple[str, str]:
    return f"{score['value']:.4f}", f"{score['low']:.4f} to {score['high']:.4f}"


def _classes(breakdown: Facts) -> list[dict[str, Any]]:
    """A line a label: its support, and precision, recall and F1 of each model."""
    return [{"label": parts[0]["label"], "support": parts[0]["support"], "models": parts}
            for parts in zip(*(found for _, found in _parts(breakdown, "classes")), strict=True)]


def _sweep_plots(facts: Facts, chosen: str | None) -> list[tuple[str, str]]:
    """Each picture of the sweep that there is something to draw of, with what it says."""
    trials, winner, training = facts["trials"], facts["winner"], facts["config"]["training"]
    metric, students, limits = facts["numbers"]["metric"], facts["students"] or {}, facts["constraint"] or {}
    tempered = TASKS[facts["task"]].output.tempered
    found = [
        ("Temperature and alpha of all trials. Hollow: stopped early. Cross: failed.",
         trial_map(trials, winner, metric, training) if tempered else None),
        ("Validation by epoch.", learning_curves(trials, winner, metric, f"validation {metric}")),
        ("Agreement with the teacher by epoch.", learning_curves(trials, winner, "agreement", "agreement")),
        ("Settings of each trial and what they gave, which is the colour. Dashed: stopped early. Dotted: failed.",
         parallel(trials, winner, metric, training)),
        ("Pareto front by size: no student on the line is beaten in one without losing in the other.",
         pareto(students, "bytes", limits.get("max_mb"), metric, chosen)),
        ("Pareto front by latency.", pareto(students, "milliseconds", limits.get("max_ms"), metric, chosen)),
    ]
    return [(told, picture) for told, picture in found if picture is not None]


def _trials(facts: Facts) -> list[dict[str, Any]]:
    """Lines of the table of trials, best first, those without a metric last."""
    order = sorted(facts["trials"], key=lambda row: float("-inf") if row["best"] is None else row["best"], reverse=True)
    return [{"name": row.get("name"), "what": describe(row["point"]),
             "mark": mark(row, order, facts["winner"], facts["baseline"]),
             "state": row["state"], "epochs": row["epochs"], "error": _reason(row),
             "best": "" if row["best"] is None else f"{row['best']:.4f}",
             "seconds": "" if row["seconds"] is None else span(row["seconds"])} for row in order]


def _again(row: Trial) -> bool:
    """Whether a trial is of the pairs: the sweep's have the configured seed."""
    return "seed" in row["point"]


def _reason(row: Trial) -> str:
    return row["error"].strip().splitlines()[-1] if row["error"] else ""


def _cost(facts: Facts) -> dict[str, Any]:
    """What was paid, and what a teacher that runs beside each student would have cost.

    That is an estimate: its seconds a row, for each training row of each epoch with soft targets.
    """
    rows, trials, seconds = facts["rows"], facts["trials"], facts["teacher_seconds"]
    epochs = sum(_soft_epochs(row) for row in trials)
    trained = rows["train"] + rows.get("transfer", 0)
    live = None if seconds is None else seconds * trained / sum(rows.values()) * epochs
    return {"teacher": None if seconds is None else span(seconds), "live": None if live is None else span(live),
            "rows": sum(rows.values()), "trials": len(trials), "epochs": epochs,
            "students": span(sum(row["seconds"] or 0.0 for row in trials))}


def _soft_epochs(row: Trial) -> int:
    """Epochs of a trial that learned from the teacher: none of a baseline's, none of a last stage on hard labels."""
    if row["baseline"]:
        return 0
    return sum(entry.get("stage", 0) == 0 for entry in row["history"]) if row["history"] else row["epochs"]


def span(seconds: float) -> str:
    """`8.4 s`, `3.1 min` or `2.5 h`."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

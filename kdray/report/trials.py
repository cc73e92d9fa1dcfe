"""Rows of the table of trials become what plots and tables of them have in common.

Knows nothing about pictures.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

Trial = dict[str, Any]
_MANY = 4
"""Largest over smallest of values that may be spread by ratio."""


@dataclass(frozen=True)
class Axis:
    """One quantity of all trials, as places from 0 to 1."""

    name: str
    places: list[float]
    ticks: list[tuple[float, str]]


def setting(trial: Trial, name: str, training: dict[str, Any]) -> Any:
    """Value of a dotted field of `training` in a trial: its point's, else the configured one."""
    if name in trial["point"]:
        return trial["point"][name]
    value: Any = training
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def names(trials: list[Trial]) -> list[str]:
    """Students of the family, in order of their first trial; nothing where there is one without a name."""
    return [name for name in dict.fromkeys(trial.get("name") for trial in trials) if name]


def role(trial: Trial, winner: str) -> str:
    """`winner`, `baseline`, or what became of it: `finished`, `stopped`, `failed`."""
    if trial["baseline"]:
        return "baseline"
    return "winner" if trial["student"] == winner else trial["state"]


def axes(trials: list[Trial], training: dict[str, Any]) -> list[Axis]:
    """An axis for each searched field that takes more than one value, and for the students' names."""
    fields = dict.fromkeys(name for trial in trials for name in trial["point"] if name != "seed")
    columns = {name: [setting(trial, name, training) for trial in trials] for name in fields}
    if len(names(trials)) > 1:
        columns = {"student": [trial.get("name") for trial in trials], **columns}
    return [axis(name, values) for name, values in columns.items() if len({repr(value) for value in values}) > 1]


def axis(name: str, values: list[Any]) -> Axis:
    """Numbers by size, or by ratio where they look so; anything else evenly, in order of its words."""
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        words = sorted({str(value) for value in values})
        places = {word: index / max(1, len(words) - 1) for index, word in enumerate(words)}
        return Axis(name, [places[str(value)] for value in values], [(place, word) for word, place in places.items()])
    low, high, by_ratio = min(values), max(values), looks_logarithmic(values)
    scale = np.log if by_ratio else np.asarray
    span = float(scale(high) - scale(low)) or 1.0
    marks = np.geomspace(low, high, 5) if by_ratio else np.linspace(low, high, 5)
    return Axis(name, [float(scale(value) - scale(low)) / span for value in values],
                [(index / 4, f"{mark:.3g}") for index, mark in enumerate(marks)])


def looks_logarithmic(values: list[float]) -> bool:
    """Whether values above 0 span a factor of 4, and half of them lie nearer to the geometric middle of the ends."""
    low, high, middle = min(values), max(values), float(np.median(values))
    return low > 0 and high / low >= _MANY and abs(middle - (low * high) ** 0.5) < abs(middle - (low + high) / 2)

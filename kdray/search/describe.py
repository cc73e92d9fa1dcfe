"""A sampled point becomes words. Knows nothing about Ray."""

from typing import Any

from kdray.config import OF_DISTILLATION

BASELINE = {"alpha": 1.0}
"""What every point of a baseline holds; the rest is as configured, or searched."""
NAME, ROLE, NUMBER, TOTAL_EPOCHS = _OWN = "name", "role", "trial", "total_epochs"
"""What a trial's configuration holds beside its point: whose trial it is, whether as `baseline` or `distilled`, its
number from 1, and the epochs that it is to take."""


def point_of(config: dict[str, Any]) -> dict[str, Any]:
    """The point in a trial's configuration."""
    return {name: value for name, value in config.items() if name not in _OWN}


def place_of(config: dict[str, Any]) -> str:
    """What a trial of a sweep is called in storage: `small-distilled-3`."""
    return f"{config[NAME]}-{config[ROLE]}-{config[NUMBER]}"


def describe(point: dict[str, Any], name: str = "") -> str:
    """`small: temperature 2, alpha 0.5`, or what a baseline is called; `name` of the student where there are several.

    The seed of a repetition comes last.
    """
    plain = point.get("alpha") == 1 and not set(OF_DISTILLATION) & point.keys()
    shown = sorted((field for field in point if not plain or field != "alpha"), key=lambda field: field == "seed")
    parts = ["baseline (alpha 1)"] * plain + [_part(field, point[field]) for field in shown]
    return (f"{name}: " if name else "") + ", ".join(parts)


def _part(field: str, value: Any) -> str:
    return f"{field} {value:.4g}" if isinstance(value, float) else f"{field} {value}"

"""A sampled point becomes words. Knows nothing about Ray."""

from typing import Any

BASELINE = {"alpha": 1.0}
"""The point of the baseline: the configured settings with alpha 1."""
NAME, NUMBER = "name", "trial"
"""What a trial's configuration holds beside its point: whose trial it is, and its number in that student's plan."""


def point_of(config: dict[str, Any]) -> dict[str, Any]:
    """The point in a trial's configuration."""
    return {name: value for name, value in config.items() if name not in (NAME, NUMBER)}


def describe(point: dict[str, Any], name: str = "") -> str:
    """`small: temperature 2, alpha 0.5`, or what the baseline is called; `name` of the student where there are several.

    The seed of a repetition comes last.
    """
    shown = {field: value for field, value in point.items() if field != "seed"}
    parts = ["baseline (alpha 1)"] if shown == BASELINE else [_part(*item) for item in shown.items()]
    parts += [_part("seed", point["seed"])] if "seed" in point else []
    return (f"{name}: " if name else "") + ", ".join(parts)


def _part(field: str, value: Any) -> str:
    return f"{field} {value:.4g}" if isinstance(value, float) else f"{field} {value}"

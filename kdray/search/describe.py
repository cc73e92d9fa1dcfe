"""A sampled point becomes words. Knows nothing about Ray."""

from typing import Any

BASELINE = {"alpha": 1.0}
"""The point of the baseline: the configured settings with alpha 1."""


def describe(point: dict[str, Any]) -> str:
    """`temperature 2, alpha 0.5`, or what the baseline is called."""
    if point == BASELINE:
        return "baseline (alpha 1)"
    return ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                     for name, value in point.items())

"""The words of `search.space` become Optuna's distributions, a grid, and the first point.

Knows nothing about Ray, nor about what a trial does.
"""

import itertools
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from kdray.config import Domain, TrainingConfig, changed
from kdray.errors import ConfigError


def distributions(space: dict[str, Domain], training: TrainingConfig) -> dict[str, BaseDistribution]:
    """Optuna's search space; of `values` it chooses the place.

    A field that holds a whole number is searched in whole numbers.
    """
    return {name: _distribution(domain, _whole(training, name)) for name, domain in space.items()}


def point_of(space: dict[str, Domain], chosen: dict[str, Any]) -> dict[str, Any]:
    """The values behind what was chosen from `distributions`."""
    return {name: _value(space[name], choice) for name, choice in chosen.items()}


def choice_of(space: dict[str, Domain], point: dict[str, Any]) -> dict[str, Any]:
    """What to choose from `distributions` to get `point`."""
    return {name: _choice(space[name], value) for name, value in point.items()}


def grid(space: dict[str, Domain]) -> list[dict[str, Any]]:
    """Every combination of the `values`, the last field changing fastest."""
    values = [domain.values or [] for domain in space.values()]
    return [dict(zip(space, combination, strict=True)) for combination in itertools.product(*values)]


def first_point(space: dict[str, Domain], training: TrainingConfig) -> dict[str, Any]:
    """Where the search starts: as configured, moved into its domain."""
    return {name: _nearest(domain, field(training, name)) for name, domain in space.items()}


def field(training: TrainingConfig, name: str) -> Any:
    """Value of a dotted field."""
    value: Any = training.model_dump()
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _whole(training: TrainingConfig, name: str) -> bool:
    """Whether the field holds a whole number, or would refuse another one where it holds nothing."""
    now = field(training, name)
    if now is not None:
        return isinstance(now, int)
    try:
        changed(training, {name: 1.5})
    except ConfigError as error:
        return "integer" in str(error)
    return False


def _distribution(domain: Domain, whole: bool) -> BaseDistribution:
    if domain.values is not None:
        return CategoricalDistribution(range(len(domain.values)))
    assert domain.min is not None and domain.max is not None
    if whole and domain.min.is_integer() and domain.max.is_integer():
        return IntDistribution(int(domain.min), int(domain.max), log=domain.log)
    return FloatDistribution(domain.min, domain.max, log=domain.log)


def _value(domain: Domain, choice: Any) -> Any:
    return choice if domain.values is None else domain.values[choice]


def _choice(domain: Domain, value: Any) -> Any:
    return value if domain.values is None else domain.values.index(value)


def _nearest(domain: Domain, value: Any) -> Any:
    if domain.values is not None:
        numbers = [item for item in domain.values if isinstance(item, (int, float))]
        if value in domain.values or not numbers or not isinstance(value, (int, float)):
            return value if value in domain.values else domain.values[0]
        return min(numbers, key=lambda item: abs(item - value))
    assert domain.min is not None and domain.max is not None
    if value is None:
        return domain.min
    return min(max(value, type(value)(domain.min)), type(value)(domain.max))

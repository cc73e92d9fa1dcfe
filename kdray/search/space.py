"""The words of `search.space` become Tune's domains and the first point.

Knows nothing about Ray's running parts, nor about what a trial does.
"""

from typing import Any

from ray import tune

from kdray.config import Domain, TrainingConfig, changed
from kdray.errors import ConfigError

_FIRST_ALPHA = 0.5


def tune_space(space: dict[str, Domain], training: TrainingConfig) -> dict[str, Any]:
    """Tune's search space; a field that holds a whole number is searched in whole numbers."""
    return {name: _domain(domain, _whole(training, name)) for name, domain in space.items()}


def first_point(space: dict[str, Domain], training: TrainingConfig) -> dict[str, Any]:
    """Where the search starts: alpha 0.5, everything else as configured, moved into its domain."""
    wanted = {name: _FIRST_ALPHA if name == "alpha" else field(training, name) for name in space}
    return {name: _nearest(space[name], value) for name, value in wanted.items()}


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


def _domain(domain: Domain, whole: bool) -> Any:
    if domain.values is not None:
        return tune.choice(domain.values)
    assert domain.min is not None and domain.max is not None
    if whole and domain.min.is_integer() and domain.max.is_integer():
        low, high = int(domain.min), int(domain.max) + 1
        return tune.lograndint(low, high) if domain.log else tune.randint(low, high)
    return tune.loguniform(domain.min, domain.max) if domain.log else tune.uniform(domain.min, domain.max)


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

"""How much of what they can do replicas do becomes how many there should be.

An autoscaling policy of Ray Serve, which calls it and lets no decision pass that does not stay for a while. Between
what makes more and what makes fewer lies a gap, so that one does not follow from the other. Knows nothing about Ray.
"""

import math
from typing import Any

LOOK_BACK, UP_DELAY, DOWN_DELAY = 30.0, 15.0, 300.0
"""Seconds over which loads are averaged, and for which a decision must stay."""
_HIGH = 0.8
"""Load of each above which there are too few."""
_GOAL = 0.65
"""Load of each that a change aims at."""
_LOW = 0.55
"""Load that each of one fewer would have, below which there are too many."""


def scale(context: Any) -> tuple[float, dict[str, Any]]:
    """The number of replicas, for a deployment's context, and a state that is not needed."""
    loads = list((context.aggregated_metrics or {}).get("load", {}).values())
    wanted = context.target_num_replicas
    if not loads:
        return wanted, {}
    total = sum(loads)
    if total / len(loads) > _HIGH:
        return max(wanted, math.ceil(total / _GOAL)), {}
    if len(loads) > 1 and total / (len(loads) - 1) < _LOW:
        return min(wanted, max(1, math.ceil(total / _GOAL))), {}
    return wanted, {}

"""A config becomes what its stages ask of a cluster, and nodes become room for it, or what they lack.

Knows nothing about Ray.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from kdray.config import Config, Optimisation, changed

STAGES = ("corpus", "teacher", "cache", "students")


@dataclass(frozen=True)
class Need:
    """Processes that must run side by side."""

    origin: str
    """The setting that asks for them."""
    count: int
    each: dict[str, float]
    """Resources of one, as Ray names them."""
    labels: dict[str, str] = field(default_factory=dict)
    """What a node must be labelled with."""

    @property
    def where(self) -> str:
        """Which nodes, in words; empty where any will do."""
        return " that have " + " and ".join(f"{name}={value}" for name, value in self.labels.items()) \
            if self.labels else ""


def needs(config: Config, after: str = "corpus", last: str = "students", rows: int | None = None) -> list[Need]:
    """What the stages behind `after`, up to `last`, ask for; CPUs that a config leaves open count as 1.

    Of `rows` there are only so many shards for actors.
    """
    stages = STAGES[STAGES.index(after) + 1:STAGES.index(last) + 1]
    found = []
    if "teacher" in stages and config.teacher.finetune:
        found.append(_workers(config.teacher.finetune, "teacher.finetune.workers"))
    if "cache" in stages and not config.teacher.live:
        found.append(_actors(config, rows))
    if "students" in stages:
        found += [_workers(changed(config.training, student.training), "training.workers")
                  for student in config.family.values()]
    return list({(need.origin, need.count, *need.each.values(), *need.labels.items()): need for need in found}.values())


def _actors(config: Config, rows: int | None) -> Need:
    wanted, least = config.teacher, config.teacher.min_actors
    count = least or wanted.actors
    if rows is not None:
        count = min(count, math.ceil(rows / config.cache.rows_per_shard))
    return Need("teacher.min_actors" if least else "teacher.actors", count,
                {"CPU": wanted.num_cpus or 1.0, "GPU": wanted.num_gpus}, wanted.labels)


def _workers(settings: Optimisation, origin: str) -> Need:
    return Need(origin, settings.workers, {"CPU": settings.num_cpus or 1.0, "GPU": settings.num_gpus},
                settings.labels)


def room(need: Need, nodes: Sequence[dict[str, float]]) -> int:
    """How many of the processes the `nodes`, each the resources that it has, can hold at once."""
    asked = {name: amount for name, amount in need.each.items() if amount > 0}
    return sum(min((int(node.get(name, 0.0) // amount) for name, amount in asked.items()), default=need.count)
               for node in nodes)


def shortage(need: Need, nodes: Sequence[dict[str, float]]) -> str | None:
    """What is wrong where `nodes` with its labels, each the resources that it has, can never hold the need at once."""
    asked, found = {name: amount for name, amount in need.each.items() if amount > 0}, room(need, nodes)
    if found >= need.count:
        return None
    wanted = " and ".join(f"{amount:g} {name}" for name, amount in asked.items())
    has = ", ".join(f"{sum(node.get(name, 0.0) for node in nodes):g} {name}" for name in need.each)
    return (f"{need.origin} = {need.count} with {wanted} each does not fit: the cluster has {has} on {len(nodes)} "
            f"nodes{need.where}, room for {found}")

"""A function and many arguments become its results, in order: by actors with the resources of a training worker.

They are there for as long as it takes, so that what they hold of a GPU is free afterwards. Knows nothing about what is
done.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from kdray.cluster import check_need, cpus_each, nodes_with
from kdray.config import TrainingConfig
from kdray.console import labels, work_for
from kdray.needs import Need, room
from kdray.teacher.pool import Pool

_ATTEMPTS = 3


@dataclass(frozen=True)
class Call:
    """One call of the function."""

    number: int
    arguments: tuple[Any, ...]

    @property
    def key(self) -> str:
        """Its number."""
        return str(self.number)

    @property
    def rows(self) -> int:
        """Number of rows."""
        start, stop = self.arguments[-2:]
        return stop - start

    def __str__(self) -> str:
        return f"rows {self.arguments[-2]} to {self.arguments[-1] - 1}"


class Worker:
    """One process."""

    def __init__(self, function: Callable[..., Any], threads: int, whose: dict[str, str]):
        import torch

        work_for(whose)
        torch.set_num_threads(threads)
        self._function = function

    def ready(self) -> None:
        """Returns when the process is up."""

    def fill(self, call: Call) -> tuple[int, Any]:
        """The call's number and its result."""
        return call.number, self._function(*call.arguments)


def work(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], who: str,
         settings: TrainingConfig) -> Iterator[Any]:
    """`function(*those)` for those of `arguments`, on nodes where `settings` have students trained.

    Each of the arguments ends with the first of the rows that it is about, and the one behind the last. `who` is what
    the progress is called. Raises ClusterError where a worker fits nowhere, and what the function raised.
    """
    calls = [Call(number, those) for number, those in enumerate(arguments)]
    cpus = settings.num_cpus or cpus_each(-(-len(calls) // max(1, len(nodes_with(settings.labels)))), settings.labels)
    need = Need("training.workers", 1, {"CPU": cpus, "GPU": settings.num_gpus}, settings.labels)
    check_need(need)
    actor = ray.remote(num_cpus=cpus, num_gpus=settings.num_gpus, max_restarts=0)(Worker)
    results: dict[int, Any] = {}
    Pool(calls, lambda: actor.options(label_selector=settings.labels).remote(function, max(1, int(cpus)), labels()),
         max(1, room(need, nodes_with(settings.labels))), _ATTEMPTS, lambda done: results.update([done]), who).run()
    return (results[number] for number in range(len(calls)))

"""A function and many arguments become its results, in order: by tasks on a Ray cluster, a CPU each.

Knows nothing about what is done.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray

from kdray.errors import KdrayError
from kdray.progress import progress

_AHEAD = 2
"""Tasks for each CPU that wait or run: results that nobody has asked for stay few."""


def spread(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], label: str) -> Iterator[Any]:
    """`function(*those)` for those of `arguments`; `label` is what the progress is called.

    A task that loses its node is done again. Raises what a task raised.
    """
    task = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(function)
    ahead = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
    report, flying = progress(label, len(arguments), "pieces"), deque[Any]()
    try:
        for number in range(len(arguments) + ahead):
            if number < len(arguments):
                flying.append(task.remote(*arguments[number]))
            if number >= ahead and flying:
                yield _result(flying.popleft())
                report.advance(1)
    finally:
        report.close()


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, KdrayError):
            raise error.cause from None
        raise

"""Those who want to change a service, wherever they are, take turns: one has a name that nobody else can have then.

Imports little: a process is started for each turn, and imports it too. Knows nothing about what is changed.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from kdray.errors import ClusterError

NAMESPACE = "kdray"
_NAME = "change"
_PATIENCE_SECONDS, _LOOK_SECONDS = 600.0, 0.2


@contextmanager
def turn() -> Iterator[None]:
    """Nobody else has a turn meanwhile; it ends with this process too. Raises ClusterError where it does not come."""
    ends = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            mine: Any = ray.remote(_Turn).options(name=_NAME, namespace=NAMESPACE, num_cpus=0).remote()
            ray.get(mine.__ray_ready__.remote())
            break
        except ValueError as error:
            if time.monotonic() > ends:
                raise ClusterError("somebody else has been changing this service for "
                                   f"{_PATIENCE_SECONDS:.0f} s: try again") from error
            time.sleep(_LOOK_SECONDS)
    try:
        yield
    finally:
        ray.kill(mine)


class _Turn:
    """An actor that does nothing but have a name."""

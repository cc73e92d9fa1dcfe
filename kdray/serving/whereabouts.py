"""A service that `kdray serve` started on this machine is found again by its port.

Knows nothing about what is served. A file a service, which holds the address of its Ray cluster.
"""

import socket
from contextlib import suppress
from pathlib import Path

from kdray.errors import ClusterError
from kdray.storage import machine_folder

_CONNECT_SECONDS = 2.0


def note(port: int, address: str) -> None:
    """Says where the service on `port` runs."""
    _folder().mkdir(parents=True, exist_ok=True)
    (_folder() / str(port)).write_text(address)


def forget(port: int) -> None:
    """Takes back what `note` said."""
    (_folder() / str(port)).unlink(missing_ok=True)


def find(port: int | None) -> str:
    """Ray address of the service on `port`, or of the only one on this machine.

    Raises ClusterError where there is none, or several to choose from.
    """
    alive = {int(file.name): file.read_text() for file in _files() if _answers(file.read_text())}
    if port is not None:
        alive = {one: address for one, address in alive.items() if one == port}
    if len(alive) == 1:
        return next(iter(alive.values()))
    if alive:
        raise ClusterError(f"services run on the ports {', '.join(map(str, sorted(alive)))}: say which with --port")
    where = "" if port is None else f" on port {port}"
    raise ClusterError(f"no service{where} was started by `kdray serve` on this machine. Start one, or name its "
                       "cluster in RAY_ADDRESS")


def _folder() -> Path:
    return machine_folder() / "services"


def _files() -> list[Path]:
    return sorted(_folder().glob("[0-9]*"))


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with suppress(OSError, ValueError), socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS):
        return True
    return False

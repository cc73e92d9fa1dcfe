"""A Ray cluster to work on: joined where there is one, started on this machine where there is none."""

import logging
import os
import signal
import socket
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kdray.console import FORMAT
from kdray.errors import GIVE_TOKEN, ClusterError
from kdray.needs import Need, shortage
from kdray.threads import NICENESS

logger = logging.getLogger("kdray")
T = TypeVar("T")
_PATIENCE, _SILENCE = 10.0, 120.0
"""Seconds in which a cluster must take a connection, and a node answer a question."""

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")  # a job may set the variables below too


def connect(niceness: int = 15, dashboard: bool = False) -> None:
    """Joins the cluster of RAY_ADDRESS, as a submitted job finds it, or starts Ray on this machine.

    `niceness` of the processes of a Ray that starts here: 15 leaves a laptop usable, 0 answers requests in time.
    `dashboard`: whether it has one; Ray Train asks it whether a trial is gone, before it frees its workers' CPUs.
    """
    address = os.environ.get("RAY_ADDRESS")
    os.environ.setdefault(NICENESS, str(niceness))
    join(address or "local", include_dashboard=None if address else dashboard,
         runtime_env={"env_vars": {"HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "0"),
                                   FORMAT: os.environ.get(FORMAT, ""),
                                   "TOKENIZERS_PARALLELISM": "false"}})


def join(address: str, **options: Any) -> None:
    """Joins the cluster at `address` with options of ray.init.

    Raises ClusterError where none answers, it does not take this process's token, or it has another Ray or Python.
    """
    if ray.is_initialized():
        return
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    if address == "local":
        _close_token()
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **options)
        _close_token()  # there is one now
    else:
        _join_existing(address, **options)
    if callable(on_sigterm) and signal.getsignal(signal.SIGTERM) is not on_sigterm:
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put its own in the place


def _close_token() -> None:
    """Ray writes the token of its local clusters, with which one runs code as this user, for all users to read."""
    with suppress(OSError, RuntimeError):  # such as without a home
        folder = Path.home() / ".ray"
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / "auth_token").chmod(0o600)


def _join_existing(address: str, **options: Any) -> None:
    _check_address(address)
    try:
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **options)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.AuthenticationError) as error:
        raise ClusterError(_refusal(address, error)) from error


def _check_address(address: str) -> None:
    """Ray itself would wait for minutes for a cluster that is not there."""
    if address.startswith(("http://", "https://")):
        raise ClusterError(f"RAY_ADDRESS={address} takes jobs (ray job submit). To join the cluster as a driver, give "
                           "the address of its GCS, such as HOST:6379, from one of its nodes")
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise ClusterError(f"no Ray cluster answers at RAY_ADDRESS={address}: {error.strerror or error}. Start one "
                           "(ray start --head), correct the address, or unset it: kdray then starts Ray itself"
                           ) from error


def _refusal(address: str, error: Exception) -> str:
    """What Ray said when it was not let in, and what to do."""
    said = " ".join(f"{error} {error.__cause__ or ''}".split())
    if isinstance(error, ray.exceptions.AuthenticationError):
        return (f"RAY_AUTH_MODE=token, and there is no token for the cluster at {address}: "
                f"{said.partition('. ')[0]}. {GIVE_TOKEN}")
    if "InvalidAuthToken" in said:
        mode = os.environ.get("RAY_AUTH_MODE")
        if mode == "token":
            return f"the cluster at {address} has another token than this process. {GIVE_TOKEN}"
        return (f"the cluster at {address} wants a token, and RAY_AUTH_MODE is {mode or 'not set'}. Export "
                f"RAY_AUTH_MODE=token. {GIVE_TOKEN}")
    if "Version mismatch" in said:
        return f"{said} Install what cluster/constraints.txt pins here, or use the image of the cluster"
    return f"no Ray cluster answers at RAY_ADDRESS={address}: {error}"


def nodes_with(labels: dict[str, str]) -> list[dict[str, float]]:
    """What each node has, used or not, that is alive and has all `labels`."""
    return [node["Resources"] for node in living() if labels.items() <= node["Labels"].items()]


def ask(function: Callable[[], T], labels: dict[str, str]) -> list[T]:
    """What a function gives on every node with `labels`; who is lost, or silent for two minutes, is left out."""
    task: Any = ray.remote(num_cpus=0, max_retries=0)(function)
    asked = [task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
             for node in living() if labels.items() <= node["Labels"].items()]
    ready, _ = ray.wait(asked, num_returns=len(asked), timeout=_SILENCE) if asked else ([], [])
    found = []
    for reference in ready:
        with suppress(ray.exceptions.RayError):
            found.append(ray.get(reference))
    return found


def cpus_each(count: int, labels: dict[str, str]) -> int:
    """Whole CPUs for each of `count` processes, at least 1, if all were to share the largest node with `labels`."""
    largest = max((node.get("CPU", 0.0) for node in nodes_with(labels)), default=0.0)
    return max(1, int(largest // count))


def check_resources(count: int, each: dict[str, float], origin: str,
                    labels: dict[str, str] | None = None) -> None:
    """Raises ClusterError where `count` processes that need `each` can never run side by side on nodes with `labels`.

    Counts what the nodes have, used or not: a full cluster is waited for, a small one is not, unless it may grow.
    """
    check_need(Need(origin, count, each, labels or {}))


def check_need(need: Need) -> None:
    """Raises ClusterError as `check_resources`; warns where nodes may be added that hold the need."""
    short = shortage(need, nodes_with(need.labels))
    if short and may_grow(living()):
        logger.warning("%s. More nodes are waited for: those that are there came from KubeRay or `ray up`", short)
    elif short:
        raise ClusterError(f"{short}. Lower {need.origin}, or add nodes{need.where}")


def living() -> list[dict[str, Any]]:
    """Those of `ray.nodes()` that are alive."""
    return [node for node in ray.nodes() if node["Alive"]]


def may_grow(nodes: list[dict[str, Any]]) -> bool:
    """Whether an autoscaler may add to these of `ray.nodes()`: KubeRay and `ray up` name the group of what they launch.

    Whether it is on, and how far it may go, is known to it alone.
    """
    return any("ray.io/node-group" in node["Labels"] for node in nodes)

"""A Ray cluster to work on: joined where there is one, started on this machine where there is none."""

import logging
import os
import warnings
from typing import Any

import ray

from kdray.errors import ClusterError

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")  # a job may set the variables below too


def connect(niceness: int = 15, dashboard: bool = False) -> None:
    """Joins the cluster of RAY_ADDRESS, as a submitted job finds it, or starts Ray on this machine.

    `niceness` of the processes of a Ray that starts here: 15 leaves a laptop usable, 0 answers requests in time.
    `dashboard`: whether it has one; Ray Train asks it whether a trial is gone, before it frees its workers' CPUs.
    """
    address = os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_worker_niceness", str(niceness))
    join(address or "local", include_dashboard=None if address else dashboard,
         runtime_env={"env_vars": {"HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "0"),
                                   "TOKENIZERS_PARALLELISM": "false"}})


def join(address: str, **options: Any) -> None:
    """Joins the cluster at `address` with options of ray.init. Raises ClusterError where none answers."""
    if ray.is_initialized():
        return
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    try:
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **options)
    except ConnectionError as error:
        raise ClusterError(f"no Ray cluster answers at RAY_ADDRESS={address}: {error}") from error


def nodes_with(labels: dict[str, str]) -> list[dict[str, float]]:
    """What each node has, used or not, that is alive and has all `labels`."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"] and labels.items() <= node["Labels"].items()]


def cpus_each(count: int, labels: dict[str, str]) -> int:
    """Whole CPUs for each of `count` processes, at least 1, if all were to share the largest node with `labels`."""
    largest = max((node.get("CPU", 0.0) for node in nodes_with(labels)), default=0.0)
    return max(1, int(largest // count))


def check_resources(count: int, each: dict[str, float], origin: str,
                    labels: dict[str, str] | None = None) -> None:
    """Raises ClusterError where `count` processes that need `each` can never run side by side on nodes with `labels`.

    Counts what the nodes have, used or not: a full cluster is waited for, a small one is not.
    """
    labels = labels or {}
    nodes = nodes_with(labels)
    where = " that have " + " and ".join(f"{name}={value}" for name, value in labels.items()) if labels else ""
    fit = sum(min((int(node.get(name, 0.0) // need) for name, need in each.items() if need > 0), default=count)
              for node in nodes)
    if fit < count:
        wanted = " and ".join(f"{need:g} {name}" for name, need in each.items() if need > 0)
        total = {name: sum(node.get(name, 0.0) for node in nodes) for name in each}
        has = ", ".join(f"{value:g} {name}" for name, value in total.items())
        raise ClusterError(f"{origin} = {count} with {wanted} each does not fit: the cluster has {has} on "
                           f"{len(nodes)} nodes{where}, room for {fit}. Lower {origin}, or add nodes{where}")

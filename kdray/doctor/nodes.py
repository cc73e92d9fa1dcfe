"""Every node of a Ray cluster is asked what it sees; one that does not answer in time is named, not waited for."""

from typing import Any

import ray
from ray import cloudpickle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kdray.cluster import living
from kdray.doctor import machine
from kdray.doctor.findings import Facts, Node
from kdray.storage import Store

PATIENCE = 120.0


def ask_nodes(storage: str | None, folders: list[str], gpus: bool, patience: float = PATIENCE) -> tuple[Facts,
                                                                                                     list[Node]]:
    """What this process sees, and every node that is alive; Ray must be connected.

    `storage` is tried from everywhere, `folders` are of models, `gpus` asks nodes that have some whether torch sees
    them. Nodes that have not answered after `patience` seconds have no facts.
    """
    witness = machine.probe()
    trouble = _leave(storage, witness) if storage else None
    try:
        nodes = living()
        tried = None if trouble else storage
        asked = {_ask(node, tried, witness, folders if len(nodes) > 1 else [], gpus): node for node in nodes}
        found = machine.look(tried, witness, folders if len(nodes) > 1 else [], False)
        ray.wait(list(asked), num_returns=len(asked), timeout=patience)
        here = Facts(**{**found, "storage": trouble or found["storage"]})
        alive = {node["NodeID"] for node in living()}
        return here, [_told(reference, node, patience) for reference, node in asked.items() if node["NodeID"] in alive]
    finally:
        if storage and not trouble:
            Store(storage).delete(witness)


def _leave(storage: str, witness: str) -> str | None:
    """Writes the file that nodes look for; what went wrong."""
    try:
        Store(storage).write(b"kdray", witness)
    except Exception as error:
        return " ".join(str(error).split()).rstrip(".")
    return None


def _ask(node: dict[str, Any], storage: str | None, witness: str, folders: list[str], gpus: bool) -> ray.ObjectRef:
    """A task on the node, sent by value: what there is of kdray on the node may be another."""
    where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    cloudpickle.register_pickle_by_value(machine)
    try:
        task = ray.remote(machine.look).options(num_cpus=0, max_retries=0, scheduling_strategy=where)
        return task.remote(storage, witness, folders, gpus and node["Resources"].get("GPU", 0) > 0)
    finally:
        cloudpickle.unregister_pickle_by_value(machine)


def _told(reference: ray.ObjectRef, node: dict[str, Any], patience: float) -> Node:
    name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"
    try:
        return Node(name, node["Resources"], Facts(**ray.get(reference, timeout=0)))
    except ray.exceptions.GetTimeoutError:
        ray.cancel(reference, force=True)
        return Node(name, node["Resources"], None, f"no answer in {patience:g} s")
    except ray.exceptions.RayError as error:
        return Node(name, node["Resources"], None, str(error).strip().splitlines()[-1])

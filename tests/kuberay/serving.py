"""The loop of RayService (rayservice_controller.go), and the passes over all documents."""

import json
from typing import Any

from tests.kuberay.cluster import OperatorError, dashboard_url, head_service, incremental, serve_service
from tests.kuberay.jobs import reconcile_cron, reconcile_job, start_cluster
from tests.kuberay.world import UnreachableError, World

PASS = 3.0
"""Seconds between two passes."""


def reconcile_service(world: World, service: dict[str, Any]) -> None:
    """One pass over a RayService."""
    status, spec, name = service["status"], service["spec"], service["metadata"]["name"]
    if service.get("deleted"):
        world.remove(service)
        return
    goal = json.dumps(spec["rayClusterConfig"], sort_keys=True)
    if goal != status.get("goal"):
        status.update(goal=goal, pending=world.named(name))
        start_cluster(world, status["pending"], spec["rayClusterConfig"], ("RayService", name),
                      replicas=not (incremental(service) and status.get("active")))
    for cluster in filter(None, (status.get("pending"), status.get("active"))):
        if incremental(service):
            own = serve_service(service, cluster)
            world.services.setdefault(own.name, own)
    cluster = status.get("pending") or status["active"]
    if _deployed(world, service, cluster):
        _switch(world, service, cluster)


def _deployed(world: World, service: dict[str, Any], cluster: str) -> bool:
    """Serve has the configuration, and its applications run: no look is taken at endpoints."""
    spec = service["spec"]["rayClusterConfig"]
    head = next(pod for pod in world.pods if pod.cluster == cluster and pod.labels["ray.io/node-type"] == "head")
    if not head.ready:
        return False
    token = world.secret(spec["authOptions"]["secretName"])["auth_token"]
    try:
        world.ask(world.operators_pod, dashboard_url(spec, cluster), token)
    except UnreachableError as error:
        raise OperatorError(f"failed to get Serve application statuses: {error}") from error
    return True


def _switch(world: World, service: dict[str, Any], cluster: str) -> None:
    """Services point to the cluster; then what was pending is active."""
    status, name = service["status"], service["metadata"]["name"]
    own = [head_service(service["spec"]["rayClusterConfig"], cluster, name), serve_service(service, cluster)]
    for made in own:
        old = world.services.get(made.name)
        if old is None or old.selector["ray.io/cluster"] != cluster:
            world.services[made.name] = made
    if status.pop("pending", None):
        status["old"], status["active"] = status.get("active"), cluster


def passes(world: World, seconds: float, step: float = PASS) -> None:
    """Lets time go by: kubelets, then the operator, every `step`; what the operator logs is in `events`."""
    ends = world.now + seconds
    loops = {"RayJob": reconcile_job, "RayService": reconcile_service, "RayCronJob": reconcile_cron}
    while world.now < ends:
        world.now += step
        world.run_pods()
        for (kind, _), document in list(world.documents.items()):
            try:
                if kind in loops:
                    loops[kind](world, document)
            except OperatorError as error:
                world.events.append(str(error))

"""A RayCluster becomes the pods and services that the operator makes of it (common/pod.go, common/service.go)."""

import json
import shlex
from dataclasses import dataclass
from typing import Any

from tests.kuberay.network import Labels, Pod

DEFAULTS = {"client": 10001, "gcs-server": 6379, "dashboard": 8265, "metrics": 8080, "serve": 8000}
_SELECTING = ("ray.io/cluster", "ray.io/node-type", "ray.io/identifier", "app.kubernetes.io/name",
              "app.kubernetes.io/created-by")


class OperatorError(Exception):
    """What the operator would log, and try again for ever."""


@dataclass
class Service:
    """A Service of Kubernetes."""

    name: str
    selector: dict[str, str]
    ports: dict[str, int]
    labels: dict[str, str]
    owner: str = ""
    unready: bool = False
    """Whether pods that are not ready count (publishNotReadyAddresses)."""


def ray_labels(cluster: str, node: str, group: str, own: Labels) -> dict[str, str]:
    """Labels of a pod: the operator's, over which those of the template go, but for three (labelPod)."""
    fixed = {"ray.io/node-type": node, "ray.io/group": group, "ray.io/cluster": cluster}
    return {"ray.io/is-ray-node": "yes", "ray.io/identifier": f"{cluster}-{node}", "app.kubernetes.io/name": "kuberay",
            "app.kubernetes.io/created-by": "kuberay-operator", **own, **fixed}


def make_pods(spec: dict[str, Any], cluster: str, kind: str, replicas: bool = True) -> list[Pod]:
    """The head and the workers of the start. `kind` owns the cluster; without `replicas`, groups start at their
    least, as the second cluster of an incremental upgrade does."""
    made = [_pod(spec, spec["headGroupSpec"], cluster, "head", "headgroup", 0, kind)]
    for group in spec.get("workerGroupSpecs", []):
        least, most = group.get("minReplicas", 0), group.get("maxReplicas", 2**31 - 1)
        count = min(max(group.get("replicas", 0) if replicas else least, least), most)
        made += [_pod(spec, group, cluster, "worker", group["groupName"], place, kind) for place in range(count)]
    return made


def _pod(spec: dict[str, Any], group: dict[str, Any], cluster: str, node: str, name: str, place: int,
         kind: str) -> Pod:
    template = json.loads(json.dumps(group["template"]))  # a copy
    labels = ray_labels(cluster, node, name, {**template["metadata"].get("labels", {}), **group.get("labels", {})})
    if kind == "RayService":
        labels["ray.io/serve"] = "false" if node == "head" else "true"
    container = template["spec"]["containers"][0]
    if "metrics" not in {port["name"] for port in container.get("ports", [])}:
        container.setdefault("ports", []).append({"name": "metrics", "containerPort": DEFAULTS["metrics"]})
    container["args"] = [ray_start(group, cluster, node, container)]
    if kind == "RayService" and node == "worker":
        container.setdefault("readinessProbe", {"exec": {"command": ["serve's proxy"]}})
    for probe in ("livenessProbe", "readinessProbe"):
        container.setdefault(probe, {"httpGet": {"path": "/api/healthz", "port": 52365}})
    if spec.get("enableInTreeAutoscaling") and spec["autoscalerOptions"].get("version") == "v2":
        template["spec"]["restartPolicy"] = "Never"
    return Pod(f"{cluster}-{name}-{place}", labels, template["spec"], cluster=cluster)


def ray_start(group: dict[str, Any], cluster: str, node: str, container: dict[str, Any]) -> str:
    """The line that starts Ray in a pod (setMissingRayStartParams, generateRayStartCommand)."""
    given = dict(group.get("rayStartParams", {}))
    custom = {}
    for name, amount in group.get("resources", {}).items():
        flag = {"cpu": "num-cpus", "memory": "memory", "gpu": "num-gpus"}.get(name.lower())
        if flag:
            given[flag] = str(int(float(amount)))
        else:
            custom[name] = float(amount)
    if custom:
        given["resources"] = shlex.quote(json.dumps(custom))
    if group.get("labels"):
        given["labels"] = ",".join(f"{key}={value}" for key, value in sorted(group["labels"].items()))
    limits = container["resources"]["limits"]
    given.setdefault("num-cpus", str(limits["cpu"]))
    if "nvidia.com/gpu" in limits:
        given.setdefault("num-gpus", str(limits["nvidia.com/gpu"]))
    more = {"metrics-export-port": "8080", "block": "true", "dashboard-agent-listen-port": "52365"}
    more |= {"dashboard-host": "0.0.0.0", "no-monitor": "true"} if node == "head" else {
        "address": f"{cluster}-head-svc:6379"}
    flags = {**more, **given}
    said = " ".join(f"--{name}" if value == "true" else f"--{name}={value}" for name, value in sorted(flags.items()))
    return f"ray start {'--head ' if node == 'head' else ''}{said}"


def head_service(spec: dict[str, Any], cluster: str, owner: str = "", overridden: bool = True) -> Service:
    """The head's service: of the cluster itself, or with `owner` of the job or service that has it.

    Only the former follows a template that overrides app.kubernetes.io/name (reconcileHeadService).
    """
    labels = ray_labels(cluster, "head", "headgroup", {})
    name = spec["headGroupSpec"]["template"]["metadata"].get("labels", {}).get("app.kubernetes.io/name")
    if name and not owner:
        labels["app.kubernetes.io/name"] = name
    selector = {key: labels[key] for key in _SELECTING}
    said = selector if not owner else {"ray.io/originated-from-cr-name": owner, "ray.io/node-type": "head"}
    return Service(f"{owner or cluster}-head-svc", selector, service_ports(spec), said, owner or cluster, True)


def service_ports(spec: dict[str, Any]) -> dict[str, int]:
    """Ports that the head declares in place of all defaults; and Ray's metrics."""
    declared = {port.get("name") or f"{port['containerPort']}-port": port["containerPort"]
                for port in spec["headGroupSpec"]["template"]["spec"]["containers"][0].get("ports", [])}
    return {"metrics": DEFAULTS["metrics"], **(declared or DEFAULTS)}


def serve_service(document: dict[str, Any], cluster: str) -> Service:
    """The service of replicas (BuildServeService)."""
    spec, name = document["spec"]["rayClusterConfig"], document["metadata"]["name"]
    ports = {name: port for name, port in service_ports(spec).items() if name == "serve" or name.startswith("serve-")}
    if not ports:
        raise OperatorError("Please specify a port named 'serve' in the Ray head container")
    title = cluster if incremental(document) else name
    return Service(f"{title}-serve-svc", {"ray.io/cluster": cluster, "ray.io/serve": "true"}, ports,
                   {"ray.io/originated-from-cr-name": title}, title)


def incremental(document: dict[str, Any]) -> bool:
    """Whether a RayService changes clusters step by step."""
    return document["spec"].get("upgradeStrategy", {}).get("type") == "NewClusterWithIncrementalUpgrade"


def dashboard_url(spec: dict[str, Any], cluster: str) -> str:
    """HOST:PORT of the dashboard (FetchHeadServiceURL)."""
    ports = head_service(spec, cluster).ports
    if "dashboard" not in ports:
        raise OperatorError("dashboard port is not found")
    return f"{cluster}-head-svc.team.svc.cluster.local:{ports['dashboard']}"

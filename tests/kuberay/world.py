"""What is around the operator: the API server, kubelets that start pods, the network, a clock, and Ray behind all."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.kuberay.cluster import OperatorError, Service
from tests.kuberay.network import Pod, reaches, selected

HELM = {"app.kubernetes.io/name": "kuberay-operator", "app.kubernetes.io/component": "kuberay-operator"}
KUSTOMIZE = {"app.kubernetes.io/name": "kuberay", "app.kubernetes.io/component": "kuberay-operator"}
"""Labels of the operator's pod, as its two installations set them."""


class RefusedError(Exception):
    """What kubectl would print."""


class UnreachableError(Exception):
    """A request that is not answered, or is answered with 401."""


@dataclass
class Job:
    """A Ray job on a cluster."""

    status: str = "RUNNING"
    stopped: bool = False


@dataclass
class World:
    """A namespace."""

    operator: dict[str, str] = field(default_factory=lambda: dict(KUSTOMIZE))
    gates: set[str] = field(default_factory=set)
    room: Callable[[Pod], bool] = lambda pod: True
    """Whether a node has room for a pod."""
    answers: Callable[[Pod], bool] = lambda pod: True
    """Whether what a pod's readiness probe asks answers."""
    now: float = 0.0
    documents: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    pods: list[Pod] = field(default_factory=list)
    services: dict[str, Service] = field(default_factory=dict)
    clusters: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of each RayCluster: its specification, and the kind and name that own it."""
    jobs: dict[str, Job] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    _names: Any = field(default_factory=itertools.count)

    def apply(self, documents: list[dict[str, Any]]) -> None:
        """`kubectl apply`; raises RefusedError where the API server refuses a change."""
        for document in documents:
            key = document["kind"], document["metadata"]["name"]
            old = self.documents.get(key)
            if old and old.get("immutable") and old["stringData"] != document["stringData"]:
                raise RefusedError(f"Secret {key[1]}: field is immutable when `immutable` is set")
            kept = {"status": old["status"], "created": old["created"]} if old else {"status": {}, "created": self.now}
            self.documents[key] = {**document, **kept}

    def delete(self, kind: str, name: str) -> None:
        """`kubectl delete`: what has a finalizer goes when its operator says so."""
        document = self.documents[kind, name]
        if kind in ("RayJob", "RayService"):
            document["deleted"] = True
        else:
            del self.documents[kind, name]

    def remove(self, document: dict[str, Any]) -> None:
        """A document is gone, and what it owns."""
        kind, name = document["kind"], document["metadata"]["name"]
        self.documents.pop((kind, name), None)
        self.services = {title: service for title, service in self.services.items() if service.owner != name}
        for cluster in [title for title, made in self.clusters.items() if made["owner"] == (kind, name)]:
            self.remove_cluster(cluster)

    def remove_cluster(self, cluster: str) -> None:
        """A RayCluster is gone, with its pods and services."""
        self.clusters.pop(cluster, None)
        self.pods = [pod for pod in self.pods if pod.cluster != cluster]
        self.services = {name: one for name, one in self.services.items() if one.owner != cluster}

    def secret(self, name: str) -> dict[str, str]:
        """Values of a Secret. Raises OperatorError where there is none."""
        try:
            return self.documents["Secret", name]["stringData"]
        except KeyError:
            raise OperatorError(f'failed to get auth secret team/{name}: Secret "{name}" not found') from None

    def named(self, owner: str) -> str:
        """A name that the operator generates."""
        return f"{owner}-{next(self._names):05d}"

    def run_pods(self) -> None:
        """Kubelets start what has room and its Secrets, and ask probes."""
        for pod in self.pods:
            if not pod.running and self.room(pod):
                options = self.clusters[pod.cluster]["spec"]["authOptions"]
                given = self.documents.get(("Secret", options["secretName"]))
                pod.running, pod.token = given is not None, given["stringData"]["auth_token"] if given else ""
            pod.ready = pod.running and self.answers(pod)

    def endpoints(self, name: str) -> list[Pod]:
        """Pods behind a service."""
        service = self.services[name]
        return [pod for pod in selected(service.selector, self.pods) if pod.running and (pod.ready or service.unready)]

    def ask(self, source: Pod, url: str, token: str) -> Pod:
        """The head that answers at HOST:PORT. Raises UnreachableError."""
        host, port = url.split(":")
        name = host.split(".")[0]
        if name not in self.services:
            raise UnreachableError(f"{name}: no such host")
        for pod in self.endpoints(name):
            if reaches(self.policies, source, pod, int(port)):
                if token != pod.token:
                    raise UnreachableError("401: Unauthorized")
                return pod
        raise UnreachableError(f"{url}: timed out")

    @property
    def policies(self) -> list[dict[str, Any]]:
        """NetworkPolicies of the namespace."""
        return [document for (kind, _), document in self.documents.items() if kind == "NetworkPolicy"]

    @property
    def operators_pod(self) -> Pod:
        """Where the operator's requests come from."""
        return Pod("kuberay-operator", self.operator, namespace="ray-system")

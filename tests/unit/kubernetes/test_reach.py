"""Who reaches whom on which port, by the labels, selectors and policies of every overlay."""

import copy
from typing import Any

import pytest

from kdray.kubernetes.render import render
from tests.kuberay.cluster import make_pods, serve_service
from tests.kuberay.network import Pod, matches, reaches, selected
from tests.kuberay.world import HELM, KUSTOMIZE
from tests.unit.kubernetes.conftest import K8S, OVERLAYS, needs_kustomize, of_kind, rendered, values

pytestmark = needs_kustomize

RAY = [overlay for overlay in OVERLAYS if overlay not in ("secrets", "monitoring")]
PORTS = (6379, 8000, 8080, 8265, 10001, 52365)
"""GCS or Redis, the endpoint, Ray's metrics, the dashboard, Ray's clients, the agent."""
OUTSIDE = {
    "operator (Helm)": Pod("o", HELM, namespace="ray-system"),
    "operator (kustomize)": Pod("o", KUSTOMIZE, namespace="default"),
    "Prometheus": Pod("p", {"app.kubernetes.io/name": "prometheus"}, namespace="monitoring"),
    "a pod beside": Pod("b", {"app": "web"}),
    "a pod elsewhere": Pod("e", {"app": "web"}, namespace="web"),
    "a load balancer": Pod("l", {}, ip="203.0.113.9"),
}
JOB = {"operator (Helm)": "8000 8265", "operator (kustomize)": "8000 8265", "Prometheus": "8080"}
SERVES = {"operator (Helm)": "8000 8265", "operator (kustomize)": "8000 8265", "Prometheus": "8000 8080",
          "a pod beside": "8000", "a pod elsewhere": "8000"}
ALL = " ".join(map(str, PORTS))
ADDRESSES = {
    "the Kubernetes API": ("198.51.100.1", 443), "that of kubeadm": ("198.51.100.1", 6443),
    "that of minikube": ("192.168.49.2", 8443), "that of MicroK8s": ("198.51.100.1", 16443),
    "object storage": ("203.0.113.1", 443), "the node's metadata": ("169.254.169.254", 80),
    "GKE's metadata": ("169.254.169.252", 988), "EKS's pod identity": ("169.254.170.23", 80)}


def pods_of(documents: list[dict[str, Any]]) -> dict[str, Pod]:
    """A pod of each kind that there may be, by component."""
    documents = copy.deepcopy(documents)
    ray = of_kind(documents, "RayJob", "RayService", "RayCronJob")
    spec = ray["spec"].get("jobTemplate", ray["spec"])
    cluster = spec.get("rayClusterSpec") or spec["rayClusterConfig"]
    for group in cluster["workerGroupSpecs"]:
        group.update(replicas=1, maxReplicas=1, minReplicas=0)
    made = make_pods(cluster, "c", ray["kind"])
    if submitter := spec.get("submitterPodTemplate"):
        made.append(Pod("submitter", submitter["metadata"]["labels"]))
    if "gcsFaultToleranceOptions" in cluster:
        made.append(Pod("cleanup", {**made[0].labels, "ray.io/node-type": "redis-cleanup"}))
        redis = of_kind(documents, "StatefulSet")["spec"]["template"]
        made.append(Pod("redis", redis["metadata"]["labels"], redis["spec"]))
    names = {id(pod): pod.labels["app.kubernetes.io/component"] for pod in made if pod.name != "cleanup"}
    return {names.get(id(pod), pod.name): pod for pod in made}


def policies_of(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [document for document in documents if document["kind"] == "NetworkPolicy"]


def open_ports(policies: list[dict[str, Any]], source: Pod, target: Pod) -> str:
    return " ".join(str(port) for port in PORTS if reaches(policies, source, target, port))


@pytest.mark.parametrize("overlay", RAY)
def test_who_reaches_whom_on_which_port(overlay: str) -> None:
    documents = rendered(overlay)
    policies, pods = policies_of(documents), pods_of(documents)
    for name, pod in pods.items():
        serves = name == "replica" or (overlay == "serve" and name == "student")
        table = {who: open_ports(policies, source, pod) for who, source in OUTSIDE.items()}
        assert {who: ports for who, ports in table.items() if ports} == (SERVES if serves else JOB), name
        assert {other: open_ports(policies, source, pod) for other, source in pods.items()} == dict.fromkeys(pods, ALL)


@pytest.mark.parametrize("overlay", RAY)
def test_what_every_pod_reaches_outside(overlay: str) -> None:
    policies = policies_of(rendered(overlay))
    for name, pod in pods_of(rendered(overlay)).items():
        for what, (ip, port) in ADDRESSES.items():
            assert reaches(policies, pod, Pod("x", {}, ip=ip), port), f"{name} to {what}"
        names = Pod("dns", {"k8s-app": "kube-dns"}, namespace="kube-system")
        assert reaches(policies, pod, names, 53, "UDP") and reaches(policies, pod, names, 53)
        assert not reaches(policies, pod, Pod("x", {}, ip="203.0.113.1"), 80), "plain HTTP to anywhere"
        assert not reaches(policies, pod, OUTSIDE["a pod elsewhere"], 8080)


@pytest.mark.parametrize("overlay", ["service", "serve", "incremental-upgrade"])
def test_a_load_balancer_reaches_the_endpoint_where_it_is_asked_for_and_nothing_else(overlay: str) -> None:
    documents = render(overlay, values(overlay, components=("load-balancer",)), K8S)
    reached = {name: open_ports(policies_of(documents), OUTSIDE["a load balancer"], pod)
               for name, pod in pods_of(documents).items()}
    assert {name: ports for name, ports in reached.items() if ports} == {
        "student" if overlay == "serve" else "replica": "8000"}


@pytest.mark.parametrize("overlay", RAY)
def test_prometheus_watches_every_ray_node_once_on_a_port_that_it_reaches(overlay: str) -> None:
    monitors = [document for document in rendered("monitoring") if document["kind"].endswith("Monitor")]
    policies, pods = policies_of(rendered(overlay)), pods_of(rendered(overlay))
    watched = []
    for monitor in monitors:
        assert monitor["kind"] == "PodMonitor", "a head has two services, and would be counted twice"
        for name, pod in pods.items():
            for end in monitor["spec"]["podMetricsEndpoints"]:
                if matches(monitor["spec"]["selector"], pod.labels):
                    assert reaches(policies, OUTSIDE["Prometheus"], pod, pod.ports[end["port"]])
                    watched.append((name, end["port"]))
    nodes = set(pods) - {"submitter", "redis", "cleanup"}
    serving = {(name, "serve") for name in nodes if "kdray/serves" in pods[name].labels}
    assert sorted(watched) == sorted({(name, "metrics") for name in nodes} | serving)


@pytest.mark.parametrize("overlay", ["service", "gcs-fault-tolerance", "incremental-upgrade"])
def test_services_select_who_listens(overlay: str) -> None:
    documents = rendered(overlay)
    pods = pods_of(documents)
    own = serve_service(of_kind(documents, "RayService"), "c")
    behind = selected(own.selector, pods.values())
    assert behind == [pods["replica"]] and set(own.ports.values()) == {pods["replica"].ports["serve"]}
    for service in (document for document in documents if document["kind"] == "Service"):
        found = selected(service["spec"]["selector"], pods.values())
        assert found == [pods["redis"]]
        assert [port["port"] for port in service["spec"]["ports"]] == [pods["redis"].ports["redis"]]

"""Labels, selectors and policies: which pods are meant, and who reaches whom on which port."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

Labels = Mapping[str, str]


@dataclass
class Pod:
    """A pod, or what else sends and takes packets; one that has no labels is an address outside."""

    name: str
    labels: dict[str, str]
    spec: dict[str, Any] = field(default_factory=dict)
    namespace: str = "team"
    ip: str = "10.0.0.1"
    cluster: str = ""
    born: float = 0.0
    running: bool = False
    ready: bool = False
    token: str = ""
    """RAY_AUTH_TOKEN, as it was read from the Secret when the pod started."""

    @property
    def container(self) -> dict[str, Any]:
        """The one that runs Ray."""
        return self.spec["containers"][0]

    @property
    def ports(self) -> dict[str, int]:
        """Its declared ports by name."""
        return {port["name"]: port["containerPort"] for port in self.container.get("ports", [])}


def matches(selector: Mapping[str, Any], labels: Labels) -> bool:
    """Whether a selector, matchLabels and matchExpressions, means a pod with `labels`; an empty one means all."""
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    for rule in selector.get("matchExpressions", []):
        found, values = labels.get(rule["key"]), rule.get("values", [])
        holds = {"In": found in values, "NotIn": found not in values, "Exists": found is not None,
                 "DoesNotExist": found is None}[rule["operator"]]
        if not holds:
            return False
    return True


def selected(selector: Labels, pods: Iterable[Pod]) -> list[Pod]:
    """Pods that a Service's selector means; none where it is empty."""
    return [pod for pod in pods if selector and selector.items() <= pod.labels.items()]


def reaches(policies: list[dict[str, Any]], source: Pod, target: Pod, port: int, protocol: str = "TCP") -> bool:
    """Whether NetworkPolicies of the namespace `team` let a packet of `source` through to a port of `target`."""
    return (_passes(policies, "egress", "to", source, target, port, protocol)
            and _passes(policies, "ingress", "from", target, source, port, protocol))


def _passes(policies: list[dict[str, Any]], way: str, side: str, owner: Pod, other: Pod, port: int,
            protocol: str) -> bool:
    kind = way.capitalize()
    ours = [policy["spec"] for policy in policies if owner.labels and owner.namespace == "team"
            and kind in policy["spec"].get("policyTypes", ["Ingress"])
            and matches(policy["spec"].get("podSelector", {}), owner.labels)]
    return not ours or any(_port(rule, port, protocol) and _peer(rule.get(side), other)
                           for spec in ours for rule in spec.get(way, []))


def _port(rule: dict[str, Any], port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    return not ports or any(one.get("protocol", "TCP") == protocol and one.get("port", port) == port for one in ports)


def _peer(peers: list[dict[str, Any]] | None, other: Pod) -> bool:
    return not peers or any(_is(peer, other) for peer in peers)


def _is(peer: dict[str, Any], other: Pod) -> bool:
    """Whether a peer of a policy of the namespace `team` means `other`."""
    if "ipBlock" in peer:
        return not other.labels and ip_address(other.ip) in ip_network(peer["ipBlock"]["cidr"])
    if not other.labels:
        return False
    near = other.namespace == "team" if "namespaceSelector" not in peer else matches(
        peer["namespaceSelector"], {"kubernetes.io/metadata.name": other.namespace})
    return near and matches(peer.get("podSelector", {}), other.labels)

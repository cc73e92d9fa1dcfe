"""A document and the fields that its kind has become problems: unknown, missing and mistyped fields.

Ray's kinds are held against KubeRay's own OpenAPI schemas, where those are at hand; the other kinds against the fields
that our manifests use. Knows nothing about what fields mean.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator

from kdray.config import hint
from kdray.errors import ConfigError
from kdray.kubernetes.problem import Manifest, Problem

_Fields = dict[str, Any]
_METADATA: _Fields = {"name": {}, "namespace": {}, "labels": None, "annotations": None}
_SELECTOR: _Fields = {"matchLabels": None}
_PEERS: _Fields = {"podSelector": _SELECTOR, "namespaceSelector": _SELECTOR}
_PORTS: _Fields = {"protocol": {}, "port": {}}
_SECRET_KEY: _Fields = {"name": {}, "key": {}}
_CLAIM: _Fields = {"accessModes": {}, "storageClassName": {}, "resources": {"requests": {"storage": {}}}}
_SCRAPE: _Fields = {"port": {}, "path": {}, "interval": {}, "authorization": {"type": {}, "credentials": _SECRET_KEY}}
_POD: _Fields = {"metadata": _METADATA, "spec": {
    "serviceAccountName": {}, "automountServiceAccountToken": {},
    "securityContext": {"runAsNonRoot": {}, "runAsUser": {}, "runAsGroup": {}, "fsGroup": {},
                        "seccompProfile": {"type": {}}},
    "containers": {
        "name": {}, "image": {}, "args": {}, "ports": {"name": {}, "containerPort": {}},
        "env": {"name": {}, "value": {}, "valueFrom": {"secretKeyRef": _SECRET_KEY}},
        "securityContext": {"allowPrivilegeEscalation": {}, "capabilities": {"drop": {}}},
        "resources": {"requests": {"cpu": {}, "memory": {}}, "limits": {"cpu": {}, "memory": {}}},
        "readinessProbe": {"tcpSocket": {"port": {}}}, "livenessProbe": {"tcpSocket": {"port": {}}},
        "volumeMounts": {"name": {}, "mountPath": {}, "readOnly": {}}}}}
_KINDS: dict[str, _Fields] = {
    "v1 ServiceAccount": {"automountServiceAccountToken": {}},
    "v1 Secret": {"type": {}, "stringData": None},
    "v1 ConfigMap": {"data": None},
    "v1 PersistentVolumeClaim": {"spec": _CLAIM},
    "v1 Service": {"spec": {"clusterIP": {}, "selector": None, "ports": {"name": {}, "port": {}}}},
    "apps/v1 StatefulSet": {"spec": {
        "serviceName": {}, "replicas": {}, "selector": _SELECTOR, "template": _POD,
        "volumeClaimTemplates": {"metadata": _METADATA, "spec": _CLAIM}}},
    "networking.k8s.io/v1 NetworkPolicy": {"spec": {
        "podSelector": _SELECTOR, "policyTypes": {}, "ingress": {"from": _PEERS, "ports": _PORTS},
        "egress": {"to": _PEERS, "ports": _PORTS}}},
    "policy/v1 PodDisruptionBudget": {"spec": {"minAvailable": {}, "maxUnavailable": {}, "selector": _SELECTOR}},
    "rbac.authorization.k8s.io/v1 Role": {
        "rules": {"apiGroups": {}, "resources": {}, "resourceNames": {}, "verbs": {}}},
    "rbac.authorization.k8s.io/v1 RoleBinding": {
        "roleRef": {"apiGroup": {}, "kind": {}, "name": {}}, "subjects": {"kind": {}, "name": {}, "namespace": {}}},
    "kueue.x-k8s.io/v1beta1 LocalQueue": {"spec": {"clusterQueue": {}}},
    "monitoring.coreos.com/v1 ServiceMonitor": {"spec": {
        "jobLabel": {}, "selector": _SELECTOR, "endpoints": _SCRAPE}},
    "monitoring.coreos.com/v1 PodMonitor": {"spec": {
        "jobLabel": {}, "selector": _SELECTOR, "podMetricsEndpoints": _SCRAPE}},
}
"""Fields of kinds that are not Ray's: {} ends a path, None takes any keys, a list counts as its items."""


def own_kinds(manifest: Manifest) -> Iterator[Problem]:
    """Unknown fields of a document whose kind is not Ray's."""
    kind = f"{manifest.body.get('apiVersion')} {manifest.kind}"
    if kind not in _KINDS:
        yield manifest.problem("kind", f"nobody here knows the kind {kind}; known are {', '.join(_KINDS)}")
        return
    known = {"apiVersion": {}, "kind": {}, "metadata": _METADATA, **_KINDS[kind]}
    yield from _unknown(manifest, manifest.body, known, "")


def _unknown(manifest: Manifest, tree: Any, known: _Fields | None, path: str) -> Iterator[Problem]:
    if isinstance(tree, list):
        for place, item in enumerate(tree):
            yield from _unknown(manifest, item, known, f"{path}{place}.")
    elif isinstance(tree, dict) and known is not None:
        for name, value in tree.items():
            if name in known:
                yield from _unknown(manifest, value, known[name], f"{path}{name}.")
            else:
                yield manifest.problem(path + str(name), _hint(str(name), known))


def ray_kinds(manifest: Manifest, folder: Path) -> Iterator[Problem]:
    """What KubeRay's schema in `folder` refuses in a document of a Ray kind; unknown fields too."""
    validator = _validator(folder, manifest.kind)
    if validator is None:
        yield manifest.problem("kind", f"{folder} has no schema of this kind; write RayCluster, RayJob, RayService or "
                               "RayCronJob")
        return
    for error in validator.iter_errors(manifest.body):
        path = ".".join(str(part) for part in error.absolute_path)
        if error.validator == "additionalProperties":
            for name in error.instance.keys() - error.schema["properties"].keys():
                yield manifest.problem(f"{path}.{name}".lstrip("."), _hint(name, error.schema["properties"]))
        elif error.validator == "required":
            for name in set(error.validator_value) - error.instance.keys():
                yield manifest.problem(f"{path}.{name}".lstrip("."), "this field is required: add it")
        else:
            yield manifest.problem(path, f"{error.message[-200:]}; change it to what the schema asks for")


def _hint(name: str, known: Any) -> str:
    return f"unknown field; {hint(name, known)}"


@cache
def _validator(folder: Path, kind: str) -> Draft7Validator | None:
    path = folder / f"{kind.lower()}.json"
    try:
        schema = json.loads(path.read_text())["openAPIV3Schema"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path} is not a schema of KubeRay ({error}): take that of its CRD, version v1") from error
    schema["properties"]["metadata"] = {"type": "object", "properties": {
        "name": {"type": "string"}, "namespace": {"type": "string"}, "labels": _STRINGS, "annotations": _STRINGS}}
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    return Draft7Validator(_strict(schema))


_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with unknown properties refused."""
    made = dict(schema)
    if "properties" in schema:
        made["properties"] = {name: _strict(part) for name, part in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    if isinstance(schema.get("items"), dict):
        made["items"] = _strict(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = _strict(schema["additionalProperties"])
    return made

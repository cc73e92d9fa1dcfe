"""KubeRay's CRDs become the table of their fields that `kdray k8s check` reads: one line a field.

    python -m tests.kuberay_fields ../shared/kuberay-1.7.0 > kdray/kubernetes/kuberay.tsv

A line has a kind, a path, a type and facts, between tabs. `[]` is an item of a list, `{}` a value of a free mapping.
What is Kubernetes' own, such as a pod's template, and what another kind has too, is named instead of repeated.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VERSION = "1.7.0"
SAME = {("RayJob", "spec.rayClusterSpec"): "RayCluster", ("RayService", "spec.rayClusterConfig"): "RayCluster",
        ("RayCronJob", "spec.jobTemplate"): "RayJob"}
CORE = {"template": "core.v1.PodTemplateSpec", "submitterPodTemplate": "core.v1.PodTemplateSpec",
        "headService": "core.v1.Service", "serveService": "core.v1.Service",
        "securityContext": "core.v1.SecurityContext", "valueFrom": "core.v1.EnvVarSource",
        "env[]": "core.v1.EnvVar", "envFrom[]": "core.v1.EnvFromSource", "volumeMounts[]": "core.v1.VolumeMount",
        "ingressRules[]": "networking.v1.NetworkPolicyIngressRule",
        "egressRules[]": "networking.v1.NetworkPolicyEgressRule"}
FACTS = ("minimum", "maximum", "minLength", "maxLength", "minItems", "pattern")


def table(folder: Path) -> str:
    """The table, from the schemas of the four kinds in `folder`."""
    whole = {}
    for kind in ("RayCluster", "RayJob", "RayService", "RayCronJob"):
        schema = json.loads((folder / f"{kind.lower()}.json").read_text())["openAPIV3Schema"]
        whole[kind] = dict(_fields(schema["properties"]["spec"], "spec"))
    lines = [f"ray.io/v1 {kind}\t{path}\t{facts}" for kind in whole
             for path, facts in sorted(_shortened(kind, whole).items())]
    return "\n".join([f"# KubeRay {VERSION}, made by tests/kuberay_fields.py", *lines]) + "\n"


def _shortened(kind: str, whole: dict[str, dict[str, str]]) -> dict[str, str]:
    """Fields in which a kind that is contained is named, after a look whether it is the same there."""
    fields = whole[kind]
    for (owner, place), origin in SAME.items():
        if owner == kind:
            inner = {path: facts for path, facts in fields.items() if path.startswith(f"{place}.")}
            assert inner == {path.replace("spec", place, 1): facts for path, facts in whole[origin].items()
                             if path != "spec"}, f"{place} of a {kind} is not a {origin}'s spec"
            kept = {path: facts for path, facts in fields.items() if path not in inner}
            fields = {**kept, place: fields[place].replace("object", f"={origin}", 1)}
    return fields


def _fields(schema: dict[str, Any], path: str, required: bool = False) -> Iterator[tuple[str, str]]:
    name = path.rpartition(".")[2]
    core = CORE.get(name)
    if name == "resources" and "properties" in schema:  # not those of Ray, which are free
        core = "core.v1.ResourceRequirements"
    facts = [f"{fact}={json.dumps(schema[fact])}" for fact in FACTS if fact in schema and not core]
    facts += [f"enum={json.dumps(schema['enum'])}"] if "enum" in schema else []
    facts += ["required=true"] if required else []
    kind = "quantity" if "x-kubernetes-int-or-string" in schema else schema.get("format") or schema["type"]
    yield path, "\t".join([core or kind, *(fact for fact in facts if kind != "quantity" or fact == "required=true")])
    if core:
        return
    if "items" in schema:
        yield from _fields(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from _fields(schema["additionalProperties"], f"{path}{{}}")
    for field, inner in schema.get("properties", {}).items():
        needed = field in schema.get("required", ()) and "default" not in inner
        yield from _fields(inner, f"{path}.{field}", needed)


if __name__ == "__main__":
    sys.stdout.write(table(Path(sys.argv[1])))

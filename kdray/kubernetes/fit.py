"""Documents of one render become what does not fit among them: names without a bearer, work without room.

Knows nothing about a document alone.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

import yaml

from kdray.config import Config, parse
from kdray.errors import ConfigError
from kdray.kubernetes.problem import Manifest, Problem, RayManifest
from kdray.needs import needs

ELSEWHERE = {"Secret": {"kdray-auth", "kdray-api-keys", "kdray-redis", "kdray-s3"}}
"""What is made apart from the manifests that name it, by the overlay `secrets` or by hand; with -2 and so on, too."""
_REFERENCES = {"secretKeyRef": ("Secret", "name"), "secretRef": ("Secret", "name"), "configMap": ("ConfigMap", "name"),
               "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName")}


def references(manifests: list[Manifest]) -> Iterator[Problem]:
    """Whatever a document names is there."""
    there = {kind: set(names) for kind, names in ELSEWHERE.items()}
    for manifest in manifests:
        there.setdefault(manifest.kind, set()).add(manifest.name)
    for manifest in manifests:
        for path, kind, name in _named(manifest.body, ""):
            known, stem = there.get(kind, set()), re.sub(r"-\d+$", "", name)
            if name not in known and stem not in ELSEWHERE.get(kind, ()):
                yield manifest.problem(path, f"no {kind} has this name: add it, or name one of "
                                       f"{', '.join(sorted(known)) or 'none that there are'}")


def _named(tree: Any, path: str) -> Iterator[tuple[str, str, str]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        if key in _REFERENCES and isinstance(value, dict):
            kind, field = _REFERENCES[key]
            yield f"{path}{key}.{field}", kind, str(value.get(field))
        elif key == "serviceAccountName":
            yield f"{path}{key}", "ServiceAccount", str(value)
        elif key == "authOptions" and isinstance(value, dict) and "secretName" in value:
            yield f"{path}{key}.secretName", "Secret", str(value["secretName"])
        else:
            yield from _named(value, f"{path}{key}.")


def config_fits(manifests: list[Manifest]) -> Iterator[Problem]:
    """A config that is mounted is sound, and fits what the cluster may grow to and the driver can reach."""
    for manifest in manifests:
        text = manifest.at("data", {}).get("config.yaml") if manifest.kind == "ConfigMap" else None
        if text is None:
            continue
        try:
            config = parse(yaml.safe_load(text), manifest.name)
        except (ConfigError, yaml.YAMLError) as error:
            yield Problem(str(manifest), "data.config.yaml", text.splitlines()[0], str(error))
            continue
        for ray in manifests:
            if isinstance(ray, RayManifest) and "config.yaml" in ray.at(f"{ray.job}.entrypoint", ""):
                yield from _reachable(manifest, config, ray)
                yield from _enough(manifest, config, ray)


def _reachable(manifest: Manifest, config: Config, ray: RayManifest) -> Iterator[Problem]:
    mounts = [PurePosixPath(mount["mountPath"]) for group in ray.workers()
              for mount in ray.at(f"{group}.template.spec.containers.0.volumeMounts", [])]
    places = {"storage": config.storage, "teacher.model": config.teacher.model,
              **{f"student {name}: model": student.model for name, student in config.family.items()},
              **{f"data.{name}": place for name, place in config.data.places.items()}}
    for name, place in places.items():
        local = place and "://" not in place and place.startswith(("/", "~", "./", "../"))
        if local and not any(PurePosixPath(str(place)).is_relative_to(mount) for mount in mounts):
            shown = ", ".join(sorted({str(mount) for mount in mounts})) or "nothing"
            yield Problem(str(manifest), f"data.config.yaml: {name}", place, "no pod has this path "
                          f"(they mount {shown}): give a URI, or a path below a mount")


def _enough(manifest: Manifest, config: Config, ray: RayManifest) -> Iterator[Problem]:
    """More than the cluster can ever have, or on other nodes than it has, is refused before anything starts."""
    for need in needs(config):
        groups = [group for group in ray.workers() if need.labels.items() <= ray.at(f"{group}.labels", {}).items()]
        if not groups:
            yield Problem(str(manifest), f"data.config.yaml: {need.origin.rpartition('.')[0]}.labels", need.labels,
                          f"no worker group of {ray} has these labels: give them to one, or leave them out")
            continue
        room = sum(_places(ray, group, need.each) for group in groups)
        if room < need.count:
            wanted = " and ".join(f"{amount:g} {name}" for name, amount in need.each.items() if amount)
            yield Problem(str(manifest), f"data.config.yaml: {need.origin}", need.count, f"each needs {wanted}, and "
                          f"{ray} can grow to {room} such places: lower it, raise "
                          f"{'maxReplicas' if ray.autoscales else 'replicas'}, or render with the component gpu")


def _places(ray: RayManifest, group: str, each: dict[str, float]) -> int:
    """How many processes that need `each` a group has room for when it has grown."""
    limits = ray.at(f"{group}.template.spec.containers.0.resources.limits", {})
    has = {"CPU": cpus(str(ray.at(f"{group}.resources", {}).get("CPU", limits.get("cpu", 0)))),
           "GPU": float(limits.get("nvidia.com/gpu", 0))}
    size = ray.at(f"{group}.maxReplicas", 2**31 - 1) if ray.autoscales else ray.at(f"{group}.replicas", 0)
    return size * min(int(has[name] // amount) for name, amount in each.items() if amount)


def cpus(quantity: str) -> float:
    """CPUs of a quantity, such as 2 or 500m."""
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def services(manifests: list[Manifest]) -> Iterator[Problem]:
    """No two documents of a namespace own a service of one name: each would take it from the other, again and again."""
    owners: dict[tuple[Any, str], Manifest] = {}
    for manifest in manifests:
        for service in _services(manifest):
            place = (manifest.at("metadata.namespace"), service)
            other = owners.setdefault(place, manifest)
            if str(other) != str(manifest):
                yield manifest.problem("metadata.name", f"{other} has the service {service} already: give one of the "
                                       "two another name (kdray k8s render --name)")


def _services(manifest: Manifest) -> Iterator[str]:
    """Names of the services that a document is, or that the operator makes of it (utils/util.go)."""
    if manifest.kind == "Service":
        yield manifest.name
    if isinstance(manifest, RayManifest) and manifest.kind != "RayCronJob":
        yield f"{manifest.name}-head-svc"
        if manifest.kind == "RayService":
            yield f"{manifest.name}-serve-svc"


def rights(manifests: list[Manifest]) -> Iterator[Problem]:
    """A right is given to an account where that is made."""
    accounts = {one.name: one.at("metadata.namespace") for one in manifests if one.kind == "ServiceAccount"}
    for manifest in manifests:
        for place, subject in enumerate(manifest.at("subjects", []) if manifest.kind == "RoleBinding" else []):
            if subject.get("namespace") != accounts.get(subject.get("name"), subject.get("namespace")):
                yield manifest.problem(f"subjects.{place}.namespace", "the account is made in another namespace, "
                                       "whichever kubectl is set to: name it with --namespace")


RULES: tuple[Callable[[list[Manifest]], Iterator[Problem]], ...] = (references, config_fits, services, rights)

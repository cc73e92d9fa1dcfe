"""Documents of one render become what does not fit among them: names without a bearer, work without room.

Knows nothing about a document alone.
"""

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

import yaml

from kdray.config import Config, parse
from kdray.errors import ConfigError
from kdray.kubernetes.problem import Manifest, Problem, RayManifest

ELSEWHERE = {"Secret": {"kdray-auth", "kdray-api-keys", "kdray-redis", "kdray-s3"}}
"""What is made apart from the manifests that name it: by the overlay `secrets`, or by hand."""
_REFERENCES = {"secretKeyRef": ("Secret", "name"), "secretRef": ("Secret", "name"), "configMap": ("ConfigMap", "name"),
               "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName")}


def references(manifests: list[Manifest]) -> Iterator[Problem]:
    """Whatever a document names is there."""
    there = {kind: set(names) for kind, names in ELSEWHERE.items()}
    for manifest in manifests:
        there.setdefault(manifest.kind, set()).add(manifest.name)
    for manifest in manifests:
        for path, kind, name in _named(manifest.body, ""):
            if name not in there.get(kind, set()):
                yield manifest.problem(path, f"no {kind} has this name: add it, or name one of "
                                       f"{', '.join(sorted(there.get(kind, set()))) or 'none that there are'}")


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
            if isinstance(ray, RayManifest) and ray.job:
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
    teacher, students = config.teacher, config.training
    wanted = {"teacher.actors": (teacher.min_actors or teacher.actors, teacher.num_gpus, teacher.labels),
              "training.workers": (students.workers, students.num_gpus, students.labels)}
    if teacher.finetune:
        tuning = teacher.finetune
        wanted["teacher.finetune.workers"] = (tuning.workers, tuning.num_gpus, tuning.labels)
    for name, (count, each, labels) in wanted.items():
        groups = [group for group in ray.workers() if labels.items() <= ray.at(f"{group}.labels", {}).items()]
        if not groups:
            yield Problem(str(manifest), f"data.config.yaml: {name.rpartition('.')[0]}.labels", labels,
                          f"no worker group of {ray} has these labels: give them to one, or leave them out")
            continue
        room = sum(_places(ray, group, each) for group in groups) if each else count
        if room < count:
            yield Problem(str(manifest), f"data.config.yaml: {name}", count, f"each needs {each:g} GPU, "
                          f"and {ray} can grow to {room} such places: lower it, raise maxReplicas, or "
                          "render with the component gpu")


def _places(ray: RayManifest, group: str, gpus: float) -> int:
    """How many processes with `gpus` each a group has room for when it has grown."""
    size = ray.at(f"{group}.maxReplicas" if ray.autoscales else f"{group}.replicas", 0)
    limits = ray.at(f"{group}.template.spec.containers.0.resources.limits", {})
    return size * int(float(limits.get("nvidia.com/gpu", 0)) // gpus)


RULES: tuple[Callable[[list[Manifest]], Iterator[Problem]], ...] = (references, config_fits)

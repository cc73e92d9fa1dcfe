"""What a cluster would accept, and a user regret: rules of this project's own.

One function a rule; each knows one document, or all of a render. Knows nothing about schemas.
"""

import json
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import Any

import yaml

from kdray.config import Config, parse
from kdray.errors import ConfigError
from kdray.kubernetes.problem import Manifest, Problem, RayManifest
from kdray.kubernetes.render import RANDOM, RUN

ELSEWHERE = {"Secret": {"kdray-auth", "kdray-api-keys", "kdray-redis", "kdray-s3"}}
"""What is made apart from the manifests that name it: by the overlay `secrets`, or by hand."""
_RUNTIME = {"working_dir", "py_modules", "py_executable", "excludes", "pip", "uv", "conda", "env_vars", "config",
            "container", "image_uri", "worker_process_setup_hook", "nsight", "mpi", "java_jars"}
_REFERENCES = {"secretKeyRef": ("Secret", "name"), "secretRef": ("Secret", "name"), "configMap": ("ConfigMap", "name"),
               "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName")}
Rule = Callable[[RayManifest], Iterator[Problem]]


def authentication(manifest: RayManifest) -> Iterator[Problem]:
    """A cluster without a token runs anybody's code."""
    path = f"{manifest.cluster}.authOptions.mode"
    if manifest.at(manifest.cluster) and manifest.at(path) != "token":
        yield manifest.problem(path, "whoever reaches the dashboard could run code: write `mode: token`, which is not "
                               "the default")


def ray_version(manifest: RayManifest) -> Iterator[Problem]:
    """The operator is told the version that the image holds."""
    path, here = f"{manifest.cluster}.rayVersion", version("ray")
    if manifest.at(manifest.cluster) and manifest.at(path) != here:
        yield manifest.problem(path, f"kdray runs on Ray {here}, and all nodes need the same: write that")


def images(manifest: RayManifest) -> Iterator[Problem]:
    """Every node runs the same image."""
    for path, container in _containers(manifest):
        image = str(container.get("image", ""))
        if "@" not in image and (":" not in image.rpartition("/")[2] or image.endswith(":latest")):
            yield manifest.problem(f"{path}.image", "may be another image on each node: name a tag other than latest, or "
                                   "a digest")


def limits(manifest: RayManifest) -> Iterator[Problem]:
    """Ray counts a pod's CPUs and memory from its limits, the scheduler from its requests."""
    for path, container in _containers(manifest):
        for kind in ("requests", "limits"):
            for name in ("cpu", "memory"):
                if name not in container.get("resources", {}).get(kind, {}):
                    yield manifest.problem(f"{path}.resources.{kind}.{name}", "the scheduler and Ray need to know: give "
                                           "requests and limits of cpu and memory")
        given = container.get("resources", {})
        if given.get("requests", {}).get("memory") != given.get("limits", {}).get("memory") and ".groupSpecs" in path:
            yield manifest.problem(f"{path}.resources", "Ray plans with the limit: request as much memory")


def probes(manifest: RayManifest) -> Iterator[Problem]:
    """A Ray node that hangs is found by its probes."""
    for group in manifest.groups():
        for probe in ("livenessProbe", "readinessProbe"):
            path = f"{group}.template.spec.containers.0.{probe}"
            if not manifest.at(path):
                yield manifest.problem(path, "a node that hangs would never be replaced: add one")


def confinement(manifest: RayManifest) -> Iterator[Problem]:
    """Nothing runs as root."""
    for path, pod in _pods(manifest):
        if pod.get("securityContext", {}).get("runAsNonRoot") is not True:
            yield manifest.problem(f"{path}.securityContext.runAsNonRoot", "containers could run as root: write true")
    for path, container in _containers(manifest):
        if container.get("securityContext", {}).get("allowPrivilegeEscalation") is not False:
            yield manifest.problem(f"{path}.securityContext.allowPrivilegeEscalation", "a process could gain rights: "
                                   "write false")


def mounts(manifest: RayManifest) -> Iterator[Problem]:
    """Every mount has its volume."""
    for path, pod in _pods(manifest):
        volumes = {volume.get("name") for volume in pod.get("volumes", [])}
        for place, container in enumerate(pod.get("containers", [])):
            for number, mount in enumerate(container.get("volumeMounts", [])):
                if mount.get("name") not in volumes:
                    yield manifest.problem(f"{path}.containers.{place}.volumeMounts.{number}.name",
                                           f"the pod has no such volume, only {', '.join(sorted(map(str, volumes)))}")


def groups(manifest: RayManifest) -> Iterator[Problem]:
    """Worker groups have names of their own, and sizes within their bounds."""
    seen: set[str] = set()
    for group in manifest.workers():
        title = str(manifest.at(f"{group}.groupName"))
        if title in seen:
            yield manifest.problem(f"{group}.groupName", "another group has this name: choose a new one")
        seen.add(title)
        low, size, high = (manifest.at(f"{group}.{field}", 0) for field in ("minReplicas", "replicas", "maxReplicas"))
        if not low <= size <= high:
            yield manifest.problem(f"{group}.replicas", f"must lie within minReplicas {low} and maxReplicas {high}")


def entrypoint(manifest: RayManifest) -> Iterator[Problem]:
    """A job's driver has a node to run on, and knows its run."""
    if manifest.job is None:
        return
    if RUN in manifest.at(f"{manifest.job}.entrypoint", "").split():
        yield manifest.problem(f"{manifest.job}.entrypoint", "RUN stands for a run's folder or URI: put it there (kdray "
                               "k8s render --run)")
    path = f"{manifest.job}.entrypointResources"
    try:
        wanted = json.loads(manifest.at(path, "{}"))
    except ValueError:
        yield manifest.problem(path, "not JSON: write it as in '{\"driver\": 1}'")
        return
    offers = [manifest.at(f"{group}.resources", {}) for group in manifest.groups()]
    for name, amount in wanted.items():
        if not any(float(offer.get(name, 0)) >= amount for offer in offers):
            yield manifest.problem(path, f"no group has {amount:g} {name}, so the job would wait for ever: add it to "
                                   "`resources` of a group")


def runtime_keys(manifest: RayManifest) -> Iterator[Problem]:
    """Ray warns of unknown fields in a runtime environment, and goes on without them."""
    if manifest.job is None:
        return
    path = f"{manifest.job}.runtimeEnvYAML"
    try:
        fields = yaml.safe_load(manifest.at(path, "{}"))
    except yaml.YAMLError:
        return
    for name in (set(fields) if isinstance(fields, dict) else set()) - _RUNTIME:
        yield manifest.problem(path, f"Ray ignores {name!r}; known are {', '.join(sorted(_RUNTIME))}")


def disruption(manifest: Manifest) -> Iterator[Problem]:
    """Pods that Ray owns can only be counted."""
    if manifest.kind == "PodDisruptionBudget" and (
            not isinstance(manifest.at("spec.minAvailable"), int) or manifest.at("spec.maxUnavailable") is not None):
        yield manifest.problem("spec.minAvailable", "for pods of a RayCluster only a whole number of minAvailable works: "
                               "write that alone")


def secret_values(manifest: Manifest) -> Iterator[Problem]:
    """No Secret holds what everybody can guess."""
    if manifest.kind == "Secret":
        for key, value in manifest.at("stringData", {}).items():
            if RANDOM in str(value) or len(str(value)) < 16:
                yield Problem(f"Secret/{manifest.name}", f"stringData.{key}", "(hidden)", "anybody could guess it: render "
                              "the overlay with `kdray k8s render`, or put 16 characters or more there")


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
            yield Problem(f"ConfigMap/{manifest.name}", "data.config.yaml", text.splitlines()[0], str(error))
            continue
        for ray in manifests:
            if isinstance(ray, RayManifest) and ray.job:
                yield from _reachable(manifest, config, ray)
                yield from _enough(manifest, config, ray)


def _reachable(manifest: Manifest, config: Config, ray: RayManifest) -> Iterator[Problem]:
    mounts = [PurePosixPath(mount["mountPath"]) for group in ray.workers()
              for mount in ray.at(f"{group}.template.spec.containers.0.volumeMounts", [])]
    places = {"storage": config.storage, "teacher.model": config.teacher.model, "student.model": config.student.model,
              **{f"data.{name}": getattr(config.data, name) for name in ("source", "train", "validation", "test")}}
    for name, place in places.items():
        local = place and "://" not in place and place.startswith(("/", "~", "./", "../"))
        if local and not any(PurePosixPath(str(place)).is_relative_to(mount) for mount in mounts):
            shown = ", ".join(sorted({str(mount) for mount in mounts})) or "nothing"
            yield Problem(f"ConfigMap/{manifest.name}", f"data.config.yaml: {name}", place, "no pod has this path (they "
                          f"mount {shown}): give a URI, or a path below a mount")


def _enough(manifest: Manifest, config: Config, ray: RayManifest) -> Iterator[Problem]:
    """More than the cluster can ever have is refused before anything starts."""
    sizes = [(ray.at(f"{group}.maxReplicas" if ray.autoscales else f"{group}.replicas", 0),
              ray.at(f"{group}.template.spec.containers.0.resources.limits", {})) for group in ray.workers()]
    wanted = {"teacher.actors": (config.teacher.min_actors or config.teacher.actors, config.teacher.num_gpus),
              "training.workers": (config.training.workers, config.training.num_gpus)}
    for name, (count, each) in wanted.items():
        room = sum(size * int(float(limit.get("nvidia.com/gpu", 0)) // each) for size, limit in sizes) if each else count
        if room < count:
            yield Problem(f"ConfigMap/{manifest.name}", f"data.config.yaml: {name}", count, f"each needs {each:g} GPU, and "
                          f"{ray.kind}/{ray.name} can grow to {room} such places: lower it, raise maxReplicas, or render "
                          "with the component gpu")


def _pods(manifest: RayManifest) -> Iterator[tuple[str, dict[str, Any]]]:
    templates = [*(f"{group}.template" for group in manifest.groups()), f"{manifest.job}.submitterPodTemplate",
                 "spec.template"]
    for template in templates:
        if pod := manifest.at(f"{template}.spec"):
            yield f"{template}.spec", pod


def _containers(manifest: RayManifest) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, pod in _pods(manifest):
        for kind in ("containers", "initContainers"):
            for place, container in enumerate(pod.get(kind, [])):
                yield f"{path}.{kind}.{place}", container


RAY_RULES: tuple[Rule, ...] = (authentication, ray_version, images, limits, probes, confinement, mounts, groups,
                               entrypoint, runtime_keys)
OTHER_RULES: tuple[Callable[[Manifest], Iterator[Problem]], ...] = (disruption, secret_values)
RENDER_RULES: tuple[Callable[[list[Manifest]], Iterator[Problem]], ...] = (references, config_fits)

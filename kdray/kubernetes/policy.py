"""What a cluster would accept, and a user regret: rules of this project's own.

One function a rule; each knows one document. Knows nothing about schemas.
"""

import json
import shlex
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

from kdray.kubernetes.problem import Manifest, Problem, RayManifest
from kdray.kubernetes.render import RANDOM, RUN

_RUNTIME = {"working_dir", "py_modules", "py_executable", "excludes", "pip", "uv", "conda", "env_vars", "config",
            "container", "image_uri", "worker_process_setup_hook", "nsight", "mpi", "java_jars"}


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


def images(manifest: Manifest) -> Iterator[Problem]:
    """Every node runs the same image."""
    for path, container in _containers(manifest):
        image = str(container.get("image", ""))
        if "@" not in image and (":" not in image.rpartition("/")[2] or image.endswith(":latest")):
            yield manifest.problem(f"{path}.image", "may be another image on each node: name a tag other than latest, "
                                   "or a digest")


def limits(manifest: Manifest) -> Iterator[Problem]:
    """Ray counts a pod's CPUs and memory from its limits, the scheduler from its requests."""
    for path, container in _containers(manifest):
        for kind in ("requests", "limits"):
            for name in ("cpu", "memory"):
                if name not in container.get("resources", {}).get(kind, {}):
                    yield manifest.problem(f"{path}.resources.{kind}.{name}", "the scheduler and Ray need to know: "
                                           "give requests and limits of cpu and memory")


def probes(manifest: RayManifest) -> Iterator[Problem]:
    """A Ray node that hangs is found by its probes."""
    for group in manifest.groups():
        for probe in ("livenessProbe", "readinessProbe"):
            path = f"{group}.template.spec.containers.0.{probe}"
            if not manifest.at(path):
                yield manifest.problem(path, "a node that hangs would never be replaced: add one")


def confinement(manifest: Manifest) -> Iterator[Problem]:
    """Nothing runs as root."""
    for path, pod in _pods(manifest):
        if pod.get("securityContext", {}).get("runAsNonRoot") is not True:
            yield manifest.problem(f"{path}.securityContext.runAsNonRoot", "containers could run as root: write true")
    for path, container in _containers(manifest):
        if container.get("securityContext", {}).get("allowPrivilegeEscalation") is not False:
            yield manifest.problem(f"{path}.securityContext.allowPrivilegeEscalation", "a process could gain rights: "
                                   "write false")


def mounts(manifest: Manifest) -> Iterator[Problem]:
    """Every mount has its volume."""
    for path, pod in _pods(manifest):
        volumes = {volume.get("name") for volume in pod.get("volumes", [])}
        volumes |= {claim.get("metadata", {}).get("name") for claim in manifest.at("spec.volumeClaimTemplates", [])}
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
        low, size, high = (manifest.at(f"{group}.{field}", default) for field, default in (
            ("minReplicas", 0), ("replicas", 0), ("maxReplicas", 2**31 - 1)))
        if not low <= size <= high:
            yield manifest.problem(f"{group}.replicas", f"must lie within minReplicas {low} and maxReplicas {high}")


def entrypoint(manifest: RayManifest) -> Iterator[Problem]:
    """A job's driver has a node to run on, and knows its run."""
    if RUN in manifest.at(f"{manifest.job}.entrypoint", "").split():
        yield manifest.problem(f"{manifest.job}.entrypoint", "RUN stands for a run's folder or URI: put it there "
                               "(kdray k8s render --run)")
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


def shell(manifest: RayManifest) -> Iterator[Problem]:
    """The operator pastes the entrypoint into a shell line of its own, in the pod that submits."""
    path = f"{manifest.job}.entrypoint"
    try:
        words = list(shlex.shlex(manifest.at(path, ""), posix=True, punctuation_chars=True))
    except ValueError:
        words = [";"]
    if not words or any(not set(word) - set("();<>|&") for word in words):
        yield manifest.problem(path, "must be one plain command: what follows ; & | < > would run in the pod that "
                               "submits")


def runtime_keys(manifest: RayManifest) -> Iterator[Problem]:
    """Ray warns of unknown fields in a runtime environment, and goes on without them."""
    fields = manifest.runtime_environment
    for name in (set(fields) if isinstance(fields, dict) else set()) - _RUNTIME:
        yield manifest.problem(f"{manifest.job}.runtimeEnvYAML", f"Ray ignores {name!r}; known are "
                               f"{', '.join(sorted(_RUNTIME))}")


def disruption(manifest: Manifest) -> Iterator[Problem]:
    """Pods that Ray owns can only be counted."""
    if manifest.kind == "PodDisruptionBudget" and (
            not isinstance(manifest.at("spec.minAvailable"), int) or manifest.at("spec.maxUnavailable") is not None):
        yield manifest.problem("spec.minAvailable", "for pods of a RayCluster only a whole number of minAvailable "
                               "works: write that alone")


def secret_values(manifest: Manifest) -> Iterator[Problem]:
    """No Secret holds what everybody can guess."""
    if manifest.kind == "Secret":
        for key, value in manifest.at("stringData", {}).items():
            if RANDOM in str(value) or len(str(value)) < 16:
                yield Problem(str(manifest), f"stringData.{key}", "(hidden)", "anybody could guess it: "
                              "render the overlay with `kdray k8s render`, or put 16 characters or more there")


def _pods(manifest: Manifest) -> Iterator[tuple[str, dict[str, Any]]]:
    templates = [*(f"{group}.template" for group in manifest.groups()), f"{manifest.job}.submitterPodTemplate",
                 "spec.template"]
    for template in templates:
        if pod := manifest.at(f"{template}.spec"):
            yield f"{template}.spec", pod


def _containers(manifest: Manifest) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, pod in _pods(manifest):
        for kind in ("containers", "initContainers"):
            for place, container in enumerate(pod.get(kind, [])):
                yield f"{path}.{kind}.{place}", container


RULES: tuple[Callable[[Manifest], Iterator[Problem]], ...] = (images, limits, confinement, mounts, disruption,
                                                               secret_values)
RAY_RULES: tuple[Callable[[RayManifest], Iterator[Problem]], ...] = (authentication, ray_version, probes, groups)
JOB_RULES: tuple[Callable[[RayManifest], Iterator[Problem]], ...] = (entrypoint, shell, runtime_keys)

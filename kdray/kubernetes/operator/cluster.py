"""A cluster's groups, versions and autoscaler: what the operator makes of them.

Knows nothing about the head's ports and storage, or about jobs and services.
"""

import re
from collections.abc import Callable, Iterator

from kdray.kubernetes.problem import Problem, RayManifest

_LENGTHS = {"RayCluster": 53, "RayJob": 47, "RayService": 47, "RayCronJob": 36}
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_QUANTITY = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?")
_MANAGERS = ("ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue")
_V2 = "RAY_enable_autoscaler_v2"


def name(manifest: RayManifest) -> Iterator[Problem]:
    """Names have room for what the operator appends, and are DNS labels."""
    most = _LENGTHS.get(manifest.kind)
    if most and len(manifest.name) > most:
        yield manifest.problem("metadata.name", f"{len(manifest.name)} characters are more than the {most} that the "
                               f"operator allows a {manifest.kind}: shorten it")
    if not _LABEL.fullmatch(manifest.name):
        yield manifest.problem("metadata.name", "not a DNS label: use lower-case letters, digits and '-', and begin "
                               "with a letter")


def containers(manifest: RayManifest) -> Iterator[Problem]:
    """Every group has a container."""
    for group in manifest.groups():
        if not manifest.at(f"{group}.template.spec.containers"):
            yield manifest.problem(f"{group}.template.spec.containers", "a group needs the container that runs Ray: "
                                   "add one")


def sizes(manifest: RayManifest) -> Iterator[Problem]:
    """Groups have a size that there can be."""
    for group in manifest.workers():
        for field in ("minReplicas", "maxReplicas", "idleTimeoutSeconds"):
            if manifest.at(f"{group}.{field}", 0) < 0:
                yield manifest.problem(f"{group}.{field}", "must be 0 or more")
    idle = f"{manifest.cluster}.autoscalerOptions.idleTimeoutSeconds"
    if manifest.at(idle, 0) < 0:
        yield manifest.problem(idle, "must be 0 or more")


def resources(manifest: RayManifest) -> Iterator[Problem]:
    """A group's resources are said in one place, in quantities (common/pod.go drops others without a word)."""
    for group in manifest.groups():
        parameters, said = manifest.at(f"{group}.rayStartParams", {}), manifest.at(f"{group}.resources", {})
        both = {"num-cpus", "num-gpus", "memory", "resources"} & parameters.keys()
        if both and said:
            yield manifest.problem(f"{group}.rayStartParams", f"{', '.join(sorted(both))} stand beside `resources` of "
                                   "the group: keep one of the two")
        for title, amount in said.items():
            if not _QUANTITY.fullmatch(str(amount)):
                yield manifest.problem(f"{group}.resources.{title}", "no quantity, so the operator would leave it "
                                       "out: write a number such as '1' or '500m'")


def labels(manifest: RayManifest) -> Iterator[Problem]:
    """Labels of Ray nodes stand in `labels`, and are Kubernetes labels."""
    for group in manifest.groups():
        if "labels" in manifest.at(f"{group}.rayStartParams", {}):
            yield manifest.problem(f"{group}.rayStartParams.labels", "not taken there: use `labels` of the group")
        for key, value in manifest.at(f"{group}.labels", {}).items():
            if not (_KEY.fullmatch(str(key)) and _VALUE.fullmatch(str(value))):
                yield Problem(str(manifest), f"{group}.labels.{key}", value, "not a Kubernetes label: at most 63 "
                              "letters, digits, '-', '_' and '.', with a letter or digit at both ends")


def tokens(manifest: RayManifest) -> Iterator[Problem]:
    """Token authentication needs a Ray that knows it, and not the kind that RayJob and RayService cannot take."""
    options, version = f"{manifest.cluster}.authOptions", f"{manifest.cluster}.rayVersion"
    token, kubernetes = manifest.at(f"{options}.mode") == "token", manifest.at(f"{options}.enableK8sTokenAuth")
    if token and not manifest.ray_since(2, 52):
        yield manifest.problem(version, "token authentication needs the version to be given, and 2.52.0 or newer")
    if not kubernetes:
        return
    path = f"{options}.enableK8sTokenAuth"
    if manifest.kind != "RayCluster":
        yield manifest.problem(path, f"a {manifest.kind} does not take tokens of Kubernetes: leave it out")
    if not token:
        yield manifest.problem(path, "takes effect with mode: token only: write that")
    if not manifest.ray_since(2, 55):
        yield manifest.problem(version, "tokens of Kubernetes need the version to be given, and 2.55.0 or newer")
    if manifest.at(f"{options}.secretName"):
        yield manifest.problem(f"{options}.secretName", "stands beside enableK8sTokenAuth: keep one of the two")


def autoscaler(manifest: RayManifest) -> Iterator[Problem]:
    """What the autoscaler forbids."""
    head, options = f"{manifest.cluster}.headGroupSpec", f"{manifest.cluster}.autoscalerOptions"
    variable, version = _variable(manifest), manifest.at(f"{options}.version")
    if any(item.get("name") == "KUBERAY_GEN_AUTOSCALER_START_CMD" for item in manifest.at(f"{options}.env", [])):
        yield manifest.problem(f"{options}.env", "KUBERAY_GEN_AUTOSCALER_START_CMD is the operator's own: leave it out")
    if not manifest.autoscales:
        if variable in ("1", "true"):
            yield manifest.problem(f"{head}.template.spec.containers.0.env", f"{_V2} is set, but "
                                   "enableInTreeAutoscaling is not: set that too, or neither")
        return
    if version and variable is not None:
        yield manifest.problem(f"{head}.template.spec.containers.0.env", f"{_V2} stands beside "
                               "autoscalerOptions.version: keep the latter")
    for group in manifest.groups():
        if version == "v2" and manifest.at(f"{group}.template.spec.restartPolicy", "Never") != "Never":
            yield manifest.problem(f"{group}.template.spec.restartPolicy", "autoscaler v2 replaces pods itself: write "
                                   "Never, or leave it out")
        if manifest.at(f"{group}.suspend"):
            yield manifest.problem(f"{group}.suspend", "a group that autoscales cannot be suspended: leave it out")


def second_autoscaler(manifest: RayManifest) -> Iterator[Problem]:
    """What only autoscaler v2 can do."""
    v2 = (manifest.at(f"{manifest.cluster}.autoscalerOptions.version") == "v2"
          or _variable(manifest) in ("1", "true"))
    for group in manifest.workers():
        if manifest.at(f"{group}.idleTimeoutSeconds") is not None and not v2:
            yield manifest.problem(f"{group}.idleTimeoutSeconds", "only autoscaler v2 knows it: write "
                                   "autoscalerOptions.version: v2")
        if manifest.at(f"{group}.priority", 0) and not (v2 and manifest.ray_since(2, 56)):
            yield manifest.problem(f"{group}.priority", "only autoscaler v2 of Ray 2.56.0 or newer knows it: give "
                                   "rayVersion, and autoscalerOptions.version: v2")


def upgrade(manifest: RayManifest) -> Iterator[Problem]:
    """Only a RayCluster that nobody else owns is upgraded in place."""
    path = f"{manifest.cluster}.upgradeStrategy"
    if manifest.kind != "RayCluster" and manifest.at(f"{path}.type"):
        yield manifest.problem(path, f"not taken in the cluster of a {manifest.kind}: leave it out")


def manager(manifest: RayManifest) -> Iterator[Problem]:
    """Who acts on a document (a CEL rule of the CRDs)."""
    for path in filter(None, dict.fromkeys(("spec", manifest.job, manifest.cluster))):
        found = manifest.at(f"{path}.managedBy")
        if found is not None and found not in _MANAGERS:
            yield manifest.problem(f"{path}.managedBy", f"nobody else acts on it: write {' or '.join(_MANAGERS)}")


def _variable(manifest: RayManifest) -> str | None:
    """What the head's environment says of autoscaler v2; None where it says nothing."""
    item = manifest.environment(f"{manifest.cluster}.headGroupSpec").get(_V2)
    return None if item is None else str(item.get("value", ""))


RULES: tuple[Callable[[RayManifest], Iterator[Problem]], ...] = (
    name, containers, sizes, resources, labels, tokens, autoscaler, second_autoscaler, upgrade, manager)

"""A head's ports, labels and storage: what the operator finds it by, and where it keeps what it knows.

Knows nothing about worker groups.
"""

from collections.abc import Callable, Iterator
from typing import Any

from kdray.kubernetes.problem import Problem, RayManifest

_SELECTED = {"app.kubernetes.io/name": "kuberay", "app.kubernetes.io/created-by": "kuberay-operator"}
_ROCKSDB = {"RAY_gcs_storage", "RAY_gcs_storage_path"}
_VOLUME, _MOUNT = "gcs-storage", "/data/gcs"


def ports(manifest: RayManifest) -> Iterator[Problem]:
    """Ports that are declared take the place of all defaults; services are made of them (common/service.go)."""
    path = f"{manifest.cluster}.headGroupSpec.template.spec.containers.0.ports"
    service = manifest.at(f"{manifest.cluster}.headGroupSpec.headService.spec.ports", [])
    names = {port.get("name") for port in manifest.at(path, [])}
    if not names or manifest.kind == "RayCluster":
        return
    if "dashboard" not in names | {port.get("name") for port in service}:
        yield manifest.problem(path, "declared ports replace all defaults, and the operator asks the one called "
                               "dashboard: add {name: dashboard, containerPort: 8265}")
    own = manifest.at("spec.serveService") and not manifest.incremental
    if manifest.kind == "RayService" and not own and not any(_serves(str(port)) for port in names):
        yield manifest.problem(path, "declared ports replace all defaults, and without one called serve no service is "
                               "made: add {name: serve, containerPort: 8000}, where nothing has to listen")


def _serves(port: str) -> bool:
    return port == "serve" or port.startswith("serve-")


def selected(manifest: RayManifest) -> Iterator[Problem]:
    """Services of heads select by labels that a template can override (common/service.go, common/pod.go)."""
    head = f"{manifest.cluster}.headGroupSpec"
    for path in (f"{head}.template.metadata.labels", f"{head}.labels"):
        found = manifest.at(path, {})
        for key in found.keys() & {*_SELECTED, "ray.io/identifier"}:
            if found[key] != _SELECTED.get(key):
                yield Problem(str(manifest), f"{path}.{key}", found[key], "the operator's services select heads by its "
                              "own value, and would be empty: leave it out (app.kubernetes.io/part-of is free)")


def fault_tolerance(manifest: RayManifest) -> Iterator[Problem]:
    """What the head keeps elsewhere is configured by gcsFaultToleranceOptions alone."""
    head = f"{manifest.cluster}.headGroupSpec"
    environment, parameters = manifest.environment(head), manifest.at(f"{head}.rayStartParams", {})
    options, annotations = manifest.at(f"{manifest.cluster}.gcsFaultToleranceOptions"), manifest.annotations
    tolerant = options is not None or annotations.get("ray.io/ft-enabled", "").lower() == "true"
    for variable in ("REDIS_PASSWORD", "RAY_REDIS_ADDRESS"):
        if variable in environment and (options is not None or (variable == "RAY_REDIS_ADDRESS" and not tolerant)):
            yield manifest.problem(f"{head}.template.spec.containers.0.env", f"{variable} is set: say it in "
                                   "gcsFaultToleranceOptions")
    if options is not None and parameters.get("redis-password"):
        yield manifest.problem(f"{head}.rayStartParams.redis-password", "use gcsFaultToleranceOptions.redisPassword")
    if parameters.get("redis-username") or "REDIS_USERNAME" in environment:
        yield manifest.problem(f"{head}.rayStartParams", "a Redis user is set: use "
                               "gcsFaultToleranceOptions.redisUsername")
    for annotation in ("ray.io/ft-enabled", "ray.io/external-storage-namespace"):
        if options is not None and annotations.get(annotation):
            yield manifest.problem("metadata.annotations", f"{annotation} stands beside gcsFaultToleranceOptions: "
                                   "leave it out")


def backend(manifest: RayManifest) -> Iterator[Problem]:
    """Redis and RocksDB each have fields of their own."""
    path = f"{manifest.cluster}.gcsFaultToleranceOptions"
    options = manifest.at(path, {})
    if options.get("backend", "redis") == "redis":
        if options.get("storage") is not None:
            yield manifest.problem(f"{path}.storage", "belongs to the backend rocksdb: leave it out")
        return
    for field in ("redisAddress", "redisUsername", "redisPassword", "externalStorageNamespace"):
        if options.get(field):
            yield manifest.problem(f"{path}.{field}", "belongs to the backend redis: leave it out")
    storage = options.get("storage") or {}
    if storage.get("claimName") and storage.keys() & {"size", "storageClassName", "accessModes"}:
        yield manifest.problem(f"{path}.storage", "a claim that there is has its size, class and modes: give claimName "
                               "or these")
    yield from _managed(manifest, f"{manifest.cluster}.headGroupSpec")


def _managed(manifest: RayManifest, head: str) -> Iterator[Problem]:
    """What the operator adds to the head itself where RocksDB is the backend."""
    if _ROCKSDB & manifest.environment(head).keys():
        yield manifest.problem(f"{head}.template.spec.containers.0.env", f"{', '.join(sorted(_ROCKSDB))} are the "
                               "operator's own: leave them out")
    pod = f"{head}.template.spec"
    mounts: list[Any] = manifest.at(f"{pod}.containers.0.volumeMounts", [])
    if any(mount.get("name") == _VOLUME or mount.get("mountPath") == _MOUNT for mount in mounts) or any(
            volume.get("name") == _VOLUME for volume in manifest.at(f"{pod}.volumes", [])):
        yield manifest.problem(f"{pod}.volumes", f"{_VOLUME} at {_MOUNT} is the operator's own: leave it out")


RULES: tuple[Callable[[RayManifest], Iterator[Problem]], ...] = (ports, selected, fault_tolerance, backend)

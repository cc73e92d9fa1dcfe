"""Features that an operator has only where somebody switched them on.

Nothing in a document tells: whoever renders or checks says which gates are on.
"""

from collections.abc import Collection, Iterator

from kdray.kubernetes.problem import Problem, RayManifest

_OFF = {"networkPolicy": "RayClusterNetworkPolicy", "tlsOptions": "RayClusterMTLS",
        "historyServerOptions": "RayClusterHistoryServer"}
"""Fields of a cluster, and the gates that are off in KubeRay 1.7 by default (pkg/features/features.go)."""
GATES = (*_OFF.values(), "GCSFaultToleranceEmbeddedStorage", "RayCronJob")


def gates(manifest: RayManifest, on: Collection[str]) -> Iterator[Problem]:
    """What needs a gate that is not `on`."""
    wanted = {f"{manifest.cluster}.{field}": gate for field, gate in _OFF.items()}
    backend = f"{manifest.cluster}.gcsFaultToleranceOptions.backend"
    if manifest.at(backend) == "rocksdb":
        wanted[backend] = "GCSFaultToleranceEmbeddedStorage"
    if manifest.kind == "RayCronJob":
        wanted["kind"] = "RayCronJob"
    for path, gate in wanted.items():
        if manifest.at(path) is not None and gate not in on:
            yield manifest.problem(path, f"the operator knows this only with its feature gate {gate}, off by default: "
                                   f"switch it on (--feature-gates={gate}=true), and say so with --gate {gate}")

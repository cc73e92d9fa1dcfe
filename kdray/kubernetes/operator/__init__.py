"""What KubeRay's operator refuses, ignores or trips over although its CRDs allow it.

One function a rule; each knows one document. (KubeRay 1.7, ray-operator/controllers/ray: utils/validation.go where a
rule says no other file.)
"""

from collections.abc import Callable, Iterator

from kdray.kubernetes.operator import cluster, deletion, head, job, schedule, service
from kdray.kubernetes.problem import Problem, RayManifest

_Rules = tuple[Callable[[RayManifest], Iterator[Problem]], ...]
_JOB: _Rules = (*job.RULES, *deletion.RULES)
ALL: _Rules = (*cluster.RULES, *head.RULES)
OF_KIND: dict[str, _Rules] = {"RayJob": _JOB, "RayCronJob": (*_JOB, *schedule.RULES), "RayService": service.RULES}


def rules_of(manifest: RayManifest) -> _Rules:
    """Those that are about a document of its kind."""
    return *ALL, *OF_KIND.get(manifest.kind, ())

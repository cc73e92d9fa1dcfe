"""What KubeRay's operator refuses, ignores or trips over although its CRDs allow it.

One function a rule; each knows one document. (KubeRay 1.7, ray-operator/controllers/ray: utils/validation.go where a
rule says no other file.)
"""

from collections.abc import Callable, Iterator

from kdray.kubernetes.operator import cluster, deletion, head, job, schedule, service
from kdray.kubernetes.problem import Problem, RayManifest

RULES: tuple[Callable[[RayManifest], Iterator[Problem]], ...] = (
    *cluster.RULES, *head.RULES, *job.RULES, *deletion.RULES, *schedule.RULES, *service.RULES)

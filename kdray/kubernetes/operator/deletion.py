"""What becomes of a job's cluster, and of the job, when it has ended."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from kdray.kubernetes.problem import Problem, RayManifest

_ORDER = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")


def ending(manifest: RayManifest) -> Iterator[Problem]:
    """What becomes of a job's cluster is said once."""
    job = manifest.job
    ttl = manifest.at(f"{job}.ttlSecondsAfterFinished", 0)
    if ttl < 0:
        yield manifest.problem(f"{job}.ttlSecondsAfterFinished", "must be 0 or more")
    if ttl > 0 and not manifest.shuts:
        yield manifest.problem(f"{job}.ttlSecondsAfterFinished", "the cluster never shuts down: set "
                               "shutdownAfterJobFinishes: true, or leave this out")
    if manifest.at(f"{job}.suspend") and not manifest.shuts:
        yield manifest.problem(f"{job}.suspend", "only a job with shutdownAfterJobFinishes: true can be suspended")


def strategy(manifest: RayManifest) -> Iterator[Problem]:
    """A deletion strategy is one of two kinds, and fits the job."""
    path = f"{manifest.job}.deletionStrategy"
    found = manifest.at(path)
    if found is None:
        return
    rules = found.get("deletionRules") or []
    old = [field for field in ("onSuccess", "onFailure") if field in found]
    if rules and manifest.shuts:
        yield manifest.problem(f"{path}.deletionRules", "excludes shutdownAfterJobFinishes: keep one of the two")
    if bool(rules) == bool(old) or len(old) == 1:
        yield manifest.problem(path, "give deletionRules, or both onSuccess and onFailure")
    policies = {f"deletionRules.{place}": rule.get("policy") for place, rule in enumerate(rules)}
    policies |= {field: found[field].get("policy") for field in old}
    for place, policy in policies.items():
        yield from _fits(manifest, f"{path}.{place}.policy", policy)


def _fits(manifest: RayManifest, path: str, policy: str | None) -> Iterator[Problem]:
    if policy is None:
        yield manifest.problem(path, f"says nothing of what to delete: write {', '.join(_ORDER)} or DeleteNone")
    if policy == "DeleteWorkers" and manifest.autoscales:
        yield manifest.problem(path, "excludes enableInTreeAutoscaling: write DeleteCluster")
    if policy in ("DeleteWorkers", "DeleteCluster") and manifest.selects:
        yield manifest.problem(path, "the cluster is that of others (clusterSelector): write DeleteSelf or DeleteNone")
    if policy == "DeleteNone" and manifest.shuts and "deletionRules" not in path:
        yield manifest.problem(path, "excludes shutdownAfterJobFinishes: keep one of the two")


def rules(manifest: RayManifest) -> Iterator[Problem]:
    """Deletion rules have one condition each, are each said once, and delete the smaller thing first."""
    path = f"{manifest.job}.deletionStrategy.deletionRules"
    found: dict[tuple[str, str], dict[str, tuple[str, int]]] = {}
    for place, rule in enumerate(manifest.at(path, [])):
        here, condition, policy = f"{path}.{place}.condition", rule.get("condition", {}), str(rule.get("policy"))
        said = [(name, str(condition[name])) for name in ("jobStatus", "jobDeploymentStatus") if name in condition]
        if len(said) != 1:
            yield manifest.problem(here, "needs exactly one of jobStatus and jobDeploymentStatus")
            continue
        before = found.setdefault(said[0], {})
        if policy in before:
            yield manifest.problem(f"{path}.{place}", f"{policy} stands in {before[policy][0]} already: keep one")
        before.setdefault(policy, (f"rule {place}", condition.get("ttlSeconds", 0)))
    for (_, status), policies in found.items():
        yield from _in_order(manifest, path, status, policies)


def _in_order(manifest: RayManifest, path: str, status: str, policies: dict[str, Any]) -> Iterator[Problem]:
    there = [policy for policy in _ORDER if policy in policies]
    for smaller, larger in itertools.pairwise(there):
        if policies[larger][1] < policies[smaller][1]:
            yield manifest.problem(path, f"when {status}, {larger} comes after {policies[larger][1]} s and {smaller} "
                                   f"after {policies[smaller][1]} s: give the larger no less time")


RULES: tuple[Callable[[RayManifest], Iterator[Problem]], ...] = (ending, strategy, rules)

"""What is wrong with a manifest: where, what stands there, and what to do.

Knows nothing about what makes it wrong.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml


class Problem(NamedTuple):
    """One thing that a cluster would refuse, ignore or trip over."""

    document: str
    path: str
    value: Any
    remedy: str

    def __str__(self) -> str:
        shown = repr(self.value)
        shown = f"{shown[:97]}..." if len(shown) > 100 else shown
        return f"{self.document}: {self.path} = {shown}: {self.remedy}"


class Manifest:
    """A document, with the words to say what is wrong with it."""

    def __init__(self, body: dict[str, Any]):
        self.body = body
        self.kind = str(body.get("kind"))
        self.name = str((body.get("metadata") or {}).get("name"))

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def job(self) -> str | None:
        """Path of the specification of its job; None where it has none."""
        return None

    def groups(self) -> Iterator[str]:
        """Paths of its groups of Ray nodes, the head's first."""
        yield from ()

    def at(self, path: str, default: Any = None) -> Any:
        """What is at a dotted path; `default` where there is nothing."""
        found: Any = self.body
        for part in path.split("."):
            try:
                found = found[int(part)] if isinstance(found, list) else found[part]
            except (KeyError, IndexError, TypeError, ValueError):
                return default
        return default if found is None else found

    def problem(self, path: str, remedy: str) -> Problem:
        """The Problem of what is at `path`."""
        return Problem(str(self), path, self.at(path), remedy)


class RayManifest(Manifest):
    """A document of a Ray kind: where its job and its cluster are."""

    _CLUSTERS = {"RayCluster": "spec", "RayJob": "spec.rayClusterSpec", "RayService": "spec.rayClusterConfig",
                 "RayCronJob": "spec.jobTemplate.rayClusterSpec"}
    _JOBS = {"RayJob": "spec", "RayCronJob": "spec.jobTemplate"}

    @staticmethod
    def is_one(body: dict[str, Any]) -> bool:
        """Whether a document is of a Ray kind."""
        return str(body.get("apiVersion")).startswith("ray.io/")

    @property
    def cluster(self) -> str:
        """Path of the specification of its cluster."""
        return self._CLUSTERS.get(self.kind, "spec")

    @property
    def job(self) -> str | None:
        """Path of the specification of its job; None where it has none."""
        return self._JOBS.get(self.kind)

    @property
    def runtime_environment(self) -> Any:
        """What is in the YAML of its job's runtime environment, if anything; empty text where that is no YAML."""
        try:
            return yaml.safe_load(self.at(f"{self.job}.runtimeEnvYAML", ""))
        except yaml.YAMLError:
            return ""

    @property
    def autoscales(self) -> bool:
        """Whether Ray adds and removes workers."""
        return self.at(f"{self.cluster}.enableInTreeAutoscaling") is True

    @property
    def annotations(self) -> dict[str, str]:
        """Its annotations."""
        return {str(key): str(value) for key, value in self.at("metadata.annotations", {}).items()}

    @property
    def selects(self) -> bool:
        """Whether its job runs on a cluster of others."""
        return bool(self.at(f"{self.job}.clusterSelector"))

    @property
    def shuts(self) -> bool:
        """Whether the cluster of its job goes when that has ended."""
        return self.at(f"{self.job}.shutdownAfterJobFinishes") is True

    @property
    def incremental(self) -> bool:
        """Whether it changes clusters step by step, through a Gateway."""
        return self.at("spec.upgradeStrategy.type") == "NewClusterWithIncrementalUpgrade"

    def ray_since(self, *version: int) -> bool:
        """Whether it says that its Ray is of this version, or newer."""
        found = re.match(r"(\d+)\.(\d+)", str(self.at(f"{self.cluster}.rayVersion", "")))
        return found is not None and (int(found[1]), int(found[2])) >= version

    def groups(self) -> Iterator[str]:
        """Paths of its groups, the head's first."""
        if self.at(f"{self.cluster}.headGroupSpec"):
            yield f"{self.cluster}.headGroupSpec"
        for place in range(len(self.at(f"{self.cluster}.workerGroupSpecs", []))):
            yield f"{self.cluster}.workerGroupSpecs.{place}"

    def workers(self) -> Iterator[str]:
        """Paths of its worker groups."""
        return (path for path in self.groups() if ".workerGroupSpecs." in path)

    def environment(self, group: str) -> dict[str, Any]:
        """Environment variables of a group's Ray container, by name."""
        return {item.get("name"): item for item in self.at(f"{group}.template.spec.containers.0.env", [])}

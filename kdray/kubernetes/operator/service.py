"""How a RayService starts, and how it changes clusters."""

import re
from collections.abc import Callable, Iterator

from kdray.kubernetes.problem import Problem, RayManifest

_UPGRADES = ("NewCluster", "NewClusterWithIncrementalUpgrade", "None")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_PART = r"(\d+\.?\d*|\.\d+)(h|ms|m|s|us|µs|μs|ns)"


def seconds(text: str) -> float | None:
    """A duration as Go writes it, such as 1h30m; None where it is none."""
    if text in ("0", "+0", "-0"):
        return 0.0
    if not re.fullmatch(rf"[+-]?({_PART})+", text):
        return None
    whole = sum(float(amount) * _UNITS[unit] for amount, unit in re.findall(_PART, text))
    return -whole if text.startswith("-") else whole


def upgrade(manifest: RayManifest) -> Iterator[Problem]:
    """How a RayService changes clusters."""
    if manifest.at("spec.upgradeStrategy.type", "NewCluster") not in _UPGRADES:
        yield manifest.problem("spec.upgradeStrategy.type", f"no such upgrade: write {', '.join(_UPGRADES)}")
    if manifest.incremental:
        yield from _incremental(manifest, "spec.upgradeStrategy.clusterUpgradeOptions")


def _incremental(manifest: RayManifest, path: str) -> Iterator[Problem]:
    if not manifest.autoscales:
        yield manifest.problem("spec.rayClusterConfig.enableInTreeAutoscaling", "an incremental upgrade needs the "
                               "autoscaler: write true")
    if not manifest.at(f"{path}.gatewayClassName"):
        yield manifest.problem(f"{path}.gatewayClassName", "an incremental upgrade needs a Gateway: name its class")
    step, surge = manifest.at(f"{path}.stepSizePercent", -1), manifest.at(f"{path}.maxSurgePercent", 100)
    if not 0 <= surge <= 100:
        yield manifest.problem(f"{path}.maxSurgePercent", "must be 0 to 100")
    if not 0 <= step <= surge:
        yield manifest.problem(f"{path}.stepSizePercent", f"must be 0 to maxSurgePercent, {surge}")
    if manifest.at(f"{path}.intervalSeconds", 0) <= 0:
        yield manifest.problem(f"{path}.intervalSeconds", "must be more than 0")


def service(manifest: RayManifest) -> Iterator[Problem]:
    """What else a RayService may not say."""
    path = "spec.rayClusterConfig.headGroupSpec.headService.metadata.name"
    if manifest.at(path):
        yield manifest.problem(path, "a RayService names the services of its heads itself: leave it out")
    if manifest.at("spec.rayClusterDeletionDelaySeconds", 0) < 0:
        yield manifest.problem("spec.rayClusterDeletionDelaySeconds", "must be 0 or more")


def initializing(manifest: RayManifest) -> Iterator[Problem]:
    """How long a RayService may take to be up, if that is said."""
    text = str(manifest.annotations.get("ray.io/initializing-timeout", ""))
    if not text:
        return
    given = float(text) if re.fullmatch(r"[+-]?\d+", text) else seconds(text)
    if given is None or given <= 0:
        yield manifest.problem("metadata.annotations", f"ray.io/initializing-timeout {text!r} is no time above 0: "
                               "write seconds, or a duration such as 30m")


RULES: tuple[Callable[[RayManifest], Iterator[Problem]], ...] = (upgrade, service, initializing)

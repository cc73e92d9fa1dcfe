"""Students, settings and keys become an application of Ray Serve.

Ray Serve places, watches, replaces and scales the replicas; requests come to them from the ingresses. Knows nothing
about models.
"""

import time
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve

import kdray
from kdray.config import ServeConfig
from kdray.serving import scaling
from kdray.serving.endpoint import Endpoint
from kdray.serving.ingress import ANYWHERE
from kdray.serving.metrics import FOLDER as METRICS
from kdray.serving.roster import DEFAULT, Slot
from kdray.serving.teacher import Teacher, threshold
from kdray.storage import content_key

LOGGING = {"log_level": "WARNING", "enable_access_log": False}
_HEALTH_SECONDS, _HEALTH_PATIENCE = 1, 10
NODE = "ray.io/node-id"
_COUNTS = {"replicas", "max_replicas"}
"""Settings that change without a replica being replaced."""


@dataclass(frozen=True)
class Service:
    """What a service is, beside the students and keys that may change while it runs."""

    settings: ServeConfig
    metrics: str
    """A folder of this service alone, on every machine, for its metrics."""
    taught: str | None
    """The package whose teacher answers beside the students."""
    node: str | None
    """The node that its replicas must be on; null where any may be."""

    @classmethod
    def of(cls, settings: ServeConfig, metrics: str, taught: str | None) -> "Service":
        """A service with validated settings; one that listens at an address of this machine stays here."""
        valid = ServeConfig.model_validate(settings.model_dump())  # defaults too: 1 and 1.0 are two settings
        here = None if settings.host in ANYWHERE else ray.get_runtime_context().get_node_id()
        return cls(valid, metrics, taught, here)


def build(service: Service, students: dict[str, Slot], keys: list[str]) -> serve.Application:
    """The Serve application for students by name; `keys` are digests of API keys."""
    settings, plain = service.settings, service.settings.model_dump()
    deployment = serve.deployment(
        name="Endpoint", **_count(settings), max_constructor_retry_count=2, logging_config=LOGGING,
        health_check_period_s=_HEALTH_SECONDS, health_check_timeout_s=_HEALTH_PATIENCE, max_ongoing_requests=64,
        user_config={"students": {name: slot.model_dump() for name, slot in students.items()}, "keys": keys,
                     "thresholds": _thresholds(students[DEFAULT], settings), "settings": plain},
        ray_actor_options={
            "num_cpus": settings.num_cpus, "num_gpus": settings.num_gpus,
            "runtime_env": {"env_vars": {METRICS: service.metrics}},
            **({"label_selector": {NODE: service.node}} if service.node else {})})(Endpoint)
    # A version of our own: with Serve's random one, every change of the students would replace all replicas.
    lasting = {name: value for name, value in plain.items() if name not in _COUNTS}
    version = content_key([kdray.__version__, lasting, service.taught])
    teacher = _teacher(service.taught, settings, version) if service.taught else None
    return deployment.options(version=version, _internal=True).bind(
        plain, time.time(), service.node, service.taught, teacher)


def _count(settings: ServeConfig) -> dict[str, Any]:
    if not settings.max_replicas:
        return {"num_replicas": settings.replicas}
    return {"autoscaling_config": {
        "min_replicas": settings.replicas, "max_replicas": settings.max_replicas,
        "look_back_period_s": scaling.LOOK_BACK, "upscale_delay_s": scaling.UP_DELAY,
        "downscale_delay_s": scaling.DOWN_DELAY,
        "policy": {"policy_function": f"{scaling.__name__}:{scaling.scale.__name__}"}}}


def _teacher(taught: str, settings: ServeConfig, version: str) -> Any:
    own = settings.teacher
    assert own is not None
    deployment = serve.deployment(
        name="Teacher", logging_config=LOGGING, max_constructor_retry_count=2, max_ongoing_requests=64,
        ray_actor_options={"num_cpus": own.num_cpus, "num_gpus": own.num_gpus})(Teacher)
    return deployment.options(version=version, _internal=True).bind(taught, settings.model_dump())


def _thresholds(slot: Slot, settings: ServeConfig) -> dict[str, float]:
    """Confidence below which the teacher answers, by package; empty without a cascade."""
    if settings.teacher is None or settings.teacher.cascade is None:
        return {}
    return {uri: threshold(uri, settings, settings.teacher.cascade) for uri in slot.packages}

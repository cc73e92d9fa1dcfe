"""Jobs that wait in Kueue become what its webhook refuses, and what it never sees.

(Kueue 0.19, pkg/controller/jobs: rayjob/rayjob_webhook.go, raycluster/common.go.)
"""

from collections.abc import Callable, Iterator

from kdray.kubernetes.problem import Manifest, Problem, RayManifest

QUEUE = "kueue.x-k8s.io/queue-name"


def refused(manifests: list[Manifest]) -> Iterator[Problem]:
    """A job that is queued ends, gives back what it had, and has a size that is known before."""
    for ray in manifests:
        if not (isinstance(ray, RayManifest) and ray.kind == "RayJob" and _queued(ray)):
            continue
        if not ray.shuts:
            yield ray.problem("spec.shutdownAfterJobFinishes", "Kueue refuses a job that keeps its place in the queue "
                              "when it has ended: write true, or render without the component kueue")
        if ray.autoscales:
            yield ray.problem(f"{ray.cluster}.enableInTreeAutoscaling", "Kueue refuses a job that changes its size: "
                              "write false, and give `replicas`")
        for group in ray.workers():
            if ray.at(f"{group}.groupName") == "head":
                yield ray.problem(f"{group}.groupName", "Kueue calls the head's own pods so: choose another name")


def empty(manifests: list[Manifest]) -> Iterator[Problem]:
    """A queue that is rendered has something that waits in it."""
    jobs = [ray for ray in manifests if isinstance(ray, RayManifest)]
    for queue in manifests:
        if queue.kind == "LocalQueue" and jobs and not any(_queued(ray) for ray in jobs):
            yield queue.problem("metadata.name", f"nothing waits in this queue: {', '.join(map(str, jobs))} is none "
                                "that Kueue is told of. Render without the component kueue")


def _queued(ray: RayManifest) -> bool:
    return QUEUE in ray.at("metadata.labels", {})


RULES: tuple[Callable[[list[Manifest]], Iterator[Problem]], ...] = (refused, empty)

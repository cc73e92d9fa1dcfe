"""How a job is submitted, where it runs, and when it is given up: rules about documents with a job.

Knows nothing about what becomes of its cluster: see `deletion`.
"""

from collections.abc import Callable, Iterator

from kdray.kubernetes.problem import Problem, RayManifest


def trying(manifest: RayManifest) -> Iterator[Problem]:
    """How often a job is tried, and for how long."""
    job = manifest.job
    tries = manifest.at(f"{job}.backoffLimit", 0)
    if tries < 0:
        yield manifest.problem(f"{job}.backoffLimit", "must be 0 or more")
    if tries > 0 and (manifest.at(f"{job}.submissionMode") == "InteractiveMode" or manifest.selects):
        yield manifest.problem(f"{job}.backoffLimit", "a job that is submitted by hand, or to a cluster of others, is "
                               "not tried again: write 0")
    for field in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if manifest.at(f"{job}.{field}", 1) <= 0:
            yield manifest.problem(f"{job}.{field}", "must be more than 0")


def place(manifest: RayManifest) -> Iterator[Problem]:
    """A job has a cluster of its own, or names one."""
    job = manifest.job
    if not manifest.selects and not manifest.at(f"{job}.rayClusterSpec"):
        yield manifest.problem(f"{job}.rayClusterSpec", "a job needs a cluster: give rayClusterSpec or clusterSelector")
    if not manifest.selects:
        return
    path = f"{job}.clusterSelector"
    if not manifest.at(path, {}).get("ray.io/cluster"):
        yield manifest.problem(path, "names no cluster: write {ray.io/cluster: NAME}")
    if manifest.at(f"{job}.suspend"):
        yield manifest.problem(f"{job}.suspend", "a job on a cluster of others cannot be suspended: leave it out")
    if manifest.at(f"{job}.submissionMode") == "SidecarMode":
        yield manifest.problem(f"{job}.submissionMode", "a sidecar is put into the job's own head: with "
                               "clusterSelector, take another mode")


def submitter(manifest: RayManifest) -> Iterator[Problem]:
    """What submits: a pod that ends, or a sidecar of a head that ends."""
    job = manifest.job
    if manifest.at(f"{job}.submissionMode") == "SidecarMode":
        for field in ("submitterPodTemplate", "submitterConfig"):
            if manifest.at(f"{job}.{field}"):
                yield manifest.problem(f"{job}.{field}", "in SidecarMode no pod submits: leave it out")
        path = f"{job}.rayClusterSpec.headGroupSpec.template.spec.restartPolicy"
        if manifest.at(path, "Never") != "Never":
            yield manifest.problem(path, "with a sidecar, the head must not restart: write Never, or leave it out")
    path = f"{job}.submitterPodTemplate.spec.restartPolicy"
    if manifest.at(f"{job}.submitterPodTemplate") and manifest.at(path) not in ("Never", "OnFailure"):
        yield manifest.problem(path, "the template goes into a Job of Kubernetes, which is refused otherwise: write "
                               "Never or OnFailure")


def runtime_environment(manifest: RayManifest) -> Iterator[Problem]:
    """A job's runtime environment is a mapping in YAML, if there is one."""
    if not isinstance(manifest.runtime_environment, dict | None):
        yield manifest.problem(f"{manifest.job}.runtimeEnvYAML", "not a mapping in YAML: write fields of a runtime "
                               "environment, such as env_vars")


def expansion(manifest: RayManifest) -> Iterator[Problem]:
    """What goes into the submitting pod's shell, in double quotes or none, is expanded there (common/job.go)."""
    texts = {field: manifest.at(f"{manifest.job}.{field}", "")
             for field in ("entrypoint", "runtimeEnvYAML", "entrypointResources", "metadata")}
    for field, text in texts.items():
        if {"$", "`"} & set(str(text)):
            yield manifest.problem(f"{manifest.job}.{field}", "the shell of the pod that submits expands $ and `: "
                                   "write what is meant, or set variables in the pods' `env`")


RULES: tuple[Callable[[RayManifest], Iterator[Problem]], ...] = (trying, place, submitter, runtime_environment,
                                                                 expansion)

"""What KubeRay's operator refuses although its schema allows it.

One function a rule; each knows one document. (KubeRay 1.7, ray-operator/controllers/ray/utils/validation.go, and the
CEL rules of its CRDs.)
"""

import re
from collections.abc import Callable, Iterator
from zoneinfo import available_timezones

import yaml

from kdray.kubernetes.problem import Problem, RayManifest

_LENGTHS = {"RayCluster": 53, "RayJob": 47, "RayService": 47, "RayCronJob": 36}
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_TOKENS_SINCE = (2, 52)
_UPGRADES = ("NewCluster", "NewClusterWithIncrementalUpgrade", "None")
_MANAGERS = ("ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue")
_CRON = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
Rule = Callable[[RayManifest], Iterator[Problem]]


def name(manifest: RayManifest) -> Iterator[Problem]:
    """Names have room for what the operator appends, and are DNS labels."""
    most = _LENGTHS.get(manifest.kind)
    if most and len(manifest.name) > most:
        yield manifest.problem("metadata.name", f"{len(manifest.name)} characters are more than the {most} that the "
                               f"operator allows a {manifest.kind}: shorten it")
    if not _LABEL.fullmatch(manifest.name):
        yield manifest.problem("metadata.name", "not a DNS label: use lower-case letters, digits and '-', and begin "
                               "with a letter")


def containers(manifest: RayManifest) -> Iterator[Problem]:
    """Every group has a container."""
    for group in manifest.groups():
        if not manifest.at(f"{group}.template.spec.containers"):
            yield manifest.problem(f"{group}.template.spec.containers", "a group needs the container that runs Ray: "
                                   "add one")


def resources(manifest: RayManifest) -> Iterator[Problem]:
    """A group's resources are said in one place."""
    for group in manifest.groups():
        parameters = manifest.at(f"{group}.rayStartParams", {})
        both = {"num-cpus", "num-gpus", "memory", "resources"} & parameters.keys()
        if both and manifest.at(f"{group}.resources"):
            yield manifest.problem(f"{group}.rayStartParams", f"{', '.join(sorted(both))} stand beside `resources` of "
                                   "the group: keep one of the two")


def labels(manifest: RayManifest) -> Iterator[Problem]:
    """Labels of Ray nodes stand in `labels`, and are Kubernetes labels."""
    for group in manifest.groups():
        if "labels" in manifest.at(f"{group}.rayStartParams", {}):
            yield manifest.problem(f"{group}.rayStartParams.labels", "not taken there: use `labels` of the group")
        for key, value in manifest.at(f"{group}.labels", {}).items():
            if not (_KEY.fullmatch(str(key)) and _VALUE.fullmatch(str(value))):
                yield manifest.problem(f"{group}.labels.{key}", "not a Kubernetes label: at most 63 letters, digits, "
                                       "'-', '_' and '.', with a letter or digit at both ends")


def tokens(manifest: RayManifest) -> Iterator[Problem]:
    """Token authentication needs a Ray that knows it, and not the kind that RayJob and RayService cannot take."""
    cluster = manifest.cluster
    if manifest.at(f"{cluster}.authOptions.mode") == "token":
        found = re.match(r"(\d+)\.(\d+)", str(manifest.at(f"{cluster}.rayVersion", "")))
        if found is None or (int(found[1]), int(found[2])) < _TOKENS_SINCE:
            yield manifest.problem(f"{cluster}.rayVersion", "token authentication needs the version to be given, and "
                                   "2.52.0 or newer")
    if manifest.at(f"{cluster}.authOptions.enableK8sTokenAuth") and manifest.kind != "RayCluster":
        yield manifest.problem(f"{cluster}.authOptions.enableK8sTokenAuth", f"a {manifest.kind} does not take tokens "
                               "of Kubernetes: leave it out")


def fault_tolerance(manifest: RayManifest) -> Iterator[Problem]:
    """What the head keeps in Redis is configured by gcsFaultToleranceOptions alone."""
    head = f"{manifest.cluster}.headGroupSpec"
    environment, parameters = manifest.environment(head), manifest.at(f"{head}.rayStartParams", {})
    options = manifest.at(f"{manifest.cluster}.gcsFaultToleranceOptions")
    for variable in ("REDIS_PASSWORD", "RAY_REDIS_ADDRESS") if options else ("RAY_REDIS_ADDRESS",):
        if variable in environment:
            yield manifest.problem(f"{head}.template.spec.containers.0.env", f"{variable} is set: say it in "
                                   "gcsFaultToleranceOptions")
    if options and "redis-password" in parameters:
        yield manifest.problem(f"{head}.rayStartParams.redis-password", "use gcsFaultToleranceOptions.redisPassword")
    if "redis-username" in parameters or "REDIS_USERNAME" in environment:
        yield manifest.problem(f"{head}.rayStartParams", "a Redis user is set: use "
                               "gcsFaultToleranceOptions.redisUsername")
    for annotation in ("ray.io/ft-enabled", "ray.io/external-storage-namespace"):
        if options and annotation in manifest.at("metadata.annotations", {}):
            yield manifest.problem("metadata.annotations", f"{annotation} stands beside gcsFaultToleranceOptions: "
                                   "leave it out")


def autoscaler(manifest: RayManifest) -> Iterator[Problem]:
    """What the autoscaler forbids."""
    head = f"{manifest.cluster}.headGroupSpec"
    variable = manifest.environment(head).get("RAY_enable_autoscaler_v2", {}).get("value")
    if not manifest.autoscales:
        if variable in ("1", "true"):
            yield manifest.problem(f"{head}.template.spec.containers.0.env", "RAY_enable_autoscaler_v2 is set, but "
                                   "enableInTreeAutoscaling is not: set that too, or neither")
        return
    version = manifest.at(f"{manifest.cluster}.autoscalerOptions.version")
    if version and variable:
        yield manifest.problem(f"{head}.template.spec.containers.0.env", "RAY_enable_autoscaler_v2 stands beside "
                               "autoscalerOptions.version: keep the latter")
    for group in manifest.groups():
        if version != "v1" and manifest.at(f"{group}.template.spec.restartPolicy", "Never") != "Never":
            yield manifest.problem(f"{group}.template.spec.restartPolicy", "autoscaler v2 replaces pods itself: write "
                                   "Never, or leave it out")
        if manifest.at(f"{group}.suspend"):
            yield manifest.problem(f"{group}.suspend", "a group that autoscales cannot be suspended: leave it out")


def ending(manifest: RayManifest) -> Iterator[Problem]:
    """What becomes of a job's cluster is said once."""
    job = manifest.job
    if job is None:
        return
    shuts = manifest.at(f"{job}.shutdownAfterJobFinishes") is True
    ttl = manifest.at(f"{job}.ttlSecondsAfterFinished", 0)
    if ttl < 0:
        yield manifest.problem(f"{job}.ttlSecondsAfterFinished", "must be 0 or more")
    if ttl > 0 and not shuts:
        yield manifest.problem(f"{job}.ttlSecondsAfterFinished", "the cluster never shuts down: set "
                               "shutdownAfterJobFinishes: true, or leave this out")
    if manifest.at(f"{job}.suspend") and not shuts:
        yield manifest.problem(f"{job}.suspend", "only a job with shutdownAfterJobFinishes: true can be suspended")
    yield from _deletion(manifest, f"{job}.deletionStrategy", shuts)


def _deletion(manifest: RayManifest, path: str, shuts: bool) -> Iterator[Problem]:
    strategy = manifest.at(path)
    if strategy is None:
        return
    rules = strategy.get("deletionRules") or []
    old = [field for field in ("onSuccess", "onFailure") if field in strategy]
    if rules and shuts:
        yield manifest.problem(f"{path}.deletionRules", "excludes shutdownAfterJobFinishes: keep one of the two")
    if bool(rules) == bool(old) or len(old) == 1:
        yield manifest.problem(path, "give deletionRules, or both onSuccess and onFailure")
    policies = [rule.get("policy") for rule in rules] + [strategy[field].get("policy") for field in old]
    if "DeleteWorkers" in policies and manifest.autoscales:
        yield manifest.problem(path, "DeleteWorkers excludes enableInTreeAutoscaling: write DeleteCluster")


def trying(manifest: RayManifest) -> Iterator[Problem]:
    """How a job is submitted, and again."""
    job = manifest.job
    if job is None:
        return
    mode, selector = manifest.at(f"{job}.submissionMode"), manifest.at(f"{job}.clusterSelector")
    if not selector and not manifest.at(f"{job}.rayClusterSpec"):
        yield manifest.problem(f"{job}.rayClusterSpec", "a job needs a cluster: give rayClusterSpec or clusterSelector")
    tries, most = manifest.at(f"{job}.backoffLimit", 0), manifest.at(f"{job}.activeDeadlineSeconds")
    if tries < 0:
        yield manifest.problem(f"{job}.backoffLimit", "must be 0 or more")
    if tries > 0 and (mode == "InteractiveMode" or selector):
        yield manifest.problem(f"{job}.backoffLimit", "a job that is submitted by hand, or to a cluster of others, is "
                               "not tried again: write 0")
    if most is not None and most <= 0:
        yield manifest.problem(f"{job}.activeDeadlineSeconds", "must be more than 0")
    for field in ("submitterPodTemplate", "submitterConfig"):
        if mode == "SidecarMode" and manifest.at(f"{job}.{field}"):
            yield manifest.problem(f"{job}.{field}", "in SidecarMode no pod submits: leave it out")


def runtime_environment(manifest: RayManifest) -> Iterator[Problem]:
    """A job's runtime environment is a mapping in YAML."""
    if manifest.job is None:
        return
    path = f"{manifest.job}.runtimeEnvYAML"
    try:
        found = yaml.safe_load(manifest.at(path, "{}"))
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        yield manifest.problem(path, "not a mapping in YAML: write fields of a runtime environment, such as env_vars")


def schedule(manifest: RayManifest) -> Iterator[Problem]:
    """When a RayCronJob runs."""
    if manifest.kind != "RayCronJob":
        return
    text = str(manifest.at("spec.schedule", ""))
    fields = text.split()
    if not text.startswith("@") and not (len(fields) == 5 and all(map(_is_cron, fields, _CRON))):
        yield manifest.problem("spec.schedule", "not a cron schedule: write minute, hour, day, month and weekday, such "
                               "as '0 2 * * *'")
    zone = manifest.at("spec.timeZone")
    if zone is not None and zone not in available_timezones():
        yield manifest.problem("spec.timeZone", "no such time zone: write one such as Etc/UTC or Europe/Berlin")


def _is_cron(field: str, bounds: tuple[int, int]) -> bool:
    low, high = bounds
    for part in field.split(","):
        span, _, step = part.partition("/")
        if step and not (step.isdecimal() and int(step) > 0):
            return False
        ends = [] if span in ("*", "?") else span.split("-")
        if len(ends) > 2 or not all(end.isdecimal() and low <= int(end) <= high for end in ends):
            return False
    return True


def upgrade(manifest: RayManifest) -> Iterator[Problem]:
    """How a RayService changes clusters."""
    if manifest.kind != "RayService":
        return
    kind, path = manifest.at("spec.upgradeStrategy.type", "NewCluster"), "spec.upgradeStrategy.clusterUpgradeOptions"
    if kind not in _UPGRADES:
        yield manifest.problem("spec.upgradeStrategy.type", f"no such upgrade: write {', '.join(_UPGRADES)}")
    if kind != "NewClusterWithIncrementalUpgrade":
        return
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
    if manifest.kind != "RayService":
        return
    path = "spec.rayClusterConfig.headGroupSpec.headService.metadata.name"
    if manifest.at(path):
        yield manifest.problem(path, "a RayService names the services of its heads itself: leave it out")
    timeout = manifest.at("metadata.annotations", {}).get("ray.io/initializing-timeout")
    if timeout is not None and not re.fullmatch(r"[1-9]\d*|(\d+(\.\d+)?(ms|s|m|h))+", str(timeout)):
        yield manifest.problem("metadata.annotations", f"ray.io/initializing-timeout {timeout!r} is no time: write "
                               "seconds, or a duration such as 30m")


def manager(manifest: RayManifest) -> Iterator[Problem]:
    """Who acts on a document."""
    for path in filter(None, dict.fromkeys(("spec", manifest.job, manifest.cluster))):
        found = manifest.at(f"{path}.managedBy")
        if found is not None and found not in _MANAGERS:
            yield manifest.problem(f"{path}.managedBy", f"nobody else acts on it: write {' or '.join(_MANAGERS)}")


RULES: tuple[Rule, ...] = (name, containers, resources, labels, tokens, fault_tolerance, autoscaler, ending, trying,
                           runtime_environment, schedule, upgrade, service, manager)

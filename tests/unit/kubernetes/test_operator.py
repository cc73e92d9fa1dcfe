"""Every rule of the operator, with a planted mistake that it finds, and what it must not find."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kdray.kubernetes import operator
from kdray.kubernetes.check import check
from kdray.kubernetes.operator.gates import gates
from kdray.kubernetes.problem import Problem, RayManifest
from tests.unit.kubernetes.conftest import GATES, GONE, needs_kustomize, planted

pytestmark = needs_kustomize

JOB, SERVICE, CRON = "RayJob", "RayService", "RayCronJob"
HEAD, WORKER = "spec.rayClusterSpec.headGroupSpec", "spec.rayClusterSpec.workerGroupSpecs.1"
AUTH = "spec.rayClusterSpec.authOptions"
SERVE_CLUSTER = "spec.rayClusterConfig"
FT = f"{SERVE_CLUSTER}.gcsFaultToleranceOptions"
RULES = "spec.jobTemplate.deletionStrategy.deletionRules"
SUBMITTER = "spec.submitterPodTemplate.spec"
POD = "template.spec"
CONTAINER = "template.spec.containers.0"
OTHERS = {"spec.clusterSelector": {"ray.io/cluster": "x"}, "spec.backoffLimit": 0}
OPERATOR = [
    ("a job's name is too long", "cpu", JOB, {"metadata.name": "j" * 48}, "metadata.name", "more than the 47"),
    ("a service's name is too long", "service", SERVICE, {"metadata.name": "s" * 48}, "metadata.name", "the 47"),
    ("a nightly job's name is too long", "nightly", CRON, {"metadata.name": "n" * 37}, "metadata.name", "the 36"),
    ("a name begins with a digit", "cpu", JOB, {"metadata.name": "7days"}, "metadata.name", "not a DNS label"),
    ("a name has capitals", "cpu", JOB, {"metadata.name": "Kdray"}, "metadata.name", "not a DNS label"),
    ("the head has no container", "cpu", JOB, {f"{HEAD}.{POD}.containers": []}, f"{HEAD}.{POD}.containers", "add one"),
    ("a worker has no container", "cpu", JOB, {f"{WORKER}.{POD}.containers": []}, "workerGroupSpecs.1", "add one"),
    ("resources stand in two places", "cpu", JOB, {"spec.rayClusterSpec.workerGroupSpecs.0.rayStartParams": {
        "num-cpus": "4"}}, "workerGroupSpecs.0.rayStartParams", "keep one of the two"),
    ("labels stand in start parameters", "cpu", JOB, {f"{WORKER}.rayStartParams": {"labels": "a=b"}},
     "rayStartParams.labels", "use `labels` of the group"),
    ("a label's value is too long", "cpu", JOB, {f"{WORKER}.labels": {"zone": "z" * 64}}, "labels.zone",
     "not a Kubernetes label"),
    ("a label's key has a space", "cpu", JOB, {f"{WORKER}.labels": {"my zone": "a"}}, "labels.my zone",
     "not a Kubernetes label"),
    ("Ray is too old for tokens", "cpu", JOB, {"spec.rayClusterSpec.rayVersion": "2.51.1"},
     "spec.rayClusterSpec.rayVersion", "2.52.0 or newer"),
    ("tokens without a version of Ray", "cpu", JOB, {"spec.rayClusterSpec.rayVersion": GONE},
     "spec.rayClusterSpec.rayVersion", "needs the version"),
    ("a job takes tokens of Kubernetes", "cpu", JOB, {"spec.rayClusterSpec.authOptions.enableK8sTokenAuth": True},
     "enableK8sTokenAuth", "leave it out"),
    ("a Redis password beside the options", "gcs-fault-tolerance", SERVICE, {
        f"{SERVE_CLUSTER}.headGroupSpec.{CONTAINER}.env": [{"name": "REDIS_PASSWORD", "value": "x"}]}, ".env",
     "gcsFaultToleranceOptions"),
    ("a Redis password as a start parameter", "gcs-fault-tolerance", SERVICE, {
        f"{SERVE_CLUSTER}.headGroupSpec.rayStartParams.redis-password": "x"}, "redis-password",
     "gcsFaultToleranceOptions.redisPassword"),
    ("a Redis user as a start parameter", "gcs-fault-tolerance", SERVICE, {
        f"{SERVE_CLUSTER}.headGroupSpec.rayStartParams.redis-username": "x"}, "rayStartParams",
     "gcsFaultToleranceOptions.redisUsername"),
    ("a Redis address without the options", "service", SERVICE, {
        f"{SERVE_CLUSTER}.headGroupSpec.{CONTAINER}.env": [{"name": "RAY_REDIS_ADDRESS", "value": "x"}]}, ".env",
     "say it in gcsFaultToleranceOptions"),
    ("an annotation beside the options", "gcs-fault-tolerance", SERVICE, {
        "metadata.annotations": {"ray.io/ft-enabled": "true"}}, "metadata.annotations", "leave it out"),
    ("autoscaler v2 and pods that restart", "cpu", JOB, {f"{WORKER}.{POD}.restartPolicy": "Always"}, "restartPolicy",
     "Never"),
    ("autoscaler v2 is said twice", "cpu", JOB, {f"{HEAD}.{CONTAINER}.env": [
        {"name": "RAY_enable_autoscaler_v2", "value": "1"}]}, ".env", "autoscalerOptions.version"),
    ("autoscaler v2 without an autoscaler", "kueue", JOB, {f"{HEAD}.{CONTAINER}.env": [
        {"name": "RAY_enable_autoscaler_v2", "value": "1"}]}, ".env", "set that too, or neither"),
    ("a group that autoscales is suspended", "cpu", JOB, {f"{WORKER}.suspend": True}, "workerGroupSpecs.1.suspend",
     "cannot be suspended"),
    ("a time to live without an end", "cpu", JOB, {"spec.shutdownAfterJobFinishes": False},
     "spec.ttlSecondsAfterFinished", "shutdownAfterJobFinishes: true"),
    ("a negative time to live", "cpu", JOB, {"spec.ttlSecondsAfterFinished": -1}, "spec.ttlSecondsAfterFinished",
     "0 or more"),
    ("suspended, and never shut down", "serve", JOB, {"spec.suspend": True}, "spec.suspend",
     "can be suspended"),
    ("deletion rules beside the shutdown", "cpu", JOB, {"spec.deletionStrategy": {"deletionRules": [
        {"policy": "DeleteCluster", "condition": {"jobStatus": "FAILED"}}]}}, "deletionRules", "keep one of the two"),
    ("half a deletion strategy", "serve", JOB, {"spec.deletionStrategy": {"onSuccess": {"policy": "DeleteCluster"}}},
     "spec.deletionStrategy", "both onSuccess and onFailure"),
    ("workers deleted that autoscale", "serve", JOB, {"spec.deletionStrategy": {"deletionRules": [
        {"policy": "DeleteWorkers", "condition": {"jobStatus": "FAILED"}}]}},
     "spec.deletionStrategy.deletionRules.0.policy", "write DeleteCluster"),
    ("tries of a job that is submitted by hand", "cpu", JOB, {"spec.submissionMode": "InteractiveMode"},
     "spec.backoffLimit", "write 0"),
    ("tries on a cluster of others", "cpu", JOB, {"spec.clusterSelector": {"ray.io/cluster": "x"}},
     "spec.backoffLimit", "write 0"),
    ("a negative number of tries", "cpu", JOB, {"spec.backoffLimit": -1}, "spec.backoffLimit", "0 or more"),
    ("a deadline of nothing", "cpu", JOB, {"spec.activeDeadlineSeconds": 0}, "spec.activeDeadlineSeconds",
     "more than 0"),
    ("a pod that submits beside a sidecar", "cpu", JOB, {"spec.submissionMode": "SidecarMode"},
     "spec.submitterPodTemplate", "leave it out"),
    ("a job without a cluster", "cpu", JOB, {"spec.rayClusterSpec": GONE}, "spec.rayClusterSpec", "needs a cluster"),
    ("a runtime environment that is no mapping", "cpu", JOB, {"spec.runtimeEnvYAML": "- a"}, "spec.runtimeEnvYAML",
     "not a mapping in YAML"),
    ("a runtime environment that is no YAML", "cpu", JOB, {"spec.runtimeEnvYAML": "a: [b"}, "spec.runtimeEnvYAML",
     "not a mapping in YAML"),
    ("a schedule of four fields", "nightly", CRON, {"spec.schedule": "0 2 * *"}, "spec.schedule", "not a cron"),
    ("a schedule at hour 24", "nightly", CRON, {"spec.schedule": "0 24 * * *"}, "spec.schedule", "not a cron"),
    ("a time zone that is none", "nightly", CRON, {"spec.timeZone": "Etc/Here"}, "spec.timeZone", "no such time zone"),
    ("a rule inside a template", "nightly", CRON, {"spec.jobTemplate.ttlSecondsAfterFinished": 60},
     "spec.jobTemplate.ttlSecondsAfterFinished", "shutdownAfterJobFinishes: true"),
    ("an upgrade that is none", "service", SERVICE, {"spec.upgradeStrategy.type": "Canary"},
     "spec.upgradeStrategy.type", "NewClusterWithIncrementalUpgrade"),
    ("an incremental upgrade without an autoscaler", "incremental-upgrade", SERVICE, {
        f"{SERVE_CLUSTER}.enableInTreeAutoscaling": False}, "enableInTreeAutoscaling", "write true"),
    ("an incremental upgrade without a Gateway", "incremental-upgrade", SERVICE, {
        "spec.upgradeStrategy.clusterUpgradeOptions.gatewayClassName": ""}, "gatewayClassName", "name its class"),
    ("a step beyond the surge", "incremental-upgrade", SERVICE, {
        "spec.upgradeStrategy.clusterUpgradeOptions.stepSizePercent": 60}, "stepSizePercent", "maxSurgePercent, 50"),
    ("a surge beyond everything", "incremental-upgrade", SERVICE, {
        "spec.upgradeStrategy.clusterUpgradeOptions.maxSurgePercent": 101}, "maxSurgePercent", "0 to 100"),
    ("no time between steps", "incremental-upgrade", SERVICE, {
        "spec.upgradeStrategy.clusterUpgradeOptions.intervalSeconds": 0}, "intervalSeconds", "more than 0"),
    ("a service that names its head's service", "service", SERVICE, {
        f"{SERVE_CLUSTER}.headGroupSpec.headService": {"metadata": {"name": "x"}}}, "headService.metadata.name",
     "leave it out"),
    ("a timeout that is no time", "service", SERVICE, {"metadata.annotations": {"ray.io/initializing-timeout": "soon"}},
     "metadata.annotations", "is no time above 0"),
    ("a manager that nobody is", "cpu", JOB, {"spec.managedBy": "me"}, "spec.managedBy", "nobody else acts on it"),

    # one for each rule that KubeRay 1.7's own source adds to its schema
    ("the head has no port called serve", "service", SERVICE, {f"{SERVE_CLUSTER}.headGroupSpec.{CONTAINER}.ports": [
        {"name": "dashboard", "containerPort": 8265}]}, ".ports", "{name: serve, containerPort: 8000}"),
    ("the head has no port called dashboard", "cpu", JOB, {f"{HEAD}.{CONTAINER}.ports": [
        {"name": "gcs-server", "containerPort": 6379}]}, ".ports", "{name: dashboard, containerPort: 8265}"),
    ("the head has another application's name", "cpu", JOB, {f"{HEAD}.template.metadata.labels": {
        "app.kubernetes.io/name": "kdray"}}, "labels.app.kubernetes.io/name", "would be empty"),
    ("the head's group has another application's name", "service", SERVICE, {f"{SERVE_CLUSTER}.headGroupSpec.labels": {
        "app.kubernetes.io/created-by": "me"}}, "labels.app.kubernetes.io/created-by", "would be empty"),
    ("a submitter that restarts", "cpu", JOB, {f"{SUBMITTER}.restartPolicy": "Always"}, "restartPolicy",
     "Never or OnFailure"),
    ("a submitter that restarts by default", "cpu", JOB, {f"{SUBMITTER}.restartPolicy": GONE}, "restartPolicy",
     "Never or OnFailure"),
    ("a job's cluster is upgraded", "cpu", JOB, {"spec.rayClusterSpec.upgradeStrategy": {"type": "Recreate"}},
     "rayClusterSpec.upgradeStrategy", "leave it out"),
    ("a service's cluster is upgraded", "service", SERVICE, {f"{SERVE_CLUSTER}.upgradeStrategy": {"type": "None"}},
     "rayClusterConfig.upgradeStrategy", "leave it out"),
    ("fewer than no workers", "cpu", JOB, {f"{WORKER}.minReplicas": -1}, "minReplicas", "0 or more"),
    ("at most fewer than no workers", "cpu", JOB, {f"{WORKER}.maxReplicas": -1}, "maxReplicas", "0 or more"),
    ("a group is idle for a negative time", "cpu", JOB, {f"{WORKER}.idleTimeoutSeconds": -1}, "idleTimeoutSeconds",
     "0 or more"),
    ("a group's idle time without autoscaler v2", "cpu", JOB, {
        f"{WORKER}.idleTimeoutSeconds": 60, "spec.rayClusterSpec.autoscalerOptions.version": "v1"},
     "idleTimeoutSeconds", "only autoscaler v2"),
    ("a group's priority without autoscaler v2", "cpu", JOB, {
        f"{WORKER}.priority": 1, "spec.rayClusterSpec.autoscalerOptions.version": GONE}, "priority", "autoscaler v2"),
    ("a group's priority in an older Ray", "cpu", JOB, {
        f"{WORKER}.priority": 1, "spec.rayClusterSpec.rayVersion": "2.55.0"}, "priority", "2.56.0 or newer"),
    ("the autoscaler waits for a negative time", "cpu", JOB, {
        "spec.rayClusterSpec.autoscalerOptions.idleTimeoutSeconds": -1}, "autoscalerOptions.idleTimeoutSeconds",
     "0 or more"),
    ("the autoscaler's command is overridden", "cpu", JOB, {"spec.rayClusterSpec.autoscalerOptions.env": [
        {"name": "KUBERAY_GEN_AUTOSCALER_START_CMD", "value": "x"}]}, "autoscalerOptions.env", "the operator's own"),
    ("RocksDB without its gate", "gcs-fault-tolerance", SERVICE, {FT: {"backend": "rocksdb"}}, "backend",
     "--gate GCSFaultToleranceEmbeddedStorage"),
    ("RocksDB with fields of Redis", "gcs-fault-tolerance", SERVICE, {f"{FT}.backend": "rocksdb"}, "redisAddress",
     "backend redis"),
    ("RocksDB with a claim and its size", "gcs-fault-tolerance", SERVICE, {FT: {
        "backend": "rocksdb", "storage": {"claimName": "x", "size": "1Gi"}}}, "storage", "claimName or these"),
    ("RocksDB and a mount of its own", "gcs-fault-tolerance", SERVICE, {
        FT: {"backend": "rocksdb"}, f"{SERVE_CLUSTER}.headGroupSpec.{CONTAINER}.volumeMounts.0.mountPath": "/data/gcs"},
     "volumes", "the operator's own"),
    ("RocksDB and a variable of its own", "gcs-fault-tolerance", SERVICE, {
        FT: {"backend": "rocksdb"}, f"{SERVE_CLUSTER}.headGroupSpec.{CONTAINER}.env": [
            {"name": "RAY_gcs_storage", "value": "rocksdb"}]}, ".env", "the operator's own"),
    ("Redis with storage", "gcs-fault-tolerance", SERVICE, {f"{FT}.storage": {"size": "1Gi"}}, "storage",
     "backend rocksdb"),
    ("tokens of Kubernetes in an older Ray", "cpu", JOB, {
        f"{AUTH}.enableK8sTokenAuth": True, "spec.rayClusterSpec.rayVersion": "2.54.0"}, "rayVersion", "2.55.0"),
    ("tokens of Kubernetes and a Secret", "cpu", JOB, {f"{AUTH}.enableK8sTokenAuth": True}, "secretName",
     "keep one of the two"),
    ("tokens of Kubernetes without tokens", "cpu", JOB, {AUTH: {"enableK8sTokenAuth": True}}, "enableK8sTokenAuth",
     "mode: token only"),
    ("the operator's network policy", "cpu", JOB, {"spec.rayClusterSpec.networkPolicy": {}}, "networkPolicy",
     "--gate RayClusterNetworkPolicy"),
    ("the operator's TLS", "cpu", JOB, {"spec.rayClusterSpec.tlsOptions": {"enabled": True}}, "tlsOptions",
     "--gate RayClusterMTLS"),
    ("the history server", "cpu", JOB, {"spec.rayClusterSpec.historyServerOptions": {}}, "historyServerOptions",
     "--gate RayClusterHistoryServer"),
    ("half a deletion policy", "serve", JOB, {"spec.deletionStrategy": {
        "onSuccess": {}, "onFailure": {"policy": "DeleteNone"}}}, "onSuccess.policy", "says nothing of what to delete"),
    ("nothing is deleted, and all is", "cpu", JOB, {"spec.deletionStrategy": {
        "onSuccess": {"policy": "DeleteNone"}, "onFailure": {"policy": "DeleteCluster"}}}, "onSuccess.policy",
     "excludes shutdownAfterJobFinishes"),
    ("a deletion rule with two conditions", "nightly", CRON, {f"{RULES}.0.condition": {
        "jobStatus": "FAILED", "jobDeploymentStatus": "Failed"}}, f"{RULES}.0.condition", "exactly one"),
    ("a deletion rule without a condition", "nightly", CRON, {f"{RULES}.0.condition": {"ttlSeconds": 1}},
     f"{RULES}.0.condition", "exactly one"),
    ("a deletion rule of a negative time", "nightly", CRON, {f"{RULES}.0.condition.ttlSeconds": -1},
     f"{RULES}.0.condition.ttlSeconds", "minimum of 0"),
    ("a deletion rule said twice", "nightly", CRON, {f"{RULES}.1.policy": "DeleteCluster"}, f"{RULES}.1",
     "in rule 0 already"),
    ("a job that goes before its cluster", "nightly", CRON, {f"{RULES}.1.condition.ttlSeconds": 1}, RULES,
     "give the larger no less time"),
    ("a job on others' cluster is suspended", "cpu", JOB, {**OTHERS, "spec.suspend": True}, "spec.suspend",
     "cannot be suspended"),
    ("others' cluster without a name", "cpu", JOB, {**OTHERS, "spec.clusterSelector": {"a": "b"}}, "clusterSelector",
     "names no cluster"),
    ("a sidecar on others' cluster", "cpu", JOB, {**OTHERS, "spec.submissionMode": "SidecarMode"}, "submissionMode",
     "take another mode"),
    ("others' cluster is deleted", "cpu", JOB, {
        **OTHERS, "spec.shutdownAfterJobFinishes": False, "spec.ttlSecondsAfterFinished": 0, "spec.deletionStrategy": {
            "deletionRules": [{"policy": "DeleteCluster", "condition": {"jobStatus": "FAILED"}}]}},
     "deletionRules.0.policy", "DeleteSelf or DeleteNone"),
    ("a sidecar in a head that restarts", "cpu", JOB, {
        "spec.submissionMode": "SidecarMode", f"{HEAD}.{POD}.restartPolicy": "Always"}, "restartPolicy",
     "must not restart"),
    ("no time to start", "cpu", JOB, {"spec.preRunningDeadlineSeconds": 0}, "spec.preRunningDeadlineSeconds",
     "more than 0"),
    ("clusters are deleted before their time", "service", SERVICE, {"spec.rayClusterDeletionDelaySeconds": -1},
     "rayClusterDeletionDelaySeconds", "0 or more"),
    ("a resource that is no quantity", "cpu", JOB, {"spec.rayClusterSpec.workerGroupSpecs.0.resources.driver": "one"},
     "resources.driver", "leave it out"),
    ("a variable in the entrypoint", "cpu", JOB, {"spec.entrypoint": "python jobs/pipeline.py $CONFIG"},
     "spec.entrypoint", "expands $"),
    ("a command in the runtime environment", "cpu", JOB, {"spec.runtimeEnvYAML": "env_vars: {NOW: '`date`'}"},
     "spec.runtimeEnvYAML", "expands $"),
    ("a queue for a nightly job", "nightly", CRON, {"metadata.labels": {"kueue.x-k8s.io/queue-name": "kdray"}},
     "labels.kueue.x-k8s.io/queue-name", "never reaches the jobs"),
    ("an annotation for a nightly job's cluster", "nightly", CRON, {
        "metadata.annotations": {"ray.io/ft-enabled": "true"}}, "annotations.ray.io/ft-enabled",
     "never reaches the jobs"),
    ("a nightly job without its gate", "nightly", CRON, {}, "kind", "--gate RayCronJob"),
    ("Sunday is the seventh day", "nightly", CRON, {"spec.schedule": "0 2 * * 7"}, "spec.schedule", "not a cron"),
    ("days backwards", "nightly", CRON, {"spec.schedule": "0 2 * * 5-2"}, "spec.schedule", "not a cron"),
    ("a fortnight", "nightly", CRON, {"spec.schedule": "@fortnightly"}, "spec.schedule", "not a cron"),
    ("a zone in the schedule", "nightly", CRON, {"spec.schedule": "TZ=UTC 0 2 * * *"}, "spec.schedule", "timeZone"),
    ("no time to initialize", "service", SERVICE, {"metadata.annotations": {"ray.io/initializing-timeout": "0s"}},
     "metadata.annotations", "no time above 0"),
]


def found(documents: list[dict[str, Any]], path: str, says: str) -> list[Any]:
    return [problem for problem in check(documents) if path in problem.path and says in problem.remedy]


@pytest.mark.parametrize(("overlay", "kind", "changes", "path", "says"),
                         [mistake[1:] for mistake in OPERATOR], ids=[mistake[0] for mistake in OPERATOR])
def test_a_planted_mistake_is_caught(overlay: str, kind: str, changes: dict[str, Any], path: str, says: str) -> None:
    problems = found(planted(overlay, kind, changes), path, says)
    assert problems and problems[0].document.split("/")[0] == kind, check(planted(overlay, kind, changes))


def test_every_rule_of_the_operator_has_a_planted_mistake() -> None:
    rules = {rule for of_kind in (operator.ALL, *operator.OF_KIND.values(), (no_gates,)) for rule in of_kind}
    manifests = [RayManifest(body) for _, overlay, kind, changes, _, _ in OPERATOR
                 for body in planted(overlay, kind, changes) if RayManifest.is_one(body)]
    found = {rule for manifest in manifests for rule in (*operator.rules_of(manifest), no_gates)
             if finds(rule, manifest)}
    assert found == rules


def no_gates(manifest: RayManifest) -> Iterator[Problem]:
    return gates(manifest, ())


def finds(rule: Callable[[RayManifest], Iterator[Problem]], manifest: RayManifest) -> bool:
    try:
        return bool(list(rule(manifest)))
    except (TypeError, AttributeError):
        return False


@pytest.mark.parametrize(("overlay", "kind", "changes"), [
    ("nightly", CRON, {"spec.schedule": "30 2 * JAN-mar MON-FRI"}),
    ("nightly", CRON, {"spec.schedule": "*/15 0-6/2,22 ? * 0,6"}),
    ("nightly", CRON, {"spec.schedule": "@every 36h30m"}),
    ("nightly", CRON, {"spec.schedule": "@midnight"}),
    ("cpu", JOB, {"spec.rayClusterSpec.autoscalerOptions.version": GONE, f"{WORKER}.{POD}.restartPolicy": "Always"}),
    ("cpu", JOB, {f"{WORKER}.maxReplicas": GONE, f"{WORKER}.minReplicas": GONE}),
    ("cpu", JOB, {"spec.runtimeEnvYAML": ""}),
    ("cpu", JOB, {"spec.runtimeEnvYAML": GONE}),
    ("cpu", JOB, {f"{WORKER}.priority": 1, f"{WORKER}.idleTimeoutSeconds": 0}),
    ("cpu", JOB, {f"{HEAD}.{CONTAINER}.ports": GONE}),
    ("service", SERVICE, {"metadata.annotations": {"ray.io/initializing-timeout": ""}}),
    ("service", SERVICE, {"metadata.annotations": {"ray.io/initializing-timeout": "1h30m"}}),
    ("service", SERVICE, {"metadata.annotations": {"ray.io/initializing-timeout": "300"}}),
    ("service", SERVICE, {f"{SERVE_CLUSTER}.headGroupSpec.{CONTAINER}.ports": GONE}),
    ("service", SERVICE, {"metadata.annotations": {"ray.io/ft-enabled": "true"},
                          f"{SERVE_CLUSTER}.headGroupSpec.{CONTAINER}.env": [
                              {"name": "RAY_REDIS_ADDRESS", "value": "redis:6379"}]}),
    ("service", SERVICE, {f"{SERVE_CLUSTER}.authOptions.secretName": "kdray-auth-2"}),
])
def test_what_the_operator_takes_is_no_mistake(overlay: str, kind: str, changes: dict[str, Any]) -> None:
    assert check(planted(overlay, kind, changes), GATES) == []


def test_a_gate_that_is_on_is_no_mistake() -> None:
    documents = planted("cpu", JOB, {"spec.rayClusterSpec.tlsOptions": {"enabled": True}})
    assert check(documents, ["RayClusterMTLS"]) == []

import copy
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdray import metrics as run_metrics
from kdray.errors import ConfigError
from kdray.kubernetes.check import check, refuse
from kdray.kubernetes.render import Values, render
from kdray.serving import metrics
from tests.unit.kubernetes.conftest import K8S, KUSTOMIZE, OVERLAYS, RUN, SERVES, needs_kustomize, of_kind, rendered

pytestmark = needs_kustomize

JOB, SERVICE, CRON = "RayJob", "RayService", "RayCronJob"
HEAD, WORKER = "spec.rayClusterSpec.headGroupSpec", "spec.rayClusterSpec.workerGroupSpecs.1"
SERVE_CLUSTER = "spec.rayClusterConfig"
GONE = object()
FREE = {"labels", "annotations", "matchLabels", "data", "stringData", "requests", "limits", "rayStartParams", "drop"}


def planted(overlay: str, kind: str, changes: dict[str, Any]) -> list[dict[str, Any]]:
    """The overlay with values at dotted paths of its first document of the kind changed, or GONE."""
    documents = copy.deepcopy(rendered(overlay))
    for path, value in changes.items():
        *parents, last = path.split(".")
        place: Any = of_kind(documents, kind)
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        if value is GONE:
            del place[last]
        else:
            place[int(last) if isinstance(place, list) else last] = value
    return documents


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_as_it_stands_is_sound(overlay: str, schemas: Path) -> None:
    assert check(rendered(overlay), schemas) == []


def test_all_overlays_are_rendered_and_checked_in_half_a_minute(schemas: Path) -> None:
    began = time.perf_counter()
    for overlay in OVERLAYS:
        assert check(render(overlay, Values(run=RUN if overlay in SERVES else None), K8S), schemas) == []
    assert time.perf_counter() - began < 30


POD = "template.spec"
CONTAINER = "template.spec.containers.0"
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
        {"policy": "DeleteWorkers", "condition": {"jobStatus": "FAILED"}}]}}, "spec.deletionStrategy", "DeleteCluster"),
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
    ("a rule inside a template", "nightly", CRON, {"spec.jobTemplate.shutdownAfterJobFinishes": False},
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
     "metadata.annotations", "is no time"),
    ("a manager that nobody is", "cpu", JOB, {"spec.managedBy": "me"}, "spec.managedBy", "nobody else acts on it"),
]
OURS = [
    ("no token", "cpu", JOB, {"spec.rayClusterSpec.authOptions": GONE}, "authOptions.mode", "mode: token"),
    ("another version of Ray", "cpu", JOB, {"spec.rayClusterSpec.rayVersion": "2.59.0"}, "rayVersion",
     "all nodes need the same"),
    ("an image without a tag", "cpu", JOB, {f"{WORKER}.{CONTAINER}.image": "host:5000/kdray"}, ".image", "name a tag"),
    ("the latest image", "cpu", JOB, {f"{HEAD}.{CONTAINER}.image": "kdray:latest"}, ".image", "other than latest"),
    ("the latest image of another kind", "gcs-fault-tolerance", "StatefulSet",
     {f"spec.{CONTAINER}.image": "redis:latest"}, "spec.template.spec.containers.0.image", "other than latest"),
    ("no limit of memory", "cpu", JOB, {f"{WORKER}.{CONTAINER}.resources.limits": {"cpu": "4"}},
     "resources.limits.memory", "requests and limits"),
    ("no probe", "cpu", JOB, {f"{WORKER}.{CONTAINER}.livenessProbe": GONE}, "livenessProbe", "add one"),
    ("a pod that may be root", "cpu", JOB, {f"{WORKER}.{POD}.securityContext": {}}, "runAsNonRoot", "write true"),
    ("a process that may gain rights", "cpu", JOB, {f"{WORKER}.{CONTAINER}.securityContext": {}},
     "allowPrivilegeEscalation", "write false"),
    ("a mount without a volume", "cpu", JOB, {f"{WORKER}.{POD}.volumes": []}, "volumeMounts.0.name", "no such volume"),
    ("two groups of one name", "cpu", JOB, {f"{WORKER}.groupName": "student"}, "workerGroupSpecs.2.groupName",
     "choose a new one"),
    ("more workers than allowed", "cpu", JOB, {f"{WORKER}.replicas": 9}, "workerGroupSpecs.1.replicas",
     "within minReplicas 1 and maxReplicas 4"),
    ("a run that is not named", "serve", JOB, {"spec.entrypoint": "python jobs/serve.py RUN"}, "spec.entrypoint",
     "put it there"),
    ("an entrypoint that is a shell line", "cpu", JOB, {"spec.entrypoint": "python a.py && python b.py"},
     "spec.entrypoint", "one plain command"),
    ("a driver that no group takes", "cpu", JOB, {"spec.entrypointResources": '{"dirver": 1}'},
     "spec.entrypointResources", "wait for ever"),
    ("driver's resources that are not JSON", "cpu", JOB, {"spec.entrypointResources": "driver: 1"},
     "spec.entrypointResources", "not JSON"),
    ("a runtime environment with an unknown key", "cpu", JOB, {"spec.runtimeEnvYAML": "env_var: {A: b}"},
     "spec.runtimeEnvYAML", "Ray ignores 'env_var'"),
    ("a budget in percent", "cpu", "PodDisruptionBudget", {"spec.minAvailable": "50%"}, "spec.minAvailable",
     "a whole number"),
    ("a Secret that nobody filled in", "secrets", "Secret", {"stringData.auth_token": "RANDOM"},
     "stringData.auth_token", "anybody could guess it"),
    ("a Secret that there is not", "service", SERVICE, {f"{SERVE_CLUSTER}.authOptions.secretName": "kdray-token"},
     "authOptions.secretName", "no Secret has this name"),
    ("a volume claim that there is not", "cpu", JOB, {
        f"{WORKER}.{POD}.volumes.0.persistentVolumeClaim.claimName": "other"}, "claimName",
     "no PersistentVolumeClaim has this name"),
    ("an account that there is not", "cpu", JOB, {f"{WORKER}.{POD}.serviceAccountName": "root"}, "serviceAccountName",
     "no ServiceAccount has this name"),
    ("a ConfigMap that there is not", "cpu", "ConfigMap", {"metadata.name": "other"}, "configMap.name",
     "no ConfigMap has this name"),
]


@pytest.mark.parametrize(("overlay", "kind", "changes", "path", "says"),
                         [mistake[1:] for mistake in OPERATOR + OURS], ids=[mistake[0] for mistake in OPERATOR + OURS])
def test_a_planted_mistake_is_caught(overlay: str, kind: str, changes: dict[str, Any], path: str, says: str) -> None:
    problems = check(planted(overlay, kind, changes))
    found = [problem for problem in problems if path in problem.path and says in problem.remedy]
    assert found, f"not among {[str(problem) for problem in problems]}"
    assert found[0].document.split("/")[0] in (kind, JOB)
    assert re.search(r"\w+/\S+: \S.* = ", str(found[0]))


def test_a_kind_with_no_rules_of_its_own_is_refused() -> None:
    problems = check([{"apiVersion": "v1", "kind": "Gadget", "metadata": {"name": "x"}}])
    assert "nobody here knows the kind v1 Gadget" in str(problems[0])


def change_config(documents: list[dict[str, Any]], change: Callable[[dict[str, Any]], Any]) -> list[dict[str, Any]]:
    documents = copy.deepcopy(documents)
    data = of_kind(documents, "ConfigMap")["data"]
    config = yaml.safe_load(data["config.yaml"])
    change(config)
    data["config.yaml"] = yaml.safe_dump(config)
    return documents


@pytest.mark.parametrize(("overlay", "change", "path", "says"), [
    ("cpu", lambda c: c["training"].update(epoch=2), "config.yaml", "did you mean 'training.epochs'?"),
    ("cpu", lambda c: c.update(storage="/home/me/kdray"), "storage", "they mount /opt/kdray/config, /storage"),
    ("cpu", lambda c: c["data"].update(source="../shared/rows.csv"), "data.source", "give a URI"),
    ("cpu", lambda c: c["teacher"].update(model="/home/me/teacher"), "teacher.model", "give a URI"),
    ("cpu", lambda c: c["teacher"].update(num_gpus=1), "teacher.actors", "can grow to 0 such places"),
    ("gpu", lambda c: c["training"].update(workers=9), "training.workers", "can grow to 4 such places"),
    ("gpu", lambda c: c["training"].update(workers=9, labels={}), "training.workers", "can grow to 8 such places"),
    ("gpu", lambda c: c["teacher"]["labels"].update(zone="a"), "teacher.labels", "no worker group of RayJob/kdray has"),
    ("nightly", lambda c: c["training"].update(num_gpus=1), "training.workers", "kdray-nightly can grow to 0"),
])
def test_a_config_that_the_cluster_cannot_run_is_caught(overlay: str, change: Any, path: str, says: str) -> None:
    problems = check(change_config(rendered(overlay), change))
    assert [problem for problem in problems if path in problem.path and says in problem.remedy], problems


def change_serve(change: Callable[[dict[str, Any]], Any]) -> list[dict[str, Any]]:
    documents = copy.deepcopy(rendered("service"))
    spec = of_kind(documents, SERVICE)["spec"]
    config = yaml.safe_load(spec["serveConfigV2"])
    change(config)
    spec["serveConfigV2"] = yaml.safe_dump(config)
    return documents


@pytest.mark.parametrize(("change", "path", "says"), [
    (lambda c: c.update(proxy_locations="Disabled"), "proxy_locations", "did you mean 'proxy_location'?"),
    (lambda c: c["applications"][0].update(import_pth="x"), "applications.0.import_pth", "did you mean 'import_path'?"),
    (lambda c: c["applications"][0].update(deployments=[{"name": "Endpoint", "num_replica": 2}]),
     "applications.0.deployments.0.num_replica", "did you mean 'num_replicas'?"),
    (lambda c: c["applications"][0].update(deployments=[{"name": "Endpoint", "ray_actor_options": {"num_cpu": 2}}]),
     "ray_actor_options.num_cpu", "did you mean 'num_cpus'?"),
    (lambda c: c.update(http_options={"prt": 8000}), "http_options.prt", "did you mean 'port'?"),
    (lambda c: c.update(logging_config={"log_levl": "INFO"}), "logging_config.log_levl", "did you mean 'log_level'?"),
    (lambda c: c.update(target_capacity="half"), "target_capacity", "Serve refuses it"),
    (lambda c: c["applications"].append(c["applications"][0]), "applications", "Serve refuses it"),
    (lambda c: c["applications"][0].update(runtime_env={"working_dir": "."}), "runtime_env", "Serve refuses it"),
    (lambda c: c.update(proxy_location="EveryNode"), "proxy_location", "write Disabled"),
    (lambda c: c["applications"][0].update(import_path="kdray.serving.app:app"), "import_path",
     "kdray.serving.deploy:application"),
    (lambda c: c["applications"][0]["args"].update(runs="x"), "args.runs", "known are run, settings"),
    (lambda c: c["applications"][0]["args"].update(run="RUN"), "args.run", "name the folder or URI"),
    (lambda c: c["applications"][0]["args"].pop("run"), "args.run", "name the folder or URI"),
    (lambda c: c["applications"][0]["args"]["settings"].update(replica=2), "args.settings", "did you mean 'replicas'?"),
    (lambda c: c["applications"][0]["args"]["settings"].update(port=-1), "args.settings", "greater than or equal to 0"),
    (lambda c: c["applications"][0]["args"]["settings"].update(host="127.0.0.1"), "settings.host", "write 0.0.0.0"),
    (lambda c: c["applications"][0]["args"]["settings"].update(port=8001), "settings.port", "port `serve` is 8000"),
    (lambda c: c["applications"][0]["args"]["settings"].update(num_cpus=3), "settings.num_cpus", "more than 2 CPUs"),
])
def test_a_mistake_in_the_serve_config_is_caught(change: Any, path: str, says: str) -> None:
    problems = check(change_serve(change))
    found = [problem for problem in problems if path in problem.path and says in problem.remedy]
    assert found, f"not among {[str(problem) for problem in problems]}"
    assert str(found[0]).startswith("RayService/kdray: spec.serveConfigV2: ")


@pytest.mark.parametrize(("text", "says"), [("a: [b", "not YAML"), ("- a", "must be a mapping")])
def test_a_serve_config_that_is_none_is_caught(text: str, says: str) -> None:
    problems = check(planted("service", SERVICE, {"spec.serveConfigV2": text}))
    assert says in str(problems[0])


def fields(tree: Any, path: str = "") -> Iterator[str]:
    """Dotted paths of all fields whose names Kubernetes knows; keys of free mappings are left out."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        if isinstance(tree, dict):
            yield f"{path}{key}"
        free = key in FREE or (key == "selector" and "matchLabels" not in value) or (
            key == "resources" and re.search(r"GroupSpecs?\.(\d+\.)?$", path))
        if not free:
            yield from fields(value, f"{path}{key}.")


def misspelt(body: dict[str, Any], path: str) -> dict[str, Any]:
    body = copy.deepcopy(body)
    *parents, last = path.split(".")
    place: Any = body
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    place[f"{last}z"] = place.pop(last)
    return body


def distinct() -> dict[str, tuple[str, int]]:
    """Overlay and place of each document, but for those with no other fields than one before."""
    found: dict[tuple[str, ...], tuple[str, tuple[str, int]]] = {}
    for overlay in OVERLAYS if KUSTOMIZE else ():
        for place, document in enumerate(rendered(overlay)):
            title = f"{document['kind']}/{document['metadata']['name']}"
            found.setdefault((document["kind"], *fields(document)), (f"{title} in {overlay}", (overlay, place)))
    return dict(found.values())


@pytest.mark.parametrize(("overlay", "place"), distinct().values(), ids=distinct())
def test_any_misspelt_field_is_caught(overlay: str, place: int, schemas: Path) -> None:
    body = rendered(overlay)[place]
    for path in fields(body):
        if path in ("apiVersion", "kind"):
            continue
        problems = check([misspelt(body, path)], schemas)
        assert any(problem.path.endswith(f"{path.rpartition('.')[2]}z") for problem in problems), path


@pytest.mark.parametrize(("changes", "path", "says"), [
    ({"spec.backoffLimit": "two"}, "spec.backoffLimit", "not of type 'integer'"),
    ({f"{WORKER}.maxReplicas": GONE}, "workerGroupSpecs.1.maxReplicas", "required"),
    ({"spec.rayClusterSpec.authOptions.mode": "tokens"}, "authOptions.mode", "not one of"),
    ({"metadata.labels": {"a": 1}}, "metadata.labels.a", "not of type 'string'"),
])
def test_what_the_schema_refuses_is_caught(changes: dict[str, Any], path: str, says: str, schemas: Path) -> None:
    problems = check(planted("cpu", JOB, changes), schemas)
    assert [problem for problem in problems if path in problem.path and says in problem.remedy], problems


def test_a_mistyped_field_is_a_problem_without_schemas_too() -> None:
    problems = check(planted("cpu", JOB, {"spec.backoffLimit": "two"}))
    assert "has a type that nothing takes" in str(problems[0])


def test_a_kind_of_ray_that_is_none_is_caught(schemas: Path) -> None:
    problems = check(planted("cpu", JOB, {"kind": "RayJobs"}), schemas)
    assert any("no schema of this kind" in problem.remedy for problem in problems)


def test_a_file_that_is_no_schema_says_so(tmp_path: Path) -> None:
    (tmp_path / "rayjob.json").write_text("{}")
    with pytest.raises(ConfigError, match="is not a schema of KubeRay"):
        check(rendered("cpu"), tmp_path)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        refuse(planted("cpu", JOB, {"metadata.name": "Kdray", "spec.backoffLimit": -1}))
    assert str(error.value).startswith("mistakes in the manifests: 2\n")


def test_the_dashboard_shows_metrics_that_there_are() -> None:
    dashboard = json.loads(of_kind(rendered("monitoring"), "ConfigMap")["data"]["kdray.json"])
    shown = {name for panel in dashboard["panels"] for target in panel.get("targets", ())
             for name in re.findall(r"(?<!ray_)\bkdray_\w+", target["expr"])}
    there = set(re.findall(r"# TYPE (kdray_\w+)", metrics.exposition().decode()))
    known = {name + end for name in there for end in ("", "_bucket", "_sum", "_count")}
    assert shown and shown <= known, shown - known
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in shown} == {
        name for name in there if not name.endswith("_created")}


def test_the_dashboard_shows_all_metrics_of_cache_training_and_sweep_by_run() -> None:
    dashboard = json.loads(of_kind(rendered("monitoring"), "ConfigMap")["data"]["kdray.json"])
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    shown = {name for query in queries for name in re.findall(r"ray_kdray_\w+", query)}
    assert shown == {metric.exported for metric in run_metrics.ALL}
    assert all("by (run" in query for query in queries if "ray_kdray_" in query)


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "service"])
def test_prometheus_reaches_rays_port_on_every_node(overlay: str) -> None:
    """The operator names port 8080 `metrics` on every Ray container that does not, and on the head's service."""
    manifests = rendered(overlay)
    cluster = next(found["spec"] for found in manifests if found["kind"] in (JOB, "RayService"))
    cluster = cluster.get("rayClusterSpec") or cluster["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    ports = [port for group in groups for port in group["template"]["spec"]["containers"][0].get("ports", ())]
    assert {port["containerPort"] for port in ports if port["name"] == "metrics"} <= {8080}
    assert not any("metrics-export-port" in group["rayStartParams"] for group in groups)
    assert all(group["template"]["metadata"]["labels"]["app.kubernetes.io/name"] == "kdray" for group in groups)
    policy = next(found["spec"] for found in manifests if found["kind"] == "NetworkPolicy")
    assert {"protocol": "TCP", "port": 8080} in [port for rule in policy["ingress"] for port in rule.get("ports", ())]
    monitors = [found["spec"] for found in rendered("monitoring") if found["metadata"]["name"] == "kdray-ray"]
    watched = [end["port"] for monitor in monitors
               for end in monitor.get("endpoints", []) + monitor.get("podMetricsEndpoints", [])]
    assert watched == ["metrics", "metrics"]


@pytest.mark.parametrize(("overlay", "gpus"), [("cpu", 0), ("gpu", 1)])
def test_rays_autoscaler_reads_the_groups_as_they_are_meant(overlay: str, gpus: int) -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    cluster = of_kind(rendered(overlay), JOB)["spec"]["rayClusterSpec"]
    read = _derive_autoscaling_config_from_ray_cr({"metadata": {"name": "x", "namespace": "y"}, "spec": cluster})
    groups = read["available_node_types"]
    assert groups["headgroup"]["resources"]["CPU"] == groups["driver"]["resources"]["CPU"] == 0
    assert groups["driver"]["resources"]["driver"] == 1
    for name in ("teacher", "student"):
        assert groups[name]["resources"]["CPU"] > 0 and groups[name]["resources"].get("GPU", 0) == gpus
        assert groups[name]["labels"] == {"kdray/group": name}

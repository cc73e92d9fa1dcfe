import copy
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from kdray import metrics as run_metrics
from kdray.errors import ConfigError
from kdray.kubernetes import schema
from kdray.kubernetes.check import check, refuse
from kdray.kubernetes.problem import Manifest
from kdray.kubernetes.render import render
from kdray.serving import metrics
from kdray.serving.ingress import ANSWERS, HAND, UP
from tests.kuberay_fields import VERSION, table
from tests.unit.kubernetes.conftest import (
    GATES,
    GONE,
    K8S,
    KUSTOMIZE,
    OVERLAYS,
    ROOT,
    needs_kustomize,
    of_kind,
    planted,
    rendered,
    values,
)

pytestmark = needs_kustomize

JOB, SERVICE, CRON = "RayJob", "RayService", "RayCronJob"
HEAD, WORKER = "spec.rayClusterSpec.headGroupSpec", "spec.rayClusterSpec.workerGroupSpecs.1"
SERVE_CLUSTER = "spec.rayClusterConfig"
FREE = {"labels", "annotations", "matchLabels", "data", "stringData", "requests", "limits", "rayStartParams", "drop"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_as_it_stands_is_sound(overlay: str) -> None:
    assert check(rendered(overlay), GATES) == []


POD = "template.spec"
CONTAINER = "template.spec.containers.0"
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
     "within minReplicas 0 and maxReplicas 4"),
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
    ("a right for an account elsewhere", "nightly", "RoleBinding", {"subjects.0.namespace": "default"},
     "subjects.0.namespace", "name it with --namespace"),
    ("a queued job that keeps its cluster", "kueue", JOB, {
        "spec.shutdownAfterJobFinishes": False, "spec.ttlSecondsAfterFinished": 0}, "shutdownAfterJobFinishes",
     "Kueue refuses a job that keeps its place"),
    ("a queued job that grows", "kueue", JOB, {"spec.rayClusterSpec.enableInTreeAutoscaling": True},
     "enableInTreeAutoscaling", "Kueue refuses a job that changes its size"),
    ("a queued job with a group called head", "kueue", JOB, {f"{WORKER}.groupName": "head"}, "groupName",
     "choose another name"),
    ("a queue in which nothing waits", "kueue", JOB, {"metadata.labels": {}}, "metadata.name", "nothing waits"),
    ("a queued job without workers", "kueue", JOB, {f"{WORKER}.replicas": 0}, "teacher.min_actors",
     "can grow to 0 such places"),
]


@pytest.mark.parametrize(("overlay", "kind", "changes", "path", "says"),
                         [mistake[1:] for mistake in OURS], ids=[mistake[0] for mistake in OURS])
def test_a_planted_mistake_is_caught(overlay: str, kind: str, changes: dict[str, Any], path: str, says: str) -> None:
    problems = check(planted(overlay, kind, changes))
    found = [problem for problem in problems if path in problem.path and says in problem.remedy]
    assert found, f"not among {[str(problem) for problem in problems]}"
    assert found[0].document.split("/")[0] in (kind, JOB, "ConfigMap", "LocalQueue")
    assert re.search(r"\w+/\S+: \S.* = ", str(found[0]))


def named(overlay: str, name: str, **more: Any) -> list[dict[str, Any]]:
    return render(overlay, values(overlay, name=name, **more), K8S)


def test_two_services_of_one_name_are_caught() -> None:
    job, service, other = named("cpu", "kdray"), rendered("service"), named("service", "other")
    problem, = check([*job, *service])
    assert str(problem).startswith("RayService/kdray: metadata.name = 'kdray': RayJob/kdray has the service "
                                   "kdray-head-svc already: give one of the two another name")
    assert check([*rendered("cpu"), *service, *other, *named("serve", "a"), *named("serve", "b")]) == []
    taken = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kdray-serve-svc"}, "spec": {}}
    assert "has the service kdray-serve-svc already" in str(check([*service, taken])[0])


@pytest.mark.parametrize("overlay", ["teacher", "cache", "distill", "tune", "evaluate", "serve", "nightly"])
def test_no_overlay_takes_the_services_of_another(overlay: str) -> None:
    assert check([*rendered("cpu"), *rendered("service"), *rendered(overlay)], GATES) == []


@pytest.mark.parametrize(("overlay", "says"), [
    ("serve", "Kueue refuses a job that keeps its place in the queue"), ("nightly", "nothing waits in this queue")])
def test_kueue_is_refused_where_it_would_refuse_or_never_see(overlay: str, says: str) -> None:
    documents = render(overlay, values(overlay, components=("kueue",)), K8S)
    assert any(says in problem.remedy for problem in check(documents, GATES))


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "teacher", "cache", "distill", "tune", "evaluate"])
def test_every_stage_has_room_in_kueue(overlay: str) -> None:
    assert check(render(overlay, values(overlay, components=("kueue",)), K8S)) == []


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
    ("cpu", lambda c: c["teacher"].update(num_gpus=1), "teacher.min_actors", "can grow to 0 such places"),
    ("gpu", lambda c: c["training"].update(workers=9), "training.workers", "can grow to 4 such places"),
    ("gpu", lambda c: c["training"].update(workers=9, labels={}), "training.workers", "can grow to 8 such places"),
    ("gpu", lambda c: c["teacher"]["labels"].update(zone="a"), "teacher.labels",
     "no worker group of RayJob/kdray-run has"),
    ("cpu", lambda c: c["training"].update(num_cpus=5), "training.workers", "each needs 5 CPU"),
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
def test_any_misspelt_field_is_caught(overlay: str, place: int) -> None:
    body = rendered(overlay)[place]
    for path in fields(body):
        if path in ("apiVersion", "kind"):
            continue
        problems = schema.fields(Manifest(misspelt(body, path)))
        assert any(problem.path.endswith(f"{path.rpartition('.')[2]}z") for problem in problems), path


@pytest.mark.parametrize(("changes", "path", "says"), [
    ({"spec.backoffLimit": "two"}, "spec.backoffLimit", "not of type 'integer'"),
    ({f"{WORKER}.groupName": GONE}, "workerGroupSpecs.1.groupName", "required"),
    ({f"{WORKER}.maxReplicas": 2**31}, "workerGroupSpecs.1.maxReplicas", "maximum"),
    ({"spec.preRunningDeadlineSeconds": 0}, "preRunningDeadlineSeconds", "minimum"),
    ({"spec.rayClusterSpec.autoscalerOptions.upscalingMode": "Fast"}, "upscalingMode", "not one of"),
    ({f"{HEAD}.{CONTAINER}.ports.0.containerPort": "http"}, "ports.0.containerPort", "not of type"),
    ({"spec.rayClusterSpec.authOptions.mode": "tokens"}, "authOptions.mode", "not one of"),
    ({"metadata.labels": {"a": 1}}, "metadata.labels.a", "not of type 'string'"),
])
def test_what_the_schema_refuses_is_caught(changes: dict[str, Any], path: str, says: str) -> None:
    problems = check(planted("cpu", JOB, changes))
    assert [problem for problem in problems if path in problem.path and says in problem.remedy], problems


def test_a_kind_of_ray_that_is_none_is_caught() -> None:
    problems = check(planted("cpu", JOB, {"kind": "RayJobs"}))
    assert any("nobody here knows the kind ray.io/v1 RayJobs" in problem.remedy for problem in problems)


def test_the_table_of_kuberays_fields_is_what_its_schemas_say() -> None:
    folder = ROOT.parent / "shared" / f"kuberay-{VERSION}"
    if not folder.is_dir():
        pytest.skip("needs KubeRay's schemas in ../shared, which a clone alone does not have")
    assert (ROOT / "kdray" / "kubernetes" / "kuberay.tsv").read_text() == table(folder)


def test_a_gate_that_is_none_says_so() -> None:
    with pytest.raises(ConfigError, match="--gate RayCronJobs: no such gate is off by default; there are GCSFault"):
        check(rendered("cpu"), ["RayCronJobs"])


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
    of_service = {metric.exported for metric in (ANSWERS, UP, HAND)}
    assert shown == {metric.exported for metric in run_metrics.ALL} | of_service
    assert all("by (run" in query for query in queries if "ray_kdray_" in query and "_ingress_" not in query)


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

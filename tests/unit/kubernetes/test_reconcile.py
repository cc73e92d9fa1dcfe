"""What is rendered, under KubeRay's operator as `tests/kuberay` plays it; and what went wrong before it was mended."""

import copy
import shlex
from typing import Any

import pytest

from kdray.kubernetes.render import Values, render
from tests.kuberay.jobs import reconcile_job
from tests.kuberay.network import Pod, selected
from tests.kuberay.serving import passes, reconcile_service
from tests.kuberay.world import HELM, KUSTOMIZE, RefusedError, World
from tests.unit.kubernetes.conftest import K8S, RUN, needs_kustomize, of_kind, planted, rendered

pytestmark = needs_kustomize

JOBS = ["cpu", "gpu", "spot-teachers", "teacher", "cache", "distill", "tune", "evaluate", "serve", "kueue"]
DAY = 86400.0
GROUPS = ("spec.rayClusterSpec.workerGroupSpecs.1", "spec.rayClusterSpec.workerGroupSpecs.2")


def world(*documents: list[dict[str, Any]], secrets: bool = True, **settings: Any) -> World:
    made = World(**settings)
    for part in (*([rendered("secrets")] if secrets else []), *documents):
        made.apply(copy.deepcopy(part))
    return made


def the(made: World, kind: str, name: str | None = None) -> dict[str, Any]:
    return next(document for (one, title), document in made.documents.items() if one == kind and name in (None, title))


def job_of(made: World) -> dict[str, Any]:
    return the(made, "RayJob")


def end(made: World, status: str) -> None:
    for job in made.jobs.values():
        job.status = status


def no_gpus(pod: Pod) -> bool:
    return "nvidia.com/gpu" not in pod.container["resources"]["limits"]


@pytest.mark.parametrize("install", [HELM, KUSTOMIZE], ids=["helm", "kustomize"])
@pytest.mark.parametrize("overlay", JOBS)
def test_a_job_is_submitted_ends_and_leaves_nothing_but_what_it_should(overlay: str, install: dict[str, str]) -> None:
    made = world(rendered(overlay), operator=install)
    passes(made, 12)
    job = job_of(made)
    assert job["status"]["deployment"] == "Running" and len(made.jobs) == 1, made.events
    heads = made.endpoints(f"{job['metadata']['name']}-head-svc")
    assert [pod.labels["ray.io/node-type"] for pod in heads] == ["head"]
    end(made, "SUCCEEDED")
    passes(made, 3)
    assert job["status"]["deployment"] == "Complete" and made.events == []
    passes(made, 700, 50)
    assert bool(made.pods) == (overlay == "serve")


@pytest.mark.parametrize("overlay", [*JOBS, "service"])
def test_rays_command_line_takes_what_starts_each_pod(overlay: str) -> None:
    from ray.scripts.scripts import start

    made = world(rendered(overlay))
    passes(made, 6)
    lines = {pod.name: shlex.split(pod.container["args"][0]) for pod in made.pods}
    said = {name: start.make_context("start", words[2:]).params for name, words in lines.items()}
    assert all(params["metrics_export_port"] == 8080 and params["block"] for params in said.values())
    assert [params["num_cpus"] for params in said.values() if params["head"]] == [0]


@pytest.mark.parametrize("overlay", ["gpu", "spot-teachers"])
def test_a_job_does_not_wait_for_gpus_before_it_asks_for_them(overlay: str) -> None:
    made = world(rendered(overlay), room=no_gpus)
    passes(made, 12)
    assert job_of(made)["status"]["deployment"] == "Running"
    before = {f"{group}.{field}": 1 for group in GROUPS for field in ("replicas", "minReplicas")}
    made = world(planted(overlay, "RayJob", before), room=no_gpus)
    passes(made, 3600, 60)
    assert job_of(made)["status"]["deployment"] == "Initializing"
    passes(made, 3 * 3600 + 600, 60)
    assert job_of(made)["status"]["reason"] == "PreRunningDeadlineExceeded"


def test_a_policy_that_knows_one_installation_loses_the_jobs_of_the_other() -> None:
    documents = copy.deepcopy(rendered("cpu"))
    policy = of_kind(documents, "NetworkPolicy")
    policy["spec"]["ingress"][1]["from"][0]["podSelector"] = {
        "matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}}
    made = world(documents)
    passes(made, 400)
    status = job_of(made)["status"]
    assert (status["deployment"], status["reason"]) == ("Failed", "JobStatusCheckTimeoutExceeded")
    assert next(iter(made.jobs.values())).status == "RUNNING", "the job itself had nothing"
    passes(made, 700, 50)
    assert made.pods == [], "and its cluster was taken from it"


def test_a_head_that_overrides_its_application_name_is_in_no_service_of_its_job() -> None:
    documents = planted("cpu", "RayJob", {"spec.rayClusterSpec.headGroupSpec.template.metadata.labels": {
        "app.kubernetes.io/name": "kdray", "app.kubernetes.io/part-of": "kdray"}})
    made = world(documents)
    passes(made, 12)
    assert made.endpoints("kdray-run-head-svc") == []


@pytest.mark.parametrize("overlay", ["service", "gcs-fault-tolerance"])
def test_a_service_gets_requests_on_pods_whose_replica_answers(overlay: str) -> None:
    up: set[str] = set()
    made = world(rendered(overlay), answers=lambda pod: pod.labels["ray.io/node-type"] == "head" or pod.name in up)
    passes(made, 12)
    service = made.services["kdray-serve-svc"]
    assert service.ports == {"serve": 8000} and made.endpoints("kdray-serve-svc") == []
    workers = [pod for pod in made.pods if pod.labels["ray.io/node-type"] == "worker"]
    up.add(workers[0].name)
    passes(made, 3)
    assert made.endpoints("kdray-serve-svc") == workers[:1] and workers[0].ports["serve"] == 8000
    assert [pod.labels["ray.io/node-type"] for pod in made.endpoints("kdray-head-svc")] == ["head"]
    assert made.events == []


def test_a_service_without_a_port_called_serve_is_never_switched_to() -> None:
    path = "spec.rayClusterConfig.headGroupSpec.template.spec.containers.0.ports"
    made = world(planted("service", "RayService", {path: [{"name": "dashboard", "containerPort": 8265}]}))
    passes(made, 60)
    assert "kdray-serve-svc" not in made.services and "active" not in the(made, "RayService")["status"]
    assert "Please specify a port named 'serve'" in made.events[-1]


def test_a_head_without_a_port_called_dashboard_is_never_asked() -> None:
    path = "spec.rayClusterSpec.headGroupSpec.template.spec.containers.0.ports"
    made = world(planted("cpu", "RayJob", {path: [{"name": "gcs-server", "containerPort": 6379}]}))
    passes(made, 60)
    assert job_of(made)["status"]["deployment"] == "Initializing" and made.events[-1] == "dashboard port is not found"


def test_a_job_and_a_service_of_one_name_take_the_head_service_from_each_other() -> None:
    def owners(made: World) -> list[str]:
        passes(made, 12)
        seen = []
        for _ in range(2):
            for reconcile, kind in ((reconcile_service, "RayService"), (reconcile_job, "RayJob")):
                reconcile(made, the(made, kind))
                seen.append(made.services["kdray-head-svc"].selector["ray.io/cluster"])
        return seen

    first, second, *again = owners(world(rendered("service"), render("cpu", Values(name="kdray"), K8S)))
    assert first != second and again == [first, second], "back and forth, at every pass"
    assert len(set(owners(world(rendered("service"), rendered("cpu"))))) == 1


def test_secrets_that_are_rendered_again_do_not_take_the_place_of_those_that_are_there() -> None:
    made = world(rendered("cpu"))
    passes(made, 12)
    again = render("secrets", Values(), K8S)
    with pytest.raises(RefusedError, match="Secret kdray-auth: field is immutable"):
        made.apply(again)
    passes(made, 400)
    assert job_of(made)["status"]["deployment"] == "Running"
    for name in ("kdray-auth", "kdray-redis"):
        del made.documents["Secret", name]["immutable"]
    made.apply(again)
    passes(made, 400)
    assert job_of(made)["status"]["reason"] == "JobStatusCheckTimeoutExceeded", "as it was before"


def test_a_token_is_rotated_by_a_second_secret_and_without_a_gap() -> None:
    made = world(rendered("service"))
    passes(made, 12)
    first = the(made, "RayService")["status"]["active"]
    second = copy.deepcopy(the(made, "Secret", "kdray-auth"))
    second["metadata"]["name"], second["stringData"]["auth_token"] = "kdray-auth-2", "another"
    made.apply([second, *planted("service", "RayService", {
        "spec.rayClusterConfig.authOptions.secretName": "kdray-auth-2"})])
    passes(made, 3)
    assert made.endpoints("kdray-serve-svc"), "the old cluster serves until the new one does"
    passes(made, 12)
    status = the(made, "RayService")["status"]
    assert status["active"] != first and {pod.token for pod in made.endpoints("kdray-serve-svc")} == {"another"}


def test_a_job_whose_secret_is_gone_stays_until_there_is_one_again() -> None:
    made = world(rendered("cpu"))
    passes(made, 12)
    made.delete("Secret", "kdray-auth")
    made.delete("RayJob", "kdray-run")
    passes(made, 60)
    assert ("RayJob", "kdray-run") in made.documents and 'Secret "kdray-auth" not found' in made.events[-1]
    made.apply(copy.deepcopy(rendered("secrets")))
    passes(made, 3)
    assert ("RayJob", "kdray-run") not in made.documents and made.pods == []
    assert next(iter(made.jobs.values())).stopped


def test_a_job_without_its_secret_is_given_up_in_time() -> None:
    made = world(rendered("cpu"), secrets=False)
    passes(made, 3 * 3600 + 600, 60)
    assert job_of(made)["status"]["reason"] == "PreRunningDeadlineExceeded"


def test_an_ended_job_is_applied_again_in_vain_and_runs_again_when_it_was_deleted() -> None:
    made = world(rendered("cpu"))
    passes(made, 12)
    end(made, "SUCCEEDED")
    passes(made, 6)
    made.apply(copy.deepcopy(rendered("cpu")))
    passes(made, 60)
    assert job_of(made)["status"]["deployment"] == "Complete" and len(made.jobs) == 1
    made.delete("RayJob", "kdray-run")
    passes(made, 3)
    made.apply(copy.deepcopy(rendered("cpu")))
    passes(made, 12)
    assert job_of(made)["status"]["deployment"] == "Running" and len(made.jobs) == 2


@pytest.mark.parametrize(("lives", "deployment"), [(10, "Running"), (2, "Retrying")])
def test_a_log_stream_that_breaks_three_times_does_not_cost_the_cluster(lives: int, deployment: str) -> None:
    made = world(planted("cpu", "RayJob", {"spec.submitterConfig.backoffLimit": lives}))
    passes(made, 12)
    job_of(made)["status"]["submitters"] = 3
    passes(made, 3)
    assert job_of(made)["status"]["deployment"] == deployment


def test_a_failed_job_is_tried_three_times_each_with_a_deadline_of_its_own() -> None:
    made = world(rendered("cpu"))
    for _ in range(3):
        passes(made, 0.9 * DAY, 600)
        assert job_of(made)["status"]["deployment"] == "Running"
        end(made, "FAILED")
        passes(made, 1800, 600)
    assert job_of(made)["status"]["deployment"] == "Failed" and len(made.jobs) == 3
    made = world(rendered("cpu"))
    passes(made, DAY + 1200, 600)
    assert job_of(made)["status"]["reason"] == "DeadlineExceeded" and len(made.jobs) == 1


def test_whoever_deletes_pods_gives_the_driver_time_to_end_in() -> None:
    made = world(rendered("cpu"))
    passes(made, 12)
    pods = {pod.labels["app.kubernetes.io/component"]: pod for pod in made.pods}
    for name in ("head", "driver"):
        drain = {item["name"]: item["value"] for item in pods[name].container["env"]}[
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]
        assert 60 < int(drain) < pods[name].spec["terminationGracePeriodSeconds"]


def test_a_nightly_job_runs_every_night_and_is_gone_after_a_week() -> None:
    made = world(rendered("nightly"), gates={"RayCronJob"})
    passes(made, DAY + 2400, 600)
    assert job_of(made)["status"]["deployment"] == "Running"
    for _ in range(9):
        end(made, "SUCCEEDED")
        passes(made, DAY, 600)
    jobs = [document for (kind, _), document in made.documents.items() if kind == "RayJob"]
    assert 7 <= len(jobs) <= 9 and len(made.clusters) <= 1 and made.events == []
    for _ in range(2):  # tries
        end(made, "FAILED")
        passes(made, 3600, 600)
    assert made.clusters == {}


def test_a_nightly_job_without_its_gate_never_runs() -> None:
    made = world(rendered("nightly"))
    passes(made, 3 * DAY, 3600)
    assert made.jobs == {} and made.events == []


def test_nights_that_were_missed_start_at_once_and_end_before_the_next() -> None:
    made = world(rendered("nightly"), gates={"RayCronJob"})
    made.now = 3.1 * DAY
    passes(made, 30)
    assert len(made.jobs) == 3
    jobs = [document["spec"] for (kind, _), document in made.documents.items() if kind == "RayJob"]
    assert all((job["backoffLimit"] + 1) * job["activeDeadlineSeconds"] < DAY for job in jobs)


def test_a_job_that_serves_has_a_service_of_its_own() -> None:
    made = world(rendered("serve"))
    passes(made, 12)
    student = of_kind(rendered("serve"), "RayJob")["spec"]["rayClusterSpec"]["workerGroupSpecs"][2]
    replica = Pod("x", {**student["template"]["metadata"]["labels"], **student["labels"]}, student["template"]["spec"])
    service = of_kind(rendered("serve"), "Service")
    assert selected(service["spec"]["selector"], [*made.pods, replica]) == [replica]
    assert [port["port"] for port in service["spec"]["ports"]] == [replica.ports["serve"]]


def test_an_incremental_upgrade_starts_small_and_has_a_service_for_each_cluster() -> None:
    made = world(rendered("incremental-upgrade"))
    passes(made, 12)
    first = the(made, "RayService")["status"]["active"]
    assert len(made.pods) == 3 and f"{first}-serve-svc" in made.services and "kdray-serve-svc" not in made.services
    path = "spec.rayClusterConfig.workerGroupSpecs.0.template.spec.containers.0.image"
    made.apply(planted("incremental-upgrade", "RayService", {path: "kdray:0.2.0"}))
    passes(made, 3)
    second = [pod for pod in made.pods if pod.cluster != first]
    assert [pod.labels["ray.io/node-type"] for pod in second] == ["head"]


@pytest.mark.parametrize(("overlay", "replicas"), [("service", 2), ("incremental-upgrade", 2)])
def test_a_service_starts_with_what_it_is_asked_for(overlay: str, replicas: int) -> None:
    made = world(rendered(overlay))
    passes(made, 3)
    assert sum(pod.labels["ray.io/node-type"] == "worker" for pod in made.pods) == replicas


def test_budgets_hold_every_head_and_driver_and_a_replica_of_each_service() -> None:
    other = render("service", Values(run=RUN, name="films"), K8S)
    made = world(rendered("cpu"), rendered("tune"), rendered("service"), other)
    passes(made, 12)
    held = {name: [pod for pod in made.pods if selector.items() <= pod.labels.items()]
            for name, selector in budgets(made).items()}
    assert {name: len(pods) for name, pods in held.items()} == {
        "kdray-head": 4, "kdray-driver": 2, "kdray": 2, "films": 2}
    least = {name: the(made, "PodDisruptionBudget", name)["spec"]["minAvailable"] for name in held}
    assert least["kdray-head"] > len(made.pods) < least["kdray-driver"] and least["kdray"] == least["films"] == 1
    assert not set(map(id, held["kdray"])) & set(map(id, held["films"]))


def budgets(made: World) -> dict[str, dict[str, str]]:
    return {name: document["spec"]["selector"]["matchLabels"] for (kind, name), document in made.documents.items()
            if kind == "PodDisruptionBudget"}

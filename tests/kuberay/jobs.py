"""The loops of RayJob and RayCronJob (rayjob_controller.go, raycronjob_controller.go, common/job.go)."""

import json
from typing import Any

import yaml

from tests.kuberay.cluster import OperatorError, dashboard_url, head_service, make_pods
from tests.kuberay.network import Pod
from tests.kuberay.world import Job, UnreachableError, World

CHECK_TIMEOUT, NIGHT = 300.0, 86400.0
_TERMINAL = ("SUCCEEDED", "FAILED", "STOPPED")
_HEALTH = ("python -c \"import urllib.request; r=urllib.request.urlopen('{url}/api/gcs_healthz', timeout=10); "
           "exit(0 if b'success' in r.read() else 1)\"")


def quoted(text: str) -> str:
    """Go's strconv.Quote of plain text: double quotes, in which a shell expands $ and backticks."""
    return json.dumps(text, ensure_ascii=False)


def submit_line(spec: dict[str, Any], url: str, job: str) -> str:
    """The shell line of the pod that submits (BuildJobSubmitCommand, K8sJobMode)."""
    url = url if url.startswith("http://") else f"http://{url}"
    words = ["until", _HEALTH.format(url=url), ">/dev/null 2>&1 ; do echo",
             quoted(f"Waiting for Ray Dashboard GCS to become healthy at {url} ..."), "; sleep 2 ; done ;",
             "if ! ray job status --address", url, job, ">/dev/null 2>&1 ; then",
             "ray job submit --address", url, "--no-wait"]
    if spec.get("runtimeEnvYAML"):
        words += ["--runtime-env-json", quoted(json.dumps(yaml.safe_load(spec["runtimeEnvYAML"])))]
    words += ["--submission-id", job]
    if spec.get("entrypointResources"):
        words += ["--entrypoint-resources", quoted(spec["entrypointResources"])]
    words += ["--", spec["entrypoint"].strip(), "; fi ;", "ray job logs --address", url, "--follow", job]
    return " ".join(words)


def reconcile_job(world: World, job: dict[str, Any]) -> None:
    """One pass over a RayJob."""
    spec, status = job["spec"], job["status"]
    if job.get("deleted"):
        _delete(world, job)
        return
    step = {None: _new, "Initializing": _initializing, "Running": _running, "Retrying": _retrying,
            "Complete": _ended, "Failed": _ended}[status.get("deployment")]
    before = status.get("deployment")
    step(world, job)
    if status.get("deployment") == "Failed" and before != "Failed":
        status["failed"] = status.get("failed", 0) + 1
        status["ended"] = world.now
        if status["failed"] <= spec.get("backoffLimit", 0) and status["reason"] not in (
                "DeadlineExceeded", "JobStatusCheckTimeoutExceeded"):
            status["deployment"] = "Retrying"
    if status.get("deployment") == "Complete" and before != "Complete":
        status["ended"] = world.now


def _new(world: World, job: dict[str, Any]) -> None:
    name = job["metadata"]["name"]
    job["status"].update(deployment="Initializing", cluster=world.named(name), job=world.named(name),
                         started=world.now, submitters=0)


def _initializing(world: World, job: dict[str, Any]) -> None:
    status, spec = job["status"], job["spec"]
    if _late(world, job, "activeDeadlineSeconds", "DeadlineExceeded") or _late(
            world, job, "preRunningDeadlineSeconds", "PreRunningDeadlineExceeded"):
        return
    cluster = status["cluster"]
    start_cluster(world, cluster, spec["rayClusterSpec"], ("RayJob", job["metadata"]["name"]))
    if not all(pod.ready for pod in world.pods if pod.cluster == cluster):
        return
    status["url"] = dashboard_url(spec["rayClusterSpec"], cluster)
    template = spec["submitterPodTemplate"]
    if template["spec"].get("restartPolicy") not in ("Never", "OnFailure"):
        raise OperatorError('Job.batch is invalid: spec.template.spec.restartPolicy: Required value')
    status["submitter"] = Pod(f"{job['metadata']['name']}-submitter", {
        **template["metadata"]["labels"], "ray.io/originated-from-crd": "RayJob"}, template["spec"])
    status["deployment"] = "Running"


def start_cluster(world: World, cluster: str, spec: dict[str, Any], owner: tuple[str, str],
                  replicas: bool = True) -> None:
    """Makes the pods and the service of a cluster, if they are not there."""
    if cluster not in world.clusters:
        world.clusters[cluster] = {"spec": spec, "owner": owner}
        service = head_service(spec, cluster)
        world.services[service.name] = service
        world.pods += make_pods(spec, cluster, owner[0], replicas)


def _late(world: World, job: dict[str, Any], field: str, reason: str) -> bool:
    most = job["spec"].get(field)
    if most is None or world.now < job["status"]["started"] + most:
        return False
    job["status"].update(deployment="Failed", reason=reason)
    return True


def _running(world: World, job: dict[str, Any]) -> None:
    status, spec = job["status"], job["spec"]
    if _late(world, job, "activeDeadlineSeconds", "DeadlineExceeded"):
        return
    failing = status.get("failing")
    if failing is not None and world.now >= failing + CHECK_TIMEOUT:
        status.update(deployment="Failed", reason="JobStatusCheckTimeoutExceeded")
        return
    own = head_service(spec["rayClusterSpec"], status["cluster"], job["metadata"]["name"])
    old = world.services.get(own.name)
    if old is None or old.selector["ray.io/cluster"] != own.selector["ray.io/cluster"]:
        world.services[own.name] = own
    _submit(world, job)
    if status["submitters"] > spec.get("submitterConfig", {}).get("backoffLimit", 2):
        status.update(deployment="Failed", reason="SubmissionFailed")
        return
    try:
        told = _info(world, job)
    except UnreachableError as error:
        world.events.append(f"Failed to get job info: {error}")
        status.setdefault("failing", world.now)
        return
    status.pop("failing", None)
    if told and told.status in _TERMINAL:
        status.update(deployment="Failed" if told.status == "FAILED" else "Complete", reason="AppFailed",
                      jobStatus=told.status)


def _submit(world: World, job: dict[str, Any]) -> None:
    """The submitting pod's line: it waits until the dashboard answers it, and submits once."""
    try:
        world.ask(job["status"]["submitter"], job["status"]["url"], _token(world, job))
    except (UnreachableError, OperatorError):
        return
    world.jobs.setdefault(job["status"]["job"], Job())


def _info(world: World, job: dict[str, Any]) -> Job | None:
    world.ask(world.operators_pod, job["status"]["url"], _token(world, job))
    return world.jobs.get(job["status"]["job"])


def _token(world: World, job: dict[str, Any]) -> str:
    """The token that is in the Secret now, whatever pods hold (GetRayDashboardClientFunc)."""
    return world.secret(job["spec"]["rayClusterSpec"]["authOptions"]["secretName"])["auth_token"]


def _retrying(world: World, job: dict[str, Any]) -> None:
    """Pods are deleted; nobody stops the job before."""
    world.remove_cluster(job["status"]["cluster"])
    job["status"] = {"failed": job["status"]["failed"]}


def _ended(world: World, job: dict[str, Any]) -> None:
    spec, status = job["spec"], job["status"]
    waited = world.now - status["ended"]
    due = [rule["policy"] for rule in spec.get("deletionStrategy", {}).get("deletionRules", [])
           if _holds(rule["condition"], status) and waited >= rule["condition"].get("ttlSeconds", 0)]
    if spec.get("shutdownAfterJobFinishes") and waited >= spec.get("ttlSecondsAfterFinished", 0):
        due.append("DeleteCluster")
    if "DeleteCluster" in due:
        world.remove_cluster(status["cluster"])
    if "DeleteSelf" in due:
        job["deleted"] = True


def _holds(condition: dict[str, Any], status: dict[str, Any]) -> bool:
    return (condition["jobStatus"] == status.get("jobStatus") if "jobStatus" in condition
            else condition["jobDeploymentStatus"] == status["deployment"])


def _delete(world: World, job: dict[str, Any]) -> None:
    """The job is stopped if it runs; only then the finalizer goes."""
    status = job["status"]
    if status.get("jobStatus") not in _TERMINAL and status.get("cluster") in world.clusters:
        _token(world, job)
        if (running := world.jobs.get(status["job"])) is not None:
            running.stopped = True
    world.remove(job)


def reconcile_cron(world: World, cron: dict[str, Any]) -> None:
    """One pass over a RayCronJob whose schedule is once a night: a tick that is due, even if it is long past."""
    if "RayCronJob" not in world.gates:
        return
    last = cron["status"].get("last", cron["created"])
    if last + NIGHT <= world.now:
        cron["status"]["last"] = last + NIGHT
        name = f"{cron['metadata']['name']}-{int((last + NIGHT) // 60)}"
        world.apply([{"apiVersion": "ray.io/v1", "kind": "RayJob", "spec": cron["spec"]["jobTemplate"],
                      "metadata": {"name": name, "labels": {"ray.io/cronjob-name": cron["metadata"]["name"]}}}])

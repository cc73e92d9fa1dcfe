import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdray.config import parse
from kdray.errors import ConfigError
from kdray.kubernetes.render import Values, as_yaml, render
from tests.unit.kubernetes.conftest import (
    K8S,
    OVERLAYS,
    ROOT,
    RUN,
    SERVES,
    needs_kustomize,
    of_kind,
    rendered,
)

pytestmark = needs_kustomize

RAY = ("RayJob", "RayService", "RayCronJob")
STAGES = {"cpu": "pipeline", **{stage: stage for stage in ("teacher", "cache", "distill", "tune", "evaluate", "serve")}}


def config_of(documents: list[dict[str, Any]]) -> dict[str, Any]:
    return yaml.safe_load(of_kind(documents, "ConfigMap")["data"]["config.yaml"])


@pytest.mark.parametrize("overlay", sorted(set(OVERLAYS) - SERVES - {"secrets", "nightly"}))
def test_rendering_without_values_is_what_kubectl_renders(overlay: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on PATH")
    shown = subprocess.run(["kubectl", "kustomize", str(K8S / "overlays" / overlay)], capture_output=True, text=True,
                           check=True).stdout
    assert list(yaml.safe_load_all(shown)) == rendered(overlay)


def test_values_are_filled_in(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text((K8S / "job" / "config.yaml").read_text().replace("name: quickstart", "name: mine"))
    values = Values(namespace="team", name="tuesday", image="host:5000/team/kdray:7", config=str(config),
                    storage="s3://bucket/kdray", components=("gpu", "spot-teachers"))
    documents = render("cpu", values, K8S)
    job = of_kind(documents, "RayJob")
    assert {document["metadata"]["namespace"] for document in documents} == {"team"}
    assert job["metadata"]["name"] == "tuesday"
    assert set(_images(job)) == {"host:5000/team/kdray:7"}
    assert config_of(documents)["name"] == "mine" and config_of(documents)["storage"] == "s3://bucket/kdray"
    assert "PersistentVolumeClaim" not in {document["kind"] for document in documents}
    teacher = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][1]["template"]["spec"]
    assert teacher["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert teacher["containers"][0]["envFrom"] == [{"secretRef": {"name": "kdray-s3", "optional": True}}]
    assert "nodeAffinity" in teacher["affinity"]
    assert "volumes" not in teacher or teacher["volumes"] == []


def _images(tree: Any) -> list[str]:
    if isinstance(tree, dict):
        return [value for key, value in tree.items() if key == "image"] + [
            image for value in tree.values() for image in _images(value)]
    return [image for item in tree for image in _images(item)] if isinstance(tree, list) else []


def test_a_digest_is_an_image_too() -> None:
    digest = "sha256:" + "0" * 64
    assert set(_images(of_kind(render("cpu", Values(image=f"team/kdray@{digest}"), K8S), "RayJob"))) == {
        f"team/kdray@{digest}"}


def test_the_run_is_in_the_serve_config_and_in_the_entrypoint() -> None:
    service = of_kind(rendered("service"), "RayService")["spec"]
    application = yaml.safe_load(service["serveConfigV2"])["applications"][0]
    assert application["args"]["run"] == RUN and application["route_prefix"] is None
    entrypoint = of_kind(rendered("serve"), "RayJob")["spec"]["entrypoint"]
    assert entrypoint == f"python jobs/serve.py {RUN} host=0.0.0.0 port=8000"
    strange = render("serve", Values(run="s3://bucket/my runs/x"), K8S)
    assert "'s3://bucket/my runs/x'" in of_kind(strange, "RayJob")["spec"]["entrypoint"]


def test_a_run_in_a_bucket_is_served_without_a_volume() -> None:
    documents = render("service", Values(run="s3://bucket/kdray/runs/x"), K8S)
    cluster = of_kind(documents, "RayService")["spec"]["rayClusterConfig"]
    assert cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["volumeMounts"] == []
    assert "PersistentVolumeClaim" not in {document["kind"] for document in documents}


def test_another_config_is_another_config_map_and_the_job_mounts_it(tmp_path: Path) -> None:
    before = of_kind(rendered("cpu"), "ConfigMap")["metadata"]["name"]
    documents = render("cpu", Values(storage="/storage/other"), K8S)
    after = of_kind(documents, "ConfigMap")["metadata"]["name"]
    driver = of_kind(documents, "RayJob")["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    assert after != before and driver["volumes"][1]["configMap"]["name"] == after
    assert config_of(documents)["storage"] == "/storage/other"


def test_secrets_are_random_and_long_and_the_list_of_keys_has_each() -> None:
    first, second = (render("secrets", Values(), K8S) for _ in range(2))
    keys = next(document["stringData"] for document in first if document["metadata"]["name"] == "kdray-api-keys")
    assert keys["KDRAY_API_KEYS"] == f"{keys['client']},{keys['metrics']}"
    values = [value for documents in (first, second) for document in documents
              for value in document["stringData"].values()]
    assert len(set(values)) == len(values) and min(map(len, values)) >= 40


def test_the_nightly_job_is_the_job_with_all_that_components_made_of_it() -> None:
    nightly = of_kind(render("nightly", Values(components=("gpu",)), K8S), "RayCronJob")["spec"]["jobTemplate"]
    job = of_kind(rendered("gpu"), "RayJob")["spec"]
    changed = {key for key in job if job[key] != nightly.get(key)}
    assert changed == {"entrypoint", "rayClusterSpec", "activeDeadlineSeconds", "backoffLimit",
                       "shutdownAfterJobFinishes", "ttlSecondsAfterFinished"}
    assert nightly["rayClusterSpec"]["workerGroupSpecs"][1:] == job["rayClusterSpec"]["workerGroupSpecs"][1:]


def test_the_nightly_job_promotes_to_the_service_that_is_named_and_may_change_it_alone() -> None:
    documents = render("nightly", Values(namespace="team", service="films"), K8S)
    job = of_kind(documents, "RayCronJob")["spec"]["jobTemplate"]
    assert job["entrypoint"] == "python -m kdray.kubernetes.promote config/config.yaml films"
    assert [rule["resourceNames"] for rule in of_kind(documents, "Role")["rules"]] == [["films"]]
    assert of_kind(documents, "RoleBinding")["subjects"][0]["namespace"] == "team"


@pytest.mark.parametrize(("overlay", "kind", "group"), [("service", "PodDisruptionBudget", "replica"),
                                                        ("serve", "Service", "student")])
def test_what_has_the_name_of_a_service_is_renamed_with_it(overlay: str, kind: str, group: str) -> None:
    documents = render(overlay, Values(run=RUN, name="films"), K8S)
    ray, = (document for document in documents if document["kind"] in RAY)
    named = [document for document in documents
             if document["kind"] == kind and "labels" in document["metadata"]]
    labels = next(worker["template"]["metadata"]["labels"] for worker in cluster_of(ray)["workerGroupSpecs"]
                  if worker["groupName"] == group)
    assert [document["metadata"]["name"] for document in named] == ["films"]
    selector = named[0]["spec"]["selector"]
    assert selector.get("matchLabels", selector).items() <= labels.items()
    assert labels["app.kubernetes.io/instance"] == "films"


def cluster_of(ray: dict[str, Any]) -> dict[str, Any]:
    return ray["spec"].get("rayClusterSpec") or ray["spec"]["rayClusterConfig"]


@pytest.mark.parametrize(("overlay", "script"), STAGES.items())
def test_every_stage_has_a_job_and_its_script(overlay: str, script: str) -> None:
    entrypoint = of_kind(rendered(overlay), "RayJob")["spec"]["entrypoint"]
    assert entrypoint.startswith(f"python jobs/{script}.py ")
    assert (ROOT / "jobs" / f"{script}.py").is_file()


def test_what_is_printed_is_read_back() -> None:
    assert list(yaml.safe_load_all(as_yaml(rendered("nightly")))) == rendered("nightly")


def test_configs_in_overlays_are_sound() -> None:
    assert parse(config_of(rendered("gpu")), "gpu").teacher.num_gpus == 1
    assert parse(config_of(rendered("cpu")), "cpu").teacher.num_gpus == 0


@pytest.mark.parametrize(("overlay", "values", "says"), [
    ("nothing", Values(), "no overlays 'nothing'; there are cache, cpu"),
    ("cpu", Values(components=("fpga",)), "no components 'fpga'; there are bucket"),
    ("cpu", Values(run="x"), "serves no run, so --run x has no place"),
    ("cpu", Values(service="x"), "promotes to no RayService, so --service x has no place"),
    ("service", Values(), "serves a run, and none is given"),
    ("service", Values(run="/storage/x", config="c.yaml"), "runs no config, so c.yaml has no place"),
    ("cpu", Values(image="team/kdray"), "'team/kdray' has no tag"),
    ("cpu", Values(image="host:5000/kdray"), "has no tag"),
    ("cpu", Values(config="missing.yaml"), "no config file missing.yaml"),
    ("service", Values(run="/storage/x", components=("gpu",)), "cannot render overlay service"),
])
def test_what_cannot_be_rendered_says_why(overlay: str, values: Values, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        render(overlay, values, K8S)
    assert says in str(error.value)


def test_elsewhere_the_message_says_where_to_call_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="call this where the repository's k8s folder is"):
        render("cpu", Values(), tmp_path)


def test_without_kustomize_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="neither kubectl nor kustomize is on PATH"):
        render("cpu", Values(), K8S)

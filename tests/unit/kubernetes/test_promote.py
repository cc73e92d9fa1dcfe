import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdray.errors import ClusterError, ConfigError
from kdray.kubernetes.promote import RayServices, gate, promote
from kdray.storage import Store

CONFIG = {"proxy_location": "Disabled", "applications": [{
    "name": "kdray", "import_path": "kdray.serving.deploy:application",
    "args": {"run": "", "settings": {"port": 8000}}}]}


class Api(ThreadingHTTPServer):
    """The little of the Kubernetes API that is asked: one RayService, its version, and who may."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.service: dict[str, Any] = {}
        self.patches: list[dict[str, Any]] = []
        self.refuses = 0

    def serve(self, run: str) -> None:
        config = json.loads(json.dumps(CONFIG))
        config["applications"][0]["args"]["run"] = run
        self.service = {"metadata": {"name": "kdray", "resourceVersion": "7"},
                        "spec": {"serveConfigV2": yaml.safe_dump(config)}}

    @property
    def served(self) -> str:
        return yaml.safe_load(self.service["spec"]["serveConfigV2"])["applications"][0]["args"]["run"]


class Handler(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        self.answer(lambda: None)

    def do_PATCH(self) -> None:
        patch = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Content-Type"] == "application/merge-patch+json"

        def merge() -> None:
            self.server.patches.append(patch)
            self.server.service["spec"].update(patch["spec"])

        self.answer(merge)

    def answer(self, act: Any) -> None:
        known = self.path == "/apis/ray.io/v1/namespaces/team/rayservices/kdray"
        status = self.server.refuses or (401 if self.headers["Authorization"] != "Bearer secret" else
                                         200 if known else 404)
        if status == 200:
            act()
        body = json.dumps(self.server.service).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def api() -> Iterator[Api]:
    server = Api()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def services(api: Api, tmp_path: Path) -> RayServices:
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "namespace").write_text("team")
    return RayServices(f"http://127.0.0.1:{api.server_address[1]}", tmp_path)


def numbers(winner: float, baseline: float = 0.8, metric: str = "accuracy") -> dict[str, Any]:
    scores = {"winner": winner, "baseline": baseline}
    return {"metric": metric, "test": {name: {metric: {"value": score}} for name, score in scores.items()}}


def make_run(folder: Path, name: str, winner: float) -> str:
    store = Store(str(folder))
    with store.staging("evaluations") as place:
        store.publish("evaluations", f"key-of-{name}", place, {"parents": {}, "numbers": numbers(winner)})
    store.write(json.dumps({"evaluation": f"key-of-{name}"}).encode(), "runs", name, "run.json")
    return store.uri_of("runs", name)


@pytest.mark.parametrize(("new", "served", "passes"), [
    (numbers(0.90), numbers(0.90), True),
    (numbers(0.896), numbers(0.90), True),
    (numbers(0.894), numbers(0.90), False),
    (numbers(0.90, baseline=0.91), numbers(0.90), False),
    (numbers(0.90, metric="f1"), numbers(0.10), False),
])
def test_the_gate(new: dict[str, Any], served: dict[str, Any], passes: bool) -> None:
    assert (gate(new, served, 0.005) == "") == passes


def test_a_better_run_takes_over_and_nothing_else_changes(api: Api, services: RayServices, tmp_path: Path) -> None:
    old, new = (make_run(tmp_path, name, score) for name, score in (("old", 0.85), ("new", 0.90)))
    api.serve(old)
    assert promote(new, services, "kdray", 0.005)
    assert api.served == new
    after = yaml.safe_load(api.service["spec"]["serveConfigV2"])
    after["applications"][0]["args"]["run"] = ""
    assert after == CONFIG and api.patches[0]["metadata"] == {"resourceVersion": "7"}


def test_the_token_is_that_of_the_moment(api: Api, services: RayServices, tmp_path: Path) -> None:
    api.serve(make_run(tmp_path, "old", 0.85))
    (tmp_path / "token").write_text("expired")
    with pytest.raises(ClusterError, match="answered 401"):
        services.read("kdray")
    (tmp_path / "token").write_text("secret")
    assert services.read("kdray")["metadata"]["name"] == "kdray"


def test_a_worse_run_does_not(api: Api, services: RayServices, tmp_path: Path) -> None:
    old, new = (make_run(tmp_path, name, score) for name, score in (("old", 0.90), ("new", 0.85)))
    api.serve(old)
    assert not promote(new, services, "kdray", 0.005)
    assert not promote(old, services, "kdray", 0.005)
    assert api.served == old and api.patches == []


def test_what_cannot_be_promoted_says_why(api: Api, services: RayServices, tmp_path: Path) -> None:
    run = make_run(tmp_path, "new", 0.9)
    api.serve(str(tmp_path / "runs" / "gone"))
    with pytest.raises(ConfigError, match="gone is not a run"):
        promote(run, services, "kdray", 0.005)
    with pytest.raises(ClusterError, match="answered 404: there is none; render the overlay service"):
        promote(run, services, "other", 0.005)
    for status, says in ((403, "see the Role kdray-nightly"), (409, "run this again"), (500, "answered 500")):
        api.refuses = status
        with pytest.raises(ClusterError, match=says):
            promote(run, services, "kdray", 0.005)


def test_outside_a_pod_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ClusterError, match="change the run in the RayService's serveConfigV2 with kubectl"):
        RayServices()
    with pytest.raises(ClusterError, match="automountServiceAccountToken: true"):
        RayServices("http://127.0.0.1:1", tmp_path)

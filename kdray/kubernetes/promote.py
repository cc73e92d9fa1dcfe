"""What a config makes becomes what a RayService serves, if it is good enough: the nightly job.

    python -m kdray.kubernetes.promote CONFIG SERVICE

All stages of the config run first; what exists is skipped. Runs in a pod whose service account may read and change the
RayService. Knows nothing about how models are made.
"""

import json
import logging
import os
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from kdray.config import load
from kdray.console import guarded
from kdray.errors import ClusterError, ConfigError
from kdray.kubernetes.serve_config import BUILDER
from kdray.pipeline import Pipeline
from kdray.serving.runs import find_run, run_facts

logger = logging.getLogger("kdray")

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_SECONDS = 30


def main(arguments: list[str]) -> None:
    """All stages of a config; then its run is promoted, or the log says why not."""
    if len(arguments) != 2:
        raise ConfigError("usage: python -m kdray.kubernetes.promote CONFIG SERVICE")
    config = load(arguments[0])
    services = RayServices()
    promote(Pipeline(config).run(), services, arguments[1], config.export.max_drop)


def promote(run: str, services: "RayServices", name: str, max_drop: float) -> bool:
    """Makes the RayService `name` serve `run` if the gate lets it pass; returns whether it did."""
    service = services.read(name)
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    application = next((one for one in config["applications"] if one.get("import_path") == BUILDER), None)
    if application is None:
        raise ConfigError(f"RayService {name} has no application {BUILDER} in serveConfigV2, so nothing of kdray's to "
                          "replace: name another service")
    served = application["args"]["run"]
    if served == run:
        logger.info("%s serves %s already", name, run)
        return False
    if reason := gate(numbers(run), numbers(served), max_drop):
        logger.warning("%s goes on serving %s: %s", name, served, reason)
        return False
    application["args"]["run"] = run
    services.change(service, {"spec": {"serveConfigV2": yaml.safe_dump(config, sort_keys=False)}})
    logger.info("%s serves %s, in place of %s", name, run, served)
    return True


def gate(new: dict[str, Any], served: dict[str, Any], max_drop: float) -> str:
    """Why the new run may not take over, from the test numbers of both; empty where it may."""
    metric = new["metric"]
    if metric != served["metric"]:
        return f"it is measured by {metric}, the served one by {served['metric']}"
    scores = {name: run["test"][model][metric]["value"] for name, run, model in (
        ("winner", new, "winner"), ("baseline", new, "baseline"), ("served", served, "winner"))}
    for other in ("served", "baseline"):
        if scores["winner"] < scores[other] - max_drop:
            return (f"test {metric} {scores['winner']:.4f} is more than export.max_drop = {max_drop:g} below the "
                    f"{scores[other]:.4f} of the {other} one")
    return ""


def numbers(run: str) -> dict[str, Any]:
    """The test numbers of a run. Raises ConfigError where there is no such run."""
    store, name = find_run(run)
    key = run_facts(store, name)["evaluation"]
    made = store.manifest("evaluations", key)
    if made is None:
        raise ConfigError(f"evaluation {key} is gone from {store.uri}: run `kdray evaluate` again")
    return made["numbers"]


class RayServices:
    """RayServices of this pod's namespace, through the Kubernetes API."""

    def __init__(self, url: str | None = None, account: Path = ACCOUNT):
        """`account` has token, namespace and ca.crt of the service account, as a pod sees them."""
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if url is None and host is None:
            raise ClusterError("KUBERNETES_SERVICE_HOST is not set: this runs in a pod. Elsewhere, change the run in "
                               "the RayService's serveConfigV2 with kubectl")
        self._account = account
        namespace = self._told("namespace")
        self._told("token")
        self._url = f"{url or f'https://{host}:{port}'}/apis/ray.io/v1/namespaces/{namespace}/rayservices"
        self._tls = None if url else ssl.create_default_context(cafile=str(account / "ca.crt"))

    def read(self, name: str) -> dict[str, Any]:
        """A RayService. Raises ClusterError where it cannot be read."""
        return self._ask("GET", name, None)

    def change(self, service: dict[str, Any], changes: dict[str, Any]) -> None:
        """Merges `changes` into what was read. Raises ClusterError where somebody else has changed it since."""
        version = {"resourceVersion": service["metadata"]["resourceVersion"]}
        self._ask("PATCH", service["metadata"]["name"], {"metadata": version, **changes})

    def _told(self, name: str) -> str:
        try:
            return (self._account / name).read_text().strip()
        except OSError as error:
            raise ClusterError(f"no token of a service account in {self._account}: set automountServiceAccountToken: "
                               "true on the pod") from error

    def _ask(self, method: str, name: str, body: dict[str, Any] | None) -> dict[str, Any]:
        token = self._told("token")  # now: it is another one every hour, and the stages take longer
        request = urllib.request.Request(
            f"{self._url}/{name}", method=method, data=json.dumps(body).encode() if body else None,
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/merge-patch+json"})
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS, context=self._tls) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise ClusterError(f"{method} of RayService {name} was answered {error.code}: {_why(error)}") from error
        except OSError as error:
            raise ClusterError(f"the Kubernetes API at {self._url} does not answer: {error}. Check the NetworkPolicy's "
                               "egress") from error


def _why(error: urllib.error.HTTPError) -> str:
    remedies = {403: "the service account lacks the right; see the Role kdray-nightly",
                404: "there is none; render the overlay service first",
                409: "somebody changed it at the same time; run this again"}
    return remedies.get(error.code, error.reason)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))

"""Packages become a service on Ray Serve, which answers at a URL until it is taken down.

Knows nothing about models.
"""

import ipaddress
import logging
import signal
import socket
import threading
import time
import urllib.request
import uuid
from contextlib import suppress
from dataclasses import replace
from typing import Any

import ray
from ray import serve
from ray.serve.exceptions import RayServeException

from kdray.cluster import check_resources
from kdray.config import ServeConfig, changed
from kdray.console import sigterm_as_ctrl_c
from kdray.errors import ClusterError, ConfigError, KdrayError, ModelError
from kdray.serving.backends import resolve_backend
from kdray.serving.build import LOGGING, NODE, Service, build
from kdray.serving.endpoint import engine_of
from kdray.serving.guard import read_keys
from kdray.serving.haproxy import binary
from kdray.serving.ingress import ANYWHERE, APP, announce_end, close_ingresses, is_served, machines, this_machine
from kdray.serving.metrics import folder_of
from kdray.serving.predictor import read_package
from kdray.serving.roster import DEFAULT, Engine, Slot, check_fit, fetch_package, load_checked
from kdray.serving.runs import packages, read_run
from kdray.serving.teacher import teacher_of
from kdray.storage import machine_folder

logger = logging.getLogger("kdray")

_READY_SECONDS = 60.0


def application(args: dict[str, Any]) -> serve.Application:
    """The builder that a Serve config names: `args` has the `run` and `settings`, as under `serve` in its config.

    API keys, or their digests, are in KDRAY_API_KEYS or the settings' file where it runs; the replicas get digests.
    Each package is loaded and checked first. Raises KdrayError, so that what is served stays, where there is no such
    run, its package fails or does not fit what its name serves, or the service would be open to anybody.
    """
    config, package = read_run(args["run"])
    settings = changed(config.serve, args.get("settings", {}))
    keys = read_keys(settings.keys)
    check_open(settings, keys)
    students = {name: Slot(package=uri) for name, uri in packages(package, settings).items()}
    before = _served()
    for name, slot in students.items():
        manifest = check(slot.package, settings)
        if name in before:
            check_fit(slot.package, manifest, name, read_package(fetch_package(before[name].package)))
    service = Service.of(settings, folder_of(str(settings.port)), package if settings.teacher else None)
    return build(service, students, keys)


def deploy(served: dict[str, str], settings: ServeConfig, keys: list[str], blocking: bool) -> str:
    """Puts packages, folders or URIs by name, behind HTTP and returns the URL, once it answers.

    `keys` are digests of API keys. Ray must be connected. A service of the same packages that runs gets the settings
    and keys. With `blocking`, stays until Ctrl-C or SIGTERM, takes the service down, and lets SIGTERM do what it does.
    Raises KdrayError where a package cannot be served, the cluster is too small or has a service of other packages, the
    port is taken, or the service would be open to anybody.
    """
    check_open(settings, keys)
    binary()
    machine_folder()  # where its ingress is noted; refused before anything starts
    for uri in served.values():
        folder = fetch_package(uri)
        read_package(folder)
        resolve_backend(folder, settings.backend, settings.num_gpus)
    service = Service.of(settings, folder_of(uuid.uuid4().hex), served[DEFAULT] if settings.teacher else None)
    if settings.teacher:
        teacher_of(served[DEFAULT])
        check_resources(1, {"CPU": settings.teacher.num_cpus, "GPU": settings.teacher.num_gpus}, "serve.teacher")
    check_resources(settings.replicas, {"CPU": settings.num_cpus, "GPU": settings.num_gpus}, "serve.replicas",
                    {NODE: service.node} if service.node else {})
    students = {name: Slot(package=uri) for name, uri in served.items()}
    with sigterm_as_ctrl_c() as came:
        url = _start(service, students, keys)
        if blocking:
            _serve_until_interrupted(url, served)
    if came:
        signal.raise_signal(signal.SIGTERM)
    return url


def want(service: Service, students: dict[str, Slot], keys: list[str]) -> None:
    """Has Ray Serve run, from now on, the service of these students and digests of keys; returns when it does."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.run(build(service, students, keys), name=APP, route_prefix=None)


def take_down() -> None:
    """Stops the service, and Serve with it where nothing else runs on it; no request that is in hand is lost."""
    with suppress(ray.exceptions.RayError):
        announce_end()
    if serve.status().applications.keys() <= {APP}:
        serve.shutdown()
    else:
        serve.delete(APP)
    close_ingresses()


def check(uri: str, settings: ServeConfig) -> dict[str, Any]:
    """Loads the package and runs its parity sample where the cluster is, in a process of its own; its manifest.

    Raises KdrayError where that fails, ClusterError where the process does not survive it.
    """
    task = ray.remote(num_cpus=0, num_gpus=settings.num_gpus, max_retries=0)(_load_and_forget)
    try:
        return ray.get(task.remote(uri, engine_of(settings)))
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, ModelError) else error from None
    except ray.exceptions.WorkerCrashedError as error:
        raise ClusterError(f"a process that loaded {uri} ended at once: {error}. It is not served") from error


def _load_and_forget(uri: str, engine: Engine) -> dict[str, Any]:
    return load_checked(uri, engine)[0]


def _serve_until_interrupted(url: str, served: dict[str, str]) -> None:
    logger.info("%s at %s", ", ".join(served) if served.keys() != {DEFAULT} else "answers", url)
    try:
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
    finally:
        take_down()


def _start(service: Service, students: dict[str, Slot], keys: list[str]) -> str:
    there = is_served()
    service = _as_running(service, students) if there else _at_free_port(service)
    try:
        serve.start(proxy_location="Disabled", logging_config=LOGGING)
        want(service, students, keys)
        return _answering(service.settings)
    except BaseException as error:
        said = _said_at_start() if isinstance(error, RuntimeError) else ""
        if not there:
            take_down()
        if isinstance(error, RuntimeError):
            names = ", ".join(slot.package for slot in students.values())
            raise ClusterError(f"Ray Serve did not start {names}: " + (said or f"{error} The log of the replica, "
                               "logs/serve in Ray's session folder, says why")) from error
        raise


def _said_at_start() -> str:
    """Which error of kdray a replica ended with; empty where it was none."""
    found = serve.status().applications[APP].deployments.values() if is_served() else ()
    last = [one.message.strip().rpartition("\n")[2].partition(": ") for one in found]
    return next((message for name, _, message in last if name.startswith(f"{KdrayError.__module__}.")), "")


def running() -> dict[str, Any]:
    """State of the service on this cluster. Raises ClusterError where there is none."""
    if not is_served():
        raise ClusterError("no kdray service runs on this cluster: start one with `kdray serve RUN`")
    return serve.get_app_handle(APP).state.remote().result(timeout_s=_READY_SECONDS)


def _served() -> dict[str, Slot]:
    """What the service of this cluster serves, by name; nothing where there is none."""
    with suppress(ClusterError, RayServeException, TimeoutError):  # or no replica has come up yet
        return {name: Slot.model_validate(slot) for name, slot in running()["students"].items()}
    return {}


def _as_running(service: Service, students: dict[str, Slot]) -> Service:
    """The service in the place of the one that runs. Raises ClusterError where that serves something else."""
    state = running()
    there = {name: slot["package"] for name, slot in state["students"].items()}
    if there != {name: slot.package for name, slot in students.items()}:
        raise ClusterError(f"a service runs on this cluster already, on port {state['settings']['port']}, with "
                           f"{', '.join(f'{name}: {uri}' for name, uri in there.items())}. Change what it serves with "
                           "`kdray serve RUN --promote`, or end it first: Ctrl-C where it was started, or `serve "
                           "shutdown`")
    port = service.settings.port or state["settings"]["port"]
    return replace(service, settings=service.settings.model_copy(update={"port": port}), metrics=state["metrics"])


def _answering(settings: ServeConfig) -> str:
    """The URL of the service, once it answers there."""
    host = settings.host
    if host in ANYWHERE:
        found = machines()
        host = this_machine() if this_machine() in found else min(found, default=this_machine())
    url = f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"
    ends = time.monotonic() + _READY_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"{url}/-/healthz", timeout=_READY_SECONDS).close()
            return url
        except OSError as error:
            if time.monotonic() > ends:
                raise ClusterError(f"{url} does not answer, though its replicas run: {error}") from error
            time.sleep(0.05)


def check_open(settings: ServeConfig, keys: list[str]) -> None:
    """Raises ConfigError where anybody on the network could ask, and nobody said so."""
    if keys or settings.open or _is_loopback(settings.host):
        return
    raise ConfigError(f"serve.host = {settings.host} lets anybody on the network ask. Give API keys (serve.keys, a "
                      "file with one key a line, or KDRAY_API_KEYS), or say serve.open=true")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _at_free_port(service: Service) -> Service:
    """The service at its port, if that is free here, where its replicas must be here; at any free one for port 0."""
    settings = service.settings
    if settings.port and service.node is None:
        return service
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.create_server((settings.host, settings.port), family=family) as server:
            port = server.getsockname()[1]
    except OSError as error:
        raise ClusterError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}. Choose another "
                           "`serve.port` or `serve.host`") from error
    return replace(service, settings=settings.model_copy(update={"port": port}))

"""Packages become a service on Ray Serve, and a running service changes what it serves.

Ray Serve places, watches, replaces and scales the replicas; requests go to the replicas themselves. Knows nothing about
models or HTTP.
"""

import ipaddress
import logging
import os
import socket
import tempfile
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray import serve

import kdray
from kdray.cluster import check_resources
from kdray.config import ServeConfig, changed
from kdray.console import sigterm_as_ctrl_c
from kdray.errors import ClusterError, ConfigError, ModelError
from kdray.serving import whereabouts
from kdray.serving.backends import resolve_backend
from kdray.serving.endpoint import Endpoint, engine_of, scale
from kdray.serving.guard import read_keys
from kdray.serving.metrics import FOLDER as METRICS
from kdray.serving.predictor import read_package
from kdray.serving.roster import DEFAULT, Engine, Slot, fetch_package, load_checked
from kdray.serving.runs import packages, read_run
from kdray.serving.teacher import Teacher, teacher_of, threshold
from kdray.storage import content_key, machine_folder

logger = logging.getLogger("kdray")

_APP = "kdray"
_LOGGING = {"log_level": "WARNING", "enable_access_log": False}
_HEALTH_SECONDS = 2
_ANSWER_SECONDS = 60.0


def build(students: dict[str, Slot], settings: ServeConfig, keys: list[str], metrics: str,
          taught: str | None) -> serve.Application:
    """The Serve application for students by name.

    `keys` are digests of API keys, `metrics` is a folder of this service alone, on every machine, for its metrics,
    `taught` the package whose teacher answers beside the students.
    """
    plain = settings.model_dump()
    names = {name: slot.model_dump() for name, slot in students.items()}
    count: dict[str, Any] = {"num_replicas": settings.replicas}
    if settings.max_replicas:
        count = {"autoscaling_config": {
            "min_replicas": settings.replicas, "max_replicas": settings.max_replicas,
            "policy": {"policy_function": f"{scale.__module__}:{scale.__name__}"}}}
    deployment = serve.deployment(
        name="Endpoint", **count, max_constructor_retry_count=2, logging_config=_LOGGING,
        health_check_period_s=_HEALTH_SECONDS,
        user_config={"students": names, "keys": keys, "thresholds": _thresholds(students[DEFAULT], settings)},
        ray_actor_options={
            "num_cpus": settings.num_cpus, "num_gpus": settings.num_gpus,
            "runtime_env": {"env_vars": {METRICS: metrics}}})(Endpoint)
    # A version of our own: with Serve's random one, every change of the students would replace all replicas.
    version = content_key([kdray.__version__, plain, taught])
    teacher = _teacher(taught, settings, version) if taught else []
    return deployment.options(version=version, _internal=True).bind(plain, *teacher)


def _teacher(taught: str, settings: ServeConfig, version: str) -> list[Any]:
    own = settings.teacher
    assert own is not None
    deployment = serve.deployment(
        name="Teacher", logging_config=_LOGGING, max_constructor_retry_count=2, max_ongoing_requests=64,
        ray_actor_options={"num_cpus": own.num_cpus, "num_gpus": own.num_gpus})(Teacher)
    return [taught, deployment.options(version=version, _internal=True).bind(taught, settings.model_dump())]


def _thresholds(slot: Slot, settings: ServeConfig) -> dict[str, float]:
    """Confidence below which the teacher answers, by package; empty without a cascade."""
    if settings.teacher is None or settings.teacher.cascade is None:
        return {}
    return {uri: threshold(uri, settings, settings.teacher.cascade) for uri in slot.packages}


def application(args: dict[str, Any]) -> serve.Application:
    """The builder that a Serve config names: `args` has the `run` and `settings`, as under `serve` in its config.

    API keys are in the replicas' KDRAY_API_KEYS. Raises KdrayError where there is no such run, or the service would be
    open to anybody.
    """
    config, package = read_run(args["run"])
    settings = changed(config.serve, args.get("settings", {}))
    keys = read_keys(settings.keys)
    _check_open(settings, keys)
    students = {name: Slot(package=uri) for name, uri in packages(package, settings).items()}
    return build(students, settings, keys, _metrics_folder(str(settings.port)), package if settings.teacher else None)


def deploy(served: dict[str, str], settings: ServeConfig, blocking: bool) -> str:
    """Puts packages, folders or URIs by name, behind HTTP and returns the URL, once it answers.

    Ray must be connected. With `blocking`, stays until Ctrl-C or SIGTERM and then takes the service down. Raises
    KdrayError where a package cannot be served, the cluster is too small, the port is taken, or the service would be
    open to anybody.
    """
    keys = read_keys(settings.keys)
    _check_open(settings, keys)
    for uri in served.values():
        folder = fetch_package(uri)
        read_package(folder)
        resolve_backend(folder, settings.backend, settings.num_gpus)
    if settings.teacher:
        teacher_of(served[DEFAULT])
        check_resources(1, {"CPU": settings.teacher.num_cpus, "GPU": settings.teacher.num_gpus}, "serve.teacher")
    check_resources(settings.replicas, {"CPU": settings.num_cpus, "GPU": settings.num_gpus}, "serve.replicas")
    students = {name: Slot(package=uri) for name, uri in served.items()}
    if not blocking:
        return _start(students, settings, keys)
    with sigterm_as_ctrl_c():
        url = _start(students, settings, keys)
        logger.info("%s at %s", ", ".join(served) if served.keys() != {DEFAULT} else "answers", url)
        try:
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
        finally:
            take_down()
            whereabouts.forget(int(url.rpartition(":")[2]))
    return url


def promote(name: str, uri: str) -> Slot:
    """Makes the package at `uri` what `name` serves.

    Raises KdrayError, and changes nothing, where the package fails its check.
    """
    return _change(name, uri, lambda slot: Slot(package=uri, previous=slot.package if slot else None))


def put_canary(name: str, uri: str, share: float) -> Slot:
    """Lets the package at `uri` answer a `share` of the requests to `name`. Raises KdrayError as `promote`."""

    def beside(slot: Slot | None) -> Slot:
        if slot is None:
            raise ConfigError(f"nothing is served as {name!r}: there is nothing to try {uri} against")
        return slot.model_copy(update={"canary": uri, "share": share})

    return _change(name, uri, beside)


def back(name: str) -> Slot:
    """Ends the canary of `name`, or without one returns to what it served before the last promotion."""

    def earlier(slot: Slot | None) -> Slot:
        if slot is not None and slot.canary:
            return slot.model_copy(update={"canary": None, "share": 0.0})
        if slot is None or slot.previous is None:
            raise ConfigError(f"{name!r} has no canary and has served nothing else: there is nothing to go back to")
        return Slot(package=slot.previous, previous=slot.package)

    return _change(name, None, earlier)


def take_down() -> None:
    """Stops the service, and Serve with it where nothing else runs on it."""
    if serve.status().applications.keys() <= {_APP}:
        serve.shutdown()
    else:
        serve.delete(_APP)


def running() -> dict[str, Any]:
    """State of the service on this cluster. Raises ClusterError where there is none."""
    if _APP not in serve.status().applications:
        raise ClusterError("no kdray service runs on this cluster: start one with `kdray serve RUN`")
    return serve.get_app_handle(_APP).state.remote().result(timeout_s=_ANSWER_SECONDS)


def _change(name: str, uri: str | None, change: Callable[[Slot | None], Slot]) -> Slot:
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    state = running()
    settings = ServeConfig.model_validate(state["settings"])
    students = {one: Slot.model_validate(slot) for one, slot in state["students"].items()}
    students[name] = change(students.get(name))
    if uri is not None:
        _check(uri, settings)
    keys = read_keys(settings.keys) or state["keys"]  # whoever changes a service need not know its keys
    serve.run(build(students, settings, keys, state["metrics"], state["taught"]), name=_APP, route_prefix=None)
    refused = running()["refused"]
    if name in refused:
        raise ModelError(refused[name])
    return students[name]


def _check(uri: str, settings: ServeConfig) -> None:
    """Loads the package and runs its parity sample where the cluster is, before any replica hears of it."""
    task = ray.remote(num_cpus=0, num_gpus=settings.num_gpus, max_retries=0)(_load_and_forget)
    try:
        ray.get(task.remote(uri, engine_of(settings)))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ModelError):
            raise error.cause from None
        raise


def _load_and_forget(uri: str, engine: Engine) -> None:
    load_checked(uri, engine)


def _start(students: dict[str, Slot], settings: ServeConfig, keys: list[str]) -> str:
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    noted = not os.environ.get("RAY_ADDRESS")
    if noted:
        machine_folder()  # where the note goes; refused before anything starts
    there = _APP in serve.status().applications
    taught = students[DEFAULT].package if settings.teacher else None
    metrics = running()["metrics"] if there else _metrics_folder(uuid.uuid4().hex)
    if not there:
        settings = settings.model_copy(update={"port": _free_port(settings.host, settings.port)})
    try:
        serve.start(proxy_location="Disabled", logging_config=_LOGGING)
        serve.run(build(students, settings, keys, metrics, taught), name=_APP, route_prefix=None)
    except BaseException as error:
        if not there:
            take_down()
        if isinstance(error, RuntimeError):
            names = ", ".join(slot.package for slot in students.values())
            raise ClusterError(f"Ray Serve did not start {names}: {error} The log of the replica, logs/serve in "
                               "Ray's session folder, says why") from error
        raise
    if noted:
        whereabouts.note(settings.port, whereabouts.Cluster(
            ray.get_runtime_context().gcs_address, os.environ.get("RAY_AUTH_MODE", "disabled"), settings.host))
    return _url(settings.host, settings.port)


def _check_open(settings: ServeConfig, keys: list[str]) -> None:
    if keys or settings.open or _is_loopback(settings.host):
        return
    raise ConfigError(f"serve.host = {settings.host} lets anybody on the network ask. Give API keys (serve.keys, a "
                      "file with one key a line, or KDRAY_API_KEYS), or say serve.open=true")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _free_port(host: str, port: int) -> int:
    """`port`, or any that is free where it is 0."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family) as server:
            return server.getsockname()[1]
    except OSError as error:
        raise ClusterError(f"cannot listen on {host}:{port}: {error.strerror}. Choose another `serve.port` "
                           "or `serve.host`") from error


def _metrics_folder(service: str) -> str:
    return str(Path(tempfile.gettempdir()) / f"kdray-metrics-{service}")


def _url(host: str, port: int) -> str:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"

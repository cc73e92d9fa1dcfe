"""A running service changes what it serves and whom it answers, one change after the other.

What is to be served is loaded and checked by every replica before it is wanted, and no longer wanted where one then
refuses. What is wanted is Ray Serve's to keep, so it survives whoever asked for it. Knows nothing about models.
"""

import time
from collections.abc import Callable
from typing import Any

import ray
from ray import serve
from ray.serve.exceptions import DeploymentUnavailableError

from kdray.config import ServeConfig
from kdray.errors import ClusterError, ConfigError, ModelError
from kdray.serving.build import Service
from kdray.serving.deploy import check, check_open, running, want
from kdray.serving.ingress import APP
from kdray.serving.roster import Slot
from kdray.serving.turn import turn

_ANSWER_SECONDS, _LOAD_SECONDS = 60.0, 600.0
_LOOK_SECONDS = 0.2


def promote(name: str, uri: str) -> Slot:
    """Makes the package at `uri` what `name` serves.

    Raises KdrayError, and changes nothing, where the package fails its check or does not fit what `name` serves.
    """
    return _change(name, lambda slot: Slot(package=uri, previous=slot.package if slot else None))


def put_canary(name: str, uri: str, share: float) -> Slot:
    """Lets the package at `uri` answer a `share` of the requests to `name`. Raises KdrayError as `promote`."""

    def beside(slot: Slot | None) -> Slot:
        if slot is None:
            raise ConfigError(f"nothing is served as {name!r}: there is nothing to try {uri} against")
        return slot.model_copy(update={"canary": uri, "share": share})

    return _change(name, beside)


def back(name: str) -> Slot:
    """Ends the canary of `name`, or without one returns to what it served before the last promotion."""

    def earlier(slot: Slot | None) -> Slot:
        if slot is not None and slot.canary:
            return slot.model_copy(update={"canary": None, "share": 0.0})
        if slot is None or slot.previous is None:
            raise ConfigError(f"{name!r} has no canary and has served nothing else: there is nothing to go back to")
        return Slot(package=slot.previous, previous=slot.package)

    return _change(name, earlier)


def replace_keys(keys: list[str]) -> None:
    """Lets those in who have one of `keys`, digests of API keys, and nobody else.

    Raises ConfigError where that would be everybody.
    """
    with turn():
        state = running()
        service, students = _read(state)
        check_open(service.settings, keys)
        want(service, students, keys)


def _change(name: str, change: Callable[[Slot | None], Slot]) -> Slot:
    with turn():
        state = running()
        service, before = _read(state)
        slot, old = change(before.get(name)), before.get(name)
        for uri in slot.packages:
            if old is None or uri not in old.packages:
                _prepare(name, uri, service.settings)
        want(service, {**before, name: slot}, state["keys"])
        if reasons := [one["refused"][name] for one in _all("state") if name in one["refused"]]:
            want(service, before, state["keys"])
            raise ModelError(f"{reasons[0]} ({name} serves what it served)")
        return slot


def _read(state: dict[str, Any]) -> tuple[Service, dict[str, Slot]]:
    service = Service(ServeConfig.model_validate(state["settings"]), state["metrics"], state["taught"], state["node"])
    return service, {name: Slot.model_validate(slot) for name, slot in state["students"].items()}


def _prepare(name: str, uri: str, settings: ServeConfig) -> None:
    """Lets every replica load the package and check it. Raises KdrayError, with nothing loaded, where one refuses."""
    check(uri, settings)  # first where nobody is hurt by a package that ends its process
    if refusals := [said for said in _all("prepare", name, uri, seconds=_LOAD_SECONDS) if said]:
        _all("release")
        raise ModelError(refusals[0])


def _all(method: str, *arguments: Any, seconds: float = _ANSWER_SECONDS) -> list[Any]:
    """What every replica answers. Raises ClusterError where one does not."""
    ends = time.monotonic() + seconds
    while True:
        try:
            return serve.get_app_handle(APP).broadcast(method, *arguments).results(timeout_s=seconds)
        except DeploymentUnavailableError as error:  # the only replica is being replaced
            if time.monotonic() > ends:
                raise ClusterError(f"no replica answers {method}: {error}") from error
            time.sleep(_LOOK_SECONDS)
        except (ray.exceptions.RayError, TimeoutError) as error:
            raise ClusterError(f"a replica did not answer {method}: {error}. Nothing has changed: try again") from error

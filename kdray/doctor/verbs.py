"""`kdray doctor`: an environment or a cluster becomes a list of checks, printed line by line."""

import os
import platform
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from kdray.config import Config
from kdray.corpus.files import find_files, is_file
from kdray.doctor import findings, machine
from kdray.doctor.findings import Facts, Finding, Node
from kdray.doctor.preflight import model_folders, shared_folders
from kdray.errors import ClusterError, KdrayError, ModelError
from kdray.models.precision import resolve_precision
from kdray.needs import needs, shortage
from kdray.storage import Store, machine_folder

_RAY_PORTS = {6379: "the GCS of `ray start --head`", 8265: "Ray's dashboard, to which jobs are submitted"}
_RAY_SHARE = 0.3
"""Of a machine's memory, for the object store."""


def doctor(config: Config | None) -> None:
    """Prints every check of this machine, and of the cluster of RAY_ADDRESS, for what a config asks.

    Raises ClusterError where something is wrong.
    """
    joining = bool(os.environ.get("RAY_ADDRESS"))
    levels = []
    for finding in _checks(config, joining):
        levels.append(finding.level)
        _print(finding)
    if wrong := levels.count("wrong"):
        raise ClusterError(f"{wrong} of {len(levels)} checks {'is' if wrong == 1 else 'are'} wrong. What to do is said "
                           "below each")
    warnings = levels.count("warning")
    print(f"nothing is wrong: {len(levels)} checks, {warnings} warning{'' if warnings == 1 else 's'}")


def _checks(config: Config | None, joining: bool) -> Iterator[Finding]:
    """Each check, as soon as it is done: what takes longest comes last."""
    here = Facts(**machine.look(None if joining or not config else config.storage, None, [], True))
    yield from _machine(here)
    yield from findings.token(joining, os.environ.get("RAY_AUTH_MODE"), *_token())
    if config:
        yield from _inputs(config)
    if joining:
        yield from _cluster(config)
    else:
        yield from _alone(config, here)


def _print(finding: Finding) -> None:
    print(f"{finding.level:9}{finding.check:15}{finding.text}", flush=True)
    if finding.remedy:
        print(f"{'':9}{'':15}-> {finding.remedy}", flush=True)


def _machine(here: Facts) -> Iterator[Finding]:
    yield Finding("ok", "python", f"{platform.python_version()} on {platform.node()}, kdray {here.versions['kdray']}")
    try:
        yield from findings.packages(requires("kdray") or [], machine.installed)
    except PackageNotFoundError:
        yield Finding("warning", "packages", "kdray is imported from a folder and not installed: what it needs is not "
                      "known", findings.PINNED)
    yield Finding("ok", "processor", f"{_cpus()} CPUs; precision auto is {resolve_precision('auto')} on them")
    yield Finding("ok", "gpus", ", ".join(here.gpus or []) or "torch sees none")
    temporary = tempfile.gettempdir()
    yield findings.disk("temporary files", temporary, shutil.disk_usage(temporary).free, "TMPDIR")
    yield _found("own folder", lambda: f"{machine_folder()} is this user's alone")


def _alone(config: Config | None, here: Facts) -> Iterator[Finding]:
    """What a Ray that kdray starts on this machine wants."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield findings.shared_memory([Node("this machine", {"object_store_memory": _RAY_SHARE * memory}, here)])
    for number, purpose in _RAY_PORTS.items():
        yield findings.port(number, purpose, _taken(number), "Where a Ray runs here that you mean to use, export "
                            "RAY_ADDRESS; else leave it: kdray starts its own on other ports")
    if config:
        yield from findings.storage_everywhere(config.storage, here, [])
        there = Store(config.storage)
        if there.local:
            yield findings.disk("storage", there.root, shutil.disk_usage(_existing(there.root)).free, "`storage`")
        yield findings.port(config.serve.port, "kdray serve", _taken(config.serve.port), "Choose another serve.port")
        own = [{"CPU": float(_cpus()), "GPU": float(len(here.gpus or []))}]
        yield from findings.room([short for need in needs(config)
                                  if (short := shortage(need, [] if need.labels else own))], grows=False)


def _cluster(config: Config | None) -> Iterator[Finding]:
    """What the cluster of RAY_ADDRESS is."""
    from kdray.cluster import connect, living, may_grow, nodes_with
    from kdray.doctor.nodes import ask_nodes

    try:
        connect()
    except ClusterError as error:
        yield Finding("wrong", "cluster", str(error))
        return
    folders: list[str] = []
    with suppress(ModelError):  # said before
        folders = shared_folders(config) if config else []
    here, nodes = ask_nodes(config.storage if config else None, folders, True)
    yield from findings.answers(nodes)
    yield from findings.same_versions(here, nodes)
    yield from findings.gpus_seen(nodes)
    yield findings.shared_memory(nodes)
    if config:
        yield from findings.storage_everywhere(config.storage, here, nodes)
        yield from findings.folders_everywhere(here, nodes)
        yield from findings.room([short for need in needs(config)
                                  if (short := shortage(need, nodes_with(need.labels)))], may_grow(living()))


def _inputs(config: Config) -> Iterator[Finding]:
    """Files and folders that a config names, those of a hub aside."""
    for source in config.data.places.values():
        if is_file(source):
            yield _found("data", partial(_files, source))
    yield _found("models", lambda: ", ".join(model_folders(config, hub=False)) or "all from a hub")


def _files(source: str) -> str:
    count = len(find_files(source))
    return source if count == 1 else f"{count} files of {source}"


def _found(check: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding("ok", check, look())
    except KdrayError as error:
        return Finding("wrong", check, str(error))


def _cpus() -> int:
    return len(os.sched_getaffinity(0))


def _token() -> tuple[str | None, int | None]:
    """Where Ray finds its token, in its order, and the permission bits of that file."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN", None
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    return (str(path), stat.S_IMODE(path.stat().st_mode)) if path.is_file() else (None, None)


def _taken(number: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", number)) == 0


def _existing(path: str) -> Path:
    return next(parent for parent in (Path(path), *Path(path).parents) if parent.exists())

"""Facts become findings: what was checked, how it is, and what to do. Plain data in, plain data out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from packaging.requirements import Requirement

from kdray.doctor.machine import ABSENT
from kdray.errors import GIVE_TOKEN

Level = Literal["ok", "warning", "wrong"]
GIB = 2**30
_FULL, _TIGHT = 1 * GIB, 10 * GIB
PINNED = "Install what cluster/constraints.txt pins (pip install -c cluster/constraints.txt kdray)"


@dataclass(frozen=True)
class Finding:
    """One line of a check-up."""

    level: Level
    check: str
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Facts:
    """What a process sees of its machine."""

    versions: dict[str, str | None]
    storage: str | None = None
    """What is wrong with the storage there; None where nothing is, or nobody asked."""
    folders: dict[str, str | None] = field(default_factory=dict)
    """Fingerprint of each model folder that was asked for; None where it is not there."""
    gpus: list[str] | None = None
    """GPUs that torch sees; None where nobody asked."""
    shared_memory: int = 0
    """Bytes of /dev/shm."""


@dataclass(frozen=True)
class Node:
    """A node of the cluster, and what a process there saw."""

    name: str
    resources: dict[str, float]
    facts: Facts | None
    trouble: str = ""
    """Why there are no facts."""


def packages(required: Sequence[str], installed: Callable[[str], str | None]) -> list[Finding]:
    """The requirements of a distribution, extras aside, against what is installed."""
    wanted = [one for one in map(Requirement, required) if not one.marker or one.marker.evaluate({"extra": ""})]
    wrong = []
    for one in wanted:
        there = installed(one.name)
        if there is None or not one.specifier.contains(there, prereleases=True):
            wrong.append(Finding("wrong", "packages", f"{one.name} {there or 'is missing'}, kdray needs "
                                 f"{one.specifier}", PINNED))
    return wrong or [Finding("ok", "packages", f"the {len(wanted)} that kdray needs are there, each in a version it "
                             "takes")]


def disk(place: str, path: str, free: int, setting: str) -> Finding:
    """Bytes free where `place` is, which `setting` chose."""
    text = f"{free / GIB:.1f} GiB free for {place} in {path}"
    if free >= _TIGHT:
        return Finding("ok", "disk", text)
    return Finding("wrong" if free < _FULL else "warning", "disk", text, f"Free some, or choose another {setting}")


def shared_memory(nodes: Sequence[Node]) -> Finding:
    """/dev/shm against what Ray's object store takes."""
    small = [node for node, facts in _answered(nodes)
             if facts.shared_memory < node.resources.get("object_store_memory", 0)]
    if not small:
        return Finding("ok", "shared memory", "/dev/shm holds Ray's object store")
    facts = small[0].facts or Facts({})
    return Finding("warning", "shared memory", f"{_names([node.name for node in small])}: /dev/shm has "
                   f"{facts.shared_memory / GIB:.1f} GiB, Ray's object store wants "
                   f"{small[0].resources['object_store_memory'] / GIB:.1f} and is smaller, or on disk",
                   "Give the container more (docker run --shm-size; in Kubernetes an emptyDir of medium Memory)")


def port(number: int, purpose: str, taken: bool, remedy: str) -> Finding:
    """A port that is wanted on this machine."""
    if not taken:
        return Finding("ok", "ports", f"{number} is free for {purpose}")
    return Finding("warning", "ports", f"{number} is taken, wanted for {purpose}", remedy)


def token(joining: bool, mode: str | None, origin: str | None, permissions: int | None) -> list[Finding]:
    """RAY_AUTH_MODE, and where a token was found, with the permission bits of its file."""
    said = f"RAY_AUTH_MODE is {mode or 'not set'}, " + (f"a token is in {origin}" if origin else "there is no token")
    found = []
    if joining and mode == "token" and not origin:
        found.append(Finding("wrong", "token", said, GIVE_TOKEN))
    elif joining and mode != "token":
        found.append(Finding("warning", "token", f"{said}: this process sends none", "Where the cluster wants one, "
                             "export RAY_AUTH_MODE=token; where it does not, whoever reaches its ports may run code on "
                             "it"))
    else:
        found.append(Finding("ok", "token", said))
    if permissions is not None and permissions & 0o077:
        found.append(Finding("warning", "token", f"{origin} may be read by others (mode {permissions:o})",
                             f"chmod 600 {origin}"))
    return found


def room(shortages: Sequence[str], grows: bool) -> list[Finding]:
    """What `needs.shortage` said of each need of a config."""
    if not shortages:
        return [Finding("ok", "room", "every stage of the config fits")]
    remedy = "Lower it, or add nodes"
    if grows:
        remedy = f"An autoscaler may add nodes, and is waited for. Where it may not add as many: {remedy.lower()}"
    return [Finding("warning" if grows else "wrong", "room", text, remedy) for text in shortages]


def answers(nodes: Sequence[Node]) -> list[Finding]:
    """Nodes that did not answer."""
    silent = list(_grouped("nodes", ((node.trouble, node.name) for node in nodes if node.facts is None),
                           "Look at raylet.out in Ray's logs there, or take the node out and start it again"))
    total = {name: sum(node.resources.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
    who = f"all {len(nodes)} nodes answer" if len(nodes) > 1 else "the one node answers"
    return silent or [Finding("ok", "nodes", f"{who}: {total['CPU']:g} CPU, {total['GPU']:g} GPU")]


def same_versions(here: Facts, nodes: Sequence[Node]) -> list[Finding]:
    """Versions on nodes that are not the driver's; of Python, the last part does not matter."""
    different = [(f"{name} {_short(name, facts.versions.get(name)) or 'is missing'}, and {_short(name, mine)} here",
                  node.name) for node, facts in _answered(nodes) for name, mine in here.versions.items()
                 if _short(name, facts.versions.get(name)) != _short(name, mine)]
    known = ", ".join(f"{name} {_short(name, there)}" for name, there in here.versions.items())
    return list(_grouped("versions", different, f"{PINNED} there and here, or start every node, and the driver, from "
                         "the same image")) or [Finding("ok", "versions", f"the same here and on every node: {known}")]


def storage_everywhere(uri: str, here: Facts, nodes: Sequence[Node]) -> list[Finding]:
    """Whether driver and nodes read and write the same storage."""
    local = "://" not in uri
    if here.storage is not None:
        return [Finding("wrong", "storage", f"{uri} cannot be written from here: {here.storage}",
                        "Choose another `storage`" + ("" if local else ", or give this machine credentials for it"))]
    absent = ((f"{uri} is another folder there: it does not have what was just written here" if local else
               f"{uri} is another place there: it does not have what was just written here", node.name)
              for node, facts in _answered(nodes) if facts.storage == ABSENT)
    failed = ((f"{uri} cannot be written and read: {facts.storage}", node.name)
              for node, facts in _answered(nodes) if facts.storage not in (None, ABSENT))
    found = [*_grouped("storage", absent, "Choose a `storage` that all nodes share: s3://, gs://, or a folder on a "
                       "network file system mounted at the same path on each"),
             *_grouped("storage", failed, "Let the nodes in: rights on the folder, or credentials in the environment "
                       "in which Ray was started there, or an instance role. Those of the driver stay with it")]
    return found or [Finding("ok", "storage", f"{uri} can be written from here" +
                             (", and from every node" if nodes else ""))]


def folders_everywhere(here: Facts, nodes: Sequence[Node]) -> list[Finding]:
    """Whether nodes that work see the same model folders as the driver."""
    working = [(node, facts) for node, facts in _answered(nodes)
               if node.resources.get("CPU", 0) > 0 or node.resources.get("GPU", 0) > 0]
    absent = ((f"{folder} is not there", node.name) for node, facts in working for folder in here.folders
              if facts.folders.get(folder) is None)
    other = ((f"{folder} holds another model there (fingerprint {there}, {mine} here)", node.name)
             for node, facts in working for folder, mine in here.folders.items()
             if (there := facts.folders.get(folder)) not in (None, mine))
    found = list(_grouped("models", [*absent, *other], "Put the model at that path on every node: in the image, or on "
                          "a file system that they share"))
    return found or [Finding("ok", "models", f"{folder} is the same on every node that works")
                     for folder in here.folders]


def gpus_seen(nodes: Sequence[Node]) -> list[Finding]:
    """GPUs that Ray counts and torch does not see."""
    claimed = [(node, facts) for node, facts in _answered(nodes) if facts.gpus is not None]
    blind = [(f"Ray counts {node.resources.get('GPU', 0):g} GPU, torch sees {len(facts.gpus or [])}", node.name)
             for node, facts in claimed if len(facts.gpus or []) < node.resources.get("GPU", 0)]
    names = sorted({name for _, facts in claimed for name in facts.gpus or []})
    return list(_grouped("gpus", blind, "See that nvidia-smi works there, and that its PyTorch is one for CUDA "
                         "(cluster/Dockerfile with DEVICE=gpu)")) or \
        [Finding("ok", "gpus", f"torch sees what Ray counts: {', '.join(names)}") for _ in claimed[:1]]


def _answered(nodes: Sequence[Node]) -> list[tuple[Node, Facts]]:
    return [(node, node.facts) for node in nodes if node.facts is not None]


def _short(name: str, there: str | None) -> str | None:
    return there.rpartition(".")[0] if there and name == "python" else there


def _grouped(check: str, complaints: Iterator[tuple[str, str]] | Sequence[tuple[str, str]],
             remedy: str) -> Iterator[Finding]:
    """A finding for each complaint, with the nodes that have it."""
    where: dict[str, list[str]] = {}
    for text, node in complaints:
        where.setdefault(text, []).append(node)
    for text, names in where.items():
        yield Finding("wrong", check, f"{_names(names)}: {text}", remedy)


def _names(nodes: Sequence[str]) -> str:
    return ", ".join(nodes[:3]) + (f" and {len(nodes) - 3} more nodes" if len(nodes) > 3 else "")

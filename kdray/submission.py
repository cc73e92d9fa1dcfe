"""A config becomes a Ray job on a cluster that may be elsewhere, and the job's log is followed here.

Knows nothing about what the stages do. A job is named by its stage and config: while it runs, submitting it again
follows it; once it has ended, the next one goes on from its artefacts.
"""

import asyncio
import itertools
import logging
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient
from ray.util.state import list_nodes
from ray.util.state.common import NodeState

from kdray.config import Config, dump
from kdray.errors import GIVE_TOKEN, ClusterError, ConfigError
from kdray.portable import modules_beside, resolved
from kdray.storage import content_key, file_digest

logger = logging.getLogger("kdray")

_FILE = "config.yaml"
_VERBS = {"run": "run", "teacher": "teacher", "cache": "cache fill", "distill": "distill", "tune": "tune",
          "evaluate": "evaluate"}
STAGES = tuple(_VERBS)
_STOP_SECONDS = "60"
"""What a job that is stopped has to end by itself; Ray's own 3 s cut off a checkpoint that is being written."""
_DRIVER = "driver"
_FLEETING = {"ray.io/market-type": "spot", "kdray/group": "teacher"}
"""Labels of nodes that may be taken away at any time."""
_MOST_NODES = 10_000
_POLL, _PATIENCE, _AGENT_SECONDS = 0.2, 30.0, 60.0
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])")


def submit(config: Config, stage: str, address: str | None, shared: Sequence[str], wait: bool, beside: Path) -> int:
    """Submits `stage` of `config` and, with `wait`, copies its log to standard output until it ends.

    `address` is the dashboard's, null takes RAY_API_SERVER_ADDRESS or RAY_ADDRESS; `shared` are folders that are the
    same on every node; `beside` is the config's folder, whose modules go with it where it names one. Returns the exit
    status: 0 done, the job's own where it failed, 143 where it was stopped.

    Raises ConfigError where the config names a path that the job would not find, ClusterError where no cluster answers
    or it asks for a token; nothing is submitted then.
    """
    address = dashboard(address)
    for handler in logging.getLogger("ray").handlers:
        handler.setLevel(logging.WARNING)
    config, paths = resolved(config)
    modules = modules_beside(config, beside)
    with _understood(address):
        client = JobSubmissionClient(address)
        nodes = [node for node in list_nodes(address, limit=_MOST_NODES, raise_on_missing_output=False)
                 if node.state == "ALIVE"]
        check_paths(paths, nodes, shared, address)
        job = _find_or_start(client, config, stage, placement(nodes), modules)
        if not wait:
            print(job)
            return 0
        try:
            return _follow(client, job)
        except KeyboardInterrupt:
            logger.warning("job %s goes on. To stop it: ray job stop --address %s %s", job, address, job)
            raise


def dashboard(address: str | None) -> str:
    """The dashboard's URL, which Ray's clients are told, too. Raises ConfigError where it is no URL."""
    origin, given = "--address", address
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        if given is None and os.environ.get(name):
            origin, given = name, os.environ[name]
    given = given or "http://127.0.0.1:8265"
    if not given.startswith(("http://", "https://")):
        raise ConfigError(f"{origin} = {given} is not the dashboard's URL, which takes jobs: give --address "
                          "http://HOST:8265 (`ray start --head` prints it; kubectl port-forward or `ray dashboard` "
                          "bring a remote one here)")
    given = given.rstrip("/")
    os.environ["RAY_API_SERVER_ADDRESS"] = given  # Ray's clients heed it before what they are given
    return given


def check_paths(paths: dict[str, str], nodes: Sequence[NodeState], shared: Sequence[str], address: str) -> None:
    """Raises ConfigError where a node is another machine and a path, by its setting, is in no `shared` folder.

    The address does not tell, 127.0.0.1 may be a tunnel; that every node has an address of this machine does.
    """
    others = [node.node_ip for node in nodes if not _is_mine(node.node_ip)]
    known = [Path(form) for folder in shared for form in
             (os.path.abspath(Path(folder).expanduser()), Path(folder).expanduser().resolve())]
    for setting, path in paths.items():
        place = Path(path.removeprefix("file://"))
        if others and not any(place.is_relative_to(folder) for folder in known):
            upload = "a URI that all nodes reach (s3://..., gs://...)"
            if setting.endswith("model"):
                upload = "an id of the hub, or a package of the nodes' image (package:MODULE:FOLDER)"
            raise ConfigError(
                f"{setting} = {path} is a path of this machine, and the cluster at {address} has other nodes "
                f"({', '.join(others[:3])}{', ...' if others[3:] else ''}). Give {upload}; or, where every node has "
                f"the same folder there, say so with --shared {place.parent}")


def _is_mine(ip: str) -> bool:
    """Whether an address is this machine's: only then can it be listened on."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with suppress(OSError), socket.socket(family) as found:
        found.bind((ip, 0))
        return True
    return False


def placement(nodes: Sequence[NodeState]) -> dict[str, Any]:
    """Arguments of `submit_job` that keep the driver off the head, and off nodes that may be taken away.

    Where nodes offer the resource `driver`, one of these; else any lasting worker node; else, without one, the head. It
    takes no CPU: teachers and students, not the driver, are what a small cluster's CPUs are for.
    """
    if any(_DRIVER in node.resources_total for node in nodes):
        return {"entrypoint_resources": {_DRIVER: 1}}
    head = next((node.node_id for node in nodes if node.is_head_node), None)
    lasting = [node for node in nodes if not node.is_head_node and not node.labels.items() & _FLEETING.items()]
    if head is None or not lasting:
        return {}
    fleeting = {name: f"!{value}" for name, value in _FLEETING.items()}
    return {"entrypoint_label_selector": {"ray.io/node-id": f"!{head}", **fleeting}}


def _find_or_start(client: JobSubmissionClient, config: Config, stage: str, where: dict[str, Any],
                   modules: list[Path]) -> str:
    """The id of the job that does this already, or of a new one."""
    text = dump(config)
    parts = [stage, text, *(f"{path.relative_to(module.parent)} {file_digest(path)}" for module in modules
                            for path in (module, *sorted(module.rglob("*.py"))) if path.is_file())]
    stem = f"{config.name}-{stage}-{content_key(parts)[:8]}"
    ends = time.monotonic() + _AGENT_SECONDS
    while True:
        job, runs = _next(stem, {job.submission_id: job.status for job in client.list_jobs()})
        if runs:
            logger.info("job %s runs already at %s: following it", job, client.get_address())
            return job
        try:
            _start(client, job, text, stage, where, modules)
        except RuntimeError as error:
            taken, early = "already exists" in str(error), "No available agent" in str(error)
            if not (taken or early) or time.monotonic() > ends:
                raise
            time.sleep(_POLL)  # somebody else was faster, or the cluster is not all up yet
        else:
            logger.info("job %s submitted to %s", job, client.get_address())
            return job


def _next(stem: str, known: dict[str | None, JobStatus]) -> tuple[str, bool]:
    """The first id of STEM, STEM-2, ... that is free or whose job has not ended, and whether it is the latter.

    Ray takes no id twice.
    """
    ids = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    return next((one, one in known) for one in ids if one not in known or not known[one].is_terminal())


def _start(client: JobSubmissionClient, job: str, config: str, stage: str, where: dict[str, Any],
           modules: list[Path]) -> None:
    with tempfile.TemporaryDirectory(prefix="kdray-job-") as folder:
        Path(folder, _FILE).write_text(config)
        for module in modules:
            if module.is_dir():
                shutil.copytree(module, Path(folder, module.name), ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(module, Path(folder, module.name))
        client.submit_job(
            entrypoint=f"python -m kdray.cli {_VERBS[stage]} {_FILE}", submission_id=job,
            runtime_env={"working_dir": folder, "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": _STOP_SECONDS}}, **where)


def _follow(client: JobSubmissionClient, job: str) -> int:
    """Copies the job's log until it ends; returns the exit status."""
    _wait_for_start(client, job)
    try:
        asyncio.run(_copy_log(client, job, sys.stdout.isatty()))
    except (RuntimeError, aiohttp.ClientError) as error:
        raise ClusterError(f"lost the log of job {job}, which may go on: {error}. The same command follows it "
                           "again") from error
    while not (info := client.get_job_info(job)).status.is_terminal():
        time.sleep(_POLL)
    if info.status == JobStatus.SUCCEEDED:
        return 0
    if info.status == JobStatus.STOPPED:
        logger.warning("job %s was stopped; the same command goes on from there", job)
        return 143
    if info.driver_exit_code is None:
        raise ClusterError(f"job {job} failed: {info.message}")
    logger.warning("job %s failed with exit status %d", job, info.driver_exit_code)
    return info.driver_exit_code if 0 < info.driver_exit_code < 256 else 1


def _wait_for_start(client: JobSubmissionClient, job: str) -> None:
    told = time.monotonic()
    while client.get_job_status(job) == JobStatus.PENDING:
        if time.monotonic() - told > _PATIENCE:
            told = time.monotonic()
            logger.info("job %s waits for room for its driver", job)
        time.sleep(_POLL)


async def _copy_log(client: JobSubmissionClient, job: str, terminal: bool) -> None:
    async for text in client.tail_job_logs(job):
        print(text if terminal else _ESCAPES.sub("", text), end="", flush=True)


@contextmanager
def _understood(address: str) -> Iterator[None]:
    """Turns what Ray's clients raise into a ClusterError that says what to do."""
    try:
        yield
    except AuthenticationError as error:
        raise ClusterError(
            f"the cluster at {address} takes jobs with its token only, and got none or another (RAY_AUTH_MODE is "
            f"{os.environ.get('RAY_AUTH_MODE', 'not set')}). Set RAY_AUTH_MODE=token. {GIVE_TOKEN}") from error
    except OSError as error:
        raise ClusterError(f"no Ray dashboard answers at {address}: {str(error).rstrip('.')}. Start Ray there, or give "
                           "--address http://HOST:8265") from error
    except RuntimeError as error:
        raise ClusterError(f"the cluster at {address} refused: {error}") from error

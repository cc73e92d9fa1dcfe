"""A Ray cluster on this machine, a small trained teacher, and the command line as a user calls it."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.small import make_model, sentences, write_jsonl

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., subprocess.CompletedProcess]


def command(*arguments: str) -> list[str]:
    """A `kdray` command with this interpreter."""
    return [sys.executable, "-m", "kdray.cli", *arguments]


def environment() -> dict[str, str]:
    """The tests' environment without a cluster to join."""
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}


def run_here(*arguments: str) -> subprocess.CompletedProcess:
    """Runs a `kdray` command in this process and returns what it printed: no interpreter to start."""
    from kdray.cli import main

    printed, told = StringIO(), StringIO()
    with redirect_stdout(printed), redirect_stderr(told), pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), printed.getvalue(), told.getvalue())


@pytest.fixture(scope="session")
def kdray() -> Command:
    """Runs a `kdray` command in a process of its own and returns what it printed."""

    def run(*arguments: str, timeout: float = 300) -> subprocess.CompletedProcess:
        return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=timeout, env=environment(),
                              cwd=ROOT)

    return run


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray with 2 CPUs in this process."""
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def kdray_here(cluster: None) -> Command:
    """`run_here`, on a cluster of this process."""
    return run_here


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 labelled sentences as JSON lines."""
    return write_jsonl(tmp_path_factory.mktemp("rows") / "rows.jsonl", sentences(600))


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model."""
    return make_model(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory, rows: Path, base: Path, kdray: Command) -> Path:
    """Folder of a teacher that kdray fine-tuned on the rows."""
    folder = tmp_path_factory.mktemp("teacher")
    path = write_config(folder / "c.yaml", small_config(folder / "store", rows, base, {
        "teacher": {"model": str(base), "finetune": {"epochs": 4, "lr": 3e-3}}}))
    done = kdray("teacher", str(path))
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.split("teacher: ")[1].split(" (")[0])


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_until_up(url: str, server: subprocess.Popen) -> None:
    """Returns when `server` answers at `url`; fails where it ends before, or takes 90 seconds."""
    ends = time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).read()
            return
        except OSError:
            assert server.poll() is None, f"the server at {url} ended with {server.returncode}"
            assert time.monotonic() < ends, f"nothing answers at {url}"
            time.sleep(0.5)


@contextmanager
def s3_server(address: str = "127.0.0.1", port: int | None = None) -> Iterator[str]:
    """URL of moto's S3 server at an address of this machine, at a free port where none is given."""
    port = port or free_port()
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", address, "-p", str(port)],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://{address}:{port}"
    try:
        wait_until_up(f"{url}/moto-api/", server)
        yield url
    finally:
        server.terminate()
        server.wait(30)


def small_config(storage: Path, rows: Path, teacher: Path, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """A config that runs in seconds: its trials follow one another, so that one process does for all."""
    changes = changes or {}
    search = {"max_concurrent": 1, **changes.get("search", {"trials": 2})}
    return {
        "name": "small", "storage": str(storage), "data": {"source": str(rows), "max_length": 32},
        "teacher": {"model": str(teacher)}, "cache": {"rows_per_shard": 32}, "student": {"layers": 2},
        "training": {"epochs": 2, "lr": 3e-3}, **changes, "search": search,
    }


def write_config(path: Path, config: dict[str, Any]) -> Path:
    """Writes a config as YAML."""
    path.write_text(yaml.safe_dump(config))
    return path


def numbers(storage: Path) -> tuple[Any, list[Any]]:
    """What the run in a storage found: of its evaluation, and of each epoch of its students."""
    (evaluation,) = storage.glob("evaluations/[!.]*/manifest.json")
    students = [json.loads(path.read_text()) for path in sorted(storage.glob("students/[!.]*/manifest.json"))]
    return json.loads(evaluation.read_text())["numbers"]["test"], [student["history"] for student in students]


def run_task(kdray: Command, folder: Path, rows: Path, teacher: Path,
             changes: dict[str, Any]) -> subprocess.CompletedProcess:
    """A whole run in `folder` / store, of two trials and two pairs, whatever int8 loses."""
    config = small_config(folder / "store", rows, teacher, {
        "search": {"trials": 2, "seeds": 2}, "export": {"max_drop": 1.0}, **changes})
    done = kdray("run", str(write_config(folder / "c.yaml", config)))
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def package(store: Path) -> Path:
    """The only package in the `store` of a module, in which a run ended."""
    (found,) = (store / "packages").iterdir()
    return found


@pytest.fixture(scope="module")
def site(package: Path) -> Iterator[Any]:
    """The real application in front of it."""
    from tests.integration.test_playground import Site

    site = Site({"default": package})
    yield site
    site.close()

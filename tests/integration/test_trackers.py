"""Real sweeps of a trivial trainable, told to real trackers: TensorBoard's files, an MLflow server, W&B offline."""

import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune
from tensorboardX.proto.event_pb2 import Event

from kdray.config import TrainingConfig
from kdray.search import trackers
from kdray.search.plan import Plan
from kdray.search.points import Listed
from kdray.search.proposals import Proposals, Whose
from kdray.search.records import Records
from kdray.storage import Store

KEY = "0123456789abcdef"
NAME = "films-01234567"
ALPHAS = [0.0, 0.25, 0.5, 0.75]
TRIALS = {f"temperature 2, alpha {alpha:g}" for alpha in ALPHAS}
MLFLOW = "mlflow==3.17.2"
"""The server; its pins of pyarrow and pandas are not kdray's, so it has an environment of its own."""


def trainable() -> Callable[[dict[str, Any]], None]:
    def train(point: dict[str, Any]) -> None:
        for epoch in (1, 2, 3):
            tune.report({"step": 10})
            tune.report({"epoch": epoch, "stage": 0, "loss": 1 / epoch, "accuracy": 0.5, "kl": None,
                         "best": 0.5 + point["alpha"] / 10 + epoch / 100})

    return train


class Act(tune.Callback):
    """Does something at the `count`-th result."""

    def __init__(self, count: int, act: Callable[[], Any]):
        self._left, self._act = count, act

    def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
        return tune.Callback, ()

    def on_trial_result(self, *arguments: Any, **info: Any) -> None:
        self._left -= 1
        if self._left == 0:
            self._act()


def sweep(folder: Path, names: list[str], *more: tune.Callback) -> None:
    """Runs the sweep in `folder`, or goes on with it."""
    os.environ.update(TUNE_DISABLE_STRICT_METRIC_CHECKING="1", TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
                      TUNE_DISABLE_SIGINT_HANDLER="1", RAY_AIR_NEW_OUTPUT="0", RAY_CHDIR_TO_TRIAL_DIR="0")
    records, proposals = Records(Store(str(folder)), ("tune", "films")), Proposals(plans)
    records.keep(proposals.resume(records.trials))
    left = proposals.total - sum(record.state is not None for record in records.trials.values())
    tuner = tune.Tuner(
        trainable(), tune_config=tune.TuneConfig(metric="best", mode="max", num_samples=left, search_alg=proposals),
        run_config=tune.RunConfig(name="films", storage_path=str(folder / "tune"), verbose=0, callbacks=[
            records, *trackers.callbacks(names, "films", KEY, folder), *more]))
    assert not tuner.fit().errors


def plans() -> dict[Whose, Plan]:
    points = [{"temperature": 2.0, "alpha": alpha} for alpha in ALPHAS]
    return {("student", "distilled"): Plan(Listed(points), TrainingConfig(epochs=3))}


def killed(folder: Path, names: list[str]) -> None:
    """A sweep in a process of its own, which is killed in its middle."""
    script = "import sys; from tests.integration.test_trackers import die; die(*sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", script, str(folder), *names], cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL


def die(folder: str, *names: str) -> None:
    """What that process does. W&B has written down the trials that are whole, and the others in part or not at all."""
    def act() -> None:
        end = time.monotonic() + 60
        while "wandb" in names and written(Path(folder)) < whole.count and time.monotonic() < end:
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)

    whole = Whole()
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    sweep(Path(folder), list(names), whole, Act(9, act))


class Whole(tune.Callback):
    """Counts the trials whose last epoch was reported."""

    def __init__(self) -> None:
        self.count = 0

    def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
        return tune.Callback, ()

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        self.count += result.get("epoch") == 3


def written(folder: Path) -> int:
    """Runs of W&B with all their epochs."""
    return sum(wandb_run(file)["steps"] == {1, 2, 3} for file in wandb_files(folder))


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "kdray")
    return caplog


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Tag: step: value of all event files in a folder; a record is its length, a checksum, itself, a checksum."""
    found: dict[str, dict[int, float]] = {}
    for file in sorted(folder.iterdir()):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12:at + 12 + size])
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
            at += size + 16
    return found


def test_tensorboard_has_a_folder_a_trial_with_its_metrics_at_their_epochs(cluster, tmp_path):
    sweep(tmp_path, ["tensorboard"])
    folder = tmp_path / "tensorboard" / NAME
    assert {trial.name for trial in folder.iterdir()} == TRIALS
    found = scalars(folder / "temperature 2, alpha 0.5")
    assert found["best"] == pytest.approx({1: 0.56, 2: 0.57, 3: 0.58})
    assert {name for name in found if not name.startswith("_hparams_")} == {
        "epoch", "stage", "loss", "accuracy", "best"}
    assert "_hparams_/session_start_info" in found


def test_a_resumed_sweep_has_each_trial_once(cluster, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    killed(tmp_path, ["tensorboard", "wandb"])
    sweep(tmp_path, ["tensorboard", "wandb"])
    folder = tmp_path / "tensorboard" / NAME
    assert {trial.name for trial in folder.iterdir()} == TRIALS
    assert all(set(scalars(trial)["loss"]) == {1, 2, 3} for trial in folder.iterdir())
    runs = [run for run in ended_runs(tmp_path) if run["steps"] == {1, 2, 3}]
    assert {run["name"] for run in runs} == TRIALS and len({run["id"] for run in runs}) == len(TRIALS)


def wandb_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*/*.wandb"))


def ended_runs(folder: Path) -> list[dict[str, Any]]:
    """Runs whose end is written down; waits for those of all trials.

    W&B does not: its own process writes the last of a log after `finish` has returned.
    """
    ends = time.monotonic() + 30
    while True:
        runs = [run for run in map(wandb_run, wandb_files(folder)) if run["ended"]]
        if {run["name"] for run in runs} == TRIALS or time.monotonic() > ends:
            return runs
        time.sleep(0.05)


def wandb_run(file: Path) -> dict[str, Any]:
    """What a run's log says of it: records in blocks of 32 KiB, each a checksum, its length and kind, and itself."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, part, run = file.read_bytes(), 7, b"", {"steps": set(), "ended": False}
    while at + 7 < len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
        size, kind = struct.unpack_from("<HB", data, at + 4)
        if at + 7 + size > len(data):
            break
        part, at = part + data[at + 7:at + 7 + size], at + 7 + size
        if kind not in (1, 4):  # the whole, or the last part of a record
            continue
        record, part = Record.FromString(part), b""
        if record.HasField("run"):
            run |= {"id": record.run.run_id, "name": record.run.display_name, "group": record.run.run_group,
                    "project": record.run.project,
                    "config": {item.key: json.loads(item.value_json) for item in record.run.config.update}}
        if record.HasField("history"):
            run["steps"].add(record.history.step.num)
        run["ended"] |= record.HasField("exit")
    return run


def test_wandb_offline_has_a_run_a_trial_with_its_point(cluster, tmp_path, monkeypatch, said):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
    sweep(tmp_path, ["wandb"])
    runs = {run["name"]: run for run in ended_runs(tmp_path)}
    assert set(runs) == TRIALS and len(wandb_files(tmp_path)) == len(TRIALS)
    run = runs["temperature 2, alpha 0.25"]
    assert (run["project"], run["group"], run["steps"]) == ("kdray", NAME, {1, 2, 3})
    assert {name: run["config"][name] for name in ("temperature", "alpha")} == {"temperature": 2.0, "alpha": 0.25}
    assert not any(b"f" * 40 in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert not [record for record in said.records if record.name == "kdray"]


@pytest.fixture(scope="module")
def mlflow_command(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The `mlflow` of an environment of its own."""
    folder = tmp_path_factory.mktemp("mlflow")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "-q", MLFLOW], check=True, env=environment)
    return str(folder / "bin" / "mlflow")


@pytest.fixture
def server(mlflow_command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen]:
    """A server on loopback, in a process group of its own, which MLFLOW_TRACKING_URI names with a password."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(
        [mlflow_command, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--backend-store-uri", f"sqlite:///{tmp_path}/runs.db", "--artifacts-destination", str(tmp_path / "files")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, start_new_session=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process)
        yield process
    finally:
        end(process)


def wait_for(address: str, process: subprocess.Popen) -> None:
    for _ in range(240):
        assert process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"{address} does not answer")


def end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def mlflow_runs() -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name(NAME)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


@pytest.mark.slow
def test_mlflow_has_a_run_a_trial_and_a_resumed_sweep_goes_on_with_it(cluster, server, tmp_path, said):
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    killed(tmp_path, ["mlflow"])
    sweep(tmp_path, ["mlflow"])
    runs = {run.info.run_name: run for run in mlflow_runs()}
    assert set(runs) == TRIALS and len(mlflow_runs()) == len(TRIALS)
    run = runs["temperature 2, alpha 0.25"]
    assert run.info.status == "FINISHED" and run.data.params == {"temperature": "2.0", "alpha": "0.25"}
    assert set(run.data.metrics) == {"epoch", "stage", "loss", "accuracy", "best"}
    history = MlflowClient(os.environ["MLFLOW_TRACKING_URI"]).get_metric_history(run.info.run_id, "best")
    assert {metric.step: metric.value for metric in history} == pytest.approx({1: 0.535, 2: 0.545, 3: 0.555})
    assert not [record for record in said.records if record.name == "kdray"]
    assert not any(b"secret" in file.read_bytes() for file in (tmp_path / "tune").rglob("*") if file.is_file())


@pytest.mark.slow
def test_a_server_that_dies_costs_the_sweep_a_warning(cluster, server, tmp_path, said, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    sweep(tmp_path, ["mlflow"], Act(7, lambda: end(server)))
    [message] = [record.getMessage() for record in said.records if record.name == "kdray"]
    assert message.startswith("search.trackers: mlflow: ") and "secret" not in message

"""Trackers are told kdray's words, and what is missing or broken is said without a credential."""

import logging
import pickle
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from kdray.errors import ConfigError
from kdray.search import trackers
from kdray.search.trackers import Place, Tracker, callbacks, check, metrics, safe, tracked


@dataclass
class Trial:
    """What the trackers ask of Tune's trial."""

    config: dict[str, Any]
    last_result: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "kdray")
    return caplog


def place(key: str, several: bool = False) -> Place:
    return Place("run", key, None, several)


def feed(tracker: Tracker, point: dict[str, Any]) -> None:
    tracker.setup()
    trial = Trial(point)
    tracker.on_trial_start(0, [], trial)
    tracker.on_trial_result(0, [], trial, {"epoch": 1, "loss": 0.5, "best": 0.9})
    tracker.on_trial_complete(0, [], trial)
    tracker.on_experiment_end([])


def test_metrics_are_the_finite_numbers_of_an_epoch_without_tunes():
    assert metrics({"epoch": 2, "loss": 0.5, "best": 1, "student": "abc", "macro_f1": None, "kl": float("nan"),
                    "agreement": {"all": 0.75}, "done": True, "pid": 7, "time_total_s": 3.0, "training_iteration": 9,
                    "config": {"alpha": 0.5}, "timestamp": 1}) == {
        "epoch": 2.0, "loss": 0.5, "best": 1.0, "agreement/all": 0.75}


def test_a_trial_has_its_point_as_name_and_parameters():
    trial = tracked({"name": "small", "trial": 3, "temperature": 2.0, "dropout": None, "layers": [0, 3]}, place("key"))
    assert str(trial) == "temperature 2, dropout None, layers [0, 3]"
    assert trial.config == trial.evaluated_params == {"temperature": 2.0, "dropout": "null", "layers": "[0, 3]"}


def test_a_trial_is_named_after_its_student_where_there_are_several():
    trial = tracked({"name": "small", "trial": 0, "alpha": 1.0}, place("key", several=True))
    assert str(trial) == "small: baseline (alpha 1)" and trial.config == {"student": "small", "alpha": 1.0}
    assert trial != tracked({"name": "tiny", "trial": 0, "alpha": 1.0}, place("key", several=True))


def test_the_same_point_of_a_sweep_is_the_same_trial_and_of_another_sweep_is_not():
    one, again, other = (tracked({"alpha": 0.5, "trial": trial}, place(key)) for trial, key in [(1, "a"), (2, "a"),
                                                                                                (1, "b")])
    assert one == again and len({one, again, other, tracked({"alpha": 0.51}, place("a"))}) == 3


@pytest.mark.parametrize("text, shown", [
    ("cannot reach http://me:secret@host:5000/api\nand more", "cannot reach http://host:5000/api"),
    ("http://me:se@cret@host", "http://host"), ("plain", "plain"), (ValueError(""), "ValueError")])
def test_what_is_said_has_no_credential(text, shown):
    assert safe(text) == shown


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_package_that_is_missing_is_said(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"search.trackers: {name} is not installed: pip install 'kdray\[{name}\]'"):
        check([name])


def test_mlflow_without_a_server_is_said(monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="set MLFLOW_TRACKING_URI"):
        check(["mlflow"])


def test_an_mlflow_server_that_does_not_answer_is_said_without_its_password(monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    with pytest.raises(ConfigError) as caught:
        callbacks(["mlflow"], "run", "0123456789", None)
    assert "no MLflow server answers at MLFLOW_TRACKING_URI=http://127.0.0.1:9" in str(caught.value)
    assert "secret" not in str(caught.value) and caught.value.__cause__ is None


def test_wandb_without_a_key_is_said(monkeypatch, tmp_path):
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(ConfigError, match=r"wandb has no API key.*WANDB_MODE=offline"):
        check(["wandb"])


def test_tensorboard_without_a_local_folder_is_said_and_left_out(said):
    assert callbacks(["tensorboard"], "run", "0123456789", None) == []
    assert said.messages == ["sweep: no TensorBoard files, `storage` is not a local folder"]


def test_the_log_says_how_to_look(said, tmp_path):
    [tracker] = callbacks(["tensorboard", "tensorboard"], "films", "0123456789", tmp_path)
    assert isinstance(tracker, Tracker)
    assert said.messages == [f"sweep: tensorboard --logdir '{tmp_path}/tensorboard/films-01234567'"]


def test_what_tune_keeps_of_a_tracker_has_no_credential(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@host")
    tracker = Tracker("mlflow", Place("run-01234567", "0123456789", tmp_path))
    kept = pickle.dumps(tracker)
    assert b"secret" not in kept and pickle.loads(kept)._place == tracker._place


def test_a_tracker_that_fails_is_said_once(said, tmp_path):
    (tmp_path / "tensorboard").write_text("a file where a folder is needed")
    tracker = Tracker("tensorboard", Place("run-01234567", "0123456789", tmp_path))
    feed(tracker, {"alpha": 0.5})
    [message] = said.messages
    assert message.startswith("search.trackers: tensorboard: ") and message.endswith(
        "The sweep goes on, but tensorboard may lack trials")


@pytest.fixture
def silent() -> Iterator[int]:
    """Port of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_tracker_that_hangs_is_left_behind(said, monkeypatch, silent):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent}")
    monkeypatch.setattr(trackers, "_LAST_WAIT", 0.2)
    feed(Tracker("mlflow", Place("run-01234567", "0123456789", None)), {"alpha": 0.5})
    [message] = said.messages
    assert "mlflow: has not taken everything" in message


def test_two_trials_that_are_described_alike_have_a_folder_each(tmp_path):
    there = Place("run-01234567", "0123456789", tmp_path)
    tracker = Tracker("tensorboard", there)
    tracker.setup()
    for alpha in (0.50001, 0.50002):
        trial = Trial({"alpha": alpha})
        tracker.on_trial_result(0, [], trial, {"epoch": 1, "loss": 0.5})
        tracker.on_trial_complete(0, [], trial)
    tracker.on_experiment_end([])
    second = tracked({"alpha": 0.50002}, there).trial_id[:4]
    assert sorted(folder.name for folder in there.tensorboard.iterdir()) == ["alpha 0.5", f"alpha 0.5 ({second})"]

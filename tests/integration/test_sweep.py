"""Sweeps on a real cluster: families, limits, seeds, trials that fail, budgets, a driver killed in mid-trial."""

import errno
import json
import os
import pickle
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kdray.config import load
from kdray.errors import StorageError, TrainingError
from kdray.pipeline import Pipeline
from kdray.search.finalists import select
from kdray.search.sweep import Sweep
from tests.bomb import Bomb
from tests.integration.conftest import Command, command, environment, small_config, write_config

FAMILY = {"student": None, "students": {
    "two": {"layers": 2}, "tiny": {"fresh": {"num_hidden_layers": 1, "hidden_size": 16}, "training": {"lr": 0.01}}}}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Storage that this module's sweeps share, so that the teacher runs once."""
    return tmp_path_factory.mktemp("sweeps") / "store"


@pytest.fixture
def make(store: Path, rows: Path, teacher: Path, cluster: None, tmp_path: Path) -> Any:
    """A pipeline of the small config with changes."""

    def pipeline(**changes: Any) -> Pipeline:
        return Pipeline(load(write_config(tmp_path / "c.yaml", small_config(store, rows, teacher, changes))))

    return pipeline


def test_a_family_is_searched_in_one_sweep_and_the_winner_is_the_best_within_the_limits(make):
    pipeline = make(**FAMILY, search={"trials": 2, "seeds": 2, "max_mb": 10})
    trials, chosen = pipeline.sweep["trials"], pipeline.selection
    assert [(row["name"], row["baseline"]) for row in trials] == [
        (name, False) for name in ("tiny", "two") for place in range(2)]
    assert {row["state"] for row in trials} == {"finished"}
    students = chosen["students"]
    assert students["two"]["bytes"] > students["tiny"]["bytes"] > 0 and students["two"]["milliseconds"] > 0
    best = max(students, key=lambda name: students[name]["best"])
    assert chosen["name"] == best and chosen["constraint"]["met"]
    assert students[best]["trial"] in [row["student"] for row in trials if row["name"] == best]
    assert {row["name"] for row in chosen["trials"]} == {best}
    assert [pair["seed"] for pair in chosen["pairs"]] == [1, 2]
    made = [pipeline.store.manifest("students", pair[kind])
            for pair in chosen["pairs"] for kind in ("winner", "baseline")]
    assert [one["settings"]["seed"] for one in made] == [1, 1, 2, 2]
    assert [one["settings"]["alpha"] == 1 for one in made] == [False, True, False, True]
    for kind, metric in (("winner", "best"), ("baseline", "plain")):
        assert chosen[kind] == max(chosen["pairs"], key=lambda pair: pair[metric])[kind]

    most = students["tiny"]["bytes"] / 1e6
    near = make(**FAMILY, search={"trials": 2, "max_mb": most / 2}).selection
    assert near["name"] == "tiny" and not near["constraint"]["met"]
    assert near["constraint"]["excess"] == {"max_mb": pytest.approx(1.0)}


def test_a_trial_that_diverges_is_marked_and_the_sweep_goes_on(make):
    pipeline = make(search={"algorithm": "grid", "space": {"lr": {"values": [3e-3, 1e30]}}})
    plain, lost, good, bad = pipeline.sweep["trials"]
    assert [row["state"] for row in (plain, lost, good, bad)] == ["finished", "failed"] * 2
    assert "the loss is" in bad["error"] and "1e+30" in bad["error"]
    assert [row["point"] for row in pipeline.selection["trials"]] == [
        {**row["point"], "seed": 1} for row in (plain, good)]


def test_a_full_disk_ends_a_sweep_in_one_line_and_it_goes_on_when_there_is_room(make, monkeypatch):
    def refuse(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    pipeline = make(search={"trials": 1}, training={"epochs": 2, "lr": 2e-3})
    assert pipeline.cache
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", refuse)
        with pytest.raises(StorageError, match=r"no space left on the device that holds .*run again"):
            _ = pipeline.sweep
    assert [row["state"] for row in pipeline.sweep["trials"]] == ["finished"]


def test_what_a_student_without_a_teacher_feels_is_searched_for_its_baseline_too(make):
    space = {"lr": {"values": [1e-6, 1e-2]}, "temperature": {"values": [1, 4]}}
    pipeline = make(student={"fresh": {"num_hidden_layers": 1, "hidden_size": 16}}, training={"epochs": 20},
                    search={"algorithm": "grid", "space": space, "seeds": 2, "grace": 99})
    trials, chosen = pipeline.sweep["trials"], pipeline.selection
    plain = [row for row in trials if row["baseline"]]
    assert [row["point"] for row in plain] == [{"alpha": 1.0, "lr": 1e-6}, {"alpha": 1.0, "lr": 1e-2}]
    assert len(trials) == 6 and plain[0]["best"] < plain[1]["best"]
    assert [pair["seed"] for pair in chosen["pairs"]] == [1, 2]
    again = pipeline.store.manifest("students", chosen["pairs"][1]["baseline"])
    assert (again["settings"]["lr"], again["settings"]["alpha"], again["settings"]["seed"]) == (1e-2, 1.0, 2)


def test_seeds_on_which_either_fails_have_no_pair_and_where_all_do_the_cause_is_said(make):
    pipeline = make()
    best = max(pipeline.sweep["trials"], key=lambda row: row["best"])
    doomed = {**pipeline.sweep, "trials": [{**best, "point": {**best["point"], "lr": 1e30}}]}
    again = Sweep(pipeline.jobs, pipeline.config.search)
    with pytest.raises(TrainingError, match=r"on no seed that the sweep has not seen.*the loss is.*search\.seeds"):
        select(pipeline.store, "doomed", again, doomed, pipeline.config.search, 0.005, 1)


def test_where_all_trials_fail_the_first_cause_is_shown(store, rows, teacher, tmp_path, kdray_here: Command):
    config = write_config(tmp_path / "c.yaml", small_config(store, rows, teacher, {
        "training": {"lr": 1e30, "epochs": 1}, "search": {"trials": 1}}))
    done = kdray_here("tune", str(config))
    assert done.returncode == 1 and "all trials failed, first cause: the loss is" in done.stderr


def test_a_budget_that_is_too_small_for_one_trial_is_said_and_a_larger_one_goes(make):
    small = make(training={"epochs": 50, "lr": 3e-3}, search={"trials": 4, "time_budget": 1})
    with pytest.raises(TrainingError, match=r"search\.time_budget = 1 s was over before a distilled trial"):
        _ = small.sweep
    wide = make(training={"epochs": 1, "lr": 3e-3}, search={"trials": 400, "time_budget": 30})
    trials = wide.sweep["trials"]
    assert 1 <= len(trials) < 400 and wide.selection["winner"]


def test_results_do_not_depend_on_how_many_trials_run_side_by_side(rows, teacher, cluster, tmp_path):
    tables = []
    for side_by_side in (1, 2):
        config = small_config(tmp_path / f"store{side_by_side}", rows, teacher, {
            "training": {"epochs": 3, "lr": 3e-3, "precision": "float32"},
            "search": {"trials": 7, "max_concurrent": side_by_side}})
        trials = Pipeline(load(write_config(tmp_path / "c.yaml", config))).sweep["trials"]
        tables.append([(row["point"], row["state"], row["best"], row["epochs"], row["student"]) for row in trials])
    assert tables[0] == tables[1]


def test_a_sweep_whose_driver_is_killed_keeps_what_ended_and_resumes_what_ran(tmp_path: Path, rows: Path, teacher: Path,
                                                                            kdray: Command) -> None:
    config = write_config(tmp_path / "c.yaml", small_config(tmp_path / "store", rows, teacher, {
        "search": {"algorithm": "grid", "space": {"alpha": {"values": [0.5, 0.2]}}, "max_concurrent": 1, "grace": 90},
        "training": {"epochs": 90, "lr": 3e-3}}))
    driver = subprocess.Popen(command("tune", str(config)), env=environment(), stderr=subprocess.PIPE, text=True,
                              start_new_session=True)
    trial = r"alpha 0\.2"
    assert driver.stderr is not None
    lines = iter(driver.stderr.readline, "")
    seen = (int(found[1]) for line in lines if (found := re.search(rf"{trial} \| epoch (\d+)", line)))
    assert any(epoch >= 4 for epoch in seen), "the trial did not come so far"
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait(60)
    assert not pickles(tmp_path / "store")
    (folder,) = (tmp_path / "store" / "tune").iterdir()
    (folder / "tuner.pkl").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))  # where Tune restores a sweep from
    students = tmp_path / "store" / "students"
    kept = {path.name: path.stat().st_mtime_ns for path in students.iterdir() if path.name[0] != "."}
    assert kept, "the first trial had ended"
    done = kdray("tune", str(config))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()
    assert "winner:" in done.stdout and done.stdout.count("alpha") == 4
    epochs = [int(found) for found in re.findall(rf"{trial} \| epoch (\d+)", done.stderr)]
    assert epochs[0] >= 4 and epochs[-1] == 90
    assert "alpha 0.5 begins" not in done.stderr
    assert {name: (students / name).stat().st_mtime_ns for name in kept} == kept
    sweep = json.loads(next((tmp_path / "store" / "sweeps").glob("*/manifest.json")).read_text())
    assert [row["state"] for row in sweep["trials"]] == ["finished"] * 2
    assert all([entry["epoch"] for entry in row["history"]] == list(range(1, 91)) for row in sweep["trials"])
    assert not list((tmp_path / "store" / "tune").iterdir())


def pickles(folder: Path) -> list[Path]:
    """Files that look like pickles, by themselves or as torch.save writes them; a trial may still write and delete."""
    found = []
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            with suppress(FileNotFoundError), path.open("rb") as file:
                start = file.read(4)
                if start[:1] == b"\x80" or start == b"PK\x03\x04" or path.suffix == ".pkl":
                    found.append(path)
    return found

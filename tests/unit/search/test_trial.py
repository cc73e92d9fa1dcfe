"""A sampled point changes a job's settings and nothing else."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from kdray.config import Domain, SearchConfig, TrainingConfig
from kdray.errors import ConfigError
from kdray.models.load import Origin
from kdray.search.describe import BASELINE, place_of
from kdray.search.proposals import Proposals
from kdray.search.records import Record
from kdray.search.sweep import Sweep, trial_resources
from kdray.search.trial import point_job
from kdray.training.job import TrainingJob

JOB = TrainingJob("students", "/store", "sequence-classification", ("a", "b"), "corpus", "cache", Origin("/t", (0, 3)),
                  "fingerprint", "/t", 0, "accuracy", TrainingConfig().model_dump(), "float32")


def test_a_points_job_has_its_settings_and_a_key_of_its_own():
    made = point_job(JOB, {"alpha": 0.25, "temperature": 4.0, "finetune.epochs": 2})
    assert (made.settings["alpha"], made.settings["temperature"], made.settings["finetune"]["epochs"]) == (0.25, 4.0, 2)
    assert made.settings["lr"] == JOB.settings["lr"] and made.key != JOB.key
    same = point_job(JOB, {})
    assert same.key == JOB.key and JOB.settings["num_cpus"] is None and same.settings["num_cpus"] == 1


def test_the_baseline_is_the_configured_student_on_hard_labels():
    made = point_job(JOB, BASELINE)
    assert made.settings == {**JOB.settings, "alpha": 1.0, "num_cpus": 1.0}


def test_a_point_outside_what_is_allowed_is_refused():
    with pytest.raises(ConfigError, match=r"alpha = 1.5"):
        point_job(JOB, {"alpha": 1.5})


def sweep(job: TrainingJob = JOB, **search: Any) -> Sweep:
    return Sweep({"student": job}, SearchConfig(**search))


def test_a_sweeps_key_is_its_jobs_and_search_and_not_how_many_run_at_once_or_what_is_chosen_afterwards():
    key = sweep().key
    assert {sweep(**{name: 3}).key for name in ("max_concurrent", "seeds", "max_ms", "max_mb")} == {key}
    assert len({key, sweep(trials=9).key, sweep(seed=1).key, sweep(point_job(JOB, {"lr": 1e-3})).key,
                Sweep({"student": JOB, "other": point_job(JOB, {"lr": 1e-3})}, SearchConfig()).key,
                Sweep({"student": JOB}, SearchConfig(), {"student": {"distilled": [{}]}}).key}) == 6


def test_a_sweep_from_a_plain_student_has_another_key_where_its_distilled_trials_start_elsewhere():
    plain, warmer = (point_job(JOB, {"alpha": 1.0, "temperature": temperature}) for temperature in (2.0, 4.0))
    assert plain.key == warmer.key and sweep(plain).key != sweep(warmer).key


def test_of_several_students_each_gets_its_trials_in_turn():
    jobs = {"small": JOB, "large": replace(JOB, origin_fingerprint="other")}
    space = {"lr": Domain(min=1e-5, max=1e-3), "alpha": Domain(min=0, max=1)}
    proposals = Proposals(Sweep(jobs, SearchConfig(trials=2, space=space)).plans)
    assert proposals.total == 8
    found = [proposals.suggest(str(place)) for place in range(8)]
    assert [(one["name"], one["role"], one["trial"]) for one in found] == [
        (name, role, number) for number in (1, 2) for name in ("small", "large") for role in ("baseline", "distilled")]
    assert proposals.suggest("8") is None


def told(config: dict[str, Any], values: list[float], state: Any) -> tuple[str, Record]:
    """A trial's record as it is read again."""
    record = Record(config, state=state)
    for epoch, value in enumerate(values, 1):
        record.add({"epoch": epoch, "best": value, "accuracy": value, "kl": float("nan")})
    return place_of(config), Record(**json.loads(json.dumps(asdict(record))))


def some_trials(proposals: Proposals) -> dict[str, Record]:
    """Seven trials that ended, one stopped, and one that has done an epoch."""
    records = []
    for place in range(8):
        config = proposals.suggest(str(place))
        if config is None:
            break
        values = [0.1 * place, 0.2] if place % 3 else [0.5]
        on = [proposals.goes_on(str(place), epoch, value) for epoch, value in enumerate(values, 1)][-1]
        state = ("finished" if on else "stopped") if place < 7 else None
        if state:
            proposals.on_trial_complete(str(place), {})
        records.append(told(config, values, state))
    assert len(records) == 8
    return dict(records)


def rest(proposals: Proposals) -> list[dict[str, Any]]:
    """The trials that come when each ends before the next is asked for."""
    found = []
    while (config := proposals.suggest(f"rest-{len(found)}")) is not None:
        proposals.goes_on(f"rest-{len(found)}", 1, 0.3)
        proposals.on_trial_complete(f"rest-{len(found)}", {})
        found.append(config)
    return found


@pytest.mark.parametrize("space", [None, {"epochs": Domain(values=[1, 2, 8]), "alpha": Domain(min=0, max=1)}])
def test_proposals_that_are_told_what_was_recorded_go_on_as_they_would_have(space):
    plans = sweep(trials=12, space=space).plans
    kept, resumed = Proposals(plans), Proposals(plans)
    records = some_trials(kept)
    assert {record.state for record in records.values()} >= {"finished", None}
    assert sorted(resumed.resume(records)) == sorted(records)
    running = list(records.values())[-1].config
    assert resumed.suggest("7") == running, "the trial that was to go on comes first"
    for one in (kept, resumed):
        one.on_trial_complete("7", {})
    later, again = rest(kept), rest(resumed)
    assert len(later) == kept.total - 8
    assert sorted(again, key=place_of) == sorted(later, key=place_of)


def test_records_of_another_point_than_is_proposed_are_not_taken():
    records = some_trials(Proposals(sweep(trials=12).plans))
    records["student-distilled-3"].config["alpha"] = 0.123
    resumed = Proposals(sweep(trials=12).plans)
    assert sorted(resumed.resume(records)) == ["student-distilled-1", "student-distilled-2"]
    assert resumed.suggest("next") == some_config(3)
    assert Proposals(sweep(trials=12, seed=5).plans).resume(records) == [
        "student-distilled-1"], "the first point is the same for every seed"


def some_config(number: int) -> dict[str, Any]:
    return some_trials(Proposals(sweep(trials=12).plans))[f"student-distilled-{number}"].config


@pytest.mark.parametrize("settings, own, whole", [
    ({"workers": 1, "num_cpus": None, "num_gpus": 0}, {"CPU": 1.0, "GPU": 0}, {"CPU": 1.0, "GPU": 0}),
    ({"workers": 1, "num_cpus": 4, "num_gpus": 1}, {"CPU": 4, "GPU": 1}, {"CPU": 4, "GPU": 1}),
    ({"workers": 3, "num_cpus": 2, "num_gpus": 0}, {"memory": 1.0}, {"CPU": 6, "GPU": 0}),
])
def test_a_trial_asks_for_its_workers_resources(settings, own, whole):
    assert trial_resources(settings) == (own, whole)

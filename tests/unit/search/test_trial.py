"""A sampled point changes a job's settings and nothing else."""

from dataclasses import replace
from typing import Any

import pytest

from kdray.config import Domain, SearchConfig, TrainingConfig
from kdray.errors import ConfigError
from kdray.models.load import Origin
from kdray.search.describe import BASELINE
from kdray.search.proposals import Proposals
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


def test_proposals_that_were_saved_go_on_as_they_would_have(tmp_path):
    kept, file = Proposals(sweep(trials=12).plans), str(tmp_path / "state")
    for place in range(7):
        if kept.suggest(str(place)) is None:
            break
        kept.goes_on(str(place), 1, 0.1 * place)
        kept.on_trial_complete(str(place), {})
    kept.suggest("running")
    kept.save(file)
    restored = Proposals(sweep(trials=12).plans)
    restored.restore(file)
    assert restored.goes_on("running", 1, 1.0) == kept.goes_on("running", 1, 1.0)
    for one in (kept, restored):
        one.on_trial_complete("running", {})
    assert restored.suggest("next") == kept.suggest("next")


@pytest.mark.parametrize("settings, own, whole", [
    ({"workers": 1, "num_cpus": None, "num_gpus": 0}, {"CPU": 1.0, "GPU": 0}, {"CPU": 1.0, "GPU": 0}),
    ({"workers": 1, "num_cpus": 4, "num_gpus": 1}, {"CPU": 4, "GPU": 1}, {"CPU": 4, "GPU": 1}),
    ({"workers": 3, "num_cpus": 2, "num_gpus": 0}, {"memory": 1.0}, {"CPU": 6, "GPU": 0}),
])
def test_a_trial_asks_for_its_workers_resources(settings, own, whole):
    assert trial_resources(settings) == (own, whole)

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


@pytest.mark.parametrize("space", [None, {"epochs": Domain(values=[1, 2, 8]), "alpha": Domain(min=0, max=1)}])
def test_proposals_that_were_saved_go_on_as_they_would_have(space, tmp_path):
    search = sweep(trials=12, space=space)
    whole, file = Proposals(search.plans), str(tmp_path / "state")
    went = go_on(whole, 0)
    assert {on for _, *judged in went for on in judged} == {True, False}
    for cut in (1, 7, 9, len(went) - 1):
        kept, restored = Proposals(search.plans), Proposals(search.plans)
        assert go_on(kept, 0, cut) == went[:cut]
        kept.suggest(str(cut))
        kept.goes_on(str(cut), 1, 1.0)
        kept.save(file)
        restored.restore(file)
        restored.on_trial_complete(str(cut), {})
        kept.on_trial_complete(str(cut), {})
        assert go_on(restored, cut + 1) == go_on(kept, cut + 1)


def go_on(proposals: Proposals, place: int, end: int = 10**6) -> list[tuple[Any, ...]]:
    """Trials from `place` up to `end`: each one's configuration, and whether it went on after each epoch."""
    found: list[tuple[Any, ...]] = []
    while place < end and (config := proposals.suggest(str(place))) is not None:
        judged = [True]
        while judged[-1] and len(judged) <= config["total_epochs"]:
            judged.append(proposals.goes_on(str(place), len(judged), 0.01 * len(judged) * (1 + place % 5)))
        proposals.on_trial_complete(str(place), {})
        found.append((config, *judged))
        place += 1
    return found


@pytest.mark.parametrize("settings, own, whole", [
    ({"workers": 1, "num_cpus": None, "num_gpus": 0}, {"CPU": 1.0, "GPU": 0}, {"CPU": 1.0, "GPU": 0}),
    ({"workers": 1, "num_cpus": 4, "num_gpus": 1}, {"CPU": 4, "GPU": 1}, {"CPU": 4, "GPU": 1}),
    ({"workers": 3, "num_cpus": 2, "num_gpus": 0}, {"memory": 1.0}, {"CPU": 6, "GPU": 0}),
])
def test_a_trial_asks_for_its_workers_resources(settings, own, whole):
    assert trial_resources(settings) == (own, whole)

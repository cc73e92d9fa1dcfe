"""A sampled point changes a job's settings and nothing else."""

import pytest

from kdray.config import SearchConfig, TrainingConfig
from kdray.errors import ConfigError
from kdray.models.load import Origin
from kdray.search.describe import BASELINE
from kdray.search.sweep import Sweep, trial_resources
from kdray.search.trial import point_job
from kdray.training.job import TrainingJob

JOB = TrainingJob("students", "/store", "sequence-classification", ("a", "b"), "corpus", "cache", Origin("/t", (0, 3)),
                  "fingerprint", "/t", 0, "accuracy", TrainingConfig().model_dump(), "float32")


def test_a_points_job_has_its_settings_and_a_key_of_its_own():
    made = point_job(JOB, {"alpha": 0.25, "temperature": 4.0, "finetune.epochs": 2})
    assert (made.settings["alpha"], made.settings["temperature"], made.settings["finetune"]["epochs"]) == (0.25, 4.0, 2)
    assert made.settings["lr"] == JOB.settings["lr"] and made.key != JOB.key
    assert point_job(JOB, {}).key == JOB.key


def test_the_baseline_is_the_configured_student_on_hard_labels():
    made = point_job(JOB, BASELINE)
    assert made.settings == {**JOB.settings, "alpha": 1.0}


def test_a_point_outside_what_is_allowed_is_refused():
    with pytest.raises(ConfigError, match=r"alpha = 1.5"):
        point_job(JOB, {"alpha": 1.5})


def test_a_sweeps_key_is_its_job_and_search_and_not_how_many_run_at_once():
    key = Sweep(JOB, SearchConfig()).key
    assert Sweep(JOB, SearchConfig(max_concurrent=3)).key == key
    assert len({key, Sweep(JOB, SearchConfig(trials=9)).key, Sweep(JOB, SearchConfig(seed=1)).key,
                Sweep(point_job(JOB, {"lr": 1e-3}), SearchConfig()).key}) == 4


@pytest.mark.parametrize("settings, own, whole", [
    ({"workers": 1, "num_cpus": None, "num_gpus": 0}, {"CPU": 1.0, "GPU": 0}, {"CPU": 1.0, "GPU": 0}),
    ({"workers": 1, "num_cpus": 4, "num_gpus": 1}, {"CPU": 4, "GPU": 1}, {"CPU": 4, "GPU": 1}),
    ({"workers": 3, "num_cpus": 2, "num_gpus": 0}, {"memory": 1.0}, {"CPU": 6, "GPU": 0}),
])
def test_a_trial_asks_for_its_workers_resources(settings, own, whole):
    assert trial_resources(settings) == (own, whole)

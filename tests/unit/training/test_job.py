"""A job's key is what the model is made from, and not what it ran on."""

from dataclasses import replace

import pytest

from kdray.config import TrainingConfig
from kdray.models.load import Origin
from kdray.training.job import Live, TrainingJob
from kdray.training.state import Stage, stages


def job(alpha: float = 0.5, **settings) -> TrainingJob:
    return TrainingJob("students", "/store", "sequence-classification", ("a", "b"), "corpus", "cache",
                       Origin("/teacher", layers=(0, 3)), "fingerprint", "/teacher", 0, "accuracy",
                       TrainingConfig(alpha=alpha, **settings).model_dump(), "float32")


LIVE = Live("/teacher", "print", "corpus", 0, "float32")


def live(**changes) -> TrainingJob:
    return replace(job(), cache=None, live=replace(LIVE, **changes))


@pytest.mark.parametrize("other", [
    replace(job(), storage="/elsewhere"), replace(job(), threads=8), replace(job(), tokenizer="/elsewhere"),
    replace(job(), origin=Origin("/copy", layers=(0, 3))), job(workers=4), job(num_gpus=1), job(num_cpus=2),
    job(max_failures=0), job(checkpoint_steps=5), job(labels={"zone": "a"})])
def test_where_it_runs_does_not_change_the_key(other):
    assert other.key == job().key


@pytest.mark.parametrize("other", [
    replace(job(), kind="teachers"), replace(job(), labels=("b", "a")), replace(job(), corpus="x"),
    replace(job(), cache="x"), replace(job(), origin=Origin("/teacher", layers=(0, 2))),
    replace(job(), origin_fingerprint="x"), replace(job(), metric="matthews"), replace(job(), precision="bfloat16"),
    job(alpha=0.4), job(temperature=3), job(lr=1e-3), job(seed=1), job(loss="mse"), job(epochs=9),
    job(alpha_end=0.9), job(temperature_end=1), job(confidence="weight"), job(confidence="temperature"), live(),
    job(finetune={"epochs": 1}), job(deepspeed={"zero_optimization": {"stage": 1}}), job(patience=1)])
def test_what_it_is_made_from_changes_the_key(other):
    assert other.key != job().key


def test_plain_fine_tuning_does_not_depend_on_soft_targets():
    assert job(1.0, temperature=3, loss="huber", huber_delta=2).key == replace(job(1.0), cache=None).key
    assert job(1.0).key != job(0.99).key


@pytest.mark.parametrize("settings", [{"alpha_end": 0.0}, {"alpha_schedule": "cosine", "alpha_end": 0.5},
                                      {"temperature_end": 1, "confidence": "weight"}, {"loss": "annealing"}])
def test_alpha_one_is_the_baseline_whatever_is_scheduled(settings):
    plain = job(1.0, **settings)
    assert plain.key == job(1.0).key == replace(live(), settings=plain.settings).key
    assert not plain.distils and job(0.9, **settings).distils


def test_settings_that_came_later_leave_the_keys_of_jobs_without_them():
    before = job()
    later = ("alpha_schedule", "alpha_end", "temperature_schedule", "temperature_end", "confidence")
    settings = {name: value for name, value in before.settings.items() if name not in later}
    assert before.key == replace(before, settings=settings).key


@pytest.mark.parametrize("changes", [{"fingerprint": "x"}, {"corpus": "x"}, {"precision": "bfloat16"}])
def test_what_a_live_teacher_answers_from_changes_the_key(changes):
    assert live(**changes).key != live().key


@pytest.mark.parametrize("changes", [{"place": "/copy"}, {"pad_token_id": 7}])
def test_where_a_live_teacher_lies_does_not_change_the_key(changes):
    assert live(**changes).key == live().key


def test_a_last_stage_on_hard_labels_has_alpha_one():
    assert stages(job(0.2, epochs=3, lr=1e-3).settings) == [Stage(3, 1e-3, 0.2)]
    assert stages(job(0.2, epochs=3, lr=1e-3, finetune={"epochs": 2, "lr": 1e-5}).settings) == [
        Stage(3, 1e-3, 0.2), Stage(2, 1e-5, 1.0)]

"""The words of a search become Optuna's distributions and the usual first point."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution as Categorical
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Integer

from kdray.config import Domain, SearchConfig, TrainingConfig, changed
from kdray.search.describe import BASELINE, describe
from kdray.search.space import choice_of, distributions, field, first_point, grid, point_of

TRAINING = TrainingConfig(temperature=3.0, alpha=0.25, lr=1e-4)


def interval(low: float, high: float, log: bool = False) -> Domain:
    return Domain(min=low, max=high, log=log)


@pytest.mark.parametrize("name, domain, wanted", [
    ("alpha", interval(0, 0.9), 0.25),
    ("alpha", interval(0, 0.1), 0.1),
    ("alpha", interval(0.7, 0.9), 0.7),
    ("alpha", Domain(values=[0.1, 0.25]), 0.25),
    ("alpha", Domain(values=[0.1, 0.2]), 0.2),
    ("temperature", interval(1, 8), 3.0),
    ("temperature", interval(4, 8), 4.0),
    ("lr", interval(1e-5, 1e-3, True), 1e-4),
    ("epochs", interval(6, 8), 6),
    ("loss", Domain(values=["mse", "kl"]), "kl"),
    ("alpha_end", interval(0.1, 1), 0.1),
    ("finetune.lr", interval(1e-6, 1e-5), 1e-6),
])
def test_the_first_point_is_what_is_configured_within_the_domain(name, domain, wanted):
    [(found_name, found)] = first_point({name: domain}, TRAINING).items()
    assert (found_name, found) == (name, wanted)


def test_the_default_search_starts_at_the_configured_temperature_and_alpha():
    assert first_point(SearchConfig().searched(TRAINING), TRAINING) == {"temperature": 3.0, "alpha": 0.25}


def test_what_a_student_does_not_feel_is_not_searched():
    assert SearchConfig().searched(TrainingConfig(loss="mse")).keys() == {"alpha"}
    space = {"temperature": interval(1, 8), "loss": Domain(values=["mse", "kl"])}
    assert SearchConfig(space=space).searched(TrainingConfig(loss="mse")).keys() == {"temperature", "loss"}


@pytest.mark.parametrize("name, domain, kind, log", [
    ("alpha", interval(0, 0.9), Float, False),
    ("lr", interval(1e-5, 1e-3, True), Float, True),
    ("batch_size", interval(8, 64), Integer, False),
    ("batch_size", interval(8, 64, True), Integer, True),
    ("epochs", interval(1, 3), Integer, False),
    ("finetune.epochs", interval(1, 3), Integer, False),
    ("finetune.lr", interval(1, 3), Float, False),
    ("dropout", interval(0, 0.5), Float, False),
    ("temperature", interval(1, 8), Float, False),
    ("loss", Domain(values=["kl", "mse"]), Categorical, None),
])
def test_a_domain_becomes_optunas(name, domain, kind, log):
    found = distributions({name: domain}, TRAINING)[name]
    assert isinstance(found, kind)
    assert log is None or found.log == log
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    for _ in range(50):
        value = point_of({name: domain}, study.ask({name: found}).params)[name]
        if domain.values is None:
            assert domain.min <= value <= domain.max
        changed(TRAINING, {name: value})


def test_both_ends_of_whole_numbers_are_searched():
    space = distributions({"epochs": interval(1, 3)}, TRAINING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    assert {study.ask(space).params["epochs"] for _ in range(100)} == {1, 2, 3}


def test_values_that_optuna_does_not_know_are_chosen_by_their_place():
    space = {"deepspeed": Domain(values=[{}, {"zero_optimization": {"stage": 1}}]), "alpha": interval(0, 1)}
    point = {"deepspeed": {"zero_optimization": {"stage": 1}}, "alpha": 0.3}
    assert choice_of(space, point) == {"deepspeed": 1, "alpha": 0.3}
    assert point_of(space, choice_of(space, point)) == point


def test_a_grid_has_every_combination_once():
    found = grid({"temperature": Domain(values=[1, 2]), "loss": Domain(values=["kl", "mse", "huber"])})
    assert found[:2] == [{"temperature": 1, "loss": "kl"}, {"temperature": 1, "loss": "mse"}]
    assert len(found) == len({tuple(point.items()) for point in found}) == 6


@pytest.mark.parametrize("name, value", [
    ("lr", 1e-4), ("finetune.lr", None), ("deepspeed.zero_optimization.stage", None)])
def test_a_dotted_field_has_a_value_or_none(name, value):
    assert field(TRAINING, name) == value


@pytest.mark.parametrize("point, text", [
    (BASELINE, "baseline (alpha 1)"),
    ({"temperature": 2.0, "alpha": 0.123456}, "temperature 2, alpha 0.1235"),
    ({"loss": "kl", "epochs": 3}, "loss kl, epochs 3"),
    ({"seed": 2, **BASELINE}, "baseline (alpha 1), seed 2"),
    ({"seed": 1, **BASELINE, "lr": 1e-3}, "baseline (alpha 1), lr 0.001, seed 1"),
    ({"alpha": 1.0, "temperature": 2.0}, "alpha 1, temperature 2"),
])
def test_a_point_is_described(point, text):
    assert describe(point) == text


def test_a_point_is_described_with_its_student():
    assert describe({"alpha": 0.5}, "small") == "small: alpha 0.5"

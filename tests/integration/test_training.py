"""Workers, ZeRO stages and options of DeepSpeed: the same student, whatever it was trained on."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from kdray.config import load
from kdray.errors import ClusterError, ConfigError, TrainingError
from kdray.pipeline import Pipeline
from tests.integration.conftest import small_config, write_config
from tests.small import make_model, tagged, write_jsonl


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("training") / "store"


def train(store: Path, rows: Path, teacher: Path, **training: Any) -> tuple[dict, dict]:
    """Manifest and weights of a student without dropout, in float32."""
    settings = {"epochs": 2, "lr": 1e-3, "dropout": 0.0, "precision": "float32", "num_cpus": 1, **training}
    config = write_config(store.parent / "c.yaml", small_config(store, rows, teacher, {"training": settings}))
    made = Pipeline(load(config)).students["student"]
    return made, load_file(store / "students" / made["key"] / "model.safetensors")


@pytest.fixture(scope="module")
def alone(store: Path, rows: Path, teacher: Path, cluster: None) -> dict:
    """Weights from one worker. Its settings differ in a way that changes the key alone."""
    return train(store, rows, teacher, weight_decay=0.01)[1]


def assert_close(one: dict, other: dict) -> None:
    for name, tensor in one.items():
        assert (tensor - other[name]).abs().max() < 2e-4, name


@pytest.mark.parametrize("stage", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_two_workers_with_zero_take_the_steps_of_one(store: Path, rows: Path, teacher: Path, alone: dict,
                                                     stage: int) -> None:
    made, weights = train(store, rows, teacher, workers=2,
                          deepspeed={"zero_optimization": {"stage": stage}})
    assert_close(weights, alone)
    assert made["history"][-1]["loss"] < made["history"][0]["loss"]


@pytest.mark.parametrize("stage", [0, 2])
def test_one_worker_with_accumulation_takes_the_steps_of_one_without(
        store: Path, rows: Path, teacher: Path, alone: dict, stage: int) -> None:
    weights = train(store, rows, teacher, accumulation=2, deepspeed={"zero_optimization": {"stage": stage}})[1]
    assert_close(weights, alone)


def test_unknown_deepspeed_value_is_refused_with_its_name(store: Path, rows: Path, teacher: Path, alone: dict) -> None:
    with pytest.raises((ConfigError, TrainingError), match="zero_optimization"):
        train(store, rows, teacher, deepspeed={"zero_optimization": {"stage": 9}}, max_failures=0)


def test_more_workers_than_the_cluster_has_are_refused(store: Path, rows: Path, teacher: Path, alone: dict) -> None:
    with pytest.raises(ClusterError, match=r"training.workers = 5 with 1 CPU each does not fit: the cluster has 2 CPU"):
        train(store, rows, teacher, workers=5, seed=1)


def test_more_gpus_than_the_cluster_has_are_refused(store: Path, rows: Path, teacher: Path, alone: dict) -> None:
    with pytest.raises(ClusterError, match="GPU"):
        train(store, rows, teacher, num_gpus=1, precision="bfloat16")


def test_loss_that_is_not_finite_ends_the_run_without_a_student(store: Path, rows: Path, teacher: Path,
                                                                alone: dict) -> None:
    before = {path.name for path in (store / "students").iterdir()}
    with pytest.raises(TrainingError, match="the loss is"):
        train(store, rows, teacher, lr=1e30, clip=0)
    assert {path.name for path in (store / "students").iterdir()} == before


def test_every_manifest_is_json_with_parents(store: Path, alone: dict) -> None:
    for path in store.glob("*/*/manifest.json"):
        assert "parents" in json.loads(path.read_text())


def test_student_with_another_tokenizer_reads_the_same_cache(store: Path, rows: Path, teacher: Path, alone: dict,
                                                             tmp_path: Path) -> None:
    other = make_model(tmp_path / "other", layers=2, more=("film was", "telling"))
    caches = len(list((store / "caches").iterdir()))
    config = small_config(store, rows, teacher, {
        "student": {"model": str(other)}, "training": {"epochs": 4, "lr": 3e-3, "alpha": 0.0, "num_cpus": 1}})
    made = Pipeline(load(write_config(store.parent / "other.yaml", config))).students["student"]
    assert made["validation"]["accuracy"] > 0.9
    assert len(list((store / "caches").iterdir())) == caches and len(list((store / "corpus").iterdir())) == 2


def health(made: dict) -> list[dict]:
    return [{name: entry[name] for name in ("agreement", "kl", "ratio")} for entry in made["history"]]


def test_two_workers_with_a_live_teacher_see_the_health_of_one_with_its_cache(store: Path, rows: Path, teacher: Path,
                                                                               alone: dict) -> None:
    settings = {"epochs": 1, "lr": 1e-3, "dropout": 0.0, "precision": "float32", "num_cpus": 1, "seed": 5,
                "alpha_end": 0.9, "temperature_end": 1.0}
    caches, found = len(list((store / "caches").iterdir())), []
    for changes, workers in (({}, 1), ({"live": True}, 2)):
        config = write_config(store.parent / "live.yaml", small_config(store, rows, teacher, {
            "teacher": {"model": str(teacher), "precision": "float32", **changes},
            "training": {**settings, "workers": workers}}))
        pipeline = Pipeline(load(config))
        found.append(health(pipeline.students["student"]))
        assert (pipeline.cache is None) == bool(changes)
    assert found[1][0] == pytest.approx(found[0][0], rel=0.01)
    assert len(list((store / "caches").iterdir())) == caches + 1, "one in float32, and none for the live teacher"


def test_a_distillation_that_does_nothing_is_told_to_the_user(
        store: Path, rows: Path, teacher: Path, alone: dict, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "kdray"):
        train(store, rows, teacher, alpha=0.99999, epochs=1, seed=6)
    assert [record.message for record in caplog.records if "next to nothing in epoch 1" in record.message]


def test_soft_targets_that_teach_nothing_are_told_to_the_user(rows: Path, base: Path, tmp_path: Path, cluster: None,
                                                              caplog: pytest.LogCaptureFixture) -> None:
    """Those of an untrained teacher, which are as good as shuffled, or all but constant."""
    config = small_config(tmp_path / "store", rows, base, {
        "teacher": {"model": str(base), "finetune": {"epochs": 1, "lr": 1e-30}}, "training": {"epochs": 1}})
    with caplog.at_level(logging.WARNING, "kdray"):
        assert Pipeline(load(write_config(tmp_path / "c.yaml", config))).students["student"]["history"]
    assert [record.message for record in caplog.records if record.message.startswith("the soft targets")]


def test_entities_are_distilled(tmp_path: Path, cluster: None) -> None:
    base = make_model(tmp_path / "base", head="BertForTokenClassification")
    config = small_config(tmp_path / "store", write_jsonl(tmp_path / "rows.jsonl", tagged(400)), base, {
        "task": "token-classification", "teacher": {"model": str(base), "finetune": {"epochs": 6, "lr": 3e-3}},
        "training": {"epochs": 6, "lr": 3e-3, "loss": "mse", "alpha": 0.1}})
    made = Pipeline(load(write_config(tmp_path / "c.yaml", config))).students["student"]
    assert made["validation"]["f1"] > 0.9


def test_trials_of_two_workers_share_the_cluster(store: Path, rows: Path, teacher: Path, alone: dict) -> None:
    config = small_config(store, rows, teacher, {
        "training": {"epochs": 1, "lr": 3e-3, "num_cpus": 1, "workers": 2},
        "search": {"trials": 2, "max_concurrent": 2}})
    sweep = Pipeline(load(write_config(store.parent / "sweep.yaml", config))).sweep
    assert [trial["state"] for trial in sweep["trials"]] == ["finished", "finished"]

"""The three models are measured on the test split, and every prediction is kept."""

import json
import shutil

import pyarrow as pa
import pytest

from kdray.evaluation.evaluate import PREDICTIONS, evaluate, evaluation_key
from kdray.models.load import Origin, build, save_model
from kdray.storage import Store

SETTINGS = {"loss": "kl", "temperature": 2.0, "alpha": 0.5, "lr": 1e-4, "epochs": 3}


@pytest.fixture
def store(corpus, cache, tmp_path) -> Store:
    """A copy of the corpus's storage with two untrained students."""
    shutil.copytree(corpus.store.root, tmp_path / "store")
    store = Store(str(tmp_path / "store"))
    for key, layers in (("baseline", (0,)), ("winner", (0, 3))):
        with store.staging("students") as folder:
            save_model(build(corpus.task, Origin(str(corpus.model), layers), corpus.labels, 0), corpus.model, folder)
            store.publish("students", key, folder, {
                "parents": {"corpus": corpus.manifest["key"]}, "metric": "accuracy", "settings": SETTINGS,
                "validation": {"accuracy": 0.5}})
    return store


def test_an_evaluation_measures_all_three_on_the_test_split(store, corpus, cache):
    made = evaluate(store, "key", cache, "baseline", "winner", corpus.model)
    numbers, rows = made["numbers"], corpus.rows("test")
    assert made["parents"] == {"cache": cache["key"], "baseline": "baseline", "winner": "winner"}
    assert numbers["rows"] == len(rows)
    assert numbers["settings"] == SETTINGS
    assert numbers["parameters"]["teacher"] > numbers["parameters"]["winner"] > numbers["parameters"]["baseline"]
    table = pa.ipc.open_file(str(store.fetch("evaluations", "key") / PREDICTIONS)).read_all()
    gold = table.column("gold").to_pylist()
    assert gold == [ids.tolist() for ids in rows.gold()]
    for name in ("teacher", "baseline", "winner"):
        predicted = table.column(name).to_pylist()
        right = sum(a == b for a, b in zip(gold, predicted, strict=True)) / len(gold)
        assert numbers["test"][name]["accuracy"]["value"] == pytest.approx(right)
    json.dumps(made)


def test_an_evaluations_key_is_that_of_what_is_compared():
    assert len({evaluation_key("c", "b", "w"), evaluation_key("c", "w", "b"), evaluation_key("d", "b", "w")}) == 3

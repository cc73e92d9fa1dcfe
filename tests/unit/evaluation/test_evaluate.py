"""Teacher and pairs of students are measured on the test split, and every prediction is kept."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from kdray.evaluation.evaluate import PREDICTIONS, evaluate, evaluation_key
from kdray.storage import Store
from tests.reports import SETTINGS, add_student
from tests.unit.conftest import Corpus, make_cache

CHOSEN = {"pairs": [{"seed": 1, "winner": "winner", "baseline": "baseline"},
                    {"seed": 2, "winner": "other", "baseline": "baseline"}],
          "seeds": 3, "winner": "winner", "baseline": "baseline"}
ONE = {**CHOSEN, "pairs": CHOSEN["pairs"][:1], "seeds": 1}
MODELS = ("teacher", "baseline", "winner")


def with_students(corpus: Corpus, folder) -> Corpus:
    """A copy of the corpus's storage with three untrained students."""
    shutil.copytree(corpus.store.root, folder)
    copy = replace(corpus, store=Store(str(folder)))
    for key, layers in (("baseline", (0,)), ("winner", (0, 1)), ("other", (1,))):
        add_student(copy, key, layers)
    return copy


@pytest.fixture
def here(corpus, cache, tmp_path) -> Corpus:
    return with_students(corpus, tmp_path / "store")


def predictions(store: Store, key: str) -> pa.Table:
    return pa.ipc.open_file(str(store.fetch("evaluations", key) / PREDICTIONS)).read_all()


def test_an_evaluation_measures_all_on_the_test_split(here, cache):
    made = evaluate(here.store, "key", here.task, here.manifest, str(here.model), cache["key"], CHOSEN)
    numbers, rows = made["numbers"], here.rows("test")
    assert made["parents"] == {"corpus": here.manifest["key"], "cache": cache["key"],
                               "students": ["baseline", "winner", "baseline", "other"]}
    assert numbers["rows"] == len(rows)
    assert numbers["settings"] == SETTINGS
    assert numbers["parameters"]["teacher"] > numbers["parameters"]["winner"] > numbers["parameters"]["baseline"]
    table = predictions(here.store, "key")
    gold = table.column("gold").to_pylist()
    assert gold == [ids.tolist() for ids in rows.gold()]
    for name in MODELS:
        predicted = table.column(name).to_pylist()
        right = sum(a == b for a, b in zip(gold, predicted, strict=True)) / len(gold)
        assert numbers["test"][name]["accuracy"]["value"] == pytest.approx(right)
        assert np.trace(made["breakdown"][name]["confusion"]) == right * len(gold)
    json.dumps(made, allow_nan=False)


def test_winner_and_baseline_are_those_that_were_chosen_and_all_pairs_are_in_the_seeds(here, cache):
    made = evaluate(here.store, "key", here.task, here.manifest, str(here.model), cache["key"], CHOSEN)
    numbers, table = made["numbers"], predictions(here.store, "key")
    pairs = numbers["seeds"]["pairs"]
    assert [pair["seed"] for pair in pairs] == [1, 2] and numbers["seeds"]["asked"] == 3
    for name in ("winner", "baseline"):
        assert pairs[0][name] == pytest.approx(numbers["test"][name]["accuracy"]["value"])
    gold, other = table.column("gold").to_pylist(), table.column("winner_2").to_pylist()
    assert pairs[1]["winner"] == pytest.approx(sum(a == b for a, b in zip(gold, other, strict=True)) / len(gold))
    swapped = evaluate(here.store, "swapped", here.task, here.manifest, str(here.model), cache["key"],
                       CHOSEN | {"winner": "other"})
    assert swapped["numbers"]["test"]["winner"]["accuracy"]["value"] == pytest.approx(pairs[1]["winner"])
    assert swapped["numbers"]["seeds"] == numbers["seeds"]
    assert sum(value for name, value in numbers["mcnemar"].items() if name != "p") == len(gold)


def test_a_live_teacher_answers_as_its_cache_does(here, cache):
    cached = evaluate(here.store, "cached", here.task, here.manifest, str(here.model), cache["key"], ONE)
    live = evaluate(here.store, "live", here.task, here.manifest, str(here.model), None, ONE)
    assert live["numbers"] == cached["numbers"]
    one, other = (np.concatenate(predictions(here.store, key).column("divergence").to_pylist())
                  for key in ("cached", "live"))
    assert one == pytest.approx(other, abs=1e-5)


def test_words_that_no_model_sees_are_kept_without_confidence(token_corpus, tmp_path):
    cache = make_cache(token_corpus, "float16")
    here = with_students(token_corpus, tmp_path / "store")
    made = evaluate(here.store, "key", here.task, here.manifest, str(here.model), cache["key"], ONE)
    table = predictions(here.store, "key")
    unseen = np.isnan(np.concatenate(table.column("winner_confidence").to_pylist()).astype(float))
    assert unseen.any() and (np.isnan(np.concatenate(table.column("divergence").to_pylist())) == unseen).all()
    words = len(np.concatenate(table.column("gold").to_pylist()))
    assert np.sum(made["breakdown"]["winner"]["confusion"]) == words
    assert sum(part["count"] for part in made["breakdown"]["winner"]["calibration"]["bins"]) == words - unseen.sum()
    json.dumps(made, allow_nan=False)


def test_an_evaluations_key_is_that_of_what_is_compared():
    assert len({evaluation_key("c", CHOSEN), evaluation_key("c", ONE), evaluation_key("d", CHOSEN),
                evaluation_key("c", CHOSEN | {"winner": "other"})}) == 4
    assert evaluation_key("c", CHOSEN | {"name": "small"}) == evaluation_key("c", CHOSEN)

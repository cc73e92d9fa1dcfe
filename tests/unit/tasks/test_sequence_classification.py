"""One label for a text or a pair, with the metrics that scikit-learn computes."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from kdray.corpus.tokenizer import load_tokenizer
from kdray.tasks import TASKS
from kdray.tasks.base import phrase_of, scores_of

TASK = TASKS["sequence-classification"]


def ids(values) -> list[np.ndarray]:
    return [np.array([value]) for value in values]


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Truth and guesses that agree half of the time; some of the labels occur in neither."""
    random = np.random.default_rng(seed)
    classes = int(random.integers(2, 7))
    used = random.choice(classes, size=int(random.integers(1, classes + 1)), replace=False)
    truth = random.choice(used, size=50)
    guess = np.where(random.random(50) < 0.5, truth, random.choice(classes, size=50))
    return truth, guess, [f"label {index}" for index in range(classes)]


@pytest.mark.parametrize("seed", range(20))
def test_metrics_are_those_of_sklearn(seed):
    truth, guess, labels = drawn(seed)
    assert scores_of(TASK, ids(truth), ids(guess), labels) == pytest.approx({
        "accuracy": accuracy_score(truth, guess),
        "macro_f1": f1_score(truth, guess, average="macro"),
        "matthews": matthews_corrcoef(truth, guess),
    }, abs=1e-12)


@pytest.mark.parametrize("guess, wanted", [
    ([1, 1, 1], {"accuracy": 1.0, "macro_f1": 1.0, "matthews": 0.0}),
    ([0, 0, 0], {"accuracy": 0.0, "macro_f1": 0.0, "matthews": 0.0}),
])
def test_metrics_of_one_class_are_numbers(guess, wanted):
    assert scores_of(TASK, ids([1, 1, 1]), ids(guess), ["a", "b"]) == wanted


@pytest.mark.parametrize("seed", range(5))
def test_tallies_of_any_rows_sum_to_their_scores(seed):
    truth, guess, labels = drawn(seed)
    tally = TASK.tally(ids(truth), ids(guess), labels)
    some = np.random.default_rng(seed).integers(0, 50, 50)
    weights = np.bincount(some, minlength=50)
    assert tally.rates(weights) == pytest.approx(scores_of(TASK, ids(truth[some]), ids(guess[some]), labels))


@pytest.mark.parametrize("row, words", [
    ({"text": "fine", "label": "a"}, None),
    ({"text": "fine", "text_pair": "too", "label": "0"}, None),
    ({"text": "", "label": "a"}, "text is empty"),
    ({"text": " \n", "label": "a"}, "text is empty"),
    ({"text": None, "label": "a"}, "text is empty"),
    ({"text": "fine", "text_pair": None, "label": "a"}, "text_pair is empty"),
    ({"text": "fine", "label": None}, "label is missing"),
    ({"text": "fine", "label": ""}, "label is missing"),
    ({"text": ["fine"], "label": "a"}, "text is a list"),
    ({"text": "fine", "label": ["a"]}, "label is a list"),
])
def test_a_row_is_complained_about(row, words):
    complaint = TASK.complaint(row)
    assert complaint is None if words is None else words in complaint


def test_texts_and_pairs_are_encoded_as_the_tokenizer_does(model_folder):
    tokenizer = load_tokenizer(model_folder)
    rows = [{"text": "good film"}, {"text": "a dull story with music and actors"}]
    single = TASK.encode(tokenizer, rows, 6)
    assert single.input_ids == [tokenizer(row["text"], truncation=True, max_length=6)["input_ids"] for row in rows]
    assert [len(row) for row in single.input_ids] == [4, 6]
    assert single.targets == single.positions == [[0], [0]]
    pair = TASK.encode(tokenizer, [{"text": "good film", "text_pair": "bad plot"}], 16)
    assert tokenizer.decode(pair.input_ids[0]) == "[CLS] good film [SEP] bad plot [SEP]"
    assert pair.token_type_ids == [[0, 0, 0, 0, 1, 1, 1]]


def test_a_row_becomes_an_input_of_the_protocol_and_back(model_folder):
    tokenizer = load_tokenizer(model_folder)
    for row in ({"text": "a", "label": "x"}, {"text": "a", "text_pair": "b", "label": "x"}):
        assert TASK.requests(TASK.item(row), tokenizer, 16) == [{k: v for k, v in row.items() if k != "label"}]


@pytest.mark.parametrize("item", [
    3, None, ["a"], {}, {"text": 1}, {"text": "a", "text_pair": 2}, {"text": "a", "x": 1}])
def test_an_input_that_is_no_text_is_refused(item):
    with pytest.raises(ValueError, match="an input must be"):
        TASK.requests(item, None, 16)


def answer(**parameters):
    return TASK.answer([{}], [np.array([[1.0, 3.0, 2.0]], np.float32)], [np.array([0])], ["a", "b", "c"], parameters)


def test_an_answer_has_all_labels_best_first_with_scores_that_sum_to_one():
    found = answer()
    assert [entry["label"] for entry in found] == ["b", "c", "a"]
    assert sum(entry["score"] for entry in found) == pytest.approx(1)
    assert found[0]["score"] == pytest.approx(1 / (1 + np.exp(-1) + np.exp(-2)))


@pytest.mark.parametrize("function, wanted", [
    ("softmax", 1 / (1 + np.exp(-1) + np.exp(-2))), ("sigmoid", 1 / (1 + np.exp(-3))), ("none", 3.0)])
def test_function_to_apply_is_applied(function, wanted):
    assert answer(function_to_apply=function)[0]["score"] == pytest.approx(wanted)


@pytest.mark.parametrize("top_k, count", [(1, 1), (2, 2), (9, 3), (None, 3)])
def test_top_k_limits_the_answer(top_k, count):
    assert len(answer(top_k=top_k)) == count


@pytest.mark.parametrize("parameters", [
    {"top_k": 0}, {"top_k": -1}, {"top_k": "2"}, {"top_k": True}, {"top_k": 1.5}, {"function_to_apply": "relu"}])
def test_a_wrong_parameter_is_refused_by_its_name(parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        answer(**parameters)


def test_large_logits_do_not_overflow():
    found = TASK.answer([{}], [np.array([[1e4, -1e4]], np.float32)], [np.array([0])], ["a", "b"], {})
    assert found == [{"label": "a", "score": 1.0}, {"label": "b", "score": 0.0}]


def test_a_fifth_of_a_phrase_are_other_words_and_without_any_it_is_a_run():
    words, random = [f"w{place}" for place in range(10)], np.random.default_rng(0)
    runs = [phrase_of(words, random, ()) for _ in range(200)]
    assert all(run == words[words.index(run[0]):][:len(run)] for run in runs)
    assert {len(run) for run in runs} == set(range(2, 11))
    mixed = [word for _ in range(1000) for word in phrase_of(words, random, ("x", "y"))]
    assert 0.18 < sum(word in "xy" for word in mixed) / len(mixed) < 0.22
    assert phrase_of(["alone"], random, ()) == ["alone"]

"""One tag a word, entities as CoNLL counts them, and answers that point into the text."""

import random

import numpy as np
import pytest
from seqeval.metrics import f1_score, precision_score, recall_score

from kdray.corpus.tokenizer import load_tokenizer
from kdray.tasks import TASKS
from kdray.tasks.base import scores_of
from tests.unit.conftest import TAGS

TASK = TASKS["token-classification"]
LABELS = ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]


@pytest.fixture(scope="module")
def tokenizer(token_folder):
    return load_tokenizer(token_folder)


def drawn_tags(chance: random.Random) -> list[str]:
    """Any tags in any order, stray I- among them."""
    return [chance.choice(LABELS) for _ in range(chance.randint(1, 12))]


def conll_tags(chance: random.Random) -> list[str]:
    """Well-formed IOB2."""
    tags: list[str] = []
    while len(tags) < 12:
        kind = chance.choice(["LOC", "PER", None, None])
        tags += ["O"] if kind is None else [f"B-{kind}", *[f"I-{kind}"] * chance.randint(0, 2)]
    return tags


def ids(sentences: list[list[str]]) -> list[np.ndarray]:
    return [np.array([LABELS.index(tag) for tag in tags]) for tags in sentences]


@pytest.mark.parametrize("draw", [drawn_tags, conll_tags])
@pytest.mark.parametrize("seed", range(15))
def test_metrics_are_those_of_seqeval(draw, seed):
    chance = random.Random(seed)
    truth = [draw(chance) for _ in range(20)]
    guess = [[tag if chance.random() < 0.8 else chance.choice(LABELS) for tag in tags] for tags in truth]
    right = sum(a == b for t, g in zip(truth, guess, strict=True) for a, b in zip(t, g, strict=True))
    assert scores_of(TASK, ids(truth), ids(guess), LABELS) == pytest.approx({
        "f1": f1_score(truth, guess), "precision": precision_score(truth, guess), "recall": recall_score(truth, guess),
        "accuracy": right / sum(map(len, truth))})


def test_no_entity_found_or_there_scores_zero():
    nothing, something = ids([["O", "O"]]), ids([["B-PER", "O"]])
    for truth, guess in ((nothing, nothing), (nothing, something), (something, nothing)):
        scores = scores_of(TASK, truth, guess, LABELS)
        assert (scores["f1"], scores["precision"], scores["recall"]) == (0, 0, 0)


def test_tallies_of_any_rows_sum_to_their_scores():
    chance = random.Random(1)
    truth, guess = (ids([[chance.choice(LABELS) for _ in range(6)] for _ in range(30)]) for _ in range(2))
    some = np.random.default_rng(0).integers(0, 30, 30)
    weights = np.bincount(some, minlength=30)
    assert TASK.tally(truth, guess, LABELS).rates(weights) == pytest.approx(
        scores_of(TASK, [truth[i] for i in some], [guess[i] for i in some], LABELS))


@pytest.mark.parametrize("row, words", [
    ({"tokens": ["a", "b"], "tags": ["O", "B-X"]}, None),
    ({"tokens": [], "tags": []}, "tokens is empty"),
    ({"tokens": None, "tags": None}, "tokens is empty"),
    ({"tokens": ["a", " "], "tags": ["O", "O"]}, "token 1 is empty"),
    ({"tokens": ["a", None], "tags": ["O", "O"]}, "token 1 is empty"),
    ({"tokens": ["a"], "tags": ["O", "O"]}, "1 tokens and 2 tags"),
    ({"tokens": ["a"], "tags": None}, "1 tokens and 0 tags"),
    ({"tokens": ["a", "b"], "tags": ["O", None]}, "tag 1 is missing"),
    ({"tokens": "ann", "tags": "OOO"}, "tokens is a text, not a list"),
    ({"tokens": ["a"], "tags": "O"}, "tags is a text, not a list"),
])
def test_a_row_is_complained_about(row, words):
    complaint = TASK.complaint(row)
    assert complaint is None if words is None else words in complaint


def test_a_words_target_is_its_first_sub_word(tokenizer):
    encoded = TASK.encode(tokenizer, [{"tokens": ["ann", "zebra", "rome"]}], 32)
    pieces = tokenizer.convert_ids_to_tokens(encoded.input_ids[0])
    assert encoded.targets == [[0, 1, 2]]
    assert [pieces[position] for position in encoded.positions[0]] == ["ann", "z", "rome"]
    assert pieces == ["[CLS]", "ann", "z", "##e", "##b", "##r", "##a", "rome", "[SEP]"]


def test_truncated_words_have_no_target_and_are_decided_outside(tokenizer):
    encoded = TASK.encode(tokenizer, [{"tokens": ["zebra", "ann", "bob"]}, {"tokens": ["ann"]}], 7)
    assert [len(row) for row in encoded.input_ids] == [7, 3]
    assert encoded.targets == [[0], [0]]
    decided = TASK.decide(np.array([[9.0, 0, 0]]), np.array(encoded.targets[0]), 3, TAGS)
    assert decided.tolist() == [0, TAGS.index("O"), TAGS.index("O")]


def test_a_row_without_any_target_is_decided_outside():
    assert TASK.decide(np.empty((0, 3)), np.array([], int), 2, TAGS).tolist() == [2, 2]


def test_logits_are_gathered_where_the_targets_are():
    logits = np.arange(2 * 4 * 3).reshape(2, 4, 3)
    assert TASK.gather(logits, np.array([0, 1, 1]), np.array([1, 0, 3])).tolist() == [
        logits[0, 1].tolist(), logits[1, 0].tolist(), logits[1, 3].tolist()]


TEXT = "Ann's friend, U.S. envoy (Bob) met  Jean-Luc in Rome."


def test_a_text_is_cut_into_words_whose_offsets_point_at_them(tokenizer):
    [row] = TASK.requests(TEXT, tokenizer, 256)
    assert row["tokens"] == ["Ann's", "friend", ",", "U.S", ".", "envoy", "(", "Bob", ")", "met", "Jean-Luc", "in",
                             "Rome", "."]
    assert [TEXT[start:end] for start, end in row["offsets"]] == row["tokens"]


@pytest.mark.parametrize("max_length", [8, 12, 30])
def test_a_long_text_is_cut_into_rows_that_fit_and_lose_no_word(tokenizer, max_length):
    text = " ".join(["ann met bob, and zebras in rome"] * 10)
    whole = TASK.requests(text, tokenizer, 10_000)
    rows = TASK.requests(text, tokenizer, max_length)
    assert len(whole) == 1 and len(rows) > 1
    assert [word for row in rows for word in row["tokens"]] == whole[0]["tokens"]
    encoded = TASK.encode(tokenizer, rows, max_length)
    assert [len(targets) for targets in encoded.targets] == [len(row["tokens"]) for row in rows]
    assert all(text[a:b] == word for row in rows for (a, b), word in zip(row["offsets"], row["tokens"], strict=True))


def test_a_word_longer_than_a_row_is_a_row_of_its_own(tokenizer):
    rows = TASK.requests("ann abcdefghijklmnop bob", tokenizer, 8)
    assert [row["tokens"] for row in rows] == [["ann"], ["abcdefghijklmnop"], ["bob"]]


@pytest.mark.parametrize("text", ["", "  \n"])
def test_a_text_without_words_has_no_rows_and_no_entities(tokenizer, text):
    assert TASK.requests(text, tokenizer, 16) == []
    assert TASK.answer([], [], [], TAGS, {}) == []


@pytest.mark.parametrize("item", [3, None, ["a"], {"text": "a"}])
def test_an_input_that_is_no_text_is_refused(tokenizer, item):
    with pytest.raises(ValueError, match="must be a string"):
        TASK.requests(item, tokenizer, 16)


def entities(tags: list[str], text: str = TEXT, **parameters):
    """The answer where the model is sure of `tags`, the last word unseen."""
    row = {"tokens": text.split(), "source": text, "offsets": []}
    for word in row["tokens"]:
        start = text.index(word, row["offsets"][-1][1] if row["offsets"] else 0)
        row["offsets"].append((start, start + len(word)))
    logits = np.full((len(tags), len(LABELS)), -20.0, np.float32)
    logits[np.arange(len(tags)), [LABELS.index(tag) for tag in tags]] = 20.0
    return TASK.answer([row], [logits], [np.arange(len(tags))], LABELS, parameters)


def test_entities_are_grouped_and_point_into_the_text():
    text = "ann  van berg met bob"
    found = entities(["B-PER", "I-PER", "I-PER", "O"], text)
    assert found == [{"entity_group": "PER", "score": pytest.approx(1), "word": "ann  van berg", "start": 0, "end": 13}]
    assert text[found[0]["start"]:found[0]["end"]] == found[0]["word"]


def test_without_aggregation_each_word_is_an_entry():
    found = entities(["B-PER", "I-PER", "O", "B-LOC"], "ann berg in rome x", aggregation_strategy="none")
    assert [(entry["entity"], entry["word"]) for entry in found] == [("B-PER", "ann"), ("I-PER", "berg"),
                                                                    ("B-LOC", "rome")]


def test_ignored_labels_are_left_out_and_outside_may_be_kept():
    tags, text = ["B-PER", "O", "B-LOC"], "ann in rome x"
    assert [e["entity_group"] for e in entities(tags, text, ignore_labels=["PER"])] == ["LOC"]
    kept = entities(tags, text, aggregation_strategy="none", ignore_labels=[])
    assert [e["entity"] for e in kept] == ["B-PER", "O", "B-LOC", "O"]


@pytest.mark.parametrize("parameters", [{"aggregation_strategy": "sum"}, {"ignore_labels": "O"}])
def test_a_wrong_parameter_is_refused_by_its_name(parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        entities(["O"], "a b", **parameters)


def test_an_entitys_score_is_the_mean_of_its_words():
    row = {"tokens": ["ann", "berg"], "source": "ann berg", "offsets": [(0, 3), (4, 8)]}
    probabilities = np.array([[0.05, 0.8, 0.05, 0.05, 0.05], [0.1, 0.1, 0.1, 0.6, 0.1]])
    found = TASK.answer([row], [np.log(probabilities).astype(np.float32)], [np.arange(2)], LABELS, {})
    assert found[0]["score"] == pytest.approx(0.7, abs=1e-6)


def test_the_stratum_is_the_kinds_of_entity():
    assert TASK.stratum({"tags": ["O", "B-PER", "I-PER", "B-LOC"]}) == "LOC+PER"
    assert TASK.stratum({"tags": ["O"]}) == ""

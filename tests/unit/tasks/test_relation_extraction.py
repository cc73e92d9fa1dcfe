"""Relations: markers and spans, windows that keep them, and the metrics of SemEval-2010's scorer."""

import logging
import random

import numpy as np
import pytest

from kdray.corpus.tokenizer import load_tokenizer
from kdray.errors import DataError
from kdray.storage import Store
from kdray.tasks import TASKS
from kdray.tasks.base import Units, scores_of
from kdray.tasks.markers import MARKERS, entities, marked

TASK = TASKS["relation-extraction"]
LABELS = ["Cause(e1,e2)", "Cause(e2,e1)", "Other", "Part(e1,e2)", "Part(e2,e1)", "Same"]
TEXT = "Some film was bad"


@pytest.fixture(scope="module")
def tokenizer(model_folder, tmp_path_factory):
    """The small tokenizer, with markers."""
    from kdray.models.markers import with_markers

    return load_tokenizer(with_markers(Store(str(tmp_path_factory.mktemp("store"))), TASK, model_folder, False))


def ids(names: list[str]) -> list[np.ndarray]:
    return [np.array([LABELS.index(name)]) for name in names]


@pytest.mark.parametrize("row, wanted", [
    ({"text": TEXT, "head": [5, 9], "tail": [14, 17]}, "Some<e1> film</e1> was<e2> bad</e2>"),
    ({"text": TEXT, "head": ["14", "17"], "tail": ["0", "4"]}, "<e2>Some</e2> film was<e1> bad</e1>"),
    ({"text": TEXT, "head": "[5, 9]", "tail": "14 17"}, "Some<e1> film</e1> was<e2> bad</e2>"),
    ({"text": TEXT, "head": [4, 10], "tail": [13, 17]}, "Some<e1> film</e1> was<e2> bad</e2>"),
    ({"text": TEXT, "head": [0, 9], "tail": [5, 9]}, "<e1>Some<e2> film</e2></e1> was bad"),
    ({"text": TEXT, "head": [5, 9], "tail": [5, 9]}, "Some<e1><e2> film</e2></e1> was bad"),
    ({"text": TEXT, "head": [0, 9], "tail": [5, 13]}, "<e1>Some<e2> film</e1> was</e2> bad"),
    ({"text": TEXT, "head": [0, 4], "tail": [5, 9]}, "<e1>Some</e1><e2> film</e2> was bad"),
    ({"text": TEXT, "head": [0, 4, "PER"], "tail": [5, 9, "/work-of_art"]},
     "<e1> * per * Some</e1><e2> * work of art * film</e2> was bad"),
    ({"text": "Some <e1>film</e1> was <e2>bad</e2>"}, "Some<e1> film</e1> was<e2> bad</e2>"),
    ({"text": "Some <e1> film</e1> was<e2> bad </e2>", "head": None, "tail": None},
     "Some <e1> film</e1> was<e2> bad</e2> "),
])
def test_spans_and_markers_become_one_text(row, wanted):
    assert TASK.complaint({**row, "relation": "Other"}) is None
    assert TASK.item(row) == marked({"text": wanted}) == wanted


def test_whatever_is_marked_is_found_again():
    chance, seen = random.Random(0), 0
    for _ in range(3000):
        text = "".join(chance.choice("ab  ") for _ in range(chance.randint(2, 8)))
        spans = [sorted(chance.sample(range(len(text) + 1), 2)) for _ in range(2)]
        if all(text[start:end] == text[start:end].strip() != "" for start, end in spans):
            found = entities(marked({"text": text, "head": spans[0], "tail": spans[1]}))
            assert (found.text, list(found.head), list(found.tail)) == (text, *spans)
            seen += 1
    assert seen > 200


@pytest.mark.parametrize("row, words", [
    ({"text": TEXT, "head": [5, 9], "tail": [14, 18]}, "tail [14, 18] is not within its text of 17 characters"),
    ({"text": TEXT, "head": [-1, 9], "tail": [14, 17]}, "head [-1, 9] is not within its text"),
    ({"text": TEXT, "head": [9, 5], "tail": [14, 17]}, "head [9, 5] is not within its text"),
    ({"text": TEXT, "head": [5, 5], "tail": [14, 17]}, "head [5, 5] is empty"),
    ({"text": TEXT, "head": [4, 5], "tail": [14, 17]}, "head [4, 5] is empty: the text has ' ' there"),
    ({"text": TEXT, "head": [5, 9], "tail": None}, "tail is missing"),
    ({"text": TEXT, "tail": [5, 9]}, "head is missing"),
    ({"text": TEXT, "head": ["a", "b"], "tail": [14, 17]}, "head ['a', 'b'] is no span"),
    ({"text": TEXT, "head": [5], "tail": [14, 17]}, "head [5] is no span"),
    ({"text": TEXT, "head": [1.5, 3], "tail": [14, 17]}, "head [1.5, 3] is no span"),
    ({"text": TEXT, "head": 5, "tail": [14, 17]}, "head 5 is no span"),
    ({"text": f"{TEXT} </e2>", "head": [5, 9], "tail": [14, 17]}, "text has the marker </e2> in it"),
    ({"text": TEXT}, "text has no <e1>, and must have one"),
    ({"text": "Some <e1>film</e1> was <e2>bad"}, "text has no </e2>"),
    ({"text": "Some <e1>film</e1> was <e2>bad</e2> </e2>"}, "text has 2 </e2>"),
    ({"text": "Some </e1>film<e1> was <e2>bad</e2>"}, "</e1> stands before <e1>"),
    ({"text": "Some <e1> </e1> was <e2>bad</e2>"}, "head is empty"),
    ({"text": "Some <e1>film</e1> was <e2></e2>"}, "tail is empty"),
    ({"text": " ", "head": [0, 1], "tail": [0, 1]}, "text is empty"),
    ({"text": TEXT, "head": [5, 9], "tail": [14, 17], "relation": ""}, "relation is missing"),
    ({"text": TEXT, "head": [5, 9], "tail": [14, 17], "relation": ["a", "b"]}, "relation is a list"),
])
def test_a_row_is_complained_about(row, words):
    complaint = TASK.complaint(row)
    assert complaint is not None and words in complaint


def test_a_row_that_fits_is_cut_as_the_tokenizer_cuts_its_marked_text(tokenizer):
    rows = [{"text": "the film was good", "head": [4, 8], "tail": [13, 17]},
            {"text": "<e2>a plot</e2> with very dull <e1>music</e1>"}]
    encoded = TASK.encode(tokenizer, rows, 32)
    assert encoded.input_ids == tokenizer([TASK.item(row) for row in rows])["input_ids"]
    assert tokenizer.decode(encoded.input_ids[0]) == "[CLS] the <e1> film </e1> was <e2> good </e2> [SEP]"
    assert list(map(len, encoded.token_type_ids)) == list(map(len, encoded.input_ids))
    assert encoded.targets == encoded.positions == [[0], [0]]


@pytest.mark.parametrize("text, wanted", [
    ("a a a a a <e1>film</e1> was <e2>good</e2> b b b b b",
     "[CLS] a <e1> film </e1> was <e2> good </e2> b [SEP]"),
    ("<e1>film</e1> c c c c c c c c c c <e2>good</e2>", "[CLS] <e1> film </e1> c c <e2> good </e2> [SEP]"),
    ("b b <e1>film</e1> a a a a a a a a a a <e2>good</e2> b b b",
     "[CLS] b <e1> film </e1> a a <e2> good </e2> b [SEP]"),
    ("b b <e1>film a music a plot</e1> c c c c <e2>good</e2> b b b",
     "[CLS] b <e1> film a music a plot </e1> <e2> good </e2> [SEP]"),
    ("<e1>a b c d e f g h</e1> i i i <e2>good</e2> i i i", "[CLS] <e1> a h </e1> i i <e2> good </e2> [SEP]"),
])
def test_a_long_row_keeps_both_entities_and_what_is_near(tokenizer, text, wanted):
    length = len(wanted.split())
    encoded = TASK.encode(tokenizer, [{"text": text}], length)
    assert tokenizer.decode(encoded.input_ids[0]) == wanted
    assert len(encoded.token_type_ids[0]) == length


@pytest.mark.parametrize("length", range(7, 40))
def test_no_marker_is_ever_lost(tokenizer, length):
    chance = np.random.default_rng(length)
    words = [*chance.choice(["film", "xyz", "good"], 40)]
    for place, marker in zip(np.sort(chance.choice(40, 4, replace=False))[::-1], reversed(MARKERS), strict=True):
        words.insert(place, marker)
    (kept,) = TASK.encode(tokenizer, [{"text": " ".join(words)}], length).input_ids
    assert len(kept) == length and kept[0] == tokenizer.cls_token_id and kept[-1] == tokenizer.sep_token_id
    assert [token for token in tokenizer.convert_ids_to_tokens(kept) if token in MARKERS] == list(MARKERS)


def test_a_length_without_room_for_words_is_refused(tokenizer):
    with pytest.raises(DataError, match=r"data.max_length = 6 has no room for words beside 6 tokens"):
        TASK.encode(tokenizer, [{"text": "<e1>film</e1> was <e2>good</e2>"}], 6)


def official(truth: list[str], guess: list[str]) -> float:
    """Macro-F1 as the scorer's text says it: a relation found in the wrong direction is proposed, and wrong."""
    def relation(name: str) -> str:
        return name.removesuffix("(e1,e2)").removesuffix("(e2,e1)")

    names, scores = sorted({relation(name) for name in truth} - {"Other"}), []
    for name in names:
        proposed = sum(relation(one) == name for one in guess)
        actual = sum(relation(one) == name for one in truth)
        right = sum(one == other and relation(one) == name for one, other in zip(truth, guess, strict=True))
        precision, recall = right / proposed if proposed else 0.0, right / actual
        scores.append(2 * precision * recall / (precision + recall) if right else 0.0)
    return float(np.mean(scores))


@pytest.mark.parametrize("seed", range(10))
def test_macro_f1_is_that_of_the_official_scorer(seed):
    chance = random.Random(seed)
    truth = chance.choices(LABELS, k=60)
    guess = [name if chance.random() < 0.5 else chance.choice(LABELS) for name in truth]
    found = scores_of(TASK, ids(truth), ids(guess), LABELS)
    assert found["macro_f1"] == pytest.approx(official(truth, guess))
    assert found["accuracy"] == pytest.approx(np.mean([one == other for one, other in zip(truth, guess, strict=True)]))


def test_a_wrong_direction_is_wrong_and_other_does_not_count():
    truth = ["Cause(e1,e2)", "Cause(e2,e1)", "Other", "Other", "Part(e1,e2)", "Other"]
    guess = ["Cause(e2,e1)", "Cause(e2,e1)", "Other", "Part(e1,e2)", "Part(e1,e2)", "Other"]
    found = scores_of(TASK, ids(truth), ids(guess), LABELS)
    assert found["macro_f1"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["micro_f1"] == pytest.approx(2 * 2 / (4 + 3))


def test_rows_without_any_relation_score_nothing():
    assert scores_of(TASK, ids(["Other"]), ids(["Other"]), LABELS) == {
        "macro_f1": 0.0, "micro_f1": 0.0, "accuracy": 1.0}


@pytest.mark.parametrize("labels, words", [
    (LABELS, "over 3 relations, 'Other' left out"),
    (["no_relation", "per:title", "org:city"], "over 2 relations, 'no_relation' left out"),
    (["a", "b"], "over 2 relations: none of the labels is called Other"),
])
def test_what_the_metrics_are_over_is_said(labels, words):
    ((level, text),) = TASK.remarks(labels, set())
    assert level == logging.INFO and words in text


def test_rows_of_one_text_are_kept_on_one_side_of_a_cut():
    one, other = ({"text": TEXT, "head": head, "tail": [14, 17]} for head in ([0, 4, "PER"], [5, 9]))
    assert TASK.group(one) == TASK.group(other) == TEXT and TASK.item(one) != TASK.item(other)


def cut(text: str) -> Units:
    return Units(text.split(), " ", ("x", "y"))


@pytest.mark.parametrize("seed", range(20))
def test_a_phrase_has_both_entities_as_they_are(seed):
    row = {"text": "a b Ann c d e Bob f g", "head": ["14", "17"], "tail": ["4", "7"], "relation": "Other"}
    made = TASK.phrase(row, np.random.default_rng(seed), cut)
    found = entities(marked(made))
    assert set(made) == {"text", "head", "tail"}
    assert found.text[slice(*found.head)] == "Bob" and found.text[slice(*found.tail)] == "Ann"
    assert set(found.text.split()) <= {"Ann", "Bob", "x", "y", *"abcdefg"} and TASK.complaint(made) is None
    text = TASK.phrase({"text": "a <e1>Ann <e2>Bob</e2></e1> c"}, np.random.default_rng(seed), cut)
    assert set(text) == {"text"} and "<e1> Ann<e2> Bob</e2></e1>" in text["text"]


@pytest.mark.parametrize("item", [
    "Some <e1>film</e1> was <e2>bad</e2>", {"text": TEXT, "head": [5, 9], "tail": [14, 17]},
    {"text": "Some <e1>film</e1> was <e2>bad</e2>"}])
def test_an_input_of_the_protocol_is_a_row(item):
    (row,) = TASK.requests(item, None, 32)
    assert TASK.item(row) == "Some<e1> film</e1> was<e2> bad</e2>"
    assert TASK.taught(row, ["Other"]) == {"text": TEXT, "head": [5, 9], "tail": [14, 17], "relation": "Other"}


@pytest.mark.parametrize("item, words", [
    ("Some film", "text has no <e1>"), (3, "an input must be"), (["a"], "an input must be"), ({}, "an input must be"),
    ({"text": TEXT, "head": [5, 9]}, "an input must be"), ({"text": TEXT, "text_pair": "b"}, "an input must be"),
    ({"text": TEXT, "head": [5, 9], "tail": [14, 99]}, "tail [14, 99] is not within"),
    ({"text": TEXT, "head": {}, "tail": [14, 17]}, "head {} is no span"),
    ({"text": TEXT, "head": [[]], "tail": [14, 17]}, "head [[]] is no span"),
    ({"text": TEXT, "head": "", "tail": [14, 17]}, "head is missing")])
def test_an_input_that_is_none_is_refused(item, words):
    with pytest.raises(ValueError) as raised:
        TASK.requests(item, None, 32)
    assert words in str(raised.value)


def test_an_answer_has_all_relations_best_first():
    answer = TASK.answer([{}], [np.array([[1.0, 3.0]], np.float32)], [np.array([0])], ["a", "b"], {})
    assert [one["label"] for one in answer] == ["b", "a"]

import json

import numpy as np
import pytest
from transformers import AutoTokenizer

from kdray.corpus.columns import of_rows
from kdray.corpus.json_files import read_json
from kdray.outputs.windows import AGAIN, NONE
from kdray.tasks import TASKS
from kdray.tasks.agreement import Truth, exact, f1
from kdray.tasks.base import scores_of
from kdray.tasks.squad import canonical
from tests.families import FAMILIES

TASK = TASKS["question-answering"]
TEXT = "the  film was a story, with ann. \u00e9\U0001f600 rome\tand some  music " * 6
ASKED = {name: (name,) for name in TASK.columns}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    found = []
    for family in (FAMILIES[name] for name in ("BERT", "RoBERTa", "XLM-R", "Llama", "GPT-2")):
        folder = tmp_path_factory.mktemp("tokenizer")
        family.tokenizer(folder, family.tokenizer_class)
        found.append(AutoTokenizer.from_pretrained(folder))
    return found


def row(context=TEXT, answers=("5 film",), question="was some name"):
    return {"question": question, "context": context, "answers": list(answers)}


def test_every_token_of_a_long_text_is_a_target_at_the_character_that_it_starts_at(tokenizers):
    for tokenizer in tokenizers:
        found = TASK.encode(tokenizer, [row(), row("the film")], 32)
        assert len(found.entries[0]) > 3 and len(found.entries[1]) == 1
        for index, context in enumerate((TEXT, "the film")):
            units = np.array(found.targets[index])
            assert sum(found.entries[index]) == len(found.input_ids[index]) and max(found.entries[index]) <= 32
            assert (units == NONE).sum() == 1 and (units == AGAIN).sum() == len(found.entries[index]) - 1
            starts = np.unique(units[units >= 0])
            assert not any(context[start].isspace() for start in starts)
            words = {place for place in range(1, len(context))
                     if context[place - 1].isspace() > context[place].isspace()}
            assert words <= set(starts.tolist())
            ids = np.array(found.input_ids[index])[found.positions[index]]
            assert tokenizer.cls_token is None or (ids[units < 0] == tokenizer.cls_token_id).all()


def test_an_answer_anywhere_in_a_long_text_is_read_back_to_the_character(tokenizers):
    words = [(place, place + len(word)) for word in set(TEXT.split()) for place in range(len(TEXT))
             if TEXT[place:place + len(word)] == word and TEXT[place - 1:place].strip() == ""
             and not TEXT[place + len(word):place + len(word) + 1].strip()]
    assert len(words) > 50
    for tokenizer in tokenizers:
        found = TASK.encode(tokenizer, [row()], 32)
        targets = np.array(found.targets[0])
        for start, stop in words:
            flags = TASK.output.taught(np.array([[start, stop]]), targets)
            (answer,) = [TASK.answer([row()], [10.0 * flags], [targets], [], {})]
            assert (answer["start"], answer["end"], answer["answer"]) == (start, stop, TEXT[start:stop])


def test_a_question_that_is_too_long_is_cut_and_a_window_too_small_refused(tokenizers):
    for tokenizer in tokenizers:
        found = TASK.encode(tokenizer, [row(question="was some name " * 40)], 32)
        assert max(found.entries[0]) <= 32 and len(found.targets[0]) > len(found.entries[0])
    with pytest.raises(Exception, match=r"data.max_length = 4"):
        TASK.encode(tokenizers[0], [row()], 4)


@pytest.mark.parametrize("changes, words", [
    ({"context": " "}, "context is empty"), ({"question": ""}, "question is empty"),
    ({"question": ["a"]}, "question is a list"), ({"answers": None}, "answers is missing"),
    ({"answers": ["4 film"]}, "not in the context at character 4: it is at 5"),
    ({"answers": ["5 film", "5 opera"]}, "nowhere"), ({"answers": ["-5 film"]}, "character -5"),
    ({"answers": ["film"]}, "has no place"), ({"answers": ["5 "]}, "an answer is empty"),
    ({"answers": ["99999 film"]}, "character 99999"), ({"answers": []}, None), ({}, None)])
def test_what_is_wrong_with_a_row(changes, words):
    found = TASK.complaint({**row(), **changes})
    assert found is None if words is None else words in found


@pytest.mark.parametrize("written, read", [
    ([{"text": "film", "start": "5"}], ["5 film"]), ([{"text": "film", "answer_start": 5}], ["5 film"]),
    ({"text": ["film", "a"], "answer_start": [5, 14]}, ["5 film", "14 a"]), ({"text": [], "answer_start": []}, []),
    ({"text": "film", "answer_start": 0}, ["0 film"]), ([], []), (None, None), ([{"text": "film"}], ["? film"])])
def test_answers_are_read_however_they_are_written(written, read):
    assert canonical(written) == read


def test_squads_own_file_and_rows_are_the_same_rows():
    asked = [{"id": "1", "question": "who", "answers": [{"text": "ann", "answer_start": 4}], "is_impossible": False},
             {"id": "2", "question": "where", "answers": [], "plausible_answers": [{"text": "the", "answer_start": 0}],
              "is_impossible": True}]
    nested = {"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": "the ann", "qas": asked}]}]}
    flat = [{"question": "who", "context": "the ann", "answers": {"text": ["ann"], "answer_start": [4]}},
            {"question": "where", "context": "the ann", "answers": {"text": [], "answer_start": []}}]
    whole = read_json(json.dumps(nested).encode(), None, "train", ASKED)
    lines = read_json("\n".join(map(json.dumps, nested["data"] * 2)).encode(), None, "train", ASKED)
    tables = [TASK.plain({name: raw.table.column(name) for name in ASKED})
              for raw in (whole, of_rows(iter(flat), ASKED))]
    assert [table["answers"].to_pylist() for table in tables] == [[["4 ann"], []]] * 2
    assert [table["question"].to_pylist() for table in tables] == [["who", "where"]] * 2
    assert lines.rows == 4


@pytest.mark.parametrize("said, answers, wanted", [
    ("The Film!", ["a film"], (True, 1.0)), ("great film", ["film", "the great plot"], (False, 2 / 3)),
    ("", [], (True, 1.0)), ("film", [], (False, 0.0)), ("", ["film"], (False, 0.0)), ("the", ["film"], (False, 0.0)),
    ("film film", ["film"], (False, 2 / 3)), ("1,000", ["1000"], (True, 1.0)), ("film", ["the", "film"], (True, 1.0))])
def test_agreement_is_counted_as_squad_does(said, answers, wanted):
    assert (exact(said, answers), pytest.approx(f1(said, answers))) == wanted


def test_metrics_tell_rows_with_an_answer_from_those_without():
    truth = [Truth("the film was", ["film"]), Truth("the film was", ["the film"]), Truth("the film", []),
             Truth("was", [])]
    said = [np.array([[4, 9]]), np.array([[-1, -1]]), np.array([[-1, -1]]), np.array([[0, 2**31 - 1]])]
    assert scores_of(TASK, truth, said, []) == pytest.approx({
        "f1": 0.5, "exact_match": 0.5, "answered_f1": 0.5, "answered_exact_match": 0.5, "impossible_found": 0.5})
    assert scores_of(TASK, truth[:2], said[:2], []) == pytest.approx({"f1": 0.5, "exact_match": 0.5})
    found = TASK.tally(truth, said, []).rates(np.array([3, 0, 1, 0]))
    assert found == pytest.approx({**dict.fromkeys(found, 1.0)})


def test_the_threshold_is_the_one_with_the_best_f1():
    random, context = np.random.default_rng(0), "the film was"
    for _ in range(50):
        truth = [Truth(context, ["film"] if random.random() < 0.5 else []) for _ in range(20)]
        decided = [np.array([[4, 9, round(random.normal(), 1)]]) for _ in truth]

        def rate(threshold, truth=truth, decided=decided):
            return scores_of(TASK, truth, [TASK.output.settle(row, threshold) for row in decided], [])["f1"]

        assert rate(TASK.tuned(truth, decided)) == max(rate(at) for at in np.arange(-5, 5, 0.05))
    assert TASK.tuned([Truth(context, ["film"])], [np.array([[-1, -1, np.inf]])]) < np.inf


def test_clients_get_one_answer_or_the_best_few():
    targets, logits = np.array([NONE, 0, 4, 9]), np.array([[1.0, 1.0], [0, 0], [3, 3], [0, 1]])
    asked = {"question": "what", "context": "the film was"}

    def answer(**parameters):
        return TASK.answer([asked], [logits], [targets], [], parameters)

    assert {**answer(), "score": 0} == {"answer": "film", "score": 0, "start": 4, "end": 8}
    assert [one["answer"] for one in answer(top_k=3)] == ["film", "film was", "the film"]
    assert [one["answer"] for one in answer(top_k=9, max_answer_len=1)] == ["film", "", "was", "the"]
    silent = np.array([[9.0, 9.0], *logits[1:]])
    assert TASK.answer([asked], [silent], [targets], [], {})["answer"] == ""
    assert TASK.answer([asked], [silent], [targets], [], {"handle_impossible_answer": False})["answer"] == "film"
    with pytest.raises(ValueError, match="top_k must be a whole number"):
        answer(top_k=0)


@pytest.mark.parametrize("item", [
    "text", {"question": "a"}, {"question": "a", "context": " "}, {"question": 1, "context": "a"},
    {"question": "a", "context": "b", "more": "c"}])
def test_an_input_must_be_a_question_and_a_text(item):
    with pytest.raises(ValueError, match=r"must be|is empty"):
        TASK.requests(item, None, 32)

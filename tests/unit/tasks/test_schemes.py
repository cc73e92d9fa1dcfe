"""Entities are those of seqeval and conlleval, whichever scheme tags are written in."""

import random

import numpy as np
import pytest
from seqeval.metrics import classification_report, f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOB1, IOB2, IOBES

from kdray.tasks import TASKS
from kdray.tasks.base import scores_of
from kdray.tasks.schemes import neighbours, remark, scheme_of, spans

TASK = TASKS["token-classification"]
KINDS = ["LOC", "PER"]
SIGNS = {"IOB1": "IB", "IOB2": "IB", "IOBES": "IBES", "BILOU": "BILU"}
STRICT = {"IOB1": IOB1, "IOB2": IOB2, "IOBES": IOBES, "BILOU": BILOU}


def labels(name: str) -> list[str]:
    return sorted(["O", *(f"{sign}-{kind}" for sign in SIGNS[name] for kind in KINDS)])


def entities(chance: random.Random, words: int = 14) -> list[tuple[str, int, int]]:
    """Entities of one to four words, some right after each other."""
    found, place = [], 0
    while place < words:
        size = min(chance.randint(1, 4), words - place)
        if chance.random() < 0.6:
            found.append((chance.choice(KINDS), place, place + size))
        place += size
    return found


def written(found: list[tuple[str, int, int]], name: str, words: int = 14) -> list[str]:
    """The entities as tags of a scheme."""
    tags, before = ["O"] * words, ("", 0)
    for kind, start, stop in found:
        begin = "B" if name != "IOB1" or before == (kind, start) else "I"
        end, single = {"IOBES": ("E", "S"), "BILOU": ("L", "U")}.get(name, ("I", begin))
        signs = [single] if stop - start == 1 else [begin, *"I" * (stop - start - 2), end]
        tags[start:stop] = [f"{sign}-{kind}" for sign in signs]
        before = kind, stop
    return tags


def ids(sentences: list[list[str]], names: list[str]) -> list[np.ndarray]:
    return [np.array([names.index(tag) for tag in tags]) for tags in sentences]


@pytest.mark.parametrize("name", SIGNS)
@pytest.mark.parametrize("seed", range(10))
def test_what_is_written_is_read_again(name, seed):
    found = entities(random.Random(seed))
    assert spans(written(found, name), scheme_of(labels(name))) == found


@pytest.mark.parametrize("name", SIGNS)
@pytest.mark.parametrize("seed", range(5))
def test_scores_of_well_formed_tags_are_those_of_seqeval_for_their_scheme(name, seed):
    chance = random.Random(seed)
    truth = [entities(chance) for _ in range(20)]
    guess = [found if chance.random() < 0.5 else entities(chance) for found in truth]
    truth, guess = ([written(found, name) for found in part] for part in (truth, guess))
    theirs = classification_report(truth, guess, mode="strict", scheme=STRICT[name], output_dict=True)["micro avg"]
    ours = scores_of(TASK, ids(truth, labels(name)), ids(guess, labels(name)), labels(name))
    assert (ours["f1"], ours["precision"], ours["recall"]) == pytest.approx(
        (theirs["f1-score"], theirs["precision"], theirs["recall"]))
    assert 0 < ours["f1"] < 1


@pytest.mark.parametrize("name", ["IOB1", "IOBES"])
@pytest.mark.parametrize("seed", range(15))
def test_tags_in_any_order_are_read_as_seqeval_and_conlleval_read_them(name, seed):
    chance, names = random.Random(seed), labels(name)
    truth, guess = ([[chance.choice(names) for _ in range(chance.randint(1, 12))] for _ in range(30)]
                    for _ in range(2))
    guess = [(found * 12)[:len(tags)] for found, tags in zip(guess, truth, strict=True)]
    for tags in truth:
        assert spans(tags, scheme_of(names)) == [(kind, a, b + 1) for kind, a, b in get_entities(tags)]
    ours = scores_of(TASK, ids(truth, names), ids(guess, names), names)
    assert (ours["f1"], ours["precision"], ours["recall"]) == pytest.approx(
        (f1_score(truth, guess), precision_score(truth, guess), recall_score(truth, guess)))


@pytest.mark.parametrize("seed", range(10))
def test_names_alone_are_read_as_io(seed):
    chance, names = random.Random(seed), ["O", *KINDS]
    tags = [chance.choice(names) for _ in range(20)]
    theirs = get_entities([tag if tag == "O" else f"I-{tag}" for tag in tags])
    assert spans(tags, scheme_of(names)) == [(kind, a, b + 1) for kind, a, b in theirs]


@pytest.mark.parametrize("names, tags, found", [
    ("O B-PER I-PER", "", []),
    ("O B-PER I-PER", "O O", []),
    ("O B-PER I-PER", "B-PER I-PER O B-PER", [("PER", 0, 2), ("PER", 3, 4)]),
    ("O B-PER B-LOC I-LOC", "B-PER I-LOC", [("PER", 0, 1), ("LOC", 1, 2)]),
    ("O B-A-B I-A-B", "B-A-B I-A-B", [("A-B", 0, 2)]),
    ("O I-PER I-LOC", "I-PER I-PER I-LOC O I-LOC", [("PER", 0, 2), ("LOC", 2, 3), ("LOC", 4, 5)]),
    ("O B-PER E-PER S-LOC", "B-PER E-PER S-LOC S-LOC", [("PER", 0, 2), ("LOC", 2, 3), ("LOC", 3, 4)]),
    ("O B-X M-X E-X S-X", "B-X M-X E-X E-X", [("X", 0, 3), ("X", 3, 4)]),
    ("B I O", "B I O B B", [("entity", 0, 2), ("entity", 3, 4), ("entity", 4, 5)]),
    ("NN VB", "NN NN VB", [("NN", 0, 1), ("NN", 1, 2), ("VB", 2, 3)]),
    ("O E-mail S-phase", "E-mail E-mail S-phase", [("E-mail", 0, 2), ("S-phase", 2, 3)]),
    ("O B-PER I-PER X", "B-PER I-PER X X", [("PER", 0, 2), ("X", 2, 4)]),
    ("O", "O O", []),
])
def test_spans_of_known_tags(names, tags, found):
    assert spans(tags.split(), scheme_of(names.split())) == found


@pytest.mark.parametrize("tags, said", [
    ("O B-PER I-PER B-LOC", None),
    ("I-PER I-PER O I-LOC B-LOC", "tags are IOB1"),
    ("B-PER I-PER O I-LOC", "tags are IOB2, and some entities begin with I- all the same"),
    ("O I-PER I-PER I-LOC", "tags are IO"),
    ("O B-PER E-PER S-LOC", "tags are IOBES"),
    ("O B-PER L-PER U-LOC", "tags are BILOU"),
    ("B-PER M-PER E-PER", "tags are BMES"),
    ("O PER PER", "tags have no signs such as B- and I-: neighbours with the same tag are one entity"),
    ("NN VB", "no tag is O: every word is scored by itself"),
])
def test_the_scheme_is_said_but_for_iob2(tags, said):
    assert remark(tags.split(), neighbours(tags.split())) == said


def test_an_iobes_model_answers_with_whole_entities():
    names = labels("IOBES")
    tags = ["B-PER", "E-PER", "S-LOC", "S-LOC"]
    logits = np.full((4, len(names)), -20.0, np.float32)
    logits[np.arange(4), [names.index(tag) for tag in tags]] = 20.0
    row = {"tokens": ["ann", "berg", "rome", "oslo"], "source": "ann berg rome oslo",
           "offsets": [(0, 3), (4, 8), (9, 13), (14, 18)]}
    found = TASK.answer([row], [logits], [np.arange(4)], names, {})
    assert [(entry["entity_group"], entry["word"]) for entry in found] == [
        ("PER", "ann berg"), ("LOC", "rome"), ("LOC", "oslo")]


def test_numbers_are_no_tags_and_that_is_said():
    [(level, text)] = TASK.remarks(["0", "1", "2"], set())
    assert level >= 30 and "tags are numbers without names (0, 1, 2)" in text and "ClassLabel" in text

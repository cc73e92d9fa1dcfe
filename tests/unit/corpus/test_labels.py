"""Labels are those of train, or the teacher's: by name, by number, or as ids, and never off by one."""

import logging

import pytest

from kdray.corpus.labels import Found, Labels, label_ids, merge
from kdray.errors import DataError

STARS = ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"]


def found(*labels: str, test: tuple = (), order=None) -> Labels:
    splits = {"train": labels, "test": test}
    return label_ids({split: {name: Found(3, 7) for name in names} for split, names in splits.items()}, order)


def test_labels_are_sorted_or_in_the_teachers_order():
    assert found("b", "a", test=("a",)) == Labels(["a", "b"], {"a": 0, "b": 1})
    assert found("b", "a", order=["b", "a", "c"]) == Labels(["b", "a", "c"], {"b": 0, "a": 1})
    assert found("1", "0", order=["1", "0"]).ids == {"1": 0, "0": 1}


@pytest.mark.parametrize("labels, order, ids, level, said", [
    (("1", "0"), ["b", "a"], {"1": 1, "0": 0}, "INFO", "the teacher's ids: '0' is 'b', '1' is 'a'"),
    (("1", "2"), ["a", "b", "c"], {"1": 1, "2": 2}, "WARNING", "'2' is 'c'. None is 0: where they count from 1, all"),
    (("1", "2"), ["LABEL_0", "LABEL_1", "LABEL_2"], {"1": 1, "2": 2}, "WARNING", "None is 0"),
    (("1", "5"), STARS, {"1": 0, "5": 4}, "INFO", "the numbers in the teacher's names: '1' is '1 star', '5' is '5 sta"),
    (("1", "2", "3", "4"), STARS, {"1": 0, "2": 1, "3": 2, "4": 3}, "INFO", "the numbers in the teacher's names"),
    (("Positive", "neg "), ["NEG", "POSITIVE"], {"Positive": 1, "neg ": 0}, "INFO", "the teacher's, written otherwise"),
    (("neg", "Neg", "pos"), ["neg", "pos"], {"neg": 0, "Neg": 0, "pos": 1}, "INFO", "'Neg' is 'neg'"),
])
def test_labels_that_are_not_the_teachers_words_are_matched_and_that_is_said(caplog, labels, order, ids, level, said):
    with caplog.at_level(logging.INFO, "kdray"):
        assert found(*labels, order=order) == Labels(order, ids)
    [record] = caplog.records
    assert record.levelname == level and said in record.getMessage()


@pytest.mark.parametrize("labels, test, order, words", [
    (("a",), (), None, "one class only \\(a\\)"),
    (("a",), (), ["a", "b"], "one class only"),
    (("a", "b"), ("c",), None, r"test split has labels that no row of train has: 'c' \(3 rows, the first is row 7\). "
                               r"Put rows of it into train, or take these out of test; train has a, b"),
    (("a", "b"), ("c", "d"), None, r"'c' \(3 rows, .*'d' \(3 rows.*Put rows of each"),
    (("a", "b"), (), ["b", "c"], "the teacher's labels are b, c, but the data also has a"),
    (("a", "b"), ("c",), ["a", "b"], "also has c"),
    (("0", "1", "2"), (), ["b", "a"], "also has 0, 1, 2"),
    (("0", "a"), (), ["b", "a"], "also has 0"),
    (("-1", "0"), (), ["b", "a"], "also has -1, 0"),
    (("0", "1", "2", "3", "4"), (), STARS, "1 star, .*, whose numbers are not their ids, but the data has 0, 1, 2, 3"),
    (("0", "4"), ("1",), STARS, "whose numbers are not their ids, but the data has 0, 1, 4"),
    (("A", "b"), (), ["a", "A ", "b", "c"], "the teacher's labels are a, A , b, c, but the data also has A"),
])
def test_labels_that_cannot_be_learnt_or_matched_are_refused(labels, test, order, words):
    with pytest.raises(DataError, match=words):
        found(*labels, test=test, order=order)


def test_labels_that_look_like_slips_are_classes_that_are_told(caplog):
    found("good", "good ", "Good", "bad", "a b", "a  b", "nan")
    slips, missing = [record.getMessage() for record in caplog.records]
    assert "differ in spaces or case alone" in slips and "bad" not in slips + missing
    assert "'Good' (3 rows), 'good' (3 rows), 'good ' (3 rows)" in slips
    assert "'a  b' (3 rows), 'a b' (3 rows)" in slips
    assert "look like missing ones" in missing and "'nan' (3 rows)" in missing


def test_labels_of_rows_and_of_more_rows_are_counted_together():
    assert merge({"a": Found(2, 0), "b": Found(1, 5)}, {"a": Found(4, 10), "c": Found(1, 12)}) == {
        "a": Found(6, 0), "b": Found(1, 5), "c": Found(1, 12)}

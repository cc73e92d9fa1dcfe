"""Raw rows become a checked corpus whose key is what it was made from."""

import numpy as np
import pyarrow as pa
import pytest

from kdray.config import DataConfig
from kdray.corpus.build import build_corpus, corpus_key, see_splits
from kdray.corpus.pieces import Seen, cut_up, table_digest
from kdray.corpus.rows import Rows
from kdray.corpus.sources import read_splits
from kdray.corpus.tokenizer import load_tokenizer, tokenizer_fingerprint, whole_words
from kdray.errors import DataError
from kdray.storage import Store
from kdray.tasks import TASKS
from tests.small import make_tokenizer, sentences, tagged, write_jsonl
from tests.unit.conftest import make_corpus

SEQUENCE, TOKEN = TASKS["sequence-classification"], TASKS["token-classification"]
DATA = DataConfig(source="rows.jsonl", max_length=24)


def build(tmp_path, folder, splits: dict[str, list], task=SEQUENCE, order=None, data=DATA):
    return build_corpus(Store(str(tmp_path)), "key", seen(splits), task, data, str(folder), order)


def seen(splits: dict[str, list]) -> dict[str, list[Seen]]:
    return see_splits({split: cut_up(pa.Table.from_pylist(rows)) for split, rows in splits.items()})


def rows(count: int = 60) -> list[dict]:
    return sentences(count)


def test_a_corpus_holds_every_row_once_tokenised_and_labelled(corpus):
    found = {split: corpus.rows(split) for split in ("train", "validation", "test")}
    assert corpus.manifest["rows"] == {split: len(part) for split, part in found.items()}
    tokenizer = load_tokenizer(corpus.model)
    texts = []
    for part in found.values():
        for index in range(len(part)):
            text, label = (part.table.column(name)[index].as_py() for name in ("text", "label"))
            assert part.input_ids[index].tolist() == tokenizer(text, truncation=True, max_length=24)["input_ids"]
            assert corpus.labels[part.labels[index][0]] == label
            texts.append((text, label))
    assert sorted(texts) == sorted((row["text"], row["label"]) for row in sentences(160))
    assert corpus.labels == ["negative", "positive"]
    assert corpus.manifest["pad_token_id"] == tokenizer.pad_token_id


def test_token_rows_keep_a_label_for_every_word_and_a_target_for_those_seen(token_corpus):
    part = token_corpus.rows("train")
    cut_words = 0
    for index in range(len(part)):
        tags = part.table.column("tags")[index].as_py()
        assert [token_corpus.labels[i] for i in part.labels[index]] == tags
        assert part.targets[index].tolist() == list(range(len(part.targets[index])))
        assert len(part.targets[index]) == len(part.positions[index]) <= len(tags)
        assert len(part.input_ids[index]) <= 10
        cut_words += len(tags) - len(part.targets[index])
    assert cut_words > 0


def test_equal_texts_are_in_one_split(tmp_path, model_folder):
    made = make_corpus(tmp_path, "sequence-classification", rows(60) * 3, model_folder)
    texts = [set(made.rows(split).table.column("text").to_pylist()) for split in ("train", "validation", "test")]
    assert not texts[0] & texts[1] and not texts[0] & texts[2] and not texts[1] & texts[2]


def test_given_splits_stay_as_they_are_and_missing_ones_are_cut_from_train(tmp_path, model_folder):
    made = build(tmp_path, model_folder, {"train": rows(100), "test": rows(7)})
    assert made["rows"] == {"train": 90, "validation": 10, "test": 7}
    found = Store(str(tmp_path)).fetch("corpus", "key")
    with pa.ipc.open_file(str(found / "test-000000.arrow")) as file:
        assert file.read_all().column("text").to_pylist() == [row["text"] for row in rows(7)]


def test_more_rows_than_a_batch_are_all_written(tmp_path, model_folder):
    made = build(tmp_path, model_folder, {"train": rows(2500), "validation": rows(5), "test": rows(5)})
    table = pa.ipc.open_file(str(Store(str(tmp_path)).fetch("corpus", "key") / "train-000000.arrow")).read_all()
    assert table.num_rows == made["rows"]["train"] == 2500
    assert table.column("text").to_pylist() == [row["text"] for row in rows(2500)]


@pytest.mark.parametrize("change, words", [
    ({"text": ""}, r"row 13 of the train split: text is empty"),
    ({"text": "   "}, r"row 13 of the train split: text is empty"),
    ({"text": None}, r"row 13 of the train split: text is empty"),
    ({"label": None}, r"row 13 of the train split: label is missing"),
])
def test_a_wrong_row_is_named_and_nothing_is_written(tmp_path, model_folder, change, words):
    wrong = rows()
    wrong[13] = {**wrong[13], **change}
    with pytest.raises(DataError, match=words):
        build(tmp_path, model_folder, {"train": wrong})
    assert Store(str(tmp_path)).names("corpus") == []


def test_wrong_rows_are_counted(tmp_path, model_folder):
    wrong = [{**row, "label": None if index in (3, 5, 9) else row["label"]} for index, row in enumerate(rows())]
    with pytest.raises(DataError, match=r"row 3 of the train split: label is missing \(.*\), and 2 more rows are "
                                        r"wrong. Mend them, or take them out"):
        build(tmp_path, model_folder, {"train": wrong})


def test_a_wrong_sentence_is_named(tmp_path, token_folder):
    wrong = tagged(60)
    wrong[4]["tags"].append("O")
    with pytest.raises(DataError, match=r"row 4 of the train split: there are \d+ tokens and \d+ tags"):
        build(tmp_path, token_folder, {"train": wrong}, TOKEN)


def test_a_failure_while_writing_leaves_whole_parts_that_the_next_attempt_keeps(tmp_path, model_folder, monkeypatch):
    def refuse(self, data, *parts):
        if parts[-1].startswith("test"):
            raise OSError(28, "No space left on device")
        write(self, data, *parts)

    write, folder = Store.write, tmp_path / "corpus" / "key"
    monkeypatch.setattr(Store, "write", refuse)
    with pytest.raises(OSError, match="No space left"):
        build(tmp_path, model_folder, {"train": rows()})
    assert sorted(path.name for path in folder.iterdir()) == ["train-000000.arrow", "validation-000000.arrow"]
    assert Store(str(tmp_path)).manifest("corpus", "key") is None
    train = (folder / "train-000000.arrow").stat().st_mtime_ns
    monkeypatch.undo()
    made = build(tmp_path, model_folder, {"train": rows()})
    assert (folder / "train-000000.arrow").stat().st_mtime_ns == train
    assert {path.name for path in folder.iterdir()} == {"manifest.json", *(
        part["file"] for parts in made["parts"].values() for part in parts)}


@pytest.mark.parametrize("written", [{"negative": "1", "positive": "0"}, {"negative": "neg", "positive": "pos"}])
def test_a_teachers_order_gives_the_ids(tmp_path, model_folder, written):
    given = [{**row, "label": written[row["label"]]} for row in rows()]
    made = make_corpus(tmp_path, "sequence-classification", given, model_folder, order=["pos", "neg"])
    part = made.rows("train")
    want = {"1": 1, "0": 0, "neg": 1, "pos": 0}
    assert [part.labels[i][0] for i in range(len(part))] == [want[x] for x in part.table.column("label").to_pylist()]


def key(rows: list[dict], tokenizer: str = "t", order=None, task=SEQUENCE, **data) -> str:
    return corpus_key(seen({"train": rows}), task, DataConfig(source="rows.jsonl", **data), tokenizer, order)


def test_the_key_changes_with_what_the_corpus_is_made_from():
    base = rows()
    edited = [dict(row) for row in base]
    edited[3]["text"] += "!"
    relabelled = [dict(row) for row in base]
    relabelled[3]["label"] = "other"
    keys = [key(base), key(edited), key(relabelled), key(base[:-1]), key(base[::-1]), key(base, max_length=64),
            key(base, tokenizer="u"), key(base, order=["a", "b"]), key(base, order=["b", "a"]), key(base, seed=1),
            key(base, test_share=0.2), key(base, validation_share=0.2), key(base, phrases=1), key(base, phrases=2)]
    assert len(set(keys)) == len(keys)


def test_the_key_does_not_change_with_a_files_name_or_chunks(tmp_path):
    keys = []
    for name in ("one.jsonl", "two.jsonl"):
        data = DataConfig(source=str(write_jsonl(tmp_path / name, rows())))
        keys.append(corpus_key(see_splits(read_splits(data, SEQUENCE)), SEQUENCE, data, "t", None))
    assert keys[0] == keys[1]
    table = pa.Table.from_pylist(rows())
    chunked = pa.concat_tables([table.slice(0, 20), table.slice(20)])
    assert table_digest(chunked) == table_digest(table)


def test_a_files_row_order_is_kept(corpus):
    whole = [row["text"] for row in sentences(160)]
    places = [whole.index(text) for text in corpus.rows("train").table.column("text").to_pylist()]
    assert np.all(np.diff(places) >= 0)


def test_phrases_are_runs_of_the_words_of_training_rows_with_some_words_of_the_vocabulary(tmp_path, model_folder):
    data = DATA.model_copy(update={"phrases": 3})
    made = [build(tmp_path / name, model_folder, {"train": rows()}, data=data) for name in ("one", "two")]
    one, two = (Rows.open(tmp_path / name / "corpus" / "key", "transfer").table for name in ("one", "two"))
    train = Rows.open(tmp_path / "one" / "corpus" / "key", "train").table
    assert made[0]["rows"]["transfer"] == one.num_rows == 3 * train.num_rows and one.equals(two)
    assert "label" not in one.column_names
    other, count = 0, 0
    for index, text in enumerate(one.column("text").to_pylist()):
        words, source = text.split(), train.column("text")[index % train.num_rows].as_py().split()
        runs = [source[start:start + len(words)] for start in range(len(source) - len(words) + 1)]
        new = min(([word for word, old in zip(words, run, strict=True) if word != old] for run in runs), key=len)
        assert set(new) <= set(whole_words(str(model_folder)))
        other, count = other + len(new), count + len(words)
    assert 0.1 < other / count < 0.25
    assert len(set(one.column("text").to_pylist())) > train.num_rows, "another number, another phrase"


def test_a_student_with_another_tokenizer_sees_the_same_phrases(tmp_path, model_folder):
    make_tokenizer(tmp_path / "own", more=("zebra", "quagga", "okapi"))
    data, parts = DATA.model_copy(update={"phrases": 2}), cut_up(pa.Table.from_pylist(rows()))
    made = [build_corpus(Store(str(tmp_path / name)), "key", see_splits({"train": parts}), SEQUENCE, data,
                         str(place), None, vocabulary=str(model_folder))
            for name, place in (("a", model_folder), ("b", tmp_path / "own"))]
    one, two = (Rows.open(tmp_path / name / "corpus" / "key", "transfer").table for name in ("a", "b"))
    assert made[0]["rows"] == made[1]["rows"] and one.column("text").equals(two.column("text"))
    own = tokenizer_fingerprint(tmp_path / "own")
    assert len({corpus_key(see_splits({"train": parts}), SEQUENCE, data, own, None, vocabulary)
                for vocabulary in (None, own, tokenizer_fingerprint(model_folder))}) == 2


def test_rows_without_labels_are_read_beside_the_others_and_their_columns_must_be_trains(tmp_path, model_folder):
    more = write_jsonl(tmp_path / "more.jsonl", [{"text": row["text"]} for row in rows(20)])
    data = DATA.model_copy(update={"source": str(write_jsonl(tmp_path / "all.jsonl", rows())), "transfer": str(more)})
    found = see_splits(read_splits(data, SEQUENCE))
    assert [(part.columns, part.rows) for part in found["transfer"]] == [(("text",), 20)]
    made = build_corpus(Store(str(tmp_path)), "key", found, SEQUENCE, data, str(model_folder), None)
    assert made["rows"]["transfer"] == 20
    bare = {split: parts for split, parts in found.items() if split != "transfer"}
    assert made["labelled"] == corpus_key(bare, SEQUENCE, DATA, tokenizer_fingerprint(model_folder), None)
    pairs = [{**row, "text_pair": "b"} for row in rows()]
    with pytest.raises(DataError, match=r"data.transfer.* have text, but train has text, text_pair"):
        build(tmp_path, model_folder, {"train": pairs, "transfer": [{"text": "a"}]})


def test_texts_without_spaces_give_phrases_of_tokens(tmp_path, caplog):
    make_tokenizer(tmp_path / "own", more=tuple("这部电影很好难看。我了遍爱书"))
    given = [{"text": f"这部电影很{word}看。我看了{row}遍", "label": word} for row in range(60) for word in "好难"]
    data = DATA.model_copy(update={"phrases": 3})
    made = build(tmp_path, tmp_path / "own", {"train": given}, data=data)
    train, phrases = (Rows.open(tmp_path / "corpus" / "key", split).table.column("text").to_pylist()
                      for split in ("train", "transfer"))
    assert made["rows"]["transfer"] == len(phrases) == 3 * len(train)
    whole = [text in train for text in phrases]
    assert sum(whole) < 0.2 * len(whole), "phrases are no copies"
    runs = [any(phrase in text for text in train) for phrase in phrases]
    assert 0.1 < sum(runs) / len(runs) < 0.6, "in most, some characters give way"
    assert {sign for phrase in phrases for sign in phrase} <= {*"这部电影很好难看。我了遍爱书0123456789"}


@pytest.mark.parametrize("split", ["validation", "test"])
def test_texts_that_students_see_in_training_are_counted(tmp_path, model_folder, caplog, split):
    other = "test" if split == "validation" else "validation"
    first, rest = {row["text"] for row in rows(10)}, sentences(40, seed=1)
    known = [row for row in rest if row["text"] not in first]
    build(tmp_path, model_folder, {"train": rows(), other: known, split: [*rows(2), *known[:5]],
                                   "transfer": [{"text": row["text"]} for row in known[:4]]})
    assert f"2 of 7 {split} rows have a text that is in train too" in caplog.text
    assert f"4 of 7 {split} rows have a text that is among the rows without labels (data.transfer) too" in caplog.text


@pytest.mark.parametrize("each", [1, 1000])
def test_what_is_decided_of_labels_does_not_depend_on_the_pieces(tmp_path, token_folder, monkeypatch, caplog, each):
    caplog.set_level("INFO", "kdray")
    monkeypatch.setattr("kdray.corpus.pieces.ROWS", each)
    given = [{"tokens": ["ann"] * 3, "tags": ["I-PER", "I-PER", "B-PER"]}, {"tokens": ["bob"], "tags": ["O"]}] * 2
    parts = {split: cut_up(pa.Table.from_pylist(given)) for split in ("train", "validation", "test")}
    made = build_corpus(Store(str(tmp_path)), "key", see_splits(parts), TOKEN, DATA, str(token_folder), None)
    assert made["labels"] == ["B-PER", "I-PER", "O"] and caplog.messages.count("tags are IOB1") == 1


def test_the_label_of_one_row_stays_in_train(tmp_path, model_folder):
    rare = [{"text": f"story number {number}", "label": f"topic {number}"} for number in range(30)]
    made = make_corpus(tmp_path, "sequence-classification", [*rows(200), *rare], model_folder)
    assert len(made.labels) == 32
    seen_labels = {split: {part.labels[row][0] for row in range(len(part))} for split, part in (
        (split, made.rows(split)) for split in ("train", "validation", "test"))}
    assert seen_labels["train"] == set(range(32)) and len(seen_labels["test"]) == 2


@pytest.mark.parametrize("written, ids", [({"negative": "1", "positive": "5"}, [0, 4]),
                                          ({"negative": "5 STARS ", "positive": "1 star"}, [4, 0])])
def test_numbers_in_a_teachers_names_are_no_ids(tmp_path, model_folder, written, ids):
    given = [{**row, "label": written[row["label"]]} for row in rows()]
    order = ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"]
    part = make_corpus(tmp_path, "sequence-classification", given, model_folder, order=order).rows("train")
    want = dict(zip(written.values(), ids, strict=True))
    assert [part.labels[i][0] for i in range(len(part))] == [want[x] for x in part.table.column("label").to_pylist()]

"""A model folder gets the tokens that a task puts into rows, and nothing else changes."""

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from kdray.corpus.tokenizer import load_tokenizer, tokenizer_fingerprint
from kdray.errors import ModelError
from kdray.models.architecture import input_embedding
from kdray.models.load import Origin, build, check_weights, load_model, save_model
from kdray.models.markers import with_markers
from kdray.models.rehearsal import rehearse
from kdray.models.subject import Subject
from kdray.storage import Store
from kdray.tasks import TASKS
from tests.families import FAMILIES, WAYS, make_family
from tests.small import make_model

TASK = TASKS["relation-extraction"]
LABELS = ["negative", "positive"]
ROW = {"text": "the film was good", "head": [4, 8], "tail": [13, 17]}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path / "store"))


def table(folder: Path) -> torch.Tensor:
    return input_embedding(load_model(TASK, folder, LABELS)).weight.detach()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_of_every_family_gets_markers_and_stays_as_it_was(name, store, tmp_path):
    folder = make_family(tmp_path / "model", name, TASK.name, LABELS)
    made = with_markers(store, TASK, folder, False)
    before, after = load_tokenizer(folder), load_tokenizer(made)
    ids = after.convert_tokens_to_ids(list(TASK.markers))
    assert len(set(ids)) == 4 and not set(ids) & set(before.get_vocab().values())
    (row,) = TASK.encode(after, [ROW], 32).input_ids
    assert [token for token in row if token not in ids] == before(ROW["text"])["input_ids"]
    assert torch.equal(table(made)[:min(ids)], table(folder))
    for place, words in zip(ids, TASK.markers.values(), strict=True):
        of = before(words, add_special_tokens=False)["input_ids"]
        torch.testing.assert_close(table(made)[place], table(folder)[of].mean(0))
    old, new = load_model(TASK, folder, LABELS).eval(), load_model(TASK, made, LABELS).eval()
    plain = torch.tensor([before(ROW["text"])["input_ids"]])
    assert torch.equal(old(plain).logits, new(plain).logits)
    rehearse(TASK, Subject("student", Origin(str(made)), "float32", ["a", "b", "c"]), 32)


@pytest.mark.parametrize("way", WAYS)
def test_a_student_made_in_any_way_keeps_them(way, store, model_folder, tmp_path):
    made = with_markers(store, TASK, model_folder, False)
    settings = {"layers": {"layers": (0, 3)}, "fresh": {"fresh": {"num_hidden_layers": 2}}, "model": {}}[way]
    student = build(TASK, Origin(str(made), **settings), ["a", "b", "c"], 0)
    save_model(TASK, student, made, tmp_path / "student")
    assert tokenizer_fingerprint(tmp_path / "student") == tokenizer_fingerprint(made)
    rows = input_embedding(load_model(TASK, tmp_path / "student", ["a", "b", "c"])).weight
    assert rows.shape == table(made).shape and torch.equal(rows, table(made)) is (way != "fresh")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "student")
    assert TASK.encode(again, [ROW], 32) == TASK.encode(load_tokenizer(made), [ROW], 32)


def test_a_table_with_rows_to_spare_keeps_its_size(store, tmp_path):
    folder = make_model(tmp_path / "model")
    model = transformers.BertForSequenceClassification.from_pretrained(folder)
    model.resize_token_embeddings(128)
    model.save_pretrained(folder)
    made = with_markers(store, TASK, folder, False)
    ids = load_tokenizer(made).convert_tokens_to_ids(list(TASK.markers))
    assert len(table(made)) == 128 and not torch.equal(table(made)[ids], table(folder)[ids])


def test_what_the_folder_lacks_it_lacks_still(store, tmp_path):
    folder = make_model(tmp_path / "model", head="BertModel")
    made = with_markers(store, TASK, folder, False)
    assert not [name for name in load_file(made / "model.safetensors") if "classifier" in name]
    check_weights(TASK, made, LABELS, True)
    with pytest.raises(ModelError, match=r"classifier.*teacher\.finetune"):
        check_weights(TASK, made, LABELS, False)


def test_a_folder_that_has_them_is_taken_as_it_is_and_one_is_made_once(store, model_folder):
    made = with_markers(store, TASK, model_folder, False)
    assert with_markers(store, TASK, made, True) == made
    changed = (made / "model.safetensors").stat().st_mtime_ns
    assert with_markers(store, TASK, model_folder, False) == made
    assert (made / "model.safetensors").stat().st_mtime_ns == changed
    assert list(store.names("models")) == [made.name]


def test_a_model_without_a_table_of_tokens_is_refused(store, tmp_path):
    folder = make_model(tmp_path / "model")
    config = transformers.CanineConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                                       num_hash_buckets=16, max_position_embeddings=64)
    transformers.CanineForSequenceClassification(config).save_pretrained(folder)
    with pytest.raises(ModelError, match="CanineForSequenceClassification, has no table of tokens"):
        with_markers(store, TASK, folder, False)


def test_a_teacher_taken_as_it_is_that_lacks_them_is_refused(store, model_folder):
    with pytest.raises(ModelError, match=r"has no <e1>, </e1>, <e2>, </e2>: .*teacher\.finetune"):
        with_markers(store, TASK, model_folder, True)
    assert not list(store.names("models"))

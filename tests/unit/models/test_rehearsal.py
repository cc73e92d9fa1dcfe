"""What a model cannot do is said before work begins, with the value, where it came from and what to do."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

from kdray.config import Config
from kdray.errors import ConfigError, KdrayError, ModelError
from kdray.models import rehearsal
from kdray.models.load import Origin
from kdray.models.rehearsal import rehearse
from kdray.models.subject import Subject, student_subject, teacher_subject
from kdray.tasks import TASKS
from tests.families import make_family
from tests.small import make_model

SEQUENCE, TOKEN = TASKS["sequence-classification"], TASKS["token-classification"]
LABELS = ["negative", "positive"]


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """Makes a model of a family, once. Copy it to change it."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = make_family(tmp_path_factory.mktemp("families"), family, SEQUENCE.name, LABELS)
        return made[family]

    return make


def copied(source: Path, folder: Path, **settings) -> Path:
    """A copy with changes to its config."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))
    return folder


def subject(folder: Path, trained: str | None = "float32", **origin) -> Subject:
    return Subject("student", Origin(str(folder), **origin), trained, LABELS)


@pytest.mark.parametrize("precision", [None, "float32", "bfloat16", "float16"])
def test_a_model_that_can_do_it_all_is_given_back_with_what_it_was_given(model_folder, precision):
    before = torch.random.get_rng_state()
    found = rehearse(SEQUENCE, subject(model_folder, precision), 24)
    assert found.rows["input_ids"].shape == (2, 24) and found.rows["attention_mask"].sum(1).tolist() == [24, 12]
    assert found.model(**found.rows).logits.shape == (2, 2)
    assert torch.equal(torch.random.get_rng_state(), before), "nobody's draws are changed"


@pytest.mark.parametrize("origin, words", [
    ({}, r"data.max_length = 65 is more than the 64 positions of student \(FOLDER\)"),
    ({"layers": (0, 3)}, r"64 positions of student \(FOLDER, layers \(0, 3\)\)"),
    ({"fresh": {"max_position_embeddings": 32}}, r"65 is more than the 32 positions of student \(FOLDER, fresh"),
])
def test_rows_that_are_longer_than_its_positions(model_folder, origin, words):
    with pytest.raises(ConfigError, match=words.replace("FOLDER", re.escape(str(model_folder)))):
        rehearse(SEQUENCE, subject(model_folder, **origin), 65)


def test_positions_that_padding_takes_are_none(families):
    with pytest.raises(ConfigError, match=r"data.max_length = 63 is more than the 62 positions"):
        rehearse(SEQUENCE, subject(families("RoBERTa")), 63)
    rehearse(SEQUENCE, subject(families("RoBERTa")), 62)


def test_a_tokenizer_with_more_tokens_than_embeddings(tmp_path):
    folder = make_model(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["zebra", "quagga"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=rf"tokenizer of student \({folder}\) numbers tokens up to 84, .*embeddings "
                                         r"for 83, 0 to 82.*resize_token_embeddings"):
        rehearse(SEQUENCE, subject(folder), 24)


def test_a_tokenizer_with_fewer_tokens_than_embeddings_is_none_of_its_faults(model_folder):
    rehearse(SEQUENCE, subject(model_folder, fresh={"vocab_size": 200}), 24)


@pytest.mark.parametrize("family, fresh, words", [
    ("BERT", {"hidden_size": 30}, "no bert can be built.*30.*4.*settings that go together"),
    ("Llama", {"num_attention_heads": 1}, r"student \(.*, fresh \{'num_attention_heads': 1\}\) cannot read rows of 24 "
                                          "tokens: .*num_key_value_heads"),
    ("Qwen2", {"layer_types": ["full_attention"]}, "student.fresh = .*`num_hidden_layers`"),
    ("GPT-2", {"n_layers": 2}, "GPT2Config has no setting 'n_layers'")])
def test_a_fresh_student_whose_settings_do_not_go_together(families, family, fresh, words):
    with pytest.raises(ModelError, match=words):
        rehearse(SEQUENCE, subject(families(family), fresh=fresh), 24)


def test_layers_that_do_not_fit_together(families):
    with pytest.raises(ModelError, match="Keep layer 0 there"):
        rehearse(SEQUENCE, subject(families("ModernBERT"), layers=(1, 3)), 24)


@pytest.mark.parametrize("precision, fails", [(None, True), ("float32", False)])
def test_a_missing_head_is_new_where_the_model_is_trained_and_refused_where_it_is_not(tmp_path, precision, fails):
    folder = make_model(tmp_path, head="BertModel")
    if fails:
        with pytest.raises(ModelError, match=r"no weights for classifier.bias, classifier.weight of Bert.*finetune"):
            rehearse(SEQUENCE, subject(folder, precision), 24)
    else:
        rehearse(SEQUENCE, subject(folder, precision), 24)


def test_a_precision_that_a_family_cannot_be_trained_in(tmp_path):
    config = transformers.DebertaConfig(vocab_size=83, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                        intermediate_size=64, relative_attention=True, pos_att_type=["c2p", "p2c"])
    make_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    transformers.DebertaForSequenceClassification(config).save_pretrained(tmp_path)
    rehearse(SEQUENCE, subject(tmp_path, "float32"), 24)
    with pytest.raises(ModelError, match=r"be trained in bfloat16: RuntimeError.*Set training.precision to float32"):
        rehearse(SEQUENCE, subject(tmp_path, "bfloat16"), 24)


def test_a_precision_that_a_family_cannot_answer_in(tmp_path):
    make_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    config = transformers.MraConfig(vocab_size=83, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                    intermediate_size=64)
    transformers.MraForSequenceClassification(config).save_pretrained(tmp_path)
    teacher = Subject("teacher.model", Origin(str(tmp_path)), None, ["LABEL_0", "LABEL_1"])
    rehearse(SEQUENCE, teacher, 24)
    with pytest.raises(ModelError, match=r"cannot answer in bfloat16: RuntimeError.*Set teacher.precision to float32"):
        rehearse(SEQUENCE, replace(teacher, answers="bfloat16"), 24)


def test_padding_that_a_decoder_takes_for_the_end_of_a_row(families, tmp_path):
    """Its config names a token that is none of the special ones, so that rows are padded with another."""
    folder = copied(families("GPT-2"), tmp_path / "model", pad_token_id=7)
    with pytest.raises(ModelError, match=r"padding beside a row moves the logits of student .* by \d+%.*json: 7"):
        rehearse(SEQUENCE, subject(folder), 24)


def test_types_of_tokens_that_a_model_does_not_take_are_left_out(tmp_path):
    folder = make_model(tmp_path, head="BertForSequenceClassification")
    (folder / "model.safetensors").unlink()
    config = transformers.DistilBertConfig(vocab_size=83, dim=32, n_layers=2, n_heads=4, hidden_dim=64)
    transformers.DistilBertForSequenceClassification(config).save_pretrained(folder)
    assert "token_type_ids" in rehearse(SEQUENCE, subject(folder), 24).rows


def test_a_model_that_is_another_when_it_is_loaded_again(model_folder, monkeypatch):
    load = rehearsal.load_model

    def nudged(*arguments):
        model = load(*arguments)
        with torch.no_grad():
            model.classifier.bias += 0.5
        return model

    monkeypatch.setattr(rehearsal, "load_model", nudged)
    with pytest.raises(ModelError, match=r"gives other logits when it is saved and loaded again, by up to 0\.5"):
        rehearse(SEQUENCE, subject(model_folder), 24)


def test_what_cannot_be_saved_is_said(model_folder, monkeypatch):
    def refuse(*arguments):
        raise ValueError("these weights\ncannot be written")

    monkeypatch.setattr(rehearsal, "save_model", refuse)
    with pytest.raises(ModelError, match=r"saved and loaded again: ValueError: cannot be written. Choose a"):
        rehearse(SEQUENCE, subject(model_folder), 24)


def test_a_full_disk_stays_one(model_folder, monkeypatch):
    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rehearsal, "save_model", refuse)
    with pytest.raises(OSError):
        rehearse(SEQUENCE, subject(model_folder), 24)


def test_a_large_model_is_tried_with_two_layers_and_a_larger_one_by_its_shapes(model_folder, monkeypatch):
    assert rehearse(SEQUENCE, subject(model_folder), 24).model.config.num_hidden_layers == 4
    monkeypatch.setattr(rehearsal, "_LARGE", 1000)
    found = rehearse(SEQUENCE, subject(model_folder), 24)
    assert found.model.config.num_hidden_layers == 2 and found.outline.config.num_hidden_layers == 4
    monkeypatch.setattr(rehearsal, "_LARGEST", 1000)
    assert rehearse(SEQUENCE, subject(model_folder), 24).model is None
    with pytest.raises(KdrayError):
        rehearse(SEQUENCE, subject(model_folder), 65)


def test_what_only_the_whole_of_a_large_model_can_do_is_tried_with_the_whole(model_folder, monkeypatch):
    monkeypatch.setattr(rehearsal, "_LARGE", 1000)
    build = rehearsal.new_model

    def only_whole(task, config):
        if config.num_hidden_layers < 4:
            raise ModelError("no model of two layers")
        return build(task, config)

    monkeypatch.setattr(rehearsal, "new_model", only_whole)
    assert rehearse(SEQUENCE, subject(model_folder), 24).model.config.num_hidden_layers == 4


def test_parts_are_what_the_config_says(model_folder):
    def config(**changes) -> Config:
        return Config.model_validate({"data": {"source": "rows.csv"}, "teacher": {"model": "m"}, **changes})

    plain = config(training={"precision": "float32"}, students={
        "two": {"layers": 2}, "wide": {"fresh": {"hidden_size": 64}, "training": {"precision": "bfloat16"}}})
    assert teacher_subject(config(teacher={"model": "m", "precision": "bfloat16"}), model_folder) == Subject(
        "teacher.model", Origin(str(model_folder)), None, LABELS, "bfloat16")
    assert [str(student_subject(plain, name, model_folder)) for name in ("two", "wide")] == [
        f"students.two ({model_folder}, layers (0, 3))", f"students.wide ({model_folder}, fresh {{'hidden_size': 64}})"]
    assert [student_subject(plain, name, model_folder).trained for name in ("two", "wide")] == ["float32", "bfloat16"]
    tuned = config(teacher={"model": "m", "finetune": {"precision": "float16"}})
    assert teacher_subject(tuned, model_folder).trained == "float16"
    assert student_subject(tuned, "student", model_folder).name == "student"

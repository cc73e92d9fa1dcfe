"""A teacher's folder becomes a student that keeps the right weights."""

import errno
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import transformers
from safetensors import SafetensorError

from kdray.corpus.tokenizer import tokenizer_fingerprint
from kdray.errors import ModelError
from kdray.models.folder import fingerprint
from kdray.models.load import (
    Origin,
    build,
    count_parameters,
    dropout_options,
    even_layers,
    load_model,
    save_model,
)
from kdray.tasks import TASKS

SEQUENCE, TOKEN = TASKS["sequence-classification"], TASKS["token-classification"]
LABELS = ["negative", "positive"]
SIZES = {"vocab_size": 60, "max_position_embeddings": 40}
BERT_LIKE = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32, **SIZES}
CONFIGS = {
    "bert": lambda: transformers.BertConfig(**BERT_LIKE),
    "roberta": lambda: transformers.RobertaConfig(pad_token_id=1, **BERT_LIKE),
    "electra": lambda: transformers.ElectraConfig(embedding_size=8, **BERT_LIKE),
    "distilbert": lambda: transformers.DistilBertConfig(dim=16, n_layers=4, n_heads=2, hidden_dim=32, **SIZES),
}
STACKS = {"bert": "bert.encoder.layer", "roberta": "roberta.encoder.layer", "electra": "electra.encoder.layer",
          "distilbert": "distilbert.transformer.layer"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A model of each kind, as a folder."""
    found = {}
    for name, config in CONFIGS.items():
        torch.manual_seed(1)
        found[name] = tmp_path_factory.mktemp("models") / name
        transformers.AutoModelForSequenceClassification.from_config(config()).save_pretrained(found[name])
    return found


@pytest.mark.parametrize("count, keep, layers", [
    (6, 2, (0, 5)), (6, 3, (0, 2, 5)), (6, 4, (0, 2, 3, 5)), (12, 3, (0, 6, 11)), (12, 6, (0, 2, 4, 7, 9, 11)),
    (4, 4, (0, 1, 2, 3)), (6, 1, (5,)), (1, 1, (0,))])
def test_even_layers(count, keep, layers):
    assert even_layers(count, keep) == layers


@pytest.mark.parametrize("count", range(2, 25))
def test_even_layers_are_distinct_and_keep_the_ends(count):
    for keep in range(2, count + 1):
        layers = even_layers(count, keep)
        assert len(set(layers)) == keep and layers[0] == 0 and layers[-1] == count - 1
        gaps = [b - a for a, b in pairwise(layers)]
        assert max(gaps) - min(gaps) <= 1


def test_more_layers_than_there_are_is_refused():
    with pytest.raises(ModelError, match=r"student.layers 7 is more than the 6 layers"):
        even_layers(6, 7)


@pytest.mark.parametrize("task", [SEQUENCE, TOKEN], ids=lambda task: task.name)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_cut_student_has_the_teachers_weights_of_the_layers_kept(folders, name, task):
    whole = build(task, Origin(str(folders[name])), LABELS, 0).state_dict()
    cut = build(task, Origin(str(folders[name]), layers=(0, 3)), LABELS, 0).state_dict()
    stack = STACKS[name] + "."
    for key, tensor in cut.items():
        index, _, rest = key.removeprefix(stack).partition(".")
        source = f"{stack}{(0, 3)[int(index)]}.{rest}" if key.startswith(stack) else key
        assert torch.equal(tensor, whole[source]), key
    assert {key for key in cut if not key.startswith(stack)} == {key for key in whole if not key.startswith(stack)}
    assert {key.split(".")[stack.count(".")] for key in cut if key.startswith(stack)} == {"0", "1"}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_cut_student_is_saved_and_loads_as_it_was(folders, name, model_folder, tmp_path):
    student = build(SEQUENCE, Origin(str(folders[name]), layers=(1, 3)), LABELS, 0).eval()
    save_model(student, model_folder, tmp_path / "student")
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "student").eval()
    ids = torch.arange(5, 17).reshape(2, 6)
    with torch.no_grad():
        assert torch.equal(again(ids).logits, student(ids).logits)
    assert again.config.num_hidden_layers == 2
    assert again.config.id2label == {0: "negative", 1: "positive"}
    assert tokenizer_fingerprint(tmp_path / "student") == tokenizer_fingerprint(model_folder)


@pytest.mark.parametrize("layers", [(0, 4), (-1, 2), (2, 1), (1, 1)])
def test_layers_that_do_not_exist_or_do_not_rise_are_refused(folders, layers):
    with pytest.raises(ModelError, match="must be rising indices from 0 to 3"):
        build(SEQUENCE, Origin(str(folders["bert"]), layers=layers), LABELS, 0)


def test_a_model_without_one_stack_is_refused(tmp_path):
    config = transformers.AlbertConfig(embedding_size=8, inner_group_num=1, **BERT_LIKE)
    transformers.AlbertForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"cannot tell which of .* start from `student.model` or `student.fresh`"):
        build(SEQUENCE, Origin(str(tmp_path), layers=(0,)), LABELS, 0)


@pytest.mark.parametrize("name", CONFIGS)
def test_dropout_is_set_everywhere_in_loaded_cut_and_fresh_models(folders, name):
    options = dropout_options(str(folders[name]), 0.3)
    for origin in (Origin(str(folders[name])), Origin(str(folders[name]), layers=(0, 3)),
                   Origin(str(folders[name]), fresh={"num_hidden_layers": 2})):
        model = build(SEQUENCE, origin, LABELS, 0, **options)
        assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.3}
    assert dropout_options(str(folders[name]), None) == {}


def test_a_fresh_student_is_random_by_its_seed_in_the_shape_asked_for(folders):
    def fresh(seed: int):
        origin = Origin(str(folders["bert"]), fresh={"hidden_size": 8, "num_hidden_layers": 1})
        return build(SEQUENCE, origin, LABELS, seed)

    one, same, other = (fresh(seed).bert.embeddings.word_embeddings.weight for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert one.shape == (60, 8)
    assert fresh(0).config.id2label == {0: "negative", 1: "positive"}


@pytest.mark.parametrize("fresh, words", [
    ({"num_hiden_layers": 2}, "BertConfig has no setting 'num_hiden_layers'"),
    ({"hidden_size": 17}, "hidden_size.*17"),
    ({"num_hidden_layers": "two"}, "num_hidden_layers = 'two'"),
])
def test_an_impossible_fresh_student_is_refused(folders, fresh, words):
    with pytest.raises(ModelError, match=f"student.fresh.*{words}"):
        build(SEQUENCE, Origin(str(folders["bert"]), fresh=fresh), LABELS, 0)


def test_a_head_of_another_size_starts_at_random_by_the_seed(folders):
    origin = Origin(str(folders["bert"]))
    heads = [build(SEQUENCE, origin, ["a", "b", "c"], seed).classifier.weight for seed in (0, 0, 1)]
    assert heads[0].shape == (3, 16)
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_a_teacher_keeps_its_head_and_is_float32_unless_asked(folders):
    model = load_model(SEQUENCE, folders["bert"], LABELS)
    whole = transformers.AutoModelForSequenceClassification.from_pretrained(folders["bert"])
    assert torch.equal(model.classifier.weight, whole.classifier.weight)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert load_model(SEQUENCE, folders["bert"], LABELS, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert count_parameters(model) == sum(tensor.numel() for tensor in whole.parameters())


def test_a_saved_model_has_the_fingerprint_of_its_weights(folders, model_folder, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        save_model(build(SEQUENCE, Origin(str(folders["bert"])), ["x", "y", "z"], seed), model_folder, tmp_path / name)
    prints = [fingerprint(tmp_path / name) for name in "abc"]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("text, number", [("I/O error: No space left on device (os error 28)", errno.ENOSPC),
                                          ("I/O error: other", errno.EIO)])
def test_a_full_disk_while_saving_is_the_systems_error(folders, model_folder, tmp_path, monkeypatch, text, number):
    model = load_model(SEQUENCE, folders["bert"], LABELS)

    def refuse(folder: str) -> None:
        raise SafetensorError(text)

    monkeypatch.setattr(model, "save_pretrained", refuse)
    with pytest.raises(OSError) as error:
        save_model(model, model_folder, tmp_path)
    assert error.value.errno == number

"""A teacher's folder becomes a student that keeps the right weights."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from kdray.config import StudentConfig
from kdray.corpus.tokenizer import tokenizer_fingerprint
from kdray.errors import ModelError
from kdray.models.folder import fingerprint
from kdray.models.load import (
    Origin,
    build,
    check_weights,
    count_parameters,
    load_model,
    save_model,
    student_origin,
)
from kdray.tasks import TASKS
from tests.families import FAMILIES, make_family

SEQUENCE, TOKEN = TASKS["sequence-classification"], TASKS["token-classification"]
LABELS = ["negative", "positive"]
IDS = torch.arange(5, 33).reshape(2, 14)
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


def logits(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(ids).logits


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A model of each kind, as a folder."""
    found = {}
    for name, config in CONFIGS.items():
        torch.manual_seed(1)
        found[name] = tmp_path_factory.mktemp("models") / name
        transformers.AutoModelForSequenceClassification.from_config(config()).save_pretrained(found[name])
    return found


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
    save_model(SEQUENCE, student, model_folder, tmp_path / "student")
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


@pytest.mark.parametrize("name", CONFIGS)
def test_dropout_is_set_everywhere_in_loaded_cut_and_fresh_models(folders, name):
    for origin in (Origin(str(folders[name])), Origin(str(folders[name]), layers=(0, 3)),
                   Origin(str(folders[name]), fresh={"num_hidden_layers": 2})):
        assert rates(build(SEQUENCE, origin, LABELS, 0, dropout=0.3)) == {0.3}
        assert rates(build(SEQUENCE, origin, LABELS, 0)) == rates(load_model(SEQUENCE, folders[name], LABELS))


def rates(model: torch.nn.Module) -> set[float]:
    return {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}


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
    ({"hidden_size": 17}, "settings that go together"),
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


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", [SEQUENCE, TOKEN], ids=lambda task: task.name)
def test_a_student_of_any_family_is_loaded_again_as_it_was(tmp_path, family, task):
    folder = make_family(tmp_path / "whole", family, task.name, LABELS)
    ways = [{"fresh": {"num_hidden_layers": 6}}, *([{"layers": [0, 2, 3]}] if family != "ALBERT" else [])]
    for number, way in enumerate(ways):
        student = build(task, student_origin(StudentConfig(**way), folder), LABELS, 0).eval()
        save_model(task, student, folder, tmp_path / str(number))
        assert torch.equal(logits(load_model(task, tmp_path / str(number), LABELS), IDS), logits(student, IDS))


def test_layers_that_share_their_weights_are_not_cut_and_other_ways_are_named(tmp_path):
    folder = make_family(tmp_path, "ALBERT", SEQUENCE.name, LABELS)
    with pytest.raises(ModelError, match=r"\[0, 3\]: the 4 layers of Albert\S+ share their .*student.fresh"):
        build(SEQUENCE, Origin(str(folder), layers=(0, 3)), LABELS, 0)


@pytest.mark.parametrize("layers", [(1, 3), (3,)])
def test_a_layer_that_does_not_fit_its_new_place_is_refused_with_those_that_do(tmp_path, layers):
    folder = make_family(tmp_path, "ModernBERT", SEQUENCE.name, LABELS)
    with pytest.raises(ModelError, match=rf"layer {layers[0]} of ModernBert\S+ cannot be layer 0 of a student: "
                                         r"there, a layer has no attn_norm.weight. Keep layer 0 there"):
        build(SEQUENCE, Origin(str(folder), layers=layers), LABELS, 0)


def test_a_model_with_two_stacks_of_layers_is_not_cut(tmp_path):
    config = transformers.T5Config(vocab_size=60, d_model=16, d_kv=8, num_heads=2, d_ff=32, num_layers=2)
    transformers.T5ForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"several stacks of 2 layers: transformer.encoder.block, .*student.model"):
        build(SEQUENCE, Origin(str(tmp_path), layers=(0,)), LABELS, 0)


def test_stacks_beside_each_other_are_cut_together(tmp_path):
    config = transformers.XLMConfig(vocab_size=60, emb_dim=16, n_layers=4, n_heads=2, max_position_embeddings=40)
    torch.manual_seed(0)
    transformers.XLMForTokenClassification(config).save_pretrained(tmp_path)
    student = build(TOKEN, Origin(str(tmp_path), layers=(1, 3)), LABELS, 0)
    whole = load_model(TOKEN, tmp_path, LABELS).state_dict()
    for stack, rest in (("attentions", "q_lin.weight"), ("ffns", "lin1.weight"), ("layer_norm2", "weight")):
        ours, theirs = (f"transformer.{stack}.{index}.{rest}" for index in (1, 3))
        assert torch.equal(student.state_dict()[ours], whole[theirs])


def test_layers_of_another_model_are_a_student(tmp_path, folders):
    folder = make_family(tmp_path, "GPT-2", SEQUENCE.name, LABELS)
    origin = student_origin(StudentConfig(model=str(folder), layers=2), folder)
    assert origin == Origin(str(folder), layers=(0, 3))
    assert build(SEQUENCE, origin, LABELS, 0).config.n_layer == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_is_what_the_device_and_the_class_allow(tmp_path, family):
    folder = make_family(tmp_path, family, SEQUENCE.name, LABELS)
    on_gpu = "eager" if family in ("DeBERTa-v2", "MPNet") else "sdpa"
    for gpus, wanted in ((0, "eager"), (1, on_gpu), (0.5, on_gpu)):
        made = [load_model(SEQUENCE, folder, LABELS, gpus), build(SEQUENCE, Origin(str(folder)), LABELS, 0, gpus),
                build(SEQUENCE, Origin(str(folder), fresh={"num_hidden_layers": 1}), LABELS, 0, gpus)]
        assert {model.config._attn_implementation for model in made} == {wanted}


def test_dropout_that_no_config_names_is_set_too(tmp_path):
    folder = make_family(tmp_path, "Llama", TOKEN.name, LABELS)
    assert rates(build(TOKEN, Origin(str(folder)), LABELS, 0)) == {0.1}
    assert rates(build(TOKEN, Origin(str(folder)), LABELS, 0, dropout=0.3)) == {0.3}
    assert rates(build(SEQUENCE, Origin(str(make_family(tmp_path / "g", "GPT-2", SEQUENCE.name, LABELS))), LABELS, 0,
                       dropout=0.3)) == {0.3}


def spoilt(source: Path, folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    """A copy of a model with other weights."""
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


HEAD = (lambda weights: weights.pop("classifier.weight"), "no weights for classifier.weight of Bert.*teacher.finetune")
LARGER = (lambda weights: weights.update({"classifier.bias": torch.zeros(3)}),
          r"classifier.bias \(\(3,\) in the file, \(2,\) needed\)")
BODY = (lambda weights: [weights.pop(name) for name in list(weights) if "layer.1.attention" in name],
        r"no weights for bert.encoder.layer.1.attention\S+, \S+, \S+ and 7 more of Bert.*save_pretrained")
TABLE = (lambda weights: weights.update({"bert.embeddings.word_embeddings.weight": torch.zeros(59, 16)}),
         r"word_embeddings.weight \(\(59, 16\) in the file, \(60, 16\) needed\)")
POOLER = (lambda weights: weights.pop("bert.pooler.dense.weight"), "bert.pooler.dense.weight")


@pytest.mark.parametrize("edit, words", [HEAD, LARGER, BODY, TABLE, POOLER])
def test_a_model_taken_as_it_is_must_have_every_part(folders, tmp_path, edit, words):
    folder = spoilt(folders["bert"], tmp_path / "spoilt", edit)
    for load in (lambda: load_model(SEQUENCE, folder, LABELS), lambda: check_weights(SEQUENCE, folder, LABELS, False)):
        with pytest.raises(ModelError, match=rf"{folder} .*{words}"):
            load()


@pytest.mark.parametrize("layers", [None, (0, 3)])
@pytest.mark.parametrize("edit, words", [BODY, TABLE])
def test_a_model_to_train_may_not_lack_what_is_no_head(folders, tmp_path, layers, edit, words):
    folder = spoilt(folders["bert"], tmp_path / "spoilt", edit)
    for load in (lambda: build(SEQUENCE, Origin(str(folder), layers), LABELS, 0),
                 lambda: check_weights(SEQUENCE, folder, LABELS, True)):
        with pytest.raises(ModelError, match=words):
            load()


@pytest.mark.parametrize("edit", [HEAD[0], LARGER[0], POOLER[0]])
def test_a_model_to_train_may_have_a_new_head_and_the_pooling_before_it(folders, tmp_path, edit):
    folder = spoilt(folders["bert"], tmp_path / "spoilt", edit)
    check_weights(SEQUENCE, folder, LABELS, True)
    assert build(SEQUENCE, Origin(str(folder)), LABELS, 0).classifier.out_features == 2


def test_a_model_in_several_files_is_checked_whole(folders, tmp_path):
    transformers.AutoModelForSequenceClassification.from_pretrained(folders["bert"]).save_pretrained(
        tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    check_weights(SEQUENCE, tmp_path, LABELS, False)
    with pytest.raises(ModelError, match=r"classifier\.weight"):
        check_weights(SEQUENCE, tmp_path, [*LABELS, "neutral"], False)


def test_a_teacher_keeps_its_head_and_is_float32_unless_asked(folders):
    model = load_model(SEQUENCE, folders["bert"], LABELS)
    whole = transformers.AutoModelForSequenceClassification.from_pretrained(folders["bert"])
    assert torch.equal(model.classifier.weight, whole.classifier.weight)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert load_model(SEQUENCE, folders["bert"], LABELS, 0, torch.bfloat16).dtype == torch.bfloat16
    assert count_parameters(model) == sum(tensor.numel() for tensor in whole.parameters())


def test_a_saved_model_has_the_fingerprint_of_its_weights(folders, model_folder, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        model = build(SEQUENCE, Origin(str(folders["bert"])), ["x", "y", "z"], seed)
        save_model(SEQUENCE, model, model_folder, tmp_path / name)
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
        save_model(SEQUENCE, model, model_folder, tmp_path)
    assert error.value.errno == number

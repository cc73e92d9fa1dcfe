"""A config says how many layers, positions and dropouts its model has, whatever its family calls them."""

from itertools import pairwise
from pathlib import Path

import pytest
import transformers

from kdray.errors import ModelError
from kdray.models.architecture import (
    change,
    even_layers,
    keep_layers,
    layer_count,
    outline,
    positions,
    read,
    set_dropout,
    vocabulary,
)
from kdray.tasks import TASKS
from tests.families import FAMILIES, HIDDEN, make_family

SEQUENCE, TOKEN = TASKS["sequence-classification"], TASKS["token-classification"]
ROBERTA_KIN = ("CamembertConfig", "Data2VecTextConfig", "EsmConfig", "LongformerConfig", "MPNetConfig",
               "RobertaPreLayerNormConfig", "RobertaConfig", "XLMRobertaConfig", "XLMRobertaXLConfig")


def config_of(family: str, **settings):
    return FAMILIES[family].config(**{**FAMILIES[family].settings, **settings})


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


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_are_counted_whatever_their_number_is_called(family):
    assert layer_count(config_of(family)) == 4 and layer_count(keep_layers(config_of(family), (0, 2))) == 2


@pytest.mark.parametrize("family, types", [
    ("ModernBERT", ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]),
    ("Qwen2", ["full_attention", "full_attention", "sliding_attention", "sliding_attention"])])
def test_a_kept_layer_attends_as_it_did_and_a_fresh_model_as_the_first_layers(family, types):
    assert config_of(family).layer_types == types
    assert keep_layers(config_of(family), (0, 3)).layer_types == [types[0], types[3]]
    for count in (2, 4, 6):
        config = config_of(family)
        change(config, {"num_hidden_layers": count})
        assert config.layer_types == [*types, *types][:count]


def test_lists_that_only_happen_to_be_as_long_as_there_are_layers_stay():
    config = config_of("DeBERTa-v2", num_hidden_layers=2)
    assert keep_layers(config, (1,)).pos_att_type == ["p2c", "c2p"]


@pytest.mark.parametrize("changes, words", [
    ({"layer_types": ["full_attention"]}, "`num_hidden_layers`.*must be equal to the number of `layer_types`"),
    ({"layer_types": ["no_attention"] * 4}, "layer_types"), ({"layers": 2}, "no setting 'layers'"),
    ({"hidden_size": "wide"}, "hidden_size = 'wide'")])
def test_settings_that_a_class_refuses_are_named(changes, words):
    with pytest.raises(ModelError, match=f"student.fresh.*{words}"):
        change(config_of("Qwen2"), changes)


@pytest.mark.parametrize("name", ROBERTA_KIN)
def test_models_that_count_from_behind_the_padding_have_fewer_positions(name):
    config = getattr(transformers, name)(vocab_size=70, pad_token_id=1, **{
        **HIDDEN, **({"attention_window": 8} if name == "LongformerConfig" else {})})
    assert positions(config, outline(TOKEN, config)) == 62


@pytest.mark.parametrize("family, room", [("BERT", 64), ("DistilBERT", 64), ("GPT-2", 64), ("Llama", 64)])
def test_others_have_as_many_positions_as_their_config_says(family, room):
    config = config_of(family)
    assert positions(config, outline(SEQUENCE, config)) == room


def test_a_model_without_a_table_of_positions_has_no_limit():
    config = transformers.XLNetConfig(vocab_size=70, d_model=32, n_layer=2, n_head=4, d_inner=64)
    assert positions(config, outline(SEQUENCE, config)) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_every_dropout_of_a_config_is_set_and_nothing_else(family):
    before, config = config_of(family).to_dict(), config_of(family)
    set_dropout(config, 0.25)
    changed = {name for name, value in config.to_dict().items() if value != before[name]}
    assert changed and all("drop" in name for name in changed)
    assert not [name for name, value in config.to_dict().items() if "drop" in name and value not in (0.25, None)]


def test_a_switch_with_dropout_in_its_name_is_none():
    config = transformers.EsmConfig(vocab_size=70, token_dropout=True, **HIDDEN)
    set_dropout(config, 0.25)
    assert config.token_dropout is True and config.hidden_dropout_prob == 0.25


@pytest.mark.parametrize("family, named", [("BERT", 0), ("GPT-2", 0), ("Llama", 1)])
def test_a_config_that_names_no_padding_gets_the_tokenizers(tmp_path, family, named):
    folder = make_family(tmp_path, family, SEQUENCE.name, ["a", "b"])
    assert read(folder).pad_token_id == named


def test_a_model_that_transformers_does_not_know_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(ModelError, match=f"{tmp_path}/config.json: .*no-such-model"):
        read(tmp_path)


def test_a_family_without_the_tasks_head_is_refused():
    with pytest.raises(ModelError, match=r"no ModelForTokenClassification for bart.*another family"):
        outline(TOKEN, transformers.BartConfig())


def test_an_outline_has_names_and_shapes_and_no_memory():
    model = outline(SEQUENCE, transformers.BertConfig(hidden_size=1536, num_hidden_layers=48, num_attention_heads=16))
    assert {weight.device.type for weight in model.parameters()} == {"meta"}
    assert vocabulary(model) == 30522 and positions(model.config, model) == 512


def test_sizes_that_do_not_go_together_are_refused():
    config = transformers.BertConfig(hidden_size=30, num_attention_heads=4)
    with pytest.raises(ModelError, match=r"no bert can be built from its config: .*30.*4.*student.fresh"):
        outline(SEQUENCE, config)


def test_folders_are_read_by_path_or_name(tmp_path: Path):
    make_family(tmp_path, "BERT", SEQUENCE.name, ["a", "b"])
    assert read(str(tmp_path)).to_dict() == read(tmp_path).to_dict()

"""A tokenizer is found by its files, and copied so that its fingerprint stays."""

import json
import shutil

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, BertConfig, PreTrainedTokenizerFast

from kdray.corpus.tokenizer import (
    copy_tokenizer,
    cutter,
    load_tokenizer,
    tokenisation,
    tokenizer_files,
    tokenizer_fingerprint,
    whole_words,
)
from kdray.errors import ModelError
from kdray.tasks import TASKS
from tests.families import FAMILIES, make_family
from tests.small import FILLERS, WORDS, make_tokenizer

SEQUENCE, TOKEN = TASKS["sequence-classification"], TASKS["token-classification"]
BYTE_LEVEL = {"RoBERTa", "ModernBERT", "GPT-2", "Llama", "Qwen2", "Qwen3"}


@pytest.fixture
def folder(tmp_path):
    make_tokenizer(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def test_a_copy_has_the_same_fingerprint_and_gives_the_same_tokens(folder, tmp_path):
    (tmp_path / "copy").mkdir()
    copy_tokenizer(folder, tmp_path / "copy", TOKEN)
    assert tokenizer_fingerprint(tmp_path / "copy") == tokenizer_fingerprint(folder)
    texts = ["Good film, zebra!", "the dull plot."]
    assert load_tokenizer(tmp_path / "copy")(texts)["input_ids"] == load_tokenizer(folder)(texts)["input_ids"]


def test_the_fingerprint_changes_with_the_vocabulary_and_the_settings(folder):
    prints = [tokenizer_fingerprint(folder)]
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "do_lower_case": False}))
    prints.append(tokenizer_fingerprint(folder))
    whole = json.loads((folder / "tokenizer.json").read_text())
    whole["model"]["vocab"]["zebra"] = len(whole["model"]["vocab"])
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    prints.append(tokenizer_fingerprint(folder))
    assert len(set(prints)) == 3


def test_the_fingerprint_does_not_change_with_other_files(folder):
    before = tokenizer_fingerprint(folder)
    (folder / "README.md").write_text("words")
    assert tokenizer_fingerprint(folder) == before


@pytest.mark.parametrize("kept", [[], ["tokenizer_config.json"]])
def test_a_folder_without_a_vocabulary_has_no_tokenizer(folder, kept):
    for file in folder.iterdir():
        if file.name not in kept:
            file.unlink()
    for act in (tokenizer_files, tokenizer_fingerprint, load_tokenizer):
        with pytest.raises(ModelError, match="has no tokenizer"):
            act(folder)


def test_a_vocabulary_alone_is_a_tokenizer(folder, tmp_path):
    (tmp_path / "bare").mkdir()
    shutil.copy(folder / "vocab.txt", tmp_path / "bare")
    assert [file.name for file in tokenizer_files(tmp_path / "bare")] == ["vocab.txt"]


def test_whole_words_are_those_that_are_no_sub_words(folder):
    known = [word for word in [*FILLERS, *WORDS["positive"], *WORDS["negative"], "ann", "bob", "rome", "oslo"]
             if len(word) > 2]
    assert list(whole_words(str(folder))) == known


def test_texts_are_cut_at_spaces_and_those_without_at_tokens(tmp_path):
    make_tokenizer(tmp_path, more=(*"电影很好看我爱", "ㄅ", "か", "ไ", "ง"))
    cut = cutter(str(tmp_path))
    spaced = cut("the  film 电影 was good")
    assert (spaced.parts, spaced.between) == (["the", "film", "电影", "was", "good"], " ")
    assert spaced.others == whole_words(str(tmp_path))
    whole = cut("我爱 zebra电影。很好看")
    assert whole.parts == ["我", "爱", " zebra", "电", "影", "。", "很", "好", "看"] and whole.between == ""
    assert "".join(whole.parts) == "我爱 zebra电影。很好看" and set(whole.others) == {*"电影很好看我爱"}
    assert set(cut("ไงไ").others) == {"ไ", "ง"} and set(cut("か電").others) >= {"か", "电"}


@pytest.mark.parametrize("before, splitter, decoder", [
    ("\u0120", pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()),
    ("\u2581", pre_tokenizers.Metaspace(prepend_scheme="never"), decoders.Metaspace(prepend_scheme="never"))])
def test_whole_words_of_a_vocabulary_that_marks_the_space_before_a_word(tmp_path, before, splitter, decoder):
    words = ["<unk>", *"abcdefghijklmnopqrstuvwxyz", before]
    merges = []
    for word in (f"{before}cat", "ing", f"{before}on"):
        made = word[0]
        for letter in word[1:]:
            merges.append((made, letter))
            made += letter
            words += [made] if made not in words else []
    tokenizer = Tokenizer(models.BPE({word: place for place, word in enumerate(words)}, merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = splitter, decoder
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(tmp_path)
    assert whole_words(str(tmp_path)) == ("cat",)


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """A model of each family, with its tokenizer."""
    return {name: make_family(tmp_path_factory.mktemp("families"), name, TOKEN.name, ["O", "B-PER"])
            for name in FAMILIES}


@pytest.mark.parametrize("name", FAMILIES)
def test_words_given_one_by_one_are_cut_as_within_a_text(families, name):
    tokenizer = load_tokenizer(families[name])
    within = tokenizer("x the film was good", add_special_tokens=False)["input_ids"]
    first = len(tokenizer("x", add_special_tokens=False)["input_ids"])
    encoded = TOKEN.encode(tokenizer, [{"tokens": ["x", "the", "film", "was", "good"]}], 40)
    alone = [id for id in encoded.input_ids[0] if id not in tokenizer.all_special_ids]
    assert alone[-len(within[first:]):] == within[first:]
    assert TOKEN.space(tokenizer) == (" " if name in BYTE_LEVEL else "") and SEQUENCE.space(tokenizer) == ""
    assert encoded.targets[0] == [0, 1, 2, 3, 4]


def test_a_hyphen_within_a_word_gets_no_space(families):
    for name in ("RoBERTa", "Qwen2"):
        tokenizer = load_tokenizer(families[name])
        ids = TOKEN.encode(tokenizer, [{"tokens": ["film-maker"]}], 40).input_ids[0]
        assert tokenizer.decode([id for id in ids if id not in tokenizer.all_special_ids]) == " film-maker"


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_done_beyond_the_files_is_part_of_the_tokenisation_and_no_more(families, name):
    fingerprint = tokenizer_fingerprint(families[name])
    named = name not in ("GPT-2", "Llama")
    assert (tokenisation(families[name], SEQUENCE) == fingerprint) == named
    assert (tokenisation(families[name], TOKEN) == fingerprint) == (name not in BYTE_LEVEL)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_copy_is_read_alike_with_kdray_and_says_it_to_others(families, name, tmp_path):
    copy_tokenizer(families[name], tmp_path, TOKEN)
    tokenizer, again, plain = (load_tokenizer(families[name]), load_tokenizer(tmp_path),
                               AutoTokenizer.from_pretrained(tmp_path))
    rows = [{"tokens": ["ann", "film-maker", "was", "good"]}]
    assert TOKEN.encode(again, rows, 40) == TOKEN.encode(tokenizer, rows, 40)
    assert len(again) == len(tokenizer) and plain.pad_token_id == tokenizer.pad_token_id is not None
    if name in ("RoBERTa", "ModernBERT", "GPT-2"):
        assert TOKEN.space(again) == "" and plain("good")["input_ids"] == tokenizer(" good")["input_ids"]
    if name not in BYTE_LEVEL:
        assert tokenizer_fingerprint(tmp_path) == tokenizer_fingerprint(families[name])


@pytest.mark.parametrize("settings, padding", [
    ({}, "[PAD]"), ({"pad_token_id": 3}, "[SEP]"), ({"pad_token_id": 20}, "[PAD]"), ({"pad_token_id": None}, "[PAD]")])
def test_rows_are_padded_with_the_special_token_that_the_models_config_names(folder, settings, padding):
    config = BertConfig(vocab_size=83).to_dict()
    (folder / "config.json").write_text(json.dumps({**config, **settings}))
    assert load_tokenizer(folder).pad_token == padding
    assert len(load_tokenizer(folder)) == len(AutoTokenizer.from_pretrained(folder))


def test_a_tokenizer_without_any_token_to_pad_with_is_refused_with_what_to_do(tmp_path):
    tokenizer = Tokenizer(models.BPE({"a": 0, "<unk>": 1}, [], unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=rf"{tmp_path} has no token to pad rows with.*tokenizer_config.json"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_or_a_config_that_cannot_be_read_is_refused(folder):
    (folder / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(ModelError, match=rf"{folder}/config.json: .*no-such-model"):
        load_tokenizer(folder)
    (folder / "config.json").unlink()
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match=rf"{folder}: transformers cannot read its tokenizer: .*Save it again"):
        load_tokenizer(folder)

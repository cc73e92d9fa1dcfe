"""A tokenizer is found by its files, and copied so that its fingerprint stays."""

import json
import shutil

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from kdray.corpus.tokenizer import (
    copy_tokenizer,
    cutter,
    load_tokenizer,
    tokenizer_files,
    tokenizer_fingerprint,
    whole_words,
)
from kdray.errors import ModelError
from tests.small import FILLERS, WORDS, make_tokenizer


@pytest.fixture
def folder(tmp_path):
    make_tokenizer(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def test_a_copy_has_the_same_fingerprint_and_gives_the_same_tokens(folder, tmp_path):
    (tmp_path / "copy").mkdir()
    copy_tokenizer(folder, tmp_path / "copy")
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

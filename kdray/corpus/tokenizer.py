"""A model folder's tokenizer files become a tokenizer, a fingerprint and the words that it knows."""

import hashlib
import re
import shutil
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from kdray.errors import ModelError
from kdray.storage import folder_at
from kdray.tasks.base import Cut, Units

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
         "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")

_LETTER = re.compile(r"\w")
_SCRIPTS = {"Thai, Lao": "\u0e00-\u0eff", "Burmese": "\u1000-\u109f", "Khmer": "\u1780-\u17ff",
            "Kana": "\u3040-\u30ff", "Han": "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"}
"""Scripts without spaces between words."""
_UNSPACED = re.compile(f"[{''.join(_SCRIPTS.values())}]")


def tokenizer_files(folder: Path) -> list[Path]:
    """The tokenizer's files. Raises ModelError where the folder has none."""
    files = [folder / name for name in FILES if (folder / name).exists()]
    vocabulary = {"tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model",
                  "tokenizer.model"}
    if not any(file.name in vocabulary for file in files):
        raise ModelError(f"{folder} has no tokenizer (tokenizer.json or a vocabulary). Save one beside the model: "
                         "AutoTokenizer.from_pretrained(BASE).save_pretrained(FOLDER)")
    return files


def tokenizer_fingerprint(folder: Path) -> str:
    """SHA-256 over the tokenizer's files."""
    digest = hashlib.sha256()
    for file in tokenizer_files(folder):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:32]


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer in `folder`. Raises ModelError where there is none."""
    from transformers import AutoTokenizer

    tokenizer_files(folder)
    tokenizer = AutoTokenizer.from_pretrained(str(folder), use_fast=True, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise ModelError(f"{folder} has only a slow tokenizer; kdray needs tokenizer.json")
    return tokenizer


@lru_cache(maxsize=1)
def whole_words(place: str) -> tuple[str, ...]:
    """Words of three letters or more that the tokenizer at `place` has whole, in the order of their ids."""
    words = [text for text in _tokens(place) if len(text) > 2 and text.isalpha() and not _UNSPACED.search(text)]
    cut = load_tokenizer(folder_at(place))([f" {word}" for word in words], add_special_tokens=False,
                                           return_attention_mask=False)["input_ids"]
    return tuple(word for word, ids in zip(words, cut, strict=True) if len(ids) == 1)


@lru_cache(maxsize=1)
def cutter(place: str) -> Cut:
    """Cuts a text at its spaces; where half of its letters are of scripts without, at the tokens of one at `place`.

    Words of other scripts stay whole. What may take a word's place is a word that the tokenizer has whole.
    """
    tokenizer = load_tokenizer(folder_at(place))

    def cut(text: str) -> Units:
        if 2 * len(_UNSPACED.findall(text)) <= len(_LETTER.findall(text)):
            return Units(text.split(), " ", whole_words(place))
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
        ends = sorted({end for _, end in found if _UNSPACED.search(text[end - 1:end + 1]) or text[end:end + 1].isspace()
                       } | {len(text)})
        return Units([text[start:end] for start, end in pairwise([0, *ends])], "",
                     _tokens_in(place, "".join(signs for signs in _SCRIPTS.values() if re.search(f"[{signs}]", text))))

    return cut


@lru_cache
def _tokens_in(place: str, signs: str) -> tuple[str, ...]:
    """Tokens that are made of some `signs` alone, as a regular expression has them."""
    return tuple(filter(re.compile(f"[{signs}]+").fullmatch, _tokens(place)))


def _tokens(place: str) -> list[str]:
    """The texts of all tokens, in the order of their ids."""
    tokenizer = load_tokenizer(folder_at(place))
    return list(dict.fromkeys(text.strip() for text in tokenizer.batch_decode([[id] for id in range(len(tokenizer))])))


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copies the tokenizer's files as they are, so that its fingerprint stays."""
    for file in tokenizer_files(source):
        shutil.copyfile(file, target / file.name)

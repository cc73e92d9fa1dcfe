"""A model folder's tokenizer files become a tokenizer, a fingerprint and the words that it knows."""

import hashlib
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

from kdray.errors import ModelError
from kdray.storage import folder_at

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
         "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")


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
    tokenizer = load_tokenizer(folder_at(place))
    texts = dict.fromkeys(text.strip() for text in tokenizer.batch_decode([[id] for id in range(len(tokenizer))]))
    words = [text for text in texts if len(text) > 2 and text.isalpha()]
    cut = tokenizer([f" {word}" for word in words], add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return tuple(word for word, ids in zip(words, cut, strict=True) if len(ids) == 1)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copies the tokenizer's files as they are, so that its fingerprint stays."""
    for file in tokenizer_files(source):
        shutil.copyfile(file, target / file.name)

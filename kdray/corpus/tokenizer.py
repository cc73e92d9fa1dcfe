"""A model folder's tokenizer files become a tokenizer, a fingerprint and the words that it knows."""

import hashlib
import re
import shutil
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from kdray.errors import ModelError, first_line
from kdray.storage import content_key, folder_at
from kdray.tasks import Task
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
    """The fast tokenizer in `folder`, with a token to pad rows with: its model's, else its own, else the end's.

    Raises ModelError where there is no tokenizer, or none of these tokens.
    """
    tokenizer = _from_files(folder)
    padding = _padding(tokenizer, folder)
    if padding is not None:
        tokenizer.pad_token = padding
    return tokenizer


def tokenisation(folder: Path, task: Task) -> str:
    """What the tokens of the task's rows depend on: the tokenizer's fingerprint, and what its files do not say."""
    fingerprint, beyond = tokenizer_fingerprint(folder), _beyond(_from_files(folder), folder, task)
    return content_key([fingerprint, *beyond]) if any(beyond) else fingerprint


def _beyond(tokenizer: Any, folder: Path, task: Task) -> tuple[str | None, str]:
    """What the files do not say: the padding token, where it is not the tokenizer's own, and what is before words."""
    return _padding(tokenizer, folder), task.space(tokenizer)


def _from_files(folder: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer_files(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), use_fast=True, trust_remote_code=False)
    except Exception as error:
        raise ModelError(f"{folder}: transformers cannot read its tokenizer: {type(error).__name__}: "
                         f"{first_line(error)}. Save it again where it was made, with "
                         "save_pretrained") from error
    if not tokenizer.is_fast:
        raise ModelError(f"{folder} has only a slow tokenizer; kdray needs tokenizer.json")
    return tokenizer


def _padding(tokenizer: Any, folder: Path) -> str | None:
    """The token to pad with where it is not the tokenizer's own.

    Models that classify by a row's last token look for the one that their config names. Tokenizers of decoders often
    have none: the end of a text does as well, for what is padding is masked.
    """
    config = model_config(folder) if (folder / "config.json").exists() else None
    named, special = getattr(config, "pad_token_id", None), tokenizer.added_tokens_decoder
    if named in special and named != tokenizer.pad_token_id:
        return str(special[named])
    if tokenizer.pad_token_id is not None:
        return None
    if tokenizer.eos_token is None:
        raise ModelError(f"{folder} has no token to pad rows with: its tokenizer names no pad_token and no eos_token. "
                         "Name one in tokenizer_config.json")
    return tokenizer.eos_token


def model_config(folder: Path) -> Any:
    """The config of the model in `folder`. Raises ModelError where `transformers` knows no such model."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise ModelError(f"{folder}/config.json: {first_line(error)}") from error


@lru_cache(maxsize=1)
def whole_words(place: str) -> tuple[str, ...]:
    """Words of three letters or more that the tokenizer at `place` has whole, in the order of their ids."""
    words = [text for text in _tokens(place) if len(text) > 2 and text.isalpha() and not _UNSPACED.search(text)]
    cut = _from_files(folder_at(place))([f" {word}" for word in words], add_special_tokens=False,
                                        return_attention_mask=False)["input_ids"]
    return tuple(word for word, ids in zip(words, cut, strict=True) if len(ids) == 1)


@lru_cache(maxsize=1)
def cutter(place: str) -> Cut:
    """Cuts a text at its spaces; where half of its letters are of scripts without, at the tokens of one at `place`.

    Words of other scripts stay whole. What may take a word's place is a word that the tokenizer has whole.
    """
    tokenizer = _from_files(folder_at(place))

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
    tokenizer = _from_files(folder_at(place))
    return list(dict.fromkeys(text.strip() for text in tokenizer.batch_decode([[id] for id in range(len(tokenizer))])))


def copy_tokenizer(source: Path, target: Path, task: Task) -> None:
    """Copies the tokenizer's files as they are, so that its fingerprint stays.

    Where the task's rows are read otherwise than they say, the copy says it, for those who load it without kdray.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    tokenizer = _from_files(source)
    padding, space = _beyond(tokenizer, source, task)
    if not (padding or space):
        for file in tokenizer_files(source):
            shutil.copyfile(file, target / file.name)
        return
    if padding:
        tokenizer.pad_token = padding
    splitter = tokenizer.backend_tokenizer.pre_tokenizer
    if space and isinstance(splitter, ByteLevel):
        splitter.add_prefix_space = True
        tokenizer.backend_tokenizer.pre_tokenizer = splitter
        tokenizer.init_kwargs["add_prefix_space"] = tokenizer.add_prefix_space = True
    tokenizer.save_pretrained(str(target))

"""Small real parts for tests: sentences with a learnable label, a word-level tokenizer, a tiny BERT."""

import json
import random
from pathlib import Path
from typing import Any

WORDS = {"positive": ["good", "fine", "great", "lovely"], "negative": ["bad", "poor", "awful", "dull"]}
FILLERS = ["the", "film", "was", "a", "story", "with", "actors", "and", "music", "plot", "some", "very"]


def sentences(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Rows of text and label; the label is that of the one telling word in the text."""
    chance = random.Random(seed)
    rows = []
    for _ in range(count):
        label = chance.choice(list(WORDS))
        words = [chance.choice(FILLERS) for _ in range(chance.randint(2, 12))]
        words.insert(chance.randrange(len(words) + 1), chance.choice(WORDS[label]))
        rows.append({"text": " ".join(words), "label": label})
    return rows


def tagged(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of tokens and IOB2 tags; names are those in NAMES."""
    chance = random.Random(seed)
    names = {"ann": "PER", "bob": "PER", "rome": "LOC", "oslo": "LOC"}
    rows = []
    for _ in range(count):
        tokens = [chance.choice([*FILLERS, *names]) for _ in range(chance.randint(3, 10))]
        rows.append({"tokens": tokens, "tags": [f"B-{names[t]}" if t in names else "O" for t in tokens]})
    return rows


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Writes JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make_tokenizer(folder: Path, more: tuple[str, ...] = ()) -> None:
    """A lower-casing BERT tokenizer over the words above and `more`, with letters as sub-words."""
    from transformers import BertTokenizerFast

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*FILLERS, *(word for group in WORDS.values() for word in group), "ann", "bob", "rome", "oslo"]
    vocabulary = list(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *more, *words, *letters,
                                     *("##" + letter for letter in letters), ".", ",", "|"]))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)


def make_model(folder: Path, labels: list[str] | None = None, layers: int = 4, seed: int = 0,
               head: str = "BertForSequenceClassification", more: tuple[str, ...] = (), hidden: int = 32) -> Path:
    """A tiny random BERT (hidden 32) with a tokenizer, as a Hugging Face folder."""
    import torch
    import transformers

    make_tokenizer(folder, more)
    torch.manual_seed(seed)
    names = labels or ["negative", "positive"]
    size = len(transformers.AutoTokenizer.from_pretrained(folder))
    config = transformers.BertConfig(
        vocab_size=size, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64, id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)})
    getattr(transformers, head)(config).save_pretrained(folder)
    return folder


def make_embedder(folder: Path, mode: str = "mean", normalised: bool = True, layers: int = 4, seed: int = 0,
                  hidden: int = 32) -> Path:
    """The same without a head, as a folder of sentence-transformers."""
    make_model(folder, layers=layers, seed=seed, head="BertModel", hidden=hidden)
    parts = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Normalize", "Normalize")] if normalised else [])]
    (folder / "modules.json").write_text(json.dumps([
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(parts)]))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps({
        "word_embedding_dimension": hidden, "pooling_mode_cls_token": mode == "cls",
        "pooling_mode_mean_tokens": mode == "mean", "pooling_mode_max_tokens": mode == "max"}))
    return folder

"""Tiny random models of the families that users have, each with a tokenizer of its kind, and the ways to students."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from kdray.tasks import TASKS
from tests.small import make_tokenizer, sentences, tagged

HIDDEN = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64,
          "max_position_embeddings": 64}
_SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _texts() -> list[str]:
    return [row["text"] for row in sentences(300)] + [" ".join(row["tokens"]) for row in tagged(300)]


def word_piece(folder: Path, name: str) -> None:
    """A tokenizer of class `name` whose padding is number 0."""
    make_tokenizer(folder)
    getattr(transformers, name)(vocab=str(folder / "vocab.txt")).save_pretrained(folder)


def mpnet(folder: Path, name: str) -> None:
    """Word pieces behind the special tokens of MPNet."""
    make_tokenizer(folder)
    words = (folder / "vocab.txt").read_text().split()[5:]
    vocabulary = {word: place for place, word in enumerate(["<s>", "<pad>", "</s>", "[UNK]", "<mask>", *words])}
    for file in folder.iterdir():
        file.unlink()
    getattr(transformers, name)(vocab=vocabulary).save_pretrained(folder)


def byte_level(folder: Path, name: str, special: tuple[str, ...] = ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
               split: bool = False, **names: str) -> None:
    """Byte-level BPE; `split` cuts words by a pattern of its own before, as those of later decoders do."""
    tokenizer = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not split)
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_SPLIT), "isolated"), level]) if split else level)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(_texts(), trainers.BpeTrainer(
        vocab_size=420, special_tokens=list(special), initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    if name == "PreTrainedTokenizerFast":
        transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
        return
    parts = json.loads(tokenizer.to_str())["model"]
    getattr(transformers, name)(vocab=parts["vocab"], merges=list(map(tuple, parts["merges"]))).save_pretrained(folder)


def unigram(folder: Path, name: str, special: tuple[str, ...], unknown: str) -> None:
    """Unigram pieces that carry the space before a word."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(_texts(), trainers.UnigramTrainer(
        vocab_size=120, special_tokens=list(special), unk_token=unknown))
    vocabulary = [(piece, score) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]]
    getattr(transformers, name)(vocab=vocabulary).save_pretrained(folder)


@dataclass(frozen=True)
class Family:
    """How a tiny model of a family is made."""

    config: Callable[..., Any]
    tokenizer: Callable[[Path, str], None]
    tokenizer_class: str
    settings: dict[str, Any]


def _llama_tokens(folder: Path, name: str) -> None:
    byte_level(folder, name, ("<|begin|>", "<|end|>"), split=True, bos_token="<|begin|>", eos_token="<|end|>")


def _modernbert_tokens(folder: Path, name: str) -> None:
    byte_level(folder, name, ("[PAD]", "[CLS]", "[SEP]", "[UNK]"), pad_token="[PAD]", cls_token="[CLS]",
               sep_token="[SEP]", unk_token="[UNK]")


def _xlmr_tokens(folder: Path, name: str) -> None:
    unigram(folder, name, ("<s>", "<pad>", "</s>", "<unk>", "<mask>"), "<unk>")


def _albert_tokens(folder: Path, name: str) -> None:
    unigram(folder, name, ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"), "<unk>")


def _deberta_tokens(folder: Path, name: str) -> None:
    unigram(folder, name, ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), "[UNK]")


def _gpt2_tokens(folder: Path, name: str) -> None:
    byte_level(folder, name, ("<|endoftext|>",))


FAMILIES = {
    "BERT": Family(transformers.BertConfig, word_piece, "BertTokenizerFast", HIDDEN),
    "RoBERTa": Family(transformers.RobertaConfig, byte_level, "RobertaTokenizerFast", HIDDEN),
    "XLM-R": Family(transformers.XLMRobertaConfig, _xlmr_tokens, "XLMRobertaTokenizer", HIDDEN),
    "DistilBERT": Family(transformers.DistilBertConfig, word_piece, "DistilBertTokenizerFast", {
        "dim": 32, "n_layers": 4, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 64}),
    "ELECTRA": Family(transformers.ElectraConfig, word_piece, "ElectraTokenizerFast", {**HIDDEN, "embedding_size": 16}),
    "ALBERT": Family(transformers.AlbertConfig, _albert_tokens, "AlbertTokenizer", {**HIDDEN, "embedding_size": 16}),
    "DeBERTa-v2": Family(transformers.DebertaV2Config, _deberta_tokens, "DebertaV2Tokenizer", {
        **HIDDEN, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16,
        "position_biased_input": False, "type_vocab_size": 0, "norm_rel_ebd": "layer_norm", "share_att_key": True}),
    "MPNet": Family(transformers.MPNetConfig, mpnet, "MPNetTokenizer", HIDDEN),
    "ModernBERT": Family(transformers.ModernBertConfig, _modernbert_tokens, "PreTrainedTokenizerFast", {
        **HIDDEN, "local_attention": 8, "pad_token_id": 0, "cls_token_id": 1, "bos_token_id": 1, "sep_token_id": 2,
        "eos_token_id": 2}),
    "MobileBERT": Family(transformers.MobileBertConfig, word_piece, "MobileBertTokenizerFast", {
        **HIDDEN, "embedding_size": 16, "intra_bottleneck_size": 16}),
    "GPT-2": Family(transformers.GPT2Config, _gpt2_tokens, "GPT2TokenizerFast", {
        "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 0}),
    "Llama": Family(transformers.LlamaConfig, _llama_tokens, "PreTrainedTokenizerFast", {
        **HIDDEN, "num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 1}),
    "Qwen2": Family(transformers.Qwen2Config, lambda folder, name: byte_level(folder, name, ("<|endoftext|>",), True),
                    "Qwen2TokenizerFast", {**HIDDEN, "num_key_value_heads": 2, "use_sliding_window": True,
                                           "sliding_window": 8, "max_window_layers": 2, "eos_token_id": 0}),
    "Qwen3": Family(transformers.Qwen3Config, lambda folder, name: byte_level(folder, name, ("<|endoftext|>",), True),
                    "Qwen2TokenizerFast", {**HIDDEN, "num_key_value_heads": 2, "head_dim": 8, "eos_token_id": 0}),
}


def make_family(folder: Path, name: str, task: str, labels: list[str], seed: int = 0) -> Path:
    """A tiny random model of the family with the task's head, whose logits differ from row to row, and a tokenizer."""
    family = FAMILIES[name]
    folder.mkdir(parents=True, exist_ok=True)
    family.tokenizer(folder, family.tokenizer_class)
    size = len(transformers.AutoTokenizer.from_pretrained(folder))
    config = family.config(vocab_size=size, initializer_range=0.2, id2label=dict(enumerate(labels)),
                           label2id={label: place for place, label in enumerate(labels)}, **family.settings)
    torch.manual_seed(seed)
    getattr(transformers, TASKS[task].auto_class).from_config(config).save_pretrained(folder)
    return folder

WAYS: dict[str, dict[str, Any]] = {"layers": {"layers": 2}, "fresh": {"fresh": {"num_hidden_layers": 2}}, "model": {}}
"""Ways to make a student, as its config names them; the last is a model of its own, taken whole."""
REFUSED = {("ALBERT", "layers"): "share their weights.*student.fresh.*student.model"}
"""What the message says where a way is refused."""

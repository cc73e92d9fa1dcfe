"""A model's config is tried before work begins: rows fit it, it answers, learns, and is the same when loaded again.

What fails here would fail after a teacher and a training are paid for. Weights are random, so that a config and a
tokenizer are enough. Knows nothing about jobs.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kdray.corpus.tokenizer import load_tokenizer
from kdray.errors import ConfigError, ModelError
from kdray.models.architecture import (
    TOGETHER,
    keep_layers,
    layer_count,
    new_model,
    outline,
    positions,
    vocabulary,
)
from kdray.models.forward import head_logits, taken
from kdray.models.load import (
    check_weights,
    count_parameters,
    load_model,
    origin_config,
    save_model,
    weights_kept,
)
from kdray.models.precision import DTYPES
from kdray.models.subject import TEACHER, Subject
from kdray.tasks import Task

_LONGEST = 64
"""Tokens of a row that is tried; longer ones would only take longer."""
_LARGE, _LARGEST = 5 * 10**7, 10**9
"""Parameters above which a model is tried with its first and last layer alone, and is not tried, but for its shapes."""
_APART, _TINY = 0.1, 1e-30
"""How far padding may move logits, as a share of the largest. Where it is left out, they move by a millionth."""
_AGAIN = 1e-5
"""The same for a model that was saved and loaded: where weights lie in memory moves the last place of a float32."""
_OTHER = "choose a model of another family"

Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Rehearsed:
    """What was tried."""

    outline: Any
    """Names and shapes of the whole model."""
    model: Any
    """The model with random weights, or its first and last layer; None where that is too large."""
    rows: Inputs
    """What it was given: a long row and a shorter one, padded."""


def rehearse(task: Task, subject: Subject, max_length: int) -> Rehearsed:
    """Tries a model on rows of `max_length` tokens.

    Raises ConfigError where it has fewer positions, ModelError where its folder lacks weights, its tokenizer has tokens
    that it lacks, or it cannot be built, answer, learn, or be saved and loaded.
    """
    folder, config = Path(subject.origin.folder), origin_config(task, subject.origin, subject.labels)
    whole, tokenizer = outline(task, config), load_tokenizer(folder)
    if subject.origin.fresh is None:
        check_weights(task, folder, subject.labels, subject.trained is not None, subject.origin.pooling)
    if subject.origin.layers is not None:
        weights_kept(task, subject.origin, subject.labels)
    _check_positions(subject, positions(config, whole), max_length)
    _check_vocabulary(subject, vocabulary(whole), max(tokenizer.get_vocab().values()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rows = _rows(tokenizer, min(max_length, _LONGEST))
        return Rehearsed(whole, _try_first(task, subject, _sizes(task, config, whole), rows), rows)


def _sizes(task: Task, config: Any, whole: Any) -> list[Any]:
    """Configs to try, the quickest first."""
    found = [config] if count_parameters(whole) <= _LARGEST else []
    if count_parameters(whole) > _LARGE:
        with suppress(ModelError):
            ends = keep_layers(config, (0, layer_count(config) - 1))
            if count_parameters(outline(task, ends)) <= _LARGEST:
                found.insert(0, ends)
    return found


def _try_first(task: Task, subject: Subject, configs: list[Any], rows: Inputs) -> Any:
    """Tries one config after another until one does it all; raises what is wrong with the last."""
    for config in configs[:-1]:
        with suppress(ModelError):
            return _try(task, subject, config, rows)
    return _try(task, subject, configs[-1], rows) if configs else None


def _check_positions(subject: Subject, longest: int | None, max_length: int) -> None:
    if longest and max_length > longest:
        raise ConfigError(f"data.max_length = {max_length} is more than the {longest} positions of {subject}. Lower "
                          "it, or choose a model with more")


def _check_vocabulary(subject: Subject, tokens: int | None, highest: int) -> None:
    if tokens is not None and highest >= tokens:
        raise ModelError(f"the tokenizer of {subject} numbers tokens up to {highest}, the model has embeddings for "
                         f"{tokens}, 0 to {tokens - 1}. Put the tokenizer beside it that it was trained with, or give "
                         "it the missing ones where it was: model.resize_token_embeddings(len(tokenizer))")


def _rows(tokenizer: Any, length: int) -> Inputs:
    """Two rows of any tokens, a long one and one half as long, as the tokenizer would give them."""
    special = set(tokenizer.all_special_ids)
    plain = torch.tensor([number for number in tokenizer.get_vocab().values() if number not in special])
    ids, seen = plain[torch.randint(len(plain), (2, length))], torch.ones(2, length, dtype=torch.int64)
    ids[1, length // 2:], seen[1, length // 2:] = tokenizer.pad_token_id, 0
    types = {"token_type_ids": torch.zeros_like(seen)} if "token_type_ids" in tokenizer.model_input_names else {}
    return {"input_ids": ids, "attention_mask": seen, **types}


def _try(task: Task, subject: Subject, config: Any, rows: Inputs) -> Any:
    model = new_model(task, config).eval()
    with _doing(subject, f"read rows of {rows['input_ids'].shape[1]} tokens", TOGETHER):
        logits = _logits(model, rows)
        _check_padding(subject, config, logits, _logits(model, _alone(rows)))
    if subject.trained is not None:
        _try_training(task, subject, model, rows, logits)
    if subject.answers == "bfloat16":
        with _doing(subject, "answer in bfloat16", f"Set teacher.precision to float32, or {_OTHER}"):
            _logits(model.to(torch.bfloat16), rows)
    return model


def _try_training(task: Task, subject: Subject, model: Any, rows: Inputs, logits: torch.Tensor) -> None:
    """It learns, and what is loaded of it gives the same `logits`."""
    setting = "teacher.finetune.precision" if subject.name == TEACHER else "training.precision"
    with _doing(subject, f"be trained in {subject.trained}", f"Set {setting} to float32, or {_OTHER}"):
        _learn(model, rows, str(subject.trained))
    with _doing(subject, "be saved and loaded again", _OTHER.capitalize()):
        again = _logits(_again(task, subject, model), rows)
    apart = (logits - again).nan_to_num().abs().max()
    if apart > _AGAIN * logits.nan_to_num().abs().max():
        raise ModelError(f"{subject}, a {type(model).__name__}, gives other logits when it is saved and loaded again, "
                         f"by up to {apart:.3g}. {_OTHER.capitalize()}")


@contextmanager
def _doing(subject: Subject, what: str, remedy: str) -> Iterator[None]:
    """Whatever a library raises becomes a ModelError that says what cannot be done; a full disk stays one."""
    try:
        yield
    except (ModelError, OSError):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[-1].strip()
        raise ModelError(f"{subject} cannot {what}: {type(error).__name__}: {reason}. {remedy}") from error


def _logits(model: Any, rows: Inputs) -> torch.Tensor:
    with torch.no_grad():
        return head_logits(model(**taken(model, rows)))


def _alone(rows: Inputs) -> Inputs:
    """The second row without its padding."""
    length = int(rows["attention_mask"][1].sum())
    return {name: values[1:, :length] for name, values in rows.items()}


def _check_padding(subject: Subject, config: Any, together: torch.Tensor, alone: torch.Tensor) -> None:
    if not torch.isfinite(alone).all():
        raise ModelError(f"the logits of {subject} are not finite, with random weights. {_OTHER.capitalize()}")
    apart = (together[1:, :alone.shape[1]] - alone).abs().max() / alone.abs().max().clamp_min(_TINY)
    if not apart < _APART:
        raise ModelError(f"the padding beside a row moves the logits of {subject} by {apart:.0%}. Where config.json "
                         f"and tokenizer_config.json name other padding tokens (config.json: {config.pad_token_id}), "
                         f"make them one; else {_OTHER}")


def _learn(model: Any, rows: Inputs, precision: str) -> None:
    model.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=DTYPES[precision] is torch.bfloat16):
        logits = head_logits(model(**taken(model, rows)))
    logits.float().sum().backward()
    model.zero_grad()
    model.eval()


def _again(task: Task, subject: Subject, model: Any) -> Any:
    """The model, saved and loaded."""
    with tempfile.TemporaryDirectory(prefix="kdray-tried-") as name:
        save_model(task, model, Path(subject.origin.folder), Path(name))
        return load_model(task, name, subject.labels).eval()

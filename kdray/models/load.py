"""A model folder becomes a model with the task's head; a teacher's folder becomes a student.

Knows nothing about rows or training.
"""

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn

from kdray.corpus.tokenizer import copy_tokenizer
from kdray.errors import ModelError
from kdray.tasks import Task


@dataclass(frozen=True)
class Origin:
    """Where a model's first weights come from."""

    folder: str
    """A model folder, or in a job its place: the teacher's for `layers` and `fresh`, else the model's own."""
    layers: tuple[int, ...] | None = None
    """Layers of the folder's model to keep; None keeps all."""
    fresh: dict[str, Any] | None = None
    """Random weights for the folder's config with these changes; None loads weights."""


def load_model(task: Task, folder: str | Path, labels: list[str], **options: Any) -> nn.Module:
    """The model in `folder` with the task's head for `labels`; a head of another size starts at random."""
    with _quiet():
        return _auto(task).from_pretrained(
            str(folder), id2label=dict(enumerate(labels)), label2id={name: i for i, name in enumerate(labels)},
            num_labels=len(labels), ignore_mismatched_sizes=True, use_safetensors=True, trust_remote_code=False,
            **{"dtype": torch.float32, **options})


def build(task: Task, origin: Origin, labels: list[str], seed: int, **options: Any) -> nn.Module:
    """A model to train, from `origin`; random parts are drawn from `seed`.

    Raises ModelError where layers do not exist or the changes to a config are not known to it.
    """
    torch.manual_seed(seed)
    if origin.fresh is not None:
        return _fresh(task, origin, labels, **options)
    model = load_model(task, origin.folder, labels, **options)
    if origin.layers is not None:
        cut_layers(model, origin.layers)
    return model


def cut_layers(model: Any, keep: tuple[int, ...]) -> None:
    """Keeps the layers with indices `keep` of a transformer's one stack, in place."""
    count = model.config.num_hidden_layers
    stacks = [(name, module) for name, module in model.named_modules()
              if isinstance(module, nn.ModuleList) and len(module) == count]
    if len(stacks) != 1:
        raise ModelError(f"cannot tell which of {[name for name, _ in stacks]} is the stack of {count} layers of "
                         f"{type(model).__name__}; start from `student.model` or `student.fresh`")
    outside = [index for index in keep if not 0 <= index < count]
    if outside or list(keep) != sorted(set(keep)):
        raise ModelError(f"student.layers {list(keep)} must be rising indices from 0 to {count - 1}")
    name, stack = stacks[0]
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, nn.ModuleList(stack[index] for index in keep))
    model.config.num_hidden_layers = len(keep)
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = [model.config.layer_types[index] for index in keep]


def even_layers(count: int, keep: int) -> tuple[int, ...]:
    """`keep` of `count` layers, evenly spaced with the first and the last; the last alone where keep is 1."""
    if keep > count:
        raise ModelError(f"student.layers {keep} is more than the {count} layers of the teacher")
    if keep == 1:
        return (count - 1,)
    return tuple(round(index * (count - 1) / (keep - 1)) for index in range(keep))


def save_model(model: Any, tokenizer_folder: Path, folder: Path) -> None:
    """Writes a Hugging Face folder: safetensors, config, tokenizer. Raises OSError where the disk is full."""
    try:
        with _quiet():
            model.save_pretrained(str(folder))
    except SafetensorError as error:
        # The system's error number is only in the text.
        full = "No space left" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(folder)) from error
    copy_tokenizer(tokenizer_folder, folder)


def count_parameters(model: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def _fresh(task: Task, origin: Origin, labels: list[str], **options: Any) -> nn.Module:
    config = transformers.AutoConfig.from_pretrained(origin.folder, trust_remote_code=False)
    for name, value in (origin.fresh or {}).items():
        if not hasattr(config, name):
            raise ModelError(f"student.fresh: {type(config).__name__} has no setting {name!r}")
        try:
            setattr(config, name, value)
        except (ValueError, TypeError, StrictDataclassError) as error:
            raise ModelError(f"student.fresh: {name} = {value!r}: {error}") from error
    config.id2label = dict(enumerate(labels))
    config.label2id = {name: index for index, name in enumerate(labels)}
    for name in [name for name in options if hasattr(config, name) and "dropout" in name]:
        setattr(config, name, options.pop(name))
    try:
        return _auto(task).from_config(config, **{"dtype": torch.float32, **options})
    except ValueError as error:
        raise ModelError(f"student.fresh = {origin.fresh}: {error}") from error


def dropout_options(folder: str, dropout: float | None) -> dict[str, float]:
    """Config settings of the folder's model that set every dropout to `dropout`; none where it is None."""
    if dropout is None:
        return {}
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return {name: dropout for name, value in config.to_dict().items()
            if "dropout" in name and isinstance(value, (int, float))}


def _auto(task: Task) -> Any:
    return getattr(transformers, task.auto_class)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)

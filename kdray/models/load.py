"""A model folder becomes a model with the task's head; a teacher's folder becomes a student.

Nothing that a model needs is drawn at random but what is said to be new. Knows nothing about rows or training.
"""

import contextlib
import errno
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from torch import nn

from kdray.config import StudentConfig
from kdray.corpus.tokenizer import copy_tokenizer
from kdray.errors import ModelError
from kdray.models.architecture import (
    change,
    even_layers,
    head_class,
    keep_layers,
    layer_count,
    new_model,
    outline,
    read,
    set_dropout,
    shape_head,
)
from kdray.models.layers import kept_names
from kdray.models.pooling import Pooling
from kdray.models.precision import attention
from kdray.tasks import Task

_SHOWN = 3


@dataclass(frozen=True)
class Origin:
    """Where a model's first weights come from."""

    folder: str
    """A model folder, or in a job its place."""
    layers: tuple[int, ...] | None = None
    """Layers of the folder's model to keep; None keeps all."""
    fresh: dict[str, Any] | None = None
    """Random weights for the folder's config with these changes; None loads weights."""
    pooling: Pooling | None = None
    """How its teacher pools; None where nothing is pooled, or it is its own."""


def student_origin(student: StudentConfig, folder: Path, pooling: Pooling | None = None) -> Origin:
    """Where a student of the model in `folder` comes from, whose teacher has that `pooling`, where it pools.

    Raises ModelError where it has fewer layers than to keep.
    """
    keep = student.layers
    if isinstance(keep, int):
        keep = list(even_layers(layer_count(read(folder)), keep))
    return Origin(str(folder), None if keep is None else tuple(keep), student.fresh, pooling)


def load_model(task: Task, folder: str | Path, labels: list[str], num_gpus: float = 0,
               dtype: torch.dtype = torch.float32) -> Any:
    """The model in `folder` with the task's head for `labels`, to be used on a device of a process with `num_gpus`.

    Raises ModelError where the folder lacks a part of it, or has one of another size.
    """
    config = read(folder)
    shape_head(config, labels, task, folder)
    return _load(task, folder, config, num_gpus, dtype, False)


def build(task: Task, origin: Origin, labels: list[str], seed: int, num_gpus: float = 0,
          dropout: float | None = None) -> Any:
    """A model to train, from `origin`, in float32; its head, where new, and a fresh one are drawn from `seed`.

    `dropout` takes the place of all of its own; None keeps them. Raises ModelError where layers do not exist or do not
    fit together, the changes to a config are not known to it, or the folder lacks a part that is not the head.
    """
    torch.manual_seed(seed)
    if origin.layers is not None:
        model = _cut(task, origin, labels, dropout, num_gpus)
    elif origin.fresh is not None:
        model = new_model(task, origin_config(task, origin, labels, dropout), num_gpus)
    else:
        model = _load(task, origin.folder, origin_config(task, origin, labels, dropout), num_gpus, torch.float32, True)
    if dropout is not None:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout  # some have a rate that is in no config
    return model


def origin_config(task: Task, origin: Origin, labels: list[str], dropout: float | None = None) -> Any:
    """The config of the model that `build` makes. Raises ModelError as `build` does."""
    config = read(origin.folder)
    if origin.fresh is not None:
        change(config, origin.fresh)
    shape_head(config, labels, task, origin.folder, origin.pooling)
    if dropout is not None:
        set_dropout(config, dropout)
    return config if origin.layers is None else keep_layers(config, origin.layers)


def _cut(task: Task, origin: Origin, labels: list[str], dropout: float | None, num_gpus: float) -> Any:
    """Built as it will be when it is loaded again, with the weights of the layers kept."""
    names = weights_kept(task, origin, labels)
    whole_config = origin_config(task, replace(origin, layers=None), labels)
    whole = _load(task, origin.folder, whole_config, num_gpus, torch.float32, True)
    weights = whole.state_dict()
    with quiet():
        return type(whole).from_pretrained(
            None, config=origin_config(task, origin, labels, dropout), attn_implementation=attention(num_gpus),
            state_dict={name: weights[source] for name, source in names.items()}, dtype=torch.float32)


def weights_kept(task: Task, origin: Origin, labels: list[str]) -> dict[str, str]:
    """Name in the folder's model of each weight of the one that keeps some of its layers.

    Raises ModelError where those layers do not exist, or cannot be together.
    """
    whole = outline(task, origin_config(task, replace(origin, layers=None), labels))
    return kept_names(whole, outline(task, origin_config(task, origin, labels)), origin.layers or ())


def check_weights(task: Task, folder: Path, labels: list[str], new_head: bool, pooling: Pooling | None = None) -> None:
    """Raises ModelError where loading the model in `folder` would draw a part at random that is no new head.

    Reads the names and shapes of its weights alone, so that a model of any size is checked in a moment.
    """
    config = read(folder)
    shape_head(config, labels, task, folder, pooling)
    with quiet():
        model, found = type(outline(task, config)).from_pretrained(
            None, config=config, state_dict=_weightless(folder), ignore_mismatched_sizes=True,
            output_loading_info=True, dtype=torch.float32)
    _check_parts(model, folder, found, new_head)


def _weightless(folder: Path) -> dict[str, torch.Tensor]:
    """Tensors with the names and shapes of the folder's weights, and without memory of their own."""
    found = dict[str, torch.Tensor]()
    for file in _weight_files(folder):
        with safe_open(str(file), "pt") as part:
            names = part.keys()
            found |= {name: torch.zeros(()).expand(part.get_slice(name).get_shape()) for name in names}
    return found


def _weight_files(folder: Path) -> list[Path]:
    """Those that `transformers` reads, of what lies in the folder."""
    whole = folder / "model.safetensors"
    if whole.exists():
        return [whole]
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    return [folder / name for name in sorted(set(index["weight_map"].values()))]


def load_parts(task: Task, folder: Path) -> tuple[Any, set[str]]:
    """The model in `folder` in the precision of its file, and the names of its weights that were drawn at random.

    These are what the folder lacks, or has in another size.
    """
    with quiet(), torch.random.fork_rng(devices=[]):
        model, found = head_class(task).from_pretrained(
            str(folder), config=read(folder), dtype="auto", use_safetensors=True, trust_remote_code=False,
            ignore_mismatched_sizes=True, output_loading_info=True)
    return model, {*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])}


def _load(task: Task, folder: str | Path, config: Any, num_gpus: float, dtype: torch.dtype, new_head: bool) -> Any:
    with quiet():
        model, found = head_class(task).from_pretrained(
            str(folder), config=config, attn_implementation=attention(num_gpus), dtype=dtype, use_safetensors=True,
            trust_remote_code=False, ignore_mismatched_sizes=True, output_loading_info=True)
    _check_parts(model, folder, found, new_head)
    return model


def _check_parts(model: Any, folder: str | Path, found: dict[str, Any], new_head: bool) -> None:
    """Raises ModelError where `found`, what loading `model` from `folder` said, has a part that was drawn at random.

    A new head may be: what is not in the model that its class puts a head on, and the pooling that feeds a head.
    """
    missing = dict.fromkeys(found["missing_keys"], "")
    missing |= {name: f" ({tuple(there)} in the file, {tuple(needed)} needed)"
                for name, there, needed in found["mismatched_keys"]}
    body = {name for name in missing if name.startswith(f"{model.base_model_prefix}.") and ".pooler." not in name}
    wrong = sorted(body if new_head else missing)
    if not wrong:
        return
    shown = ", ".join(f"{name}{missing[name]}" for name in wrong[:_SHOWN])
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    remedy = ("Save the whole model once, where it was trained, with save_pretrained" if body else
              "Fine-tune it (teacher.finetune), or take a model that was trained with this head and these labels")
    raise ModelError(f"{folder} has no weights for {shown}{more} of {type(model).__name__}, which would be drawn at "
                     f"random. {remedy}")


def save_model(task: Task, model: Any, tokenizer_folder: Path, folder: Path) -> None:
    """Writes a Hugging Face folder: safetensors, config, tokenizer. Raises OSError where the disk is full."""
    try:
        with quiet():
            model.save_pretrained(str(folder))
    except SafetensorError as error:
        # The system's error number is only in the text.
        full = "No space left" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(folder)) from error
    copy_tokenizer(tokenizer_folder, folder, task)


def count_parameters(model: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Holds back the warnings and the progress of `transformers`."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)

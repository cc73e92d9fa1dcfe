"""A model folder's config becomes the config of what is to be built: labels, layers, dropout, positions, padding.

All that families of models name or number in their own way is here; a class that is built without memory (`outline`)
answers what its config does not say. Knows nothing about weights.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from kdray.corpus.tokenizer import load_tokenizer, model_config
from kdray.errors import ModelError, first_line
from kdray.models.embedder import Embedder, pooled
from kdray.models.pooling import Pooling, must_pool, pools, read_pooling
from kdray.models.precision import attention
from kdray.tasks import Task

TOGETHER = ("Where student.fresh made it, check the settings that go together, such as hidden_size, "
            "num_attention_heads, num_key_value_heads and head_dim; else choose a model of another family")
_BEHIND = 8
"""Rows that a table of positions may have beyond those that its config names, for offsets."""


def read(folder: str | Path) -> Any:
    """The config of the model in `folder`; one without a padding token gets that of its tokenizer.

    A classifier of whole rows has no use for the keys and values of a text's beginning: they are not kept. Raises
    ModelError where `transformers` knows no such model.
    """
    config = model_config(Path(folder))
    if getattr(config, "pad_token_id", None) is None or config.pad_token_id < 0:
        config.pad_token_id = load_tokenizer(Path(folder)).pad_token_id
    if hasattr(config, "use_cache"):
        config.use_cache = False
    return config


def shape_head(config: Any, labels: Sequence[str], task: Task, folder: str | Path,
               pooling: Pooling | None = None) -> None:
    """Sets the labels of the task's head; of a task without one, how the model in `folder` pools, as it says itself.

    Where it does not say, it pools as `pooling`, which decides in any case whether vectors are of length 1.
    """
    if pools(task):
        own = read_pooling(Path(folder))
        pooled(config, replace(own, normalised=pooling.normalised) if own and pooling else own or pooling
               or must_pool(Path(folder)), len(labels))
        return
    if task.problem is not None:
        config.problem_type = task.problem
    config.id2label = dict(enumerate(labels))
    config.label2id = {name: index for index, name in enumerate(labels)}


def new_model(task: Task, config: Any, num_gpus: float = 0) -> Any:
    """A model of the config with the task's head, in float32, whose weights are drawn at random.

    Raises ModelError where `transformers` has no such head, or cannot build it from the config.
    """
    try:
        return head_class(task).from_config(config, attn_implementation=attention(num_gpus), dtype=torch.float32)
    except Exception as error:
        if "Unrecognized configuration class" in str(error):
            raise ModelError(f"transformers has no {task.auto_class.removeprefix('Auto')} for {config.model_type}: "
                             "choose a model of another family") from error
        raise ModelError(f"no {config.model_type} can be built from its config: {type(error).__name__}: "
                         f"{first_line(error)}. {TOGETHER}") from error


def outline(task: Task, config: Any) -> Any:
    """The same as names and shapes, without memory. Raises ModelError as `new_model` does."""
    with torch.device("meta"):
        return new_model(task, config)


def head_class(task: Task) -> Any:
    """The class that makes models with the task's head: one of `transformers`, or of those that pool."""
    return Embedder if pools(task) else getattr(transformers, task.auto_class)


def layer_count(config: Any) -> int:
    """Number of layers. Raises ModelError where the config does not say it."""
    count = getattr(config, "num_hidden_layers", None)
    if not isinstance(count, int):
        raise ModelError(f"the config of a {config.model_type} does not say how many layers it has: start from "
                         "`student.model` or `student.fresh` in place of `student.layers`")
    return count


def change(config: Any, changes: dict[str, Any]) -> None:
    """Changes settings, in place; lists with an entry a layer are cut, or go on from their beginning, to fit.

    Raises ModelError where the config has no such setting, or the class refuses a value or what they are together.
    """
    count, lists = getattr(config, "num_hidden_layers", None), _per_layer(config)
    for name, value in changes.items():
        if not hasattr(config, name):
            raise ModelError(f"student.fresh: {type(config).__name__} has no setting {name!r}")
        try:
            setattr(config, name, value)
        except (ValueError, TypeError, StrictDataclassError) as error:
            raise ModelError(f"student.fresh: {name} = {value!r}: {error}") from error
    if getattr(config, "num_hidden_layers", None) != count:
        for name, values in lists.items():
            if name not in changes:
                setattr(config, name, list(islice(cycle(values), config.num_hidden_layers)))
    _validate(config, f"student.fresh = {changes}")


def keep_layers(config: Any, keep: Sequence[int]) -> Any:
    """The config of a model with the layers `keep` alone.

    Raises ModelError where they do not exist, do not rise, or the class refuses what is left.
    """
    count = layer_count(config)
    if any(not 0 <= index < count for index in keep) or list(keep) != sorted(set(keep)):
        raise ModelError(f"student.layers {list(keep)} must be rising indices from 0 to {count - 1}")
    config, lists = copy.deepcopy(config), _per_layer(config)
    config.num_hidden_layers = len(keep)
    for name, values in lists.items():
        setattr(config, name, [values[index] for index in keep])
    _validate(config, f"student.layers {list(keep)}")
    return config


def even_layers(count: int, keep: int) -> tuple[int, ...]:
    """`keep` of `count` layers, evenly spaced with the first and the last; the last alone where keep is 1."""
    if keep > count:
        raise ModelError(f"student.layers {keep} is more than the {count} layers there are to cut from")
    if keep == 1:
        return (count - 1,)
    return tuple(round(index * (count - 1) / (keep - 1)) for index in range(keep))


def set_dropout(config: Any, rate: float) -> None:
    """Sets every dropout that the config has a number for."""
    for name, value in config.to_dict().items():
        named = "dropout" in name or name.endswith("pdrop")
        if named and isinstance(value, (int, float)) and not isinstance(value, bool):
            setattr(config, name, rate)


def positions(config: Any, model: nn.Module) -> int | None:
    """Tokens that the model of a config has positions for, None where nothing limits them.

    Models that count from behind the padding token have a table of positions with a row for padding.
    """
    longest = getattr(config, "max_position_embeddings", None)
    if not longest or longest < 0:
        return None
    words = input_embedding(model)
    tables = [table for table in model.modules() if isinstance(table, nn.Embedding) and table is not words
              and longest <= table.num_embeddings <= longest + _BEHIND]
    return min([longest, *(table.num_embeddings - table.padding_idx - 1 for table in tables
                           if table.padding_idx is not None)])


def vocabulary(model: nn.Module) -> int | None:
    """How many tokens the model has embeddings for, None where it has no table of them."""
    found = input_embedding(model)
    return None if found is None else found.num_embeddings


def input_embedding(model: Any) -> nn.Embedding | None:
    """The model's table of tokens, None where it has none."""
    try:
        found = model.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        return None
    return found if isinstance(found, nn.Embedding) else None


def _per_layer(config: Any) -> dict[str, list[Any]]:
    """Settings that are lists with an entry for each layer, such as `layer_types`."""
    count = getattr(config, "num_hidden_layers", None)
    return {name: list(value) for name, value in config.to_dict().items()
            if "layer" in name and isinstance(value, (list, tuple)) and len(value) == count}


def _validate(config: Any, origin: str) -> None:
    try:
        config.validate()
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise ModelError(f"{origin}: {_last_line(error)}") from error


def _last_line(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2].strip()

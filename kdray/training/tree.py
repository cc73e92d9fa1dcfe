"""A tree of tensors and plain values becomes one safetensors file, and back.

What is neither a tensor, a plain value, a list, a tuple nor a dict has no place in it: nothing that is read is run.
Knows nothing about what the tree is of.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

_TREE = "tree"


def write_tree(tree: Any, path: str | Path) -> None:
    """Writes nested dicts (keys: text or whole numbers), lists and tuples of tensors, numbers, texts and None.

    A tensor that is there twice, as tied weights are, is written once. Raises TypeError for anything else.
    """
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(_packed(tree, tensors, {}))
    save_file(tensors, path, {_TREE: text})


def read_tree(path: str | Path) -> Any:
    """What `write_tree` wrote, on the CPU. Raises ValueError where the file is of another kind."""
    try:
        with safe_open(path, "pt", backend="pread") as file:  # not mapped: the file may go while the tensors are used
            return _unpacked(json.loads(file.metadata()[_TREE]), file.get_tensors())
    except (SafetensorError, TypeError, KeyError) as error:
        raise ValueError(f"{path} holds no tree of tensors: {error!r}") from error


def _packed(value: Any, tensors: dict[str, torch.Tensor], names: dict[tuple[Any, ...], str]) -> Any:
    """JSON of a value; `tensors` gets its tensors by name, `names` are those of the memory that is among them."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [_packed(item, tensors, names) for item in value]
    if isinstance(value, tuple):
        return {"tuple": _packed(list(value), tensors, names)}
    if isinstance(value, dict):
        return {"dict": [[_key(key), _packed(item, tensors, names)] for key, item in value.items()]}
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"a {type(value).__module__}.{type(value).__qualname__} cannot be kept without pickle")
    value = value.detach()
    memory = value.data_ptr(), value.dtype, value.shape, value.stride()
    if not value.numel() or memory not in names:
        name = str(len(tensors))
        tensors[name] = value.contiguous()
        names[memory] = name
    return {"tensor": names[memory]}


def _key(key: Any) -> str | int:
    if not isinstance(key, (str, int)):
        raise TypeError(f"{key!r} is neither text nor a whole number")
    return key


def _unpacked(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpacked(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "tensor":
        return tensors[held]
    if kind == "tuple":
        return tuple(_unpacked(held, tensors))
    if kind == "dict":
        return {key: _unpacked(item, tensors) for key, item in held}
    raise ValueError(f"unknown kind {kind!r}")

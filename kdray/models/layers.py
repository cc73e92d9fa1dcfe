"""A whole model and one with some of its layers become the names under which the second finds its weights in the first.

Works on names and shapes: both may be outlines. Knows nothing about configs.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn

from kdray.errors import ModelError
from kdray.models.architecture import layer_count

_Shapes = dict[str, tuple[int, ...]]


def kept_names(whole: Any, student: Any, keep: Sequence[int]) -> dict[str, str]:
    """Name in `whole` of each weight of `student`, whose layers are those with the indices `keep`.

    Raises ModelError where `whole` has no one stack of layers, or a layer has not the weights that one in its new place
    has.
    """
    ours, theirs, names = _shapes(student), _shapes(whole), dict[str, str]()
    for stack in _stacks(whole, keep):
        layers = [_layer(theirs, stack, index) for index in range(layer_count(whole.config))]
        for place, index in enumerate(keep):
            room = _layer(ours, stack, place)
            if layers[index] != room:
                raise _refused(keep, f"layer {index} of {type(whole).__name__} cannot be layer {place} of a student: "
                                     f"{_misfit(layers, index, room)}")
            names |= {f"{stack}.{place}.{name}": f"{stack}.{index}.{name}" for name in room}
    names |= {name: name for name in ours if name not in names}
    other = [name for name, source in names.items() if ours[name] != theirs.get(source)]
    if other:
        raise _refused(keep, f"{other[0]} of {type(student).__name__} depends on how many layers there are")
    return names


def _stacks(model: Any, keep: Sequence[int]) -> list[str]:
    """Names of the lists of modules that have an entry a layer: one, or several beside each other."""
    count, what = layer_count(model.config), type(model).__name__
    lists = [name for name, module in model.named_modules()
             if isinstance(module, nn.ModuleList) and len(module) == count]
    outer = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    if not outer:
        why = "share their weights" if hasattr(model.config, "num_hidden_groups") else "are not listed one by one"
        raise _refused(keep, f"the {count} layers of {what} {why}, so that none can be left out")
    if len({name.rpartition(".")[0] for name in outer}) > 1:
        raise _refused(keep, f"{what} has several stacks of {count} layers: {', '.join(outer)}")
    return outer


def _misfit(layers: list[_Shapes], index: int, room: _Shapes) -> str:
    """Why a layer does not fit, and which do."""
    lacks, has = room.items() - layers[index].items(), layers[index].items() - room.items()
    why = f"there, a layer has {min(lacks)[0]}" if lacks else f"there, a layer has no {min(has)[0]}"
    fit = [str(other) for other, layer in enumerate(layers) if layer == room]
    return f"{why}. Keep layer {' or '.join(fit)} there" if fit else why


def _refused(keep: Sequence[int], why: str) -> ModelError:
    ways = (f"Other ways: student.fresh: {{num_hidden_layers: {len(keep)}}} (random weights), student.model (a smaller "
            "model that is trained already), or layers of another family")
    return ModelError(f"student.layers {list(keep)}: {why}. {ways}")


def _shapes(model: nn.Module) -> _Shapes:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _layer(shapes: _Shapes, stack: str, index: int) -> _Shapes:
    start = f"{stack}.{index}."
    return {name.removeprefix(start): shape for name, shape in shapes.items() if name.startswith(start)}

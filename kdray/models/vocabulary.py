"""A corpus' token ids become a model whose input embedding has rows for those alone, and the whole model again.

A row of the embedding that no text uses has no gradient, but an optimizer reads and writes it, and its two moments, in
every step: with a small student that is most of what a step moves. Knows nothing about training.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from kdray.models.architecture import input_embedding

_CHUNK = 1 << 20
_MOST = 0.9
"""Share of the vocabulary in use above which cutting it gains nothing."""


def used_ids(columns: Iterable[np.ndarray], model: Any) -> np.ndarray | None:
    """Rising ids (used,) of the model's tokens that occur in `columns` of ids; None where the embedding stays whole.

    All ids up to the highest that the model's config names, such as padding, count as used, so that these keep their
    numbers: models look for them in their inputs. The embedding stays whole where nearly all of it is used, where its
    weights are another module's too, and where the model has none.
    """
    embedding = _embedding(model)
    if embedding is None:
        return None
    used = np.zeros(embedding.num_embeddings, bool)
    used[:_highest_named(model.config) + 1] = True
    for values in columns:
        for start in range(0, len(values), _CHUNK):
            used[values[start:start + _CHUNK]] = True
            if used.mean() > _MOST:
                return None
    return np.flatnonzero(used) if used.mean() <= _MOST else None


def numbers(ids: np.ndarray) -> np.ndarray:
    """Place of each id in `ids`, by id: int32 (highest id + 1,), -1 for those that are not in it."""
    places = np.full(int(ids[-1]) + 1, -1, np.int32)
    places[ids] = np.arange(len(ids), dtype=np.int32)
    return places


def cut_vocabulary(model: Any, ids: np.ndarray) -> torch.Tensor:
    """Leaves the rows `ids` of the model's input embedding, in place; returns the whole weights."""
    whole = model.get_input_embeddings().weight.detach()
    _set(model, whole[torch.from_numpy(ids)])
    return whole


def whole_vocabulary(model: Any, ids: np.ndarray, whole: torch.Tensor) -> None:
    """Gives a cut model its whole input embedding again, in place: rows `ids` are the model's, the others `whole`'s."""
    whole = whole.clone()
    whole[torch.from_numpy(ids)] = model.get_input_embeddings().weight.detach()
    _set(model, whole)


def _set(model: Any, weight: torch.Tensor) -> None:
    embedding = model.get_input_embeddings()
    embedding.weight, embedding.num_embeddings = nn.Parameter(weight), len(weight)


def _embedding(model: Any) -> nn.Embedding | None:
    found = input_embedding(model)
    if found is None:
        return None
    owners = sum(own is found.weight for module in model.modules() for own in module.parameters(recurse=False))
    return found if owners == 1 else None


def _highest_named(config: Any) -> int:
    named = [value for name, value in config.to_dict().items() if name.endswith("_token_id") and isinstance(value, int)]
    return max(named, default=-1)

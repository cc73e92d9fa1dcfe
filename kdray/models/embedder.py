"""A transformer and a pooling become a model whose logits are the vector of a text.

It is built, loaded and saved as the models of `transformers` are, and what it saves is a folder of
sentence-transformers, which loads it as it is. Knows nothing about tasks.
"""

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from kdray.models.pooling import DENSE, WEIGHTS, Dense, Pooling, write_pooling

_LEAST = 1e-12


class Embedder(nn.Module):
    """A text's vector: the mean of its tokens' vectors or the first one, perhaps a dense layer, perhaps of length 1.

    Its config has a `pooling`, which is not saved in config.json; a `pooling` with a dense layer has one.
    """

    base_model_prefix = "body"

    def __init__(self, body: Any, pooling: Pooling):
        super().__init__()
        self.body, self.pooling = body, pooling
        self.dense = None if pooling.dense is None else nn.Linear(pooling.width, pooling.dense.width,
                                                                  pooling.dense.bias)

    @classmethod
    def from_config(cls, config: Any, **options: Any) -> "Embedder":
        """One whose weights are drawn at random."""
        own, pooling = _apart(config)
        return cls(_kind(own)._from_config(own, **options), pooling)

    @classmethod
    def from_pretrained(cls, folder: str | None, config: Any, state_dict: dict[str, torch.Tensor] | None = None,
                        output_loading_info: bool = False, **options: Any) -> Any:
        """One with the weights in `folder`, or in `state_dict`, and those of a dense layer where its pooling says."""
        own, pooling = _apart(config)
        given = {} if state_dict is None else {"state_dict": {
            name.removeprefix("body."): tensor for name, tensor in state_dict.items() if not name.startswith("dense.")}}
        body, found = _kind(own).from_pretrained(folder, config=own, output_loading_info=True, **given, **options)
        model = cls(body, pooling)
        missing = [f"body.{name}" for name in found["missing_keys"] if not name.startswith("pooler.")]  # nobody asks it
        model._fill({name: tensor for name, tensor in (state_dict or {}).items() if name.startswith("dense.")}, missing)
        if model.dense is not None:
            model.dense.to(options.get("dtype"))
        mismatched = [(f"body.{name}", *shapes) for name, *shapes in found["mismatched_keys"]]
        return (model, {"missing_keys": missing, "mismatched_keys": mismatched}) if output_loading_info else model

    def _fill(self, given: dict[str, torch.Tensor], missing: list[str]) -> None:
        """Gives the dense layer its weights, of the state or of the file; adds to `missing` those that are nowhere."""
        if self.dense is None or self.pooling.dense is None:
            return
        own = {name.removeprefix("dense."): tensor for name, tensor in given.items()}
        if not own and self.pooling.dense.weights:
            own = {name.removeprefix("linear."): tensor
                   for name, tensor in load_file(self.pooling.dense.weights).items()}
        if own:
            self.dense.load_state_dict(own)
        else:
            missing += [f"dense.{name}" for name in self.dense.state_dict()]

    @property
    def config(self) -> Any:
        """That of the transformer."""
        return self.body.config

    def get_input_embeddings(self) -> Any:
        """The transformer's table of tokens."""
        return self.body.get_input_embeddings()

    def forward(self, attention_mask: torch.Tensor, **inputs: torch.Tensor) -> SequenceClassifierOutput:
        """The vectors of a padded batch, float32 (rows, labels), as logits."""
        hidden = self.body(attention_mask=attention_mask, **inputs).last_hidden_state.float()
        vectors = hidden[:, 0] if self.pooling.mode == "cls" else _mean(hidden, attention_mask)
        if self.dense is not None and self.pooling.dense is not None:
            vectors = self.dense(vectors.to(self.dense.weight.dtype)).float()
            vectors = vectors.tanh() if self.pooling.dense.activation == "Tanh" else vectors
        return SequenceClassifierOutput(logits=F.normalize(vectors, dim=-1, eps=_LEAST) if self.pooling.normalised
                                        else vectors)

    def save_pretrained(self, folder: str) -> None:
        """A folder of sentence-transformers, without a tokenizer."""
        self.body.save_pretrained(folder)
        write_pooling(self.pooling, Path(folder))
        if self.dense is not None:
            save_file({f"linear.{name}": tensor.contiguous() for name, tensor in self.dense.state_dict().items()},
                      Path(folder, DENSE, WEIGHTS))


def pooled(config: Any, pooling: Pooling, dimensions: int) -> None:
    """Sets how a model of the config pools: a new dense layer where its vectors would be of another width."""
    width = config.hidden_size
    dense = pooling.dense if pooling.width == width and pooling.dimensions == dimensions else None
    if dense is None and width != dimensions:
        dense = Dense(dimensions, True, "Identity", "")
    config.pooling = Pooling(pooling.mode, width, pooling.normalised, dense)


def _apart(config: Any) -> tuple[Any, Pooling]:
    own = copy.deepcopy(config)
    return own, vars(own).pop("pooling")


def _kind(config: Any) -> Any:
    return MODEL_MAPPING[type(config)]


def _mean(hidden: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    weights = seen.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp_min(1e-9)

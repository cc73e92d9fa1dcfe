"""Where a run is, and what it has seen, becomes files beside an engine's checkpoint, and back.

Knows nothing about engines.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

_BEST = "best.safetensors"
_STATE = "state.json"
Weights = dict[str, torch.Tensor]


@dataclass
class State:
    """Where a run is, and what it has seen."""

    stage: int = 0
    epoch: int = 0
    """Epochs done in the stage."""
    step: int = 0
    """Steps done in the epoch."""
    best: float = float("-inf")
    best_epoch: int = 0
    """Epoch of the best weights, counted from 1 over all stages."""
    stale: int = 0
    """Epochs since the best."""
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    first_step: float = 0.0
    """Unix time at which the first step began."""


@dataclass(frozen=True)
class Stage:
    """Epochs with one alpha and one peak rate."""

    epochs: int
    lr: float
    alpha: float


def stages(settings: dict[str, Any]) -> list[Stage]:
    """The distillation, and the last stage on hard labels where there is one."""
    found = [Stage(settings["epochs"], settings["lr"], settings["alpha"])]
    last = settings.get("finetune")
    return [*found, Stage(last["epochs"], last["lr"], 1.0)] if last else found


def write_state(folder: Path, state: State, best: Weights | None) -> None:
    """Writes the state and, where there are some, the best weights."""
    (folder / _STATE).write_text(json.dumps(asdict(state)))
    if best is not None:
        save_file(best, folder / _BEST)


def read_state(folder: Path) -> tuple[State, Weights | None]:
    """What was written."""
    best = folder / _BEST
    return State(**json.loads((folder / _STATE).read_text())), load_file(best) if best.exists() else None

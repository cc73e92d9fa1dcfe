"""A model and the words of `Optimisation` become a DeepSpeed engine, and its state a checkpoint.

The only module that imports deepspeed. Knows nothing about rows or losses.
"""

import logging
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdray.errors import ConfigError, TrainingError
from kdray.training.tree import read_tree, write_tree

_PICKLING = {"checkpoint": ("writer", "load_universal"), "datastates_ckpt": ("enabled",)}
"""DeepSpeed's options that put other readers of checkpoints in the place of kdray's, by section."""
_ZERO, _SCALER = "optimizer_state_dict", "loss_scaler"
"""DeepSpeed's names: what ZeRO keeps of the optimizer, and in that the scaler of losses, an object."""
_LEFT_OUT = ("ds_config", "param_shapes", "frozen_param_shapes", "param_slice_mappings")
"""What DeepSpeed keeps in a checkpoint for its other tools, and does not read back."""


def make_engine(model: nn.Module, settings: dict[str, Any], precision: str, steps: int, lr: float,
                workers: int) -> Any:
    """A DeepSpeed engine around `model`.

    `settings` are the fields of Optimisation, `steps` the optimizer steps of the whole stage, `lr` the peak
    rate. torch.distributed must have a process group of `workers`. Raises ConfigError where DeepSpeed refuses
    its options, or they would have checkpoints read by pickle.
    """
    import deepspeed

    _check_readers(settings["deepspeed"])

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # Else it compiles a shared-memory all-reduce for the CPU at its first use, under a file lock that a killed
    # process leaves behind, and every later run waits for it for ever. gloo does the same work.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    options = engine_options(settings, precision, workers)
    optimizer = None if "optimizer" in options else make_optimizer(model, lr, settings["weight_decay"])
    scheduler = None if "scheduler" in options else _schedule(settings, steps)
    try:
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, lr_scheduler=scheduler, config=options)
    except (ValueError, AssertionError, deepspeed.runtime.config.DeepSpeedConfigError) as error:
        raise ConfigError(f"DeepSpeed refuses training.deepspeed = {settings['deepspeed']} with precision "
                          f"{precision}: {error}") from error
    engine.checkpoint_engine.save, engine.checkpoint_engine.load = _write_state, partial(_read_state, engine)
    engine._copy_recovery_script = lambda folder: None  # two of DeepSpeed's programs, which read pickles
    if workers == 1 and engine.zero_optimization_stage() == 0:
        engine.enable_backward_allreduce = False  # it copies every gradient twice, also for nobody: 11 % of a step
        # DeepSpeed's takes the weights one by one: 4 % of a step of a small model.
        engine.clip_fp32_gradients = partial(nn.utils.clip_grad_norm_, list(model.parameters()),
                                             engine.gradient_clipping(), foreach=True)
        engine.zero_grad = engine.optimizer.zero_grad  # its own walks through the modules to the same weights: 1 %
    return engine


def engine_options(settings: dict[str, Any], precision: str, workers: int) -> dict[str, Any]:
    """DeepSpeed's configuration: what follows from our words, and what the user passes through."""
    share = settings["batch_size"] // (workers * settings["accumulation"])
    modes: dict[str, dict[str, Any]] = {
        "float32": {},
        "bfloat16": {"torch_autocast": {"enabled": True, "dtype": "bfloat16"}},
        "float16": {"fp16": {"enabled": True}},
    }
    return {
        "train_micro_batch_size_per_gpu": max(1, share),
        "gradient_accumulation_steps": settings["accumulation"],
        "gradient_clipping": settings["clip"],
        "steps_per_print": 10**12,
        **modes[precision],
        **settings["deepspeed"],
    }


def make_optimizer(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Fused AdamW that does not decay biases and norms, as is usual for transformers."""
    decayed = [weight for weight in model.parameters() if weight.requires_grad and weight.ndim > 1]
    plain = [weight for weight in model.parameters() if weight.requires_grad and weight.ndim <= 1]
    return torch.optim.AdamW([{"params": decayed, "weight_decay": weight_decay},
                              {"params": plain, "weight_decay": 0.0}], lr=lr, fused=True)


def rate(step: int, steps: int, warmup: float, decay: str) -> float:
    """Share of the peak learning rate at `step` (from 0) of `steps`: linear warm-up, then the decay."""
    rising = math.ceil(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    gone = (step - rising) / max(1, steps - rising)
    if decay == "constant":
        return 1.0
    return max(0.0, 1 - gone) if decay == "linear" else 0.5 * (1 + math.cos(math.pi * min(1.0, gone)))


def take_step(engine: Any, loss: torch.Tensor) -> None:
    """Backward of a micro-batch, and the optimizer's step where it is the last one of a step.

    Raises TrainingError where float16 overflows at every scale of the loss.
    """
    try:
        engine.backward(loss)
        engine.step()
    except Exception as error:
        if "loss scale already at minimum" not in str(error):
            raise
        raise TrainingError("the gradients overflow in float16, however the loss is scaled. Lower the rate, or set "
                            "precision: bfloat16") from error


def whole_state(engine: Any) -> dict[str, torch.Tensor]:
    """The model's weights in float32 on the CPU, gathered where ZeRO 3 has split them. All workers call it."""
    import deepspeed

    weights = list(engine.module.parameters())
    with deepspeed.zero.GatheredParameters(weights, enabled=engine.zero_optimization_stage() == 3):
        return {name: tensor.detach().float().cpu().clone() if tensor.is_floating_point() else tensor.cpu().clone()
                for name, tensor in engine.module.state_dict().items()}


def save_engine(engine: Any, folder: Path) -> None:
    """This worker's part of a checkpoint, as safetensors under DeepSpeed's names. All workers call it."""
    engine.save_checkpoint(str(folder), tag="engine")


def load_engine(engine: Any, folder: Path) -> None:
    """Puts a checkpoint into a new engine. Raises TrainingError where it is damaged, or another version wrote it."""
    engine.load_checkpoint(str(folder), tag="engine")


def _check_readers(options: dict[str, Any]) -> None:
    for section, names in _PICKLING.items():
        given = options.get(section)
        for name in names:
            if isinstance(given, dict) and given.get(name):
                raise ConfigError(f"training.deepspeed.{section}.{name} would have checkpoints read by pickle, which "
                                  "runs what is in them: leave it out")


def _write_state(state_dict: dict[str, Any], path: str) -> None:
    """In place of DeepSpeed's `torch.save`."""
    write_tree(_plain(state_dict), path)


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """A state without what is not read back, and of DeepSpeed's scaler of losses what it knows."""
    kept = {name: value for name, value in state.items() if name not in _LEFT_OUT}
    if _ZERO in kept:
        kept[_ZERO] = _plain(kept[_ZERO])
    if _SCALER in kept:
        kept[_SCALER] = {name: value for name, value in vars(kept[_SCALER]).items() if isinstance(value, (int, float))}
    return kept


def _read_state(engine: Any, path: str, map_location: Any = None) -> dict[str, Any]:
    """In place of DeepSpeed's `torch.load`, which unpickles."""
    try:
        state = read_tree(path)
    except ValueError as error:
        raise TrainingError(f"a checkpoint is damaged, or another version of kdray wrote it: {error}. Delete the "
                            "folders `train` and `tune` in `storage` while nothing runs there: what has not ended "
                            "begins anew") from error
    zero = state.get(_ZERO, {})
    if _SCALER in zero:
        scaler = engine.optimizer.loss_scaler
        vars(scaler).update(zero[_SCALER])
        zero[_SCALER] = scaler
    return state


def _schedule(settings: dict[str, Any], steps: int) -> Callable[[torch.optim.Optimizer], Any]:
    return lambda optimizer: torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate(step, steps, settings["warmup"], settings["decay"]))

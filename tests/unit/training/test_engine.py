"""The schedule, the options and the groups that DeepSpeed gets."""

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from kdray.config import TrainingConfig
from kdray.errors import ConfigError, TrainingError
from kdray.training.engine import (
    engine_options,
    load_engine,
    make_engine,
    make_optimizer,
    rate,
    save_engine,
    take_step,
    whole_state,
)
from kdray.training.loop import lone_process_group
from tests.bomb import Bomb


@pytest.mark.parametrize("decay", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("steps, warmup", [(100, 0.1), (7, 0.25), (1, 0.5), (10, 0.0)])
def test_the_rate_rises_to_its_peak_then_falls_and_stays_above_zero(decay, steps, warmup):
    rates = [rate(step, steps, warmup, decay) for step in range(steps)]
    rising = int(np.ceil(warmup * steps))
    assert max(rates) == 1.0 and min(rates) > 0
    np.testing.assert_allclose(rates[:rising], [(step + 1) / rising for step in range(rising)])
    assert all(a >= b for a, b in zip(rates[rising:], rates[rising + 1:], strict=False))
    if decay == "constant":
        assert rates[rising:] == [1.0] * (steps - rising)


@pytest.mark.parametrize("decay, wanted", [("linear", [1, 0.75, 0.5, 0.25, 0]),
                                           ("cosine", [1, 0.853553, 0.5, 0.146447, 0])])
def test_the_fall_of_the_rate(decay, wanted):
    np.testing.assert_allclose([rate(step, 4, 0.0, decay) for step in range(5)], wanted, atol=1e-6)
    assert rate(9, 4, 0.0, decay) == pytest.approx(0, abs=1e-12)


def options(precision: str = "float32", workers: int = 1, **changes) -> dict:
    return engine_options({**TrainingConfig().model_dump(), **changes}, precision, workers)


@pytest.mark.parametrize("batch_size, workers, accumulation, micro", [
    (32, 1, 1, 32), (32, 2, 2, 8), (30, 4, 1, 7), (2, 4, 1, 1)])
def test_a_step_is_shared_among_workers_and_micro_batches(batch_size, workers, accumulation, micro):
    found = options(workers=workers, batch_size=batch_size, accumulation=accumulation)
    assert found["train_micro_batch_size_per_gpu"] == micro
    assert found["gradient_accumulation_steps"] == accumulation


@pytest.mark.parametrize("precision, mode", [("float32", None), ("bfloat16", "torch_autocast"), ("float16", "fp16")])
def test_precision_becomes_one_mode(precision, mode):
    found = options(precision)
    assert [name for name in ("torch_autocast", "fp16", "bf16") if name in found] == ([mode] if mode else [])


def test_deepspeed_options_are_passed_through():
    found = options(deepspeed={"zero_optimization": {"stage": 2}}, clip=0.5)
    assert found["zero_optimization"] == {"stage": 2} and found["gradient_clipping"] == 0.5


def test_biases_and_norms_do_not_decay():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    decayed, plain = make_optimizer(model, 1e-3, 0.1).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert [tuple(weight.shape) for weight in decayed["params"]] == [(2, 3)]
    assert len(plain["params"]) == 3


def test_an_engine_compiles_nothing(tmp_path):
    """A process killed while torch compiles leaves a lock behind that stops every later one without a word."""
    code = """
import torch, torch.distributed as dist
from kdray.config import TrainingConfig
from kdray.training.engine import make_engine
from kdray.training.loop import lone_process_group
from tests.bomb import Bomb
lone_process_group(0)
make_engine(torch.nn.Linear(2, 2), TrainingConfig().model_dump(), "float32", 1, 1e-3, 1)
"""
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "TORCH_EXTENSIONS_DIR": str(tmp_path)},
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


class Overflowing:
    """DeepSpeed's scaler of losses, in an engine whose every step overflows: a processor has no engine in float16."""

    def __init__(self) -> None:
        from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler

        lone_process_group(0)
        make_engine(torch.nn.Linear(2, 2), TrainingConfig().model_dump(), "float32", 1, 1e-3, 1)  # starts its `comm`
        self.scaler = DynamicLossScaler(init_scale=4, scale_window=1000, min_scale=1, delayed_shift=1,
                                        consecutive_hysteresis=False)

    def backward(self, loss: torch.Tensor) -> None: ...

    def step(self) -> None:
        self.scaler.update_scale(overflow=True)


def test_gradients_that_overflow_at_every_scale_end_the_run_with_a_remedy():
    engine = Overflowing()
    for _ in range(2):
        take_step(engine, torch.zeros(()))
    with pytest.raises(TrainingError, match=r"overflow in float16.* precision: bfloat16"):
        take_step(engine, torch.zeros(()))


class Tied(torch.nn.Module):
    """A small model whose last weights are its first."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.out = torch.nn.Embedding(9, 6), torch.nn.LayerNorm(6), torch.nn.Linear(6, 9)
        self.out.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(self.norm(self.embed(ids)))


def engine(**deepspeed) -> Any:
    lone_process_group(0)
    return make_engine(Tied(), {**TrainingConfig(seed=1).model_dump(), "deepspeed": deepspeed}, "float32", 20, 1e-2, 1)


def step(engine: Any, number: int) -> None:
    take_step(engine, engine(torch.arange(9).roll(number)).square().sum())


@pytest.mark.parametrize("deepspeed", [{}, *({"zero_optimization": {"stage": stage}} for stage in (1, 2, 3)),
                                       {"bf16": {"enabled": True}},
                                       {"scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 9}}}],
                         ids=["plain", "ZeRO 1", "ZeRO 2", "ZeRO 3", "bfloat16", "scheduler"])
def test_an_engine_that_was_restored_takes_the_steps_of_one_that_went_on(tmp_path, deepspeed):
    first = engine(**deepspeed)
    for number in range(3):
        step(first, number)
    save_engine(first, tmp_path)
    other = engine(**deepspeed)
    load_engine(other, tmp_path)
    for number in (3, 4):
        step(first, number)
        step(other, number)
    assert other.get_lr() == first.get_lr() and other.global_steps == 5
    one, two = whole_state(first), whole_state(other)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_scaler_of_losses_comes_back_as_it_was(tmp_path):
    """Put into an engine that needs none: a processor has none in float16."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler

    def scaled() -> Any:
        made = engine(zero_optimization={"stage": 1})
        made.optimizer.loss_scaler = DynamicLossScaler(2**16, 1000, 1, 2, False)
        return made

    first, other = scaled(), scaled()
    step(first, 0)
    for overflow in (True, True, False):
        first.optimizer.loss_scaler.update_scale(overflow)
    save_engine(first, tmp_path)
    load_engine(other, tmp_path)
    assert vars(other.optimizer.loss_scaler) == vars(first.optimizer.loss_scaler)
    assert other.optimizer.loss_scaler.cur_scale == 2**15


@pytest.mark.parametrize("stage", [0, 1])
def test_nothing_in_a_checkpoint_is_unpickled(tmp_path, stage):
    made, folder = engine(zero_optimization={"stage": stage}), tmp_path / "checkpoint"
    folder.mkdir()
    step(made, 0)
    save_engine(made, folder)
    files = sorted(folder.rglob("*_states.pt"))
    assert len(files) == 1 + stage and not list(folder.rglob("*.py"))
    torch.save({"module": Bomb(tmp_path / "ran")}, files[-1])
    with pytest.raises(TrainingError, match=r"_states.pt holds no tree of tensors: .* Delete the folders `train` and"):
        load_engine(engine(zero_optimization={"stage": stage}), folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("deepspeed, name", [({"checkpoint": {"writer": {"type": "fast"}}}, "checkpoint.writer"),
                                             ({"checkpoint": {"load_universal": True}}, "checkpoint.load_universal"),
                                             ({"datastates_ckpt": {"enabled": True}}, "datastates_ckpt.enabled")])
def test_options_that_would_unpickle_checkpoints_are_refused(deepspeed, name):
    with pytest.raises(ConfigError, match=rf"training\.deepspeed\.{name} would have checkpoints read by pickle"):
        engine(**deepspeed)

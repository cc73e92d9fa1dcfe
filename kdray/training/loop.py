"""Batches become a trained model: stages, epochs, steps, validation, checkpoints, the best kept.

Knows nothing about Ray: who reports, restores and shows progress is handed in. Invariant: a run that is
interrupted and restored takes the same steps on the same batches as one that is not.
"""

import gc
import os
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist

from kdray.corpus.rows import Rows
from kdray.errors import TrainingError
from kdray.models.forward import head_logits, taken
from kdray.progress import Progress
from kdray.storage import Store
from kdray.tasks import TASKS
from kdray.threads import STARVED, WAITED, Waits
from kdray.training.batches import Batch, Batches, epoch_plan
from kdray.training.engine import load_engine, make_engine, save_engine, take_step, whole_state
from kdray.training.health import EVERY, ratio, squared_norms
from kdray.training.job import TrainingJob
from kdray.training.model import JobModel, publish
from kdray.training.objective import terms
from kdray.training.schedules import Moment, moment
from kdray.training.state import Stage, State, Weights, read_state, stages, write_state
from kdray.training.targets import open_targets, trained_splits
from kdray.training.validation import Validation


class Surroundings(Protocol):
    """What a run needs of the process it runs in."""

    rank: int
    workers: int

    def restore(self) -> Path | None:
        """A local copy of the last checkpoint, which the run deletes; None at the start."""

    def report(self, metrics: dict[str, Any], checkpoint: Path | None) -> None:
        """Takes the metrics of an epoch and this worker's part of a checkpoint; all workers call it."""

    def progress(self, label: str, total: int, done: int) -> Progress:
        """Shows rows done."""


def train(job: TrainingJob, here: Surroundings) -> dict[str, Any]:
    """Trains `job` and publishes the model under its key; returns its manifest on every worker.

    torch.distributed must have a process group. Raises TrainingError where the loss is not finite.
    """
    store = Store(job.storage)
    made = store.manifest(job.kind, job.key)
    if made is None:
        made = Run(job, here, store).run()
    return made


class Run:
    """One worker's view of a run."""

    def __init__(self, job: TrainingJob, here: Surroundings, store: Store):
        torch.set_num_threads(job.threads)
        self.job, self.here, self.store, self.task = job, here, store, TASKS[job.task]
        self.settings, self.model = job.settings, JobModel(job)
        corpus = store.fetch("corpus", job.corpus)
        splits = trained_splits(store, job)
        self.train_rows, validation = Rows.open(corpus, *splits), Rows.open(corpus, "validation")
        self.labelled = len(Rows.open(corpus, "train")) if self.task.labelled else 0
        """How many of the rows have labels: the first."""
        asked = job.distils or not self.task.labelled
        soft, watched = open_targets(store, job, self.settings["num_gpus"], splits) if asked else (None, None)
        self.batches = Batches(self.train_rows, soft, self.task.output, len(job.labels), job.pad_token_id)
        self.validation = Validation(job, validation, watched, here.rank, here.workers)
        self.stages = stages(self.settings) if job.learns else [Stage(1, self.settings["lr"], 1.0)]
        self.state = State()
        self.best_weights: Weights | None = None
        self.restored = self._restore()
        self.loss_sum, self.squares, self.waits = torch.zeros(()), list[torch.Tensor](), Waits()
        self.started = time.perf_counter()

    def run(self) -> dict[str, Any]:
        """All stages, from the last checkpoint where there is one."""
        for index in range(self.state.stage, len(self.stages)):
            if index > self.state.stage:
                self.state.stage, self.state.epoch, self.state.stale = index, 0, 0
            engine = self._engine(self.stages[index])
            if self.restored is not None:
                load_engine(engine, self.restored)
                shutil.rmtree(self.restored)
                self.restored = None
            self._run_stage(engine, self.stages[index])
        return self._publish()

    def _restore(self) -> Path | None:
        folder = self.here.restore()
        if folder is not None:
            self.state, self.best_weights = read_state(folder)
        return folder

    def _engine(self, stage: Stage) -> Any:
        columns = [self.train_rows.input_ids, self.validation.rows.input_ids]
        steps = stage.epochs * -(-self._rows(stage) // self.settings["batch_size"])
        return make_engine(self.model.to_train(columns, self.best_weights), self.settings, self.job.precision, steps,
                           stage.lr, self.here.workers)

    def _rows(self, stage: Stage) -> int:
        """Rows of an epoch: those without labels teach nothing where the teacher has no say."""
        return len(self.train_rows) if stage.alpha < 1 else self.labelled

    def _run_stage(self, engine: Any, stage: Stage) -> None:
        while self.state.epoch < stage.epochs:
            if self.settings["patience"] and self.state.stale >= self.settings["patience"]:
                return
            self._run_epoch(engine, stage)

    def _run_epoch(self, engine: Any, stage: Stage) -> None:
        number = len(self.state.history) + 1
        lengths = self.train_rows.lengths[:self._rows(stage)]
        plan = epoch_plan(lengths, self.settings["batch_size"], self.settings["seed"], number)
        done = sum(len(step) for step in plan[:self.state.step])
        self.waits = Waits()
        show = self.here.progress(f"epoch {number}/{sum(s.epochs for s in self.stages)}", len(lengths), done)
        engine.train()
        self.loss_sum, self.squares, first = torch.zeros((), device=engine.device), [], self.state.step
        self.state.first_step = self.state.first_step or time.time()
        for step in range(first, len(plan)):
            soft = self.job.distils and stage.alpha < 1
            at = moment(self.settings, self.state.epoch, step, len(plan)) if soft else None
            self._step(engine, plan[step], (number, step), at)
            self.state.step = step + 1
            every = self.settings["checkpoint_steps"]
            kept = bool(every) and self.state.step % every == 0 and self.state.step < len(plan)
            loss = self._mean_loss(stage, step, first) if step % 10 == 9 or kept else None
            show.advance(len(plan[step]), **({} if loss is None else {"loss": loss, **self._waited()}))
            if kept:
                self._checkpoint(engine, {"step": self.state.step})
        show.close()
        self._end_epoch(engine, number, self._mean_loss(stage, len(plan) - 1, first))

    def _waited(self) -> dict[str, float]:
        """The share of its time for which this process waits for a processor, where that is more than it should."""
        share = self.waits.share()
        return {WAITED: share} if share > STARVED else {}

    def _step(self, engine: Any, rows: np.ndarray, place: tuple[int, int], at: Moment | None) -> None:
        """Takes the step at `place`, (epoch over all stages, step); without a moment it is on hard labels alone."""
        accumulation = self.settings["accumulation"]
        reseed(np.random.SeedSequence([self.settings["seed"], *place, self.here.rank]).generate_state(1)[0].item())
        measured = at is not None and at.alpha > 0 and place[1] % EVERY == 0
        if measured:
            self.squares.append(torch.zeros(2, dtype=torch.float64, device=engine.device))
        for micro in range(accumulation):
            batch = self.batches.batch(rows, self.here.rank, self.here.workers, micro, accumulation)
            losses = self._losses(engine, batch, at, measured)
            # DeepSpeed means over workers and micro-batches; `share` has divided by the whole step already.
            take_step(engine, losses.sum() * batch.share * self.here.workers * accumulation)
            self.loss_sum += losses.detach().sum() * batch.share * self.here.workers

    def _losses(self, engine: Any, batch: Batch, at: Moment | None, measured: bool) -> torch.Tensor:
        inputs, labels = batch.inputs.to(engine.device), batch.labels.to(engine.device)
        logits = self.task.gather(head_logits(engine(**taken(engine, inputs.model))), inputs.row,
                                  inputs.position).float()
        output = self.task.output.among(batch.units)
        if at is None:
            return output.task_loss(logits, labels)
        weighed = partial(terms, output, self.settings, at, labels=labels, soft=batch.soft.to(engine.device),
                          known=batch.known.to(engine.device))
        if measured and batch.share:
            self.squares[-1] += squared_norms(logits, weighed)
        task, soft = weighed(logits)
        return task + soft

    def _mean_loss(self, stage: Stage, step: int, first: int) -> float:
        mean = self.loss_sum / max(1, step - first + 1)
        if self.here.workers > 1:
            dist.all_reduce(mean)
            mean = mean / self.here.workers
        if not torch.isfinite(mean):
            raise TrainingError(f"the loss is {mean.item()} in step {step} of epoch {self.state.epoch + 1} with lr "
                                f"{stage.lr}, precision {self.job.precision}. Lower the rate, or set precision: "
                                "float32")
        return mean.item()

    def _ratio(self) -> dict[str, float]:
        """Gradient of the distillation over that of the hard labels, where there were both, over all workers."""
        if not self.squares:
            return {}
        squares = torch.stack(self.squares)
        if self.here.workers > 1:
            dist.all_reduce(squares)
        found = ratio(squares)
        return {} if found is None else {"ratio": found}

    def _end_epoch(self, engine: Any, number: int, loss: float) -> None:
        scores, closeness = self.validation.measure(engine)
        score = scores[self.job.metric]
        self.state.epoch, self.state.step = self.state.epoch + 1, 0
        self.state.stale += 1
        if score > self.state.best:
            self.state.best, self.state.best_epoch, self.state.stale = score, number, 0
            self.best_weights = whole_state(engine)
        entry = {"epoch": number, "stage": self.state.stage, "loss": loss, **scores, **closeness, **self._ratio()}
        self.state.history.append(entry)
        self._checkpoint(engine, {**entry, "best": self.state.best, **self._waited()})

    def _checkpoint(self, engine: Any, metrics: dict[str, Any]) -> None:
        now = time.perf_counter()
        self.state.seconds += now - self.started
        self.started = now
        with tempfile.TemporaryDirectory(prefix="kdray-checkpoint-") as name:
            folder = Path(name)
            save_engine(engine, folder)
            if self.here.rank == 0:
                write_state(folder, self.state, self.best_weights)
            if self.here.workers > 1:
                dist.barrier()
            self.here.report(metrics, folder)

    def _publish(self) -> dict[str, Any]:
        if self.here.rank == 0:
            assert self.best_weights is not None
            publish(self.store, self.job, self.model.whole(self.best_weights), self.state,
                    self.state.seconds + time.perf_counter() - self.started)
        if self.here.workers > 1:
            dist.barrier()
        manifest = self.store.manifest(self.job.kind, self.job.key)
        assert manifest is not None
        return manifest


def reseed(seed: int) -> None:
    """torch.manual_seed, but for devices that are not there: remembering them for later takes as long as 20 rows."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed(seed)


def backend(num_gpus: float) -> str:
    """Backend of the process group: gloo, and beside it nccl for what is on a GPU."""
    return "cpu:gloo,cuda:nccl" if num_gpus else "gloo"


def lone_process_group(num_gpus: float) -> None:
    """A process group of this process alone, where it has none."""
    if not dist.is_initialized():
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
        dist.init_process_group(backend(num_gpus), store=dist.HashStore(), rank=0, world_size=1)


def run_in_process(job: TrainingJob, here: Surroundings) -> dict[str, Any]:
    """`train` in this process alone, with a process group of one."""
    lone_process_group(job.settings["num_gpus"])
    gc.collect()  # an engine refers to itself: the last run's is still there
    if not gc.get_freeze_count():
        gc.freeze()  # the modules: later collections need not look through them, and no run's objects are among them
    return train(job, here)


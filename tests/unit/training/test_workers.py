"""Workers whose run was interrupted take, with their checkpoint, the steps of those that nobody interrupted."""

import multiprocessing
import os
import shutil
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file

from kdray.config import TrainingConfig
from kdray.models.load import Origin
from kdray.storage import Store
from kdray.training.job import TrainingJob
from kdray.training.loop import train
from tests.unit.training.test_loop import Here, Interrupted

WORKERS = 2
STAGES = (1, 2, 3)


class Beside(Here):
    """One of several workers, whose parts of a checkpoint lie in one folder."""

    workers = WORKERS

    def __init__(self, folder: Path, rank: int, stop_after: int | None = None):
        super().__init__(folder, stop_after)
        self.rank = rank

    def restore(self) -> Path | None:
        if not self.folder.exists():
            return None
        return Path(shutil.copytree(self.folder, self.folder.with_name(f"{self.folder.name}-{self.rank}")))

    def report(self, metrics: dict, checkpoint: Path | None) -> None:
        if self.rank == 0:
            shutil.rmtree(self.folder, ignore_errors=True)
        dist.barrier()
        shutil.copytree(checkpoint, self.folder, dirs_exist_ok=True)
        dist.barrier()
        self.reports.append(metrics)
        if len(self.reports) == self.stop_after:
            raise Interrupted


def work(rank: int, folder: Path, jobs: dict[int, TrainingJob]) -> None:
    """What each worker does: a run with each ZeRO stage, and one that is interrupted in mid-epoch and goes on."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(WORKERS))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(str(folder / "meet"), WORKERS), rank=rank, world_size=WORKERS)
    for stage, job in jobs.items():
        whole, broken = (replace(job, storage=f"{job.storage}-{name}{stage}") for name in ("whole", "broken"))
        train(whole, Beside(folder / f"whole{stage}", rank))
        try:
            train(broken, Beside(folder / f"broken{stage}", rank, stop_after=1))
        except Interrupted:
            train(broken, Beside(folder / f"broken{stage}", rank))
    dist.destroy_process_group()


def test_interrupted_workers_with_zero_give_the_student_of_those_that_were_not(corpus, cache, tmp_path):
    jobs = {}
    for stage in STAGES:
        settings = TrainingConfig(epochs=1, lr=1e-3, batch_size=32, checkpoint_steps=2, workers=WORKERS, dropout=0.1,
                                  deepspeed={"zero_optimization": {"stage": stage}})
        jobs[stage] = TrainingJob(
            "students", str(tmp_path / "store"), corpus.task.name, tuple(corpus.labels), corpus.manifest["key"],
            cache["key"], Origin(str(corpus.model), (0, 3)), "fingerprint", str(corpus.model),
            corpus.manifest["pad_token_id"], "accuracy", settings.model_dump(), "float32")
        for name in ("whole", "broken"):
            shutil.copytree(corpus.store.root, tmp_path / f"store-{name}{stage}")
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=work, args=(rank, tmp_path, jobs)) for rank in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(240)
        assert worker.exitcode == 0
    for stage, job in jobs.items():
        one, other = (load_file(Store(f"{job.storage}-{name}{stage}").fetch("students", job.key) / "model.safetensors")
                      for name in ("whole", "broken"))
        assert all(torch.equal(one[name], other[name]) for name in one), f"ZeRO {stage}"
        assert list(tmp_path.glob(f"broken{stage}*")) == [tmp_path / f"broken{stage}"], "each worker's copy is gone"

"""Batches/s that a cache gives, against the batches/s that a student's training takes, in one run.

    python tests/bench/cache_read.py jobs/configs/sst2.yaml [KEY=VALUE ...]

Fills the config's cache where it is not there. Cold: the shards' pages are dropped from memory and every shard is
opened anew, its checksum read. Warm: the same epoch again. The training step is that of the config's student, on all
processors.
"""

import argparse
import os
import time

import torch

from kdray.cache.manifest import shard_table
from kdray.cache.reader import SoftTargets
from kdray.cache.shard import shard_path
from kdray.config import load
from kdray.corpus.rows import Rows
from kdray.models.load import build
from kdray.outputs.losses import distillation
from kdray.pipeline import Pipeline
from kdray.training.batches import Batches, epoch_plan

STEPS = 30


def main() -> None:
    """Reads an epoch twice, then trains some steps of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    config = load(options.config, options.overrides)
    pipeline, size = Pipeline(config), config.training.batch_size
    store, cache = pipeline.store, pipeline.cache
    rows = Rows.open(store.fetch("corpus", pipeline.corpus["key"]), "train")
    plan = epoch_plan(rows.lengths, size, 0, 0)
    drop(store, shard_table(store, cache))
    batches = Batches(rows, SoftTargets(store, cache["key"], "train"), pipeline.task.output,
                      len(cache["schema"]["labels"]), 0)
    cold, warm = (soft_rate(batches, plan) for _ in range(2))
    print(f"{len(plan)} batches of {size} rows: cold {cold:.0f}/s, warm {warm:.0f}/s")
    need = training_rate(pipeline, batches, plan)
    print(f"training takes {need:.1f}/s on {os.cpu_count()} processors: cold {cold / need:.0f}x, "
          f"warm {warm / need:.0f}x")


def drop(store, table) -> None:
    """Asks the system to forget the shards' pages."""
    for shard in table:
        with open(store.path(*shard_path(shard["key"].decode(), shard["sha256"].tobytes().hex())), "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def soft_rate(batches: Batches, plan: list) -> float:
    """Batches/s of soft targets alone."""
    started = time.perf_counter()
    for step in plan:
        batches.soft_targets(step)
    return len(plan) / (time.perf_counter() - started)


def training_rate(pipeline: Pipeline, batches: Batches, plan: list) -> float:
    """Steps/s of the student, forward, backward and AdamW in bfloat16."""
    settings = pipeline.config.training
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = build(pipeline.task, pipeline.jobs["student"].origin, pipeline.corpus["labels"], 0)
    model = model.to(torch.bfloat16).train()
    optimiser = torch.optim.AdamW(model.parameters())
    soft_loss = distillation(settings.loss, pipeline.task.output.kl, 2.0, settings.huber_delta)
    started = 0.0
    for number, step in enumerate(plan[:STEPS + 3]):
        if number == 3:
            started = time.perf_counter()
        batch = batches.batch(step, 0, 1, 0, 1)
        logits = pipeline.task.gather(model(**batch.inputs.model).logits, batch.inputs.row, batch.inputs.position)
        soft_loss(logits.float(), batch.soft).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    return STEPS / (time.perf_counter() - started)


if __name__ == "__main__":
    main()

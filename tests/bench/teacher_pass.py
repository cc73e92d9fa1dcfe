"""Soft logits of SST-2: kdray's actor against what else there is, in one run on one machine.

    python tests/bench/teacher_pass.py [--data ../shared/data/sst2/train.csv] [--teacher ../shared/models/sst2-teacher]

    transformers.pipeline  batches of 32 in the order of the rows, float32; loaded and warm
    Ray Data               map_batches with an actor pool, padded batches of 32, kdray's precision, to Parquet
    bare loop              kdray's batches in this process: no Ray, no file
    kdray                  leases of shards to 1 actor with all processors, or 2 that share them; the actors are up
    compiled               the same with teacher.compile=true teacher.batch_tokens=1024; compiled and warm

Prints rows/s, the ratios, and useful FLOP/s (rows at their own length, no padding) as a share of the peak of a bfloat16
matrix product measured here.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
import transformers

from kdray.cache.plan import Plan, make_plan
from kdray.cluster import connect
from kdray.config import parse
from kdray.corpus.rows import Rows
from kdray.models.forward import predict
from kdray.models.load import load_model
from kdray.models.precision import DTYPES, attention
from kdray.pipeline import Pipeline
from kdray.tasks import TASKS
from kdray.teacher.actor import start_actor
from kdray.teacher.pool import Pool
from kdray.teacher.runner import TeacherJob, load_teacher

ROUNDS = 2
THREADS = len(os.sched_getaffinity(0))


def main() -> None:
    """Each contender in turn, ROUNDS times; the best time of each counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/sst2/train.csv")
    parser.add_argument("--teacher", default="../shared/models/sst2-teacher")
    parser.add_argument("--text", default="sentence")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(THREADS)
    connect()
    with tempfile.TemporaryDirectory() as storage:
        pipeline = Pipeline(parse({
            "storage": storage, "data": {"source": options.data, "columns": {"text": options.text}},
            "teacher": {"model": options.teacher}}, "bench"))
        plan, job = prepare(pipeline)
        fast = replace(job, compile=True, batch_tokens=1024)
        texts = Rows.open(pipeline.store.fetch("corpus", job.corpus), "train").table.column("text").to_pylist()
        contenders: dict[str, Callable[[int], float]] = {
            "transformers.pipeline": lambda _: pipeline_seconds(options.teacher, texts),
            "Ray Data": lambda number: ray_data_seconds(job, texts, Path(storage) / f"parquet-{number}"),
            "bare loop": lambda _: loop_seconds(job, plan),
            "kdray, 1 actor": lambda number: kdray_seconds(job, plan, 1, f"{storage}/one-{number}"),
            "kdray, 2 actors": lambda number: kdray_seconds(job, plan, 2, f"{storage}/two-{number}"),
            "compiled, 1 actor": lambda number: kdray_seconds(fast, plan, 1, f"{storage}/fast-one-{number}"),
            "compiled, 2 actors": lambda number: kdray_seconds(fast, plan, 2, f"{storage}/fast-two-{number}"),
        }
        seconds: dict[str, float] = {}
        for number in range(ROUNDS):
            for name, contender in contenders.items():
                seconds[name] = min(seconds.get(name, np.inf), contender(number))
                print(f"round {number}, {name}: {len(texts) / seconds[name]:.0f} rows/s", flush=True)
        work = useful_flop(job)
    tell(seconds, len(texts), work)


def prepare(pipeline: Pipeline) -> tuple[Plan, TeacherJob]:
    """The plan of the training split, and what an actor with all processors is told."""
    rows = Rows.open(pipeline.store.fetch("corpus", pipeline.corpus["key"]), "train")
    each = pipeline.config.cache.rows_per_shard
    plan = make_plan(pipeline.schema, {"train": len(rows)}, rows.digests(0, len(rows), each), each)
    return plan, TeacherJob(str(pipeline.teacher.folder), plan.schema, pipeline.config.teacher.batch_tokens, 0, THREADS,
                            pipeline.store.uri, pipeline.corpus["key"], pipeline.corpus["pad_token_id"])


def pipeline_seconds(teacher: str, texts: list[str]) -> float:
    """transformers.pipeline over the texts."""
    classify = transformers.pipeline("text-classification", model=teacher, top_k=None, device="cpu")
    options: dict[str, Any] = {"batch_size": 32, "truncation": True, "max_length": 128, "function_to_apply": "none"}
    classify(texts[:64], **options)
    started = time.perf_counter()
    classify(texts, **options)
    return time.perf_counter() - started


class RayDataTeacher:
    """What a user of Ray Data writes: tokenise a batch, pad it, run it."""

    def __init__(self, folder: str, precision: str, threads: int):
        torch.set_num_threads(threads)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=DTYPES[precision], attn_implementation=attention(0)).eval()

    @torch.no_grad()
    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        inputs = self.tokenizer(batch["text"].tolist(), padding=True, truncation=True, max_length=128,
                                return_tensors="pt")
        return {"text": batch["text"], "logits": self.model(**inputs).logits.float().numpy()}


def ray_data_seconds(job: TeacherJob, texts: list[str], folder: Path) -> float:
    """map_batches with one actor, from its first batch on: its start and a warm-up are not counted."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    seconds = []
    for part, name in ((texts[:64], "warm"), (texts, "whole")):
        rows = ray.data.from_items([{"text": text} for text in part])
        started = time.perf_counter()
        rows.map_batches(RayDataTeacher, batch_size=32, compute=ray.data.ActorPoolStrategy(size=1), num_cpus=1,
                         fn_constructor_args=(job.folder, job.schema.precision, THREADS)).write_parquet(
                             str(folder / name))
        seconds.append(time.perf_counter() - started)
    return seconds[1] - seconds[0] * (1 - 64 / len(texts))


def loop_seconds(job: TeacherJob, plan: Plan) -> float:
    """The same batches, in this process."""
    task = TASKS[job.schema.task]
    rows = Rows.open(Path(job.storage) / "corpus" / job.corpus, "train")
    model = load_teacher(job.schema, job.folder, 0)
    predict(model, task, rows, np.arange(64), job.pad_token_id, job.batch_tokens)
    started = time.perf_counter()
    for slot in plan:
        predict(model, task, rows, np.arange(slot.start, slot.stop), job.pad_token_id, job.batch_tokens)
    return time.perf_counter() - started


def kdray_seconds(job: TeacherJob, plan: Plan, count: int, storage: str) -> float:
    """Actors that are up and warm fill an empty storage through the pool."""
    Path(storage).mkdir()
    os.symlink(Path(job.storage) / "corpus", f"{storage}/corpus")
    mine = replace(job, storage=storage, threads=THREADS // count)
    actors = [start_actor(mine, THREADS // count, 0) for _ in range(count)]
    ray.get([actor.ready.remote() for actor in actors])
    ray.get([actor.fill.remote(replace(plan[0], key=f"warm{place}")) for place, actor in enumerate(actors)])
    started = time.perf_counter()
    Pool(plan, actors.pop, count, 1, lambda done: None).run()
    return time.perf_counter() - started


def useful_flop(job: TeacherJob) -> float:
    """Floating-point operations of the split, each row at its own length."""
    from torch.utils.flop_counter import FlopCounterMode

    rows = Rows.open(Path(job.storage) / "corpus" / job.corpus, "train")
    lengths, counts = np.unique(rows.lengths, return_counts=True)
    model = load_model(TASKS[job.schema.task], job.folder, list(job.schema.labels)).eval()
    total = 0.0
    for length, count in zip(lengths, counts, strict=True):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(input_ids=torch.zeros(1, int(length), dtype=torch.long))
        total += count * counter.get_total_flops()
    return total


def matmul_peak() -> float:
    """FLOP/s of a bfloat16 matrix product of 2048, the best of 10."""
    one, two = (torch.randn(2048, 2048).bfloat16() for _ in range(2))
    best = np.inf
    for _ in range(10):
        started = time.perf_counter()
        one @ two
        best = min(best, time.perf_counter() - started)
    return 2 * 2048**3 / best


def tell(seconds: dict[str, float], rows: int, work: float) -> None:
    """The table."""
    peak, ours = matmul_peak(), seconds["kdray, 1 actor"]
    print(f"\n{rows} rows, {THREADS} threads, best of {ROUNDS} rounds; matrix product {peak / 1e9:.0f} GFLOP/s")
    for name, taken in seconds.items():
        print(f"{name:24}{rows / taken:7.0f} rows/s   kdray with 1 actor is {taken / ours:5.2f}x   "
              f"useful FLOP/s {work / taken / peak:.2f} of the peak")


if __name__ == "__main__":
    main()

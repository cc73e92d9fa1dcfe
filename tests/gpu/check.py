"""kdray on one device, without Ray and without a network: a teacher's pass, training steps and serving, as a table.

    python tests/gpu/check.py [--seconds 15] [--tests TEXT]

Called by check.sh. The device is a CUDA device where there is one, else the processor, with a smaller model and fewer
rows. Models have random weights: what is measured is speed, and that answers are the same whoever gives them.
"""

import argparse
import importlib.util
import json
import os
import random
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from kdray.cache.manifest import KIND, make_manifest
from kdray.cache.plan import Plan, kept_plan
from kdray.cache.receipts import latest, table_of
from kdray.config import parse
from kdray.corpus.rows import Rows
from kdray.corpus.tokenizer import load_tokenizer
from kdray.models.forward import predict
from kdray.models.load import build
from kdray.models.precision import DTYPES, device
from kdray.pipeline import Pipeline
from kdray.serving.backends import torch_model
from kdray.serving.predictor import Predictor
from kdray.storage import Store
from kdray.tasks import TASKS
from kdray.teacher.runner import TeacherJob, TeacherRunner, load_teacher
from kdray.training.batches import Batches, epoch_plan
from kdray.training.engine import make_optimizer
from kdray.training.loop import run_in_process
from kdray.training.objective import terms
from kdray.training.schedules import moment
from kdray.training.targets import open_targets
from tests.small import FILLERS, WORDS, make_tokenizer

GPUS = int(torch.cuda.is_available())
ROWS = 40_000 if GPUS else 2_000
SHARD = 16_384 if GPUS else 1_024
SIZE = ({"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072} if GPUS else
        {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536})
GOAL = 0.9
"""Share of the bare loop's rows/s that a teacher's pass is to have."""
LABELS = ["negative", "positive"]
BATCH = 32


class EnoughError(Exception):
    """The time is over."""


@dataclass
class Line:
    """A line of the table."""

    what: str
    figure: str
    note: str = ""


class Clock:
    """A run's surroundings and its progress at once: counts rows for some seconds behind the first steps, then ends."""

    rank, workers, warm = 0, 1, 8

    def __init__(self, seconds: float):
        self.seconds, self.steps, self.rows, self.started = seconds, 0, 0, 0.0

    def restore(self) -> None:
        """It begins anew."""

    def report(self, metrics: dict[str, Any], checkpoint: Any) -> None:
        """An epoch is over: the next one goes on."""

    def progress(self, label: str, total: int, done: int) -> "Clock":
        """Itself."""
        return self

    def advance(self, count: int, **facts: float) -> None:
        """A step."""
        self.steps += 1
        if self.steps == self.warm:
            synchronise()
            self.started = time.perf_counter()
        elif self.steps > self.warm:
            self.rows += count
            if time.perf_counter() - self.started > self.seconds:
                synchronise()
                raise EnoughError

    def close(self) -> None:
        """Nothing."""

    @property
    def rate(self) -> float:
        """Rows/s."""
        return self.rows / (time.perf_counter() - self.started)


def main() -> None:
    """Every check, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15, help="for which each contender runs, about (default 15)")
    parser.add_argument("--tests", default="not run", help="what pytest said of tests/gpu, for the table")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory(prefix="kdray-check-") as name:
        pipeline = Pipeline(parse(config(Path(name)), "check"), last="cache")
        lines = [*machine(pipeline), Line("tests/gpu", options.tests), *teacher_pass(pipeline, options.seconds),
                 *training(pipeline, options.seconds), *serving(pipeline, options.seconds)]
    tell(lines)


def config(folder: Path) -> dict[str, Any]:
    """A teacher with random weights, rows of 5 to 60 words, and a student of a third of its layers."""
    make_tokenizer(folder / "teacher")
    torch.manual_seed(0)
    transformers.BertForSequenceClassification(transformers.BertConfig(
        **SIZE, id2label=dict(enumerate(LABELS)), label2id={name: i for i, name in enumerate(LABELS)},
        initializer_range=0.1)).save_pretrained(folder / "teacher")
    chance = random.Random(0)
    for split, count in (("train", ROWS), ("validation", 256), ("test", 256)):
        with (folder / f"{split}.jsonl").open("w") as file:
            for _ in range(count):
                label = chance.choice(LABELS)
                words = [chance.choice(FILLERS) for _ in range(chance.randint(5, 60))]
                words[chance.randrange(len(words))] = chance.choice(WORDS[label])
                file.write(json.dumps({"text": " ".join(words), "label": label}) + "\n")
    splits = {split: str(folder / f"{split}.jsonl") for split in ("train", "validation", "test")}
    return {"storage": str(folder / "store"), "data": splits, "cache": {"rows_per_shard": SHARD},
            "teacher": {"model": str(folder / "teacher"), "num_gpus": GPUS, "batch_tokens": 8192 if GPUS else 2048},
            "student": {"layers": SIZE["num_hidden_layers"] // 3},
            "training": {"epochs": 1000, "num_gpus": GPUS, "batch_size": 4 * BATCH if GPUS else BATCH}}


def machine(pipeline: Pipeline) -> list[Line]:
    """What it runs on."""
    name = torch.cuda.get_device_name() if GPUS else f"processor, {torch.get_num_threads()} threads (no CUDA device)"
    lengths = Rows.open(pipeline.store.fetch("corpus", pipeline.corpus["key"]), "train").lengths
    return [Line("device", name, f"torch {torch.__version__}, transformers {transformers.__version__}"),
            Line("teacher", f"BERT, {SIZE['num_hidden_layers']} layers of {SIZE['hidden_size']}, "
                 f"{pipeline.schema.precision}", f"{ROWS} rows of {lengths.mean():.0f} tokens in the mean")]


def teacher_pass(pipeline: Pipeline, seconds: float) -> list[Line]:
    """The runner of a teacher actor over all shards, which leaves a cache, against what else there is."""
    _, plan = kept_plan(pipeline.store, pipeline.corpus, pipeline.schema, SHARD)
    job = TeacherJob(
        place=pipeline.teacher.place, schema=plan.schema, batch_tokens=pipeline.config.teacher.batch_tokens,
        num_gpus=GPUS, threads=torch.get_num_threads(), storage=pipeline.store.uri, corpus=pipeline.corpus["key"],
        pad_token_id=pipeline.corpus["pad_token_id"])
    runner = TeacherRunner(job)
    slots = [slot for slot in plan if slot.split == "train"]
    receipts = [(runner.fill(slot).receipt, 0.0) for slot in plan]
    publish(pipeline, plan, receipts)
    rows = Rows.open(pipeline.store.fetch("corpus", job.corpus), "train")
    model, task = load_teacher(job.schema, job.place, GPUS), TASKS[job.schema.task]

    def loop() -> None:
        for slot in slots:
            predict(model, task, rows, np.arange(slot.start, slot.stop), job.pad_token_id, job.batch_tokens)

    ours, bare = turns([lambda: [runner.fill(slot) for slot in slots], loop], 2 * seconds)
    texts = rows.table.column("text").to_pylist()
    found = [Line("teacher's pass, kdray", f"{len(rows) / ours:.0f} rows/s", f"{len(slots)} shards written"),
             Line("the same, bare loop", f"{len(rows) / bare:.0f} rows/s",
                  f"kdray has {bare / ours:.2f} of it, goal {GOAL}: {'met' if bare / ours >= GOAL else 'MISSED'}")]
    for precision in dict.fromkeys(("float32", job.schema.precision)):
        taken = piped(job.place, precision, texts, seconds)
        found.append(Line(f"transformers.pipeline, {precision}", f"{1 / taken:.0f} rows/s",
                          f"kdray is {taken * len(rows) / ours:.1f} times as fast"))
    return [*found, Line("logits against float32 on the processor", *same(pipeline, model, rows, job))]


def publish(pipeline: Pipeline, plan: Plan, receipts: list[Any]) -> None:
    """The cache's manifest."""
    facts = {"parents": {"corpus": pipeline.corpus["key"], "teacher": pipeline.teacher.fingerprint}, "rows_computed": 0,
             "teacher_model": pipeline.teacher.place, "teacher_key": None}
    with pipeline.store.staging(KIND) as folder:
        made = make_manifest(plan, latest([table_of(receipts)]), folder, facts)
        pipeline.store.publish(KIND, plan.key, folder, made)


def same(pipeline: Pipeline, model: Any, rows: Rows, job: TeacherJob) -> tuple[str, str]:
    """Largest difference of a logit on some rows, as a share of the largest logit, and decisions that differ."""
    exact = load_teacher(replace(job.schema, precision="float32"), job.place, 0)
    some, task = np.arange(64), TASKS[job.schema.task]
    one, two = (np.concatenate(predict(which, task, rows, some, job.pad_token_id)) for which in (exact, model))
    apart = np.abs(one - two).max() / np.abs(one).max()
    limit = {"float32": 1e-3, "bfloat16": 1e-1, "float16": 1e-2}[job.schema.precision]
    flipped = (one.argmax(-1) != two.argmax(-1)).sum()
    return f"{apart:.1g} of the largest", (f"{flipped} of {len(some)} decisions differ; "
                                           f"{'as it should be' if apart < limit else 'TOO FAR'}")


def piped(folder: str, precision: str, texts: list[str], seconds: float) -> float:
    """Seconds a row of transformers.pipeline, batches in the order of the rows."""
    classify: Any = transformers.pipeline("text-classification", model=folder, device=device(GPUS), top_k=None,
                                          dtype=DTYPES[precision])
    options = {"batch_size": BATCH, "truncation": True, "max_length": 128, "function_to_apply": "none"}
    classify(texts[:64], **options)
    some = texts[:2 * BATCH]
    (taken,) = turns([lambda: classify(some, **options)], 0.0)
    some = texts[:max(len(some), min(len(texts), int(seconds / taken * len(some))))]
    return turns([lambda: classify(some, **options)], 0.0)[0] / len(some)


def training(pipeline: Pipeline, seconds: float) -> list[Line]:
    """Steps of a student's distillation from the cache: kdray's, and a bare loop of torch over the same batches."""
    job = replace(Pipeline(pipeline.config).jobs["student"], threads=torch.get_num_threads())
    bare = plain(job, seconds)
    line = Line("training step, bare torch", f"{bare:.0f} rows/s", f"batches of {job.settings['batch_size']}, "
                f"{job.precision}")
    if importlib.util.find_spec("deepspeed") is None:
        return [line, Line("training step, DeepSpeed", "not run", "DeepSpeed is not installed here")]
    clock = Clock(seconds)
    try:
        run_in_process(job, clock)
    except EnoughError:
        import deepspeed

        return [line, Line(f"training step, DeepSpeed {deepspeed.__version__}", f"{clock.rate:.0f} rows/s",
                           f"{clock.rate / bare:.2f} of bare torch")]
    raise AssertionError("the run ended before its time")


def plain(job: Any, seconds: float) -> float:
    """Rows/s of forward, loss, backward and AdamW without an engine."""
    store = Store(job.storage)
    rows = Rows.open(store.fetch("corpus", job.corpus), "train")
    soft, _ = open_targets(store, job, GPUS)
    task = TASKS[job.task]
    batches = Batches(rows, soft, task.output, len(job.labels), job.pad_token_id)
    on, settings, clock = device(GPUS), job.settings, Clock(seconds)
    model = build(task, job.origin, list(job.labels), 0).to(on).train()
    optimizer = make_optimizer(model, settings["lr"], settings["weight_decay"])
    plan = epoch_plan(rows.lengths, settings["batch_size"], 0, 1)
    with torch.autocast(on.type, DTYPES[job.precision], enabled=job.precision != "float32"):
        for number in range(10**9):
            step = number % len(plan)
            batch = batches.batch(plan[step], 0, 1, 0, 1)
            inputs = batch.inputs.to(on)
            logits = task.gather(model(**inputs.model).logits, inputs.row, inputs.position).float()
            hard, kl = terms(task.output, settings, moment(settings, 0, step, len(plan)), logits,
                             labels=batch.labels.to(on), soft=batch.soft.to(on), known=batch.known.to(on))
            ((hard + kl).sum() * batch.share).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings["clip"], foreach=True)
            optimizer.step()
            optimizer.zero_grad()
            try:
                clock.advance(len(plan[step]))
            except EnoughError:
                break
    return clock.rate


def serving(pipeline: Pipeline, seconds: float) -> list[Line]:
    """The predictor of a replica with PyTorch on the device: texts by 64 and alone; its labels are the pipeline's."""
    folder, task = pipeline.teacher.folder, pipeline.task
    model = torch_model(folder, task, LABELS, GPUS, torch.get_num_threads())
    predictor = Predictor(task, LABELS, 128, load_tokenizer(folder), model, 8192 if GPUS else 1024)
    items = Rows.open(pipeline.store.fetch("corpus", pipeline.corpus["key"]), "train").items(task)[:ROWS // 4]
    answers = predictor.predict([(item, {}) for item in items[:64]])
    classify: Any = transformers.pipeline("text-classification", model=str(folder), device="cpu", truncation=True,
                                          max_length=128)
    agree = sum(answer.said == [said["label"]] for answer, said in zip(answers, classify(items[:64]), strict=True))

    def bulk() -> None:
        for start in range(0, len(items), 64):
            predictor.predict([(item, {}) for item in items[start:start + 64]])

    (together,) = turns([bulk], seconds)
    alone = sorted(turns([lambda item=item: predictor.predict([(item, {})]) for item in items[:100]], 0.0))
    return [Line("served with PyTorch, 64 texts at a time", f"{len(items) / together:.0f} texts/s",
                 f"{agree} of 64 labels are float32's on the processor"),
            Line("a text alone", f"{alone[50] * 1000:.1f} ms", f"p99 {alone[98] * 1000:.1f} ms")]


def turns(acts: list[Callable[[], Any]], seconds: float) -> list[float]:
    """Seconds of the quickest turn of each act, which follow one another, in about so many seconds; the first of each
    is not counted."""
    for act in acts:
        act()
    ends, found = time.perf_counter() + seconds, [float("inf")] * len(acts)
    while found[0] == float("inf") or time.perf_counter() + sum(found) < ends:
        for number, act in enumerate(acts):
            synchronise()
            started = time.perf_counter()
            act()
            synchronise()
            found[number] = min(found[number], time.perf_counter() - started)
    return found


def synchronise() -> None:
    """Waits for the device."""
    if GPUS:
        torch.cuda.synchronize()


def tell(lines: list[Line]) -> None:
    """The table."""
    widths = [max(len(getattr(line, name)) for line in lines) for name in ("what", "figure")]
    print()
    for line in lines:
        print(f"{line.what:{widths[0]}}  {line.figure:>{widths[1]}}  {line.note}")


if __name__ == "__main__":
    main()

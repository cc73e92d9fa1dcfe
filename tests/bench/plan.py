"""The arithmetic of cluster/PLAN.md: what a run costs at a size that was never run, from what was measured.

    python tests/bench/plan.py [--rows 1e9] [--gpus 1000] [--trials 1000] [--rate 5000] [--shard-rows 1024] ...

Sizes of shards and tables come from the code that writes them; times and memory from MEASURED, each with the command
that measured it, on 2 cores of an AMD EPYC. A teacher's rate on your GPU is not among them: --rate is a parameter.
"""

import argparse
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from kdray.cache.receipts import RECEIPT, encode_table
from kdray.cache.shard import Schema, encode_shard
from kdray.corpus.files import PIECE_BYTES
from kdray.evaluation.answers import ROWS

MEASURED = {
    "tokenizer": (196e-6, "processor s a row in the tokenizer's threads, 46 tokens", "corpus_build.py"),
    "rest": (20e-6, "processor s a row for the rest of building: read, checked, labelled, written", "corpus_build.py"),
    "hash": (1e-6, "processor s a row to hash it for the plan of a cache", "corpus_build.py"),
    "arrow": (358, "bytes a row as Arrow, which the driver had in memory until the corpus was of parts",
              "corpus_build.py"),
    "building": (129, "bytes a row more that the driver had then while it built", "corpus_build.py"),
    "disk": (621, "bytes a row of the corpus on disk", "corpus_build.py"),
    "copied": (319, "bytes a row in each process that opened a split, until its columns stayed mapped",
               "corpus_build.py"),
    "held": (5.8, "bytes a row in each process that opens a split, now", "corpus_build.py"),
    "epoch": (16, "bytes a row in each training process for the plan of an epoch, lengths among them",
              "corpus_build.py"),
    "epoch_time": (0.14e-6, "processor s a row for it, each epoch", "corpus_build.py"),
    "lease": (0.98e-3, "s a shard in the driver, where shards take no time", "pool_scale.py"),
    "resume": (4.7e-6, "s a shard until a resume knows what is missing, local storage", "million_shards.py"),
    "bookkeeping": (848, "bytes a shard in the driver (0.79 GiB for 10^6)", "million_shards.py"),
    "write": (1, "requests to write a shard (PUT)", "storage_requests.py"),
    "read": (2, "requests for a machine to read a shard (HEAD, GET)", "storage_requests.py"),
    "judge": (14.7e-6, "processor s a test row and model in the driver to measure and resample it",
              "evaluation_scale.py"),
    "judged": (500, "bytes a test row in the driver, with 7 models' answers", "evaluation_scale.py"),
    "propose": (6.5e-3, "processor s a trial to propose and judge it, at 1,000 trials", "proposals.py"),
    "start": (0.4, "s from a trial's start to its first step, in a process that was there", "sweep_overhead.py"),
}
COST = {name: value for name, (value, _, _) in MEASURED.items()}
GIB, TB = 2**30, 1e12
PIECE = PIECE_BYTES
"""Bytes of a piece as Arrow, where its files are no smaller."""


def main(arguments: list[str] | None = None) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, text in (
            ("rows", 1e9, "rows of the corpus"), ("gpus", 1000, "teacher GPUs, one an actor"),
            ("rate", 5000, "rows/s of the teacher on one of them"), ("trials", 1000, "trials of the sweep"),
            ("shard-rows", 1024, "cache.rows_per_shard"), ("labels", 2, "labels"), ("cores", 32, "cores of a machine"),
            ("memory", 256, "GiB of the driver's memory"), ("test-rows", 1e6, "rows of the test split"),
            ("students", 6, "students that are evaluated: pairs on several seeds"),
            ("student-rate", 5000, "rows/s of a student in float32 on a GPU"),
            ("driver-rate", 170, "rows/s of a student on the driver: the quickstart's, on 2 cores"),
            ("gbits", 10, "Gbit/s of each machine to storage"),
            ("machines", 125, "machines of each kind, 8 GPUs each")):
        parser.add_argument(f"--{name}", type=float, default=default, help=f"{text} (default {default:g})")
    at = parser.parse_args(arguments)
    for title, rows in (("Measured", measured()), ("Shards", shards(at)), ("The corpus", corpus(at)),
                        ("Filling the cache", filling(at)), ("Reading it", reading(at)), ("The sweep", sweep(at)),
                        ("Evaluating", evaluating(at)), ("What saturates first", saturates(at))):
        print(f"### {title}\n\n| what | figure |\n| --- | --- |")
        print("".join(f"| {what} | {figure} |\n" for what, figure in rows))


def measured() -> Iterator[tuple[str, str]]:
    """The constants."""
    for value, text, script in MEASURED.values():
        yield text, f"{value:g} (`tests/bench/{script}`)"


def shard_bytes(labels: int, rows: int, codec: str) -> int:
    """Bytes of a shard of a sequence-classification task, as it is written."""
    logits = np.random.default_rng(0).normal(size=(rows, labels)).astype(np.float32)
    schema = Schema("teacher", "sequence-classification", tuple(map(str, range(labels))), 128, "bfloat16", codec)
    return encode_shard([row[None] for row in logits], [np.zeros(1, np.int32)] * rows, schema).size


def shards(at: Any) -> Iterator[tuple[str, str]]:
    """Bytes, by codec."""
    for codec in ("float32", "float16", "int8"):
        for labels in (int(at.labels), 100):
            size = shard_bytes(labels, int(at.shard_rows), codec)
            each = size / at.shard_rows
            yield (f"{codec}, {labels} labels",
                   f"{each:.1f} bytes a row, {size / 1024:.0f} KiB a shard, {each * at.rows / 1e9:.0f} GB")


def corpus(at: Any) -> Iterator[tuple[str, str]]:
    """Tasks read, check and tokenise the pieces; all splits are given."""
    yield f"time on one driver of {at.cores:g} cores, as until now", f"{on_driver(at) / 3600:.1f} h"
    yield f"time on {at.machines:g} machines of {at.cores:g} cores", f"{spread(at):.0f} s"
    yield "the driver's memory, as until now", f"{at.rows * (COST['arrow'] + COST['building']) / GIB:,.0f} GiB"
    yield "now", f"8 bytes a row of validation and test, and {at.rows * COST['arrow'] / PIECE:,.0f} pieces' names"
    yield "a task's memory", f"a piece: files of 64 MiB, about {PIECE / COST['arrow']:,.0f} rows"
    yield "read by all tasks, in three passes", f"{3 * at.rows * COST['arrow'] / TB:.1f} TB"
    part = PIECE * COST["disk"] / COST["arrow"]
    yield "written", f"{at.rows * COST['disk'] / TB:.2f} TB in parts of {part / 1e6:.0f} MB"
    yield "the plan of the cache, on one driver and spread", (
        f"{at.rows * COST['hash']:.0f} s, {at.rows * COST['hash'] / at.cores / at.machines:.1f} s")


def filling(at: Any) -> Iterator[tuple[str, str]]:
    """Teachers, and what they ask of the driver and of storage."""
    count, teachers = shard_count(at), at.rows / (at.gpus * at.rate)
    offered, taken = at.gpus * at.rate / at.shard_rows, 1 / COST["lease"]
    yield "the teachers alone", f"{teachers:.0f} s ({at.gpus:g} x {at.rate:g} rows/s)"
    yield "the corpus, which every machine had whole", (
        f"{at.rows * COST['disk'] / TB:.2f} TB each, {transfer(at, at.rows * COST['disk']):.0f} s, "
        f"{at.machines * at.rows * COST['disk'] / TB:.0f} TB in all")
    yield f"its parts now, each on the machines that lease {busy_rows(at):,} of its rows", (
        f"{fetched(at) / at.machines / 1e9:.0f} GB each, {transfer(at, fetched(at) / at.machines):.0f} s, "
        f"{fetched(at) / TB:.1f} TB in all")
    yield f"shards of {at.shard_rows:g} rows", f"{count:,}"
    yield "leases/s that the teachers would take", f"{offered:.0f}"
    yield "leases/s that the driver gives", f"{taken:.0f}: {min(1.0, taken / offered):.0%} of the teachers are busy"
    yield "cache.rows_per_shard that keeps all busy, at half of the driver", f"{busy_rows(at):,}"
    pace = min(offered, taken)
    yield "requests/s to storage", f"{COST['write'] * pace:.0f}, {COST['write'] * pace / 256:.0f} a prefix of 256"
    size = shard_bytes(int(at.labels), int(at.shard_rows), "float32")
    yield "bytes/s to storage, float32", f"{pace * size / 1e6:.0f} MB/s"
    yield "journal, and the manifest's table", (
        f"{count * table_bytes() / 1e6:.0f} MB, {table_bytes():.0f} bytes a shard")
    yield "a resume", (
        f"{count * COST['resume']:.1f} s on local storage and {count * COST['bookkeeping'] / GIB:.1f} GiB; "
        f"{math.ceil(count / 1000) + 256:,} LIST requests on object storage")


def reading(at: Any) -> Iterator[tuple[str, str]]:
    """Machines that train, one process a GPU."""
    yield "the corpus, which a machine that trains copies whole", (
        f"{at.rows * COST['disk'] / TB:.2f} TB, {transfer(at, at.rows * COST['disk']):.0f} s")
    size = at.rows * shard_bytes(int(at.labels), int(at.shard_rows), "float32") / at.shard_rows
    yield "soft targets a machine keeps, float32", (
        f"{size / GIB:.0f} GiB: set KDRAY_LOCAL_GIB above it, or a pass evicts what it needs next")
    requests = COST["read"] * shard_count(at)
    yield "their first reading", (
        f"{requests:,} requests and {transfer(at, size):.0f} s a machine; "
        f"{requests * at.machines / 1e6:.0f} M requests and {size * at.machines / TB:.1f} TB in all")
    yield "table of shards in each process", f"{shard_count(at) * RECEIPT.itemsize / 1e6:.0f} MB"
    yield "rows in each process, before and now", (
        f"{at.rows * COST['copied'] / GIB:.0f} GiB, {at.rows * COST['held'] / GIB:.1f} GiB")
    yield "the plan of an epoch in each process", (
        f"{at.rows * COST['epoch'] / GIB:.1f} GiB, {at.rows * COST['epoch_time']:.0f} s an epoch")


def sweep(at: Any) -> Iterator[tuple[str, str]]:
    """What a sweep costs beside its training."""
    side = at.trials // 4
    yield "trials side by side, a quarter of them", f"{side:g}"
    yield "proposals", f"{at.trials * COST['propose'] * at.trials / 1000:.1f} s of the driver's time in all"
    yield "start to first step, of all trials", (
        f"{at.trials * COST['start'] / side:.1f} s of the sweep's time, {side:g} side by side")
    yield "series of a training metric in Prometheus", f"{side:g}, one a process, not one a trial"


def evaluating(at: Any) -> Iterator[tuple[str, str]]:
    """The test split, by students whose teacher's answers are in the cache; the served file's take as long again."""
    parts = math.ceil(at.test_rows / ROWS) * int(at.students)
    alone = at.test_rows * at.students / at.driver_rate
    yield f"{at.test_rows:,.0f} rows by {at.students:g} students on the driver, as until now", f"{alone / 3600:.1f} h"
    yield f"in parts of {ROWS:,} rows on {at.gpus:g} GPUs", (
        f"{math.ceil(parts / at.gpus) * ROWS / at.student_rate:.0f} s for {parts:,} parts, and the start of a process")
    yield "the driver's part: metrics with 1,000 resamples, on one core", (
        f"{at.test_rows * (at.students + 1) * COST['judge']:.0f} s and {at.test_rows * COST['judged'] / GIB:.1f} GiB")


def saturates(at: Any) -> Iterator[tuple[str, str]]:
    """What stops a run first, by rows; then what slows it."""
    yield "a split of more than 2^31 tokens could not be opened: mended", f"{2**31 / 46:,.0f} rows of 46 tokens"
    yield f"{at.memory:g} GiB that each process had for its copy of the rows: mended", (
        f"{at.memory * GIB / COST['copied']:,.0f} rows with one process a machine")
    yield f"the driver's {at.memory:g} GiB, while it built the corpus: mended where all splits are given", (
        f"{at.memory * GIB / (COST['arrow'] + COST['building']):,.0f} rows")
    yield f"{at.memory:g} GiB of a machine with 8 training processes, for plans of an epoch", (
        f"{at.memory * GIB / 8 / (COST['epoch'] + COST['held']):,.0f} rows")
    teachers = at.rows / (at.gpus * at.rate)
    yield "one driver that tokenises: mended", f"{on_driver(at) / teachers:.0f} times as long as the teachers take"
    yield "every teacher machine copies the whole corpus: mended", (
        f"{transfer(at, at.rows * COST['disk']) / teachers:.1f} times as long")
    yield f"the slowest now: one driver leases shards of {at.shard_rows:g} rows", (
        f"{shard_count(at) * COST['lease'] / teachers:.1f} times as long; shards of {busy_rows(at):,}: half as long")
    yield "then: every machine that trains copies the whole corpus", (
        f"{transfer(at, at.rows * COST['disk']) / teachers:.1f} times as long, once")


def on_driver(at: Any) -> float:
    """Seconds to build the corpus where the tokenizer's threads alone share a machine's cores."""
    return at.rows * (COST["rest"] + COST["tokenizer"] / at.cores)


def spread(at: Any) -> float:
    """Seconds to build the corpus on all machines' cores."""
    return at.rows * (COST["rest"] + COST["tokenizer"]) / (at.cores * at.machines)


def fetched(at: Any) -> float:
    """Bytes of the corpus that the teachers' machines fetch in all, at shards of `busy_rows`."""
    part = PIECE / COST["arrow"]
    return at.rows * COST["disk"] * min(at.machines, math.ceil(part / busy_rows(at)) + 1)


def transfer(at: Any, size: float) -> float:
    """Seconds for a machine to get `size` bytes."""
    return size * 8 / (at.gbits * 1e9)


def shard_count(at: Any) -> int:
    """Shards of the cache."""
    return math.ceil(at.rows / at.shard_rows)


def busy_rows(at: Any) -> int:
    """Rows of a shard, a power of two, at which leases take half of the driver's time."""
    return 2 ** math.ceil(math.log2(2 * at.gpus * at.rate * COST["lease"]))


def table_bytes() -> float:
    """Bytes of a shard in a journal or manifest."""
    return encode_table(np.zeros(100_000, RECEIPT)).size / 100_000


if __name__ == "__main__":
    main()

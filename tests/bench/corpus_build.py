"""What a corpus costs on one machine: building it in one process, and opening it in another.

    python tests/bench/corpus_build.py [--rows 400000] [--files 8] [--words 45] [--model MODEL]

Texts are random words of the model's own vocabulary, in Parquet files, each a piece as on a cluster, where each pass
over a piece is a task. Prints rows/s and processor time of each pass, the memory that the whole took at most, bytes of
a row, and what a process that trains holds once it has opened the split and read 10,000 rows of it.
"""

import argparse
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from kdray.cache.plan import kept_plan
from kdray.cache.shard import Schema
from kdray.config import DataConfig, load
from kdray.corpus import files
from kdray.corpus.build import build_corpus, see_splits
from kdray.corpus.rows import KIND, Rows
from kdray.corpus.sources import read_splits
from kdray.corpus.tokenizer import load_tokenizer
from kdray.models.folder import locate
from kdray.storage import Store
from kdray.tasks import TASKS
from kdray.training.batches import epoch_plan

LABELS = ["negative", "positive"]
PLANNED = 10_000_000


def main() -> None:
    """Builds in this process, opens in another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--words", type=int, default=45)
    parser.add_argument("--model", default=load("jobs/configs/quickstart.yaml").teacher.model)
    options = parser.parse_args()
    folder = locate(options.model)
    with tempfile.TemporaryDirectory() as scratch:
        table = made_up(folder, options.rows // options.files, options.words)
        for number in range(options.files):
            parquet.write_table(table, f"{scratch}/{number}.parquet")
        each = table.nbytes / table.num_rows
        threads, piece = tokenizing(folder, table.slice(0, 10_000)), table.nbytes / 2**20
        parquet.write_table(made_up(folder, 10, options.words), f"{scratch}/few.pq")
        del table
        build(Path(scratch), folder, options.rows)
        print(f"a row: {each:.0f} bytes as Arrow, {threads:.0f} us in the tokenizer's threads; a piece: "
              f"{piece:.0f} MiB as Arrow", flush=True)
        process = multiprocessing.get_context("spawn").Process(target=opened, args=(Path(scratch) / KIND / "corpus",))
        process.start()
        process.join()


def build(scratch: Path, folder: Path, rows: int) -> None:
    """Builds from the files in `scratch`, each a piece, and says what it took."""
    files.PIECE_BYTES = 1
    store, task, few = Store(str(scratch)), TASKS["sequence-classification"], f"{scratch}/few.pq"
    data = DataConfig(train=f"{scratch}/*.parquet", validation=few, test=few, max_length=128)
    with Most() as most:
        with told("read", rows):
            seen = see_splits(read_splits(data, task))
        with told("checked and tokenised", rows):
            made = build_corpus(store, "corpus", seen, task, data, str(folder), LABELS)
        with told("hashed for the plan", rows):
            list(kept_plan(store, made, Schema("teacher", task.name, tuple(LABELS), 128, "bfloat16"), 1024))
    stored = sum(part["bytes"] for part in made["parts"]["train"])
    print(f"memory at most: {most.more / 2**20:.0f} MiB for {len(made['parts']['train'])} pieces, of which one is "
          f"held; {stored / rows:.0f} bytes a row on disk", flush=True)


@contextmanager
def told(what: str, rows: int) -> Iterator[None]:
    """Says what the work within took."""
    started, worked = time.perf_counter(), time.process_time()
    yield
    print(f"{what}: {rows / (time.perf_counter() - started):.0f} rows/s, "
          f"{1e6 * (time.process_time() - worked) / rows:.1f} us of processor time a row", flush=True)


def made_up(folder: Path, rows: int, words: int) -> pa.Table:
    """Rows of about `words` words."""
    known = np.array([word for word in load_tokenizer(folder).get_vocab() if word.isalpha()])
    random = np.random.default_rng(0)
    lengths = random.integers(words // 2, words * 3 // 2, rows)
    texts = [" ".join(known[random.integers(0, len(known), length)]) for length in lengths]
    return pa.table({"text": texts, "label": [LABELS[row % 2] for row in range(rows)]})


def tokenizing(folder: Path, table: pa.Table) -> float:
    """Microseconds of processor time a row in the tokenizer itself, which its threads share."""
    tokenizer, texts = load_tokenizer(folder).backend_tokenizer, table.column("text").to_pylist()
    started = time.process_time()
    for first in range(0, len(texts), 1000):
        tokenizer.encode_batch(texts[first:first + 1000])
    return 1e6 * (time.process_time() - started) / len(texts)


def opened(folder: Path) -> None:
    """Opens the split and reads some of it."""
    before, started = held(), time.perf_counter()
    rows = Rows.open(folder, "train")
    rows.digest(0, 1024)
    took = time.perf_counter() - started
    private = (held() - before) / len(rows)
    chosen, started = np.random.default_rng(0).integers(0, len(rows), 10_000), time.perf_counter()
    tokens = sum(len(rows.input_ids[row]) for row in chosen)
    read = (time.perf_counter() - started) / len(chosen)
    print(f"opened: {1e6 * took / len(rows):.2f} us and {private:.1f} bytes of memory a row of the split, "
          f"{1e6 * read:.1f} us a row read, {tokens / len(chosen):.0f} tokens each", flush=True)
    lengths, before, started = np.resize(rows.lengths, PLANNED), held(), time.process_time()
    plan = epoch_plan(lengths, 32, 0, 1)
    print(f"the plan of an epoch: {1e6 * (time.process_time() - started) / PLANNED:.2f} us and "
          f"{(held() - before) / PLANNED + lengths.itemsize:.0f} bytes a row, the lengths' among them, "
          f"{len(plan)} steps of 32 rows")


class Most:
    """Bytes of memory that this process has at most, above what it had before, while the context lasts."""

    def __enter__(self) -> "Most":
        self.more, self._before, self._ended = 0, held(), threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            self.more = max(self.more, held() - self._before)


def held() -> int:
    """Bytes of memory that are this process's own, mapped files left out."""
    resident, shared = Path("/proc/self/statm").read_text().split()[1:3]
    return (int(resident) - int(shared)) * 4096


if __name__ == "__main__":
    main()

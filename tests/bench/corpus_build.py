"""What a corpus costs on one machine: building it in one process, and opening it in another.

    python tests/bench/corpus_build.py [--rows 100000] [--words 45] [--model MODEL]

Texts are random words of the model's own vocabulary. Prints rows/s from table to published corpus, processor time,
bytes of a row in memory and on disk, and what a process that trains or teaches holds once it has opened the split and
read 10,000 rows of it.
"""

import argparse
import multiprocessing
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from kdray.config import DataConfig, load
from kdray.corpus.build import KIND, build_corpus
from kdray.corpus.rows import Rows
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
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--words", type=int, default=45)
    parser.add_argument("--model", default=load("jobs/configs/quickstart.yaml").teacher.model)
    options = parser.parse_args()
    folder = locate(options.model)
    table = made_up(folder, options.rows, options.words)
    with tempfile.TemporaryDirectory() as storage:
        store, data = Store(storage), DataConfig(source="made-up.csv", max_length=128)
        tables = {"train": table, "validation": table.slice(0, 10), "test": table.slice(0, 10)}
        started, worked = time.perf_counter(), time.process_time()
        with Most() as most:
            build_corpus(store, "corpus", tables, TASKS["sequence-classification"], data, folder, LABELS)
        seconds, worked = time.perf_counter() - started, time.process_time() - worked
        split = Path(store.path(KIND, "corpus", "train.arrow"))
        threads = tokenizing(folder, table.slice(0, 10_000))
        print(f"built: {options.rows / seconds:.0f} rows/s, {1e6 * worked / options.rows:.0f} us of processor time "
              f"a row, {threads:.0f} of them in the tokenizer's threads\n"
              f"bytes a row: {table.nbytes / options.rows:.0f} as Arrow, {most.more / options.rows:.0f} more at most "
              f"while building, {split.stat().st_size / options.rows:.0f} on disk", flush=True)
        process = multiprocessing.get_context("spawn").Process(target=opened, args=(split.parent,))
        process.start()
        process.join()


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
    rows = Rows(folder, "train")
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

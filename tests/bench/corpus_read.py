"""What it costs to read rows from files of each kind, on one machine.

    python tests/bench/corpus_read.py [--rows 400000] [--words 45] [--passes 3]

Texts are random words, a third of them with quotes and commas; beside text and label there is a column that nobody
asked for. Prints the seconds and the processor time of the quickest pass, and both for a row. A build reads every file
three or four times.
"""

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from kdray.config import DataConfig
from kdray.corpus.pieces import whole
from kdray.corpus.sources import read_splits
from kdray.tasks import TASKS

Rows = list[tuple[str, str, int]]


def main() -> None:
    """Writes a file of each kind, and reads it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--words", type=int, default=45)
    parser.add_argument("--passes", type=int, default=3)
    options = parser.parse_args()
    rows = made_up(options.rows, options.words)
    with tempfile.TemporaryDirectory() as folder:
        for name, write in KINDS.items():
            path = Path(folder, name)
            write(path, rows)
            wall, cpu = min(read(path, rows) for _ in range(options.passes))
            print(f"{name}: {path.stat().st_size / 2**20:.0f} MiB, {wall:.2f} s, {cpu:.2f} s of processor time: "
                  f"{1e6 * wall / len(rows):.2f} and {1e6 * cpu / len(rows):.2f} us a row", flush=True)


def made_up(count: int, words: int) -> Rows:
    """Text, label and number of each row."""
    random, known = np.random.default_rng(0), np.array([f"w{number}" for number in range(5000)])
    texts = (" ".join(known[random.integers(0, len(known), words)]) for _ in range(count))
    return [(f'he said "{text}", so' if number % 3 == 0 else text, "ab"[number % 2], number)
            for number, text in enumerate(texts)]


def read(path: Path, rows: Rows) -> tuple[float, float]:
    """Seconds, and those of the processor, of one pass."""
    started, worked = time.perf_counter(), time.process_time()
    table = whole(read_splits(DataConfig(source=str(path)), TASKS["sequence-classification"])["train"])
    assert table.column("text")[3].as_py() == rows[3][0] and table.num_rows == len(rows)
    return time.perf_counter() - started, time.process_time() - worked


def as_csv(path: Path, rows: Rows) -> None:
    """Quotes are doubled."""
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("text", "label", "id"), *rows])


def as_jsonl(path: Path, rows: Rows) -> None:
    """A row a line."""
    path.write_text("".join(json.dumps({"text": text, "label": label, "id": id}) + "\n" for text, label, id in rows))


def as_parquet(path: Path, rows: Rows) -> None:
    """As Arrow writes it."""
    parquet.write_table(pa.table(dict(zip(("text", "label", "id"), zip(*rows, strict=True), strict=True))), path)


KINDS: dict[str, Callable[[Path, Rows], None]] = {
    "rows.csv": as_csv, "rows.jsonl": as_jsonl, "rows.parquet": as_parquet}

if __name__ == "__main__":
    main()

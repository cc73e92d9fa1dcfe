"""What the driver spends on the evaluation of a large test split, the models' own time aside.

    python tests/bench/evaluation_scale.py [--rows 1000000] [--seeds 3] [--task sequence-classification]

Answers are made up, part by part, as workers would give them back; a corpus of so many rows is real but for its texts.
Prints the driver's seconds and its peak memory, with what one row's gold labels take in it.
"""

import argparse
import hashlib
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kdray.evaluation.answers import Answers, Where
from kdray.evaluation.evaluate import evaluate
from kdray.storage import Store
from kdray.tasks import TASKS
from tests.small import make_model

LABELS = {"sequence-classification": ["negative", "positive"], "token-classification": ["B-LOC", "B-PER", "O"]}
UNITS = {"sequence-classification": 1, "token-classification": 20}
ACCURACY = 0.9


def main() -> None:
    """One evaluation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--task", choices=list(LABELS), default="sequence-classification")
    options = parser.parse_args()
    units, labels = UNITS[options.task], LABELS[options.task]
    with tempfile.TemporaryDirectory() as name:
        store = Store(f"{name}/store")
        head = "BertForSequenceClassification" if units == 1 else "BertForTokenClassification"
        teacher = make_model(Path(name) / "teacher", labels, 1, head=head)
        corpus, gold = lay_out(store, options.rows, units, labels)
        pairs = [{"seed": seed, "winner": f"winner{seed}", "baseline": f"baseline{seed}"}
                 for seed in range(options.seeds)]
        for pair in pairs:
            for key in (pair["winner"], pair["baseline"]):
                store.seal("students", key, {
                    "parents": {"corpus": corpus["key"]}, "metric": TASKS[options.task].metrics[0], "validation": {},
                    "settings": dict.fromkeys(("loss", "temperature", "alpha", "lr", "epochs"), 1)})
        before, started = peak(), time.perf_counter()
        evaluate(store, "made", TASKS[options.task], corpus, str(teacher), "cache", pairs,
                 Where(lambda function, arguments, label: made_up(arguments, gold, units, len(labels))))
        seconds = time.perf_counter() - started
    models = 1 + 2 * options.seeds
    print(f"{options.rows} rows of {units} units, {models} models: {seconds:.0f} s, "
          f"{1e6 * seconds / options.rows / models:.1f} microseconds a row and model; peak memory {peak():.2f} GiB, "
          f"{before:.2f} before")


def lay_out(store: Store, rows: int, units: int, labels: list[str]) -> tuple[dict[str, Any], np.ndarray]:
    """A corpus of rows without texts, and its labels."""
    gold = np.random.default_rng(0).integers(0, len(labels), rows * units).astype(np.int32)
    ends = np.arange(0, rows * units + 1, units, dtype=np.int32)
    numbers = pa.array(np.tile(np.arange(units, dtype=np.int32), rows))
    columns = {"input_ids": numbers, "targets": numbers, "positions": numbers, "labels": pa.array(gold)}
    table = pa.table({name: pa.ListArray.from_arrays(ends, values) for name, values in columns.items()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    data = memoryview(sink.getvalue())
    store.write(data, "corpus", "corpus", "test-000000.arrow")
    part = {"file": "test-000000.arrow", "rows": rows, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return store.seal("corpus", "corpus", {"labels": labels, "rows": {"test": rows}, "parts": {"test": [part]}}), gold


def made_up(arguments: Sequence[tuple[Any, ...]], gold: np.ndarray, units: int, labels: int) -> Iterator[list[Answers]]:
    """Answers that are mostly right."""
    random = np.random.default_rng(1)
    for group, start, stop in arguments:
        truth = gold[start * units:stop * units]
        found = []
        for place in range(len(group)):
            ids = np.where(random.random(len(truth)) < ACCURACY, truth, random.integers(0, labels, len(truth)))
            sure = random.random(len(truth)).astype(np.float32)
            found.append(Answers(np.full(stop - start, units), ids.astype(np.int32), sure, sure if place else sure[:0],
                                 0.0, 1))
        yield found


def peak() -> float:
    """GiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()

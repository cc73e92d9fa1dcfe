"""Tiny real parts that many unit tests share: model folders and corpora built as the pipeline builds them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from kdray.cache.manifest import KIND, make_manifest
from kdray.cache.plan import Plan, make_plan
from kdray.cache.receipts import latest, table_of
from kdray.cache.shard import Schema
from kdray.config import DataConfig
from kdray.corpus.build import build_corpus, corpus_key, see_splits
from kdray.corpus.pieces import cut_up
from kdray.corpus.rows import Rows
from kdray.corpus.tokenizer import tokenizer_fingerprint
from kdray.storage import Store
from kdray.tasks import TASKS, Task
from kdray.teacher.runner import TeacherJob, TeacherRunner
from tests.small import make_model, sentences, tagged

TAGS = ["B-LOC", "B-PER", "O"]
torch.set_num_threads(1)


@dataclass(frozen=True)
class Corpus:
    """A corpus and the model folder that it was tokenised for."""

    store: Store
    manifest: dict[str, Any]
    model: Path
    task: Task

    @property
    def folder(self) -> Path:
        return self.store.fetch("corpus", self.manifest["key"])

    @property
    def labels(self) -> list[str]:
        return self.manifest["labels"]

    def rows(self, split: str) -> Rows:
        return Rows.open(self.folder, split)


def make_corpus(storage: Path, task_name: str, rows: list[dict], model: Path, max_length: int = 24,
                order: list[str] | None = None, **settings: Any) -> Corpus:
    """All splits cut from `rows`; `settings` are fields of DataConfig."""
    store, task = Store(str(storage)), TASKS[task_name]
    data = DataConfig(source="rows.jsonl", max_length=max_length, **settings)
    seen = see_splits({"train": cut_up(pa.Table.from_pylist(rows))})
    key = corpus_key(seen, task, data, tokenizer_fingerprint(model), order)
    return Corpus(store, build_corpus(store, key, seen, task, data, str(model), order), model, task)


def plan_of(schema: Schema, splits: dict[str, Rows], rows_per_shard: int) -> Plan:
    """The plan of whole splits."""
    return make_plan(schema, {split: len(rows) for split, rows in splits.items()},
                     [digest for rows in splits.values() for digest in rows.digests(0, len(rows), rows_per_shard)],
                     rows_per_shard)


def make_cache(corpus: Corpus, codec: str = "float32", teacher: Path | None = None) -> dict[str, Any]:
    """The manifest of all splits' soft targets, from `teacher`, else the model that the corpus is tokenised for."""
    schema = Schema(str(teacher or "fingerprint"), corpus.task.name, tuple(corpus.labels), 24, "float32", codec)
    plan = plan_of(schema, {split: corpus.rows(split) for split in corpus.manifest["rows"]}, 16)
    runner = TeacherRunner(TeacherJob(str(teacher or corpus.model), schema, 1024, 0, 1, corpus.store.uri,
                                      corpus.manifest["key"], corpus.manifest["pad_token_id"]))
    receipts = latest([table_of((runner.fill(slot).receipt, 0.5) for slot in plan)])
    facts = {"parents": {"corpus": corpus.manifest["key"], "teacher": "fingerprint"}, "rows_computed": 160,
             "teacher_model": str(teacher or corpus.model), "teacher_key": None}
    with corpus.store.staging(KIND) as folder:
        return corpus.store.publish(KIND, plan.key, folder, make_manifest(plan, receipts, folder, facts))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "sequence")


@pytest.fixture(scope="session")
def token_folder(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "token", TAGS, 2, head="BertForTokenClassification")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory, model_folder) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("store"), "sequence-classification", sentences(160), model_folder)


@pytest.fixture(scope="session")
def cache(corpus) -> dict[str, Any]:
    return make_cache(corpus)


@pytest.fixture(scope="session")
def token_corpus(tmp_path_factory, token_folder) -> Corpus:
    """Rows cut at 10 tokens, so that long ones have words without a target."""
    rows = tagged(120)
    for row in rows:
        row["tokens"] = [word if word not in ("film", "music") else "zebra" for word in row["tokens"]]
    return make_corpus(tmp_path_factory.mktemp("store"), "token-classification", rows, token_folder, 10)

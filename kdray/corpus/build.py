"""Tables of raw rows become the corpus artefact: checked, cut, labelled and tokenised, one Arrow file a split.

Knows nothing about models; the labels' order may be given, as a teacher knows it.
"""

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kdray.config import PLACES, DataConfig
from kdray.corpus.rows import UNLABELLED
from kdray.corpus.splits import cut
from kdray.corpus.tokenizer import load_tokenizer, tokenizer_fingerprint
from kdray.errors import DataError
from kdray.progress import progress
from kdray.storage import Store, content_key
from kdray.tasks import Row, Task

logger = logging.getLogger("kdray")
KIND = "corpus"
SPLITS = ("train", "validation", "test", "transfer")
"""`transfer` is the rows without labels; a corpus need not have it."""
_BATCH = 1000
_SHOWN = 60
_PARALLEL = "TOKENIZERS_PARALLELISM"


def corpus_key(tables: dict[str, pa.Table], task: Task, data: DataConfig, tokenizer: str,
               label_order: list[str] | None) -> str:
    """Content key of a corpus: its raw rows, the cut, the label order and the tokenisation."""
    phrases = {"phrases": data.phrases} if data.phrases else {}
    return content_key({
        **phrases, "rows": {name: table_digest(table) for name, table in tables.items()},
        "cut": [data.validation_share, data.test_share, data.seed],
        "task": task.name, "tokenizer": tokenizer, "max_length": data.max_length, "labels": label_order,
    })


def build_corpus(store: Store, key: str, tables: dict[str, pa.Table], task: Task, data: DataConfig,
                 tokenizer_folder: Path, label_order: list[str] | None) -> dict[str, Any]:
    """Publishes the corpus under `key` and returns its manifest.

    Raises DataError that names the split, the row and what is wrong with it.
    """
    for split, table in tables.items():
        _check(split, table, task)
    known = _labelled(tables, task, data, tokenizer_fingerprint(tokenizer_folder), label_order)
    tables = _cut_missing(tables, task, data)
    _tell_leaks(tables, task)
    labels = label_names(tables, task, label_order)
    tables = _with_phrases(tables, task, data)
    tokenizer = load_tokenizer(tokenizer_folder)
    with store.staging(KIND) as folder:
        for split in tables:
            _write(folder / f"{split}.arrow", split, tables[split], labels, task, tokenizer, data.max_length)
        return store.publish(KIND, key, folder, {
            **known, "parents": {}, "task": task.name, "labels": labels, "max_length": data.max_length,
            "pad_token_id": tokenizer.pad_token_id, "rows": {split: table.num_rows for split, table in tables.items()},
            "data": {**{name: getattr(data, name) for name in PLACES}, "phrases": data.phrases},
        })


def table_digest(table: pa.Table) -> str:
    """SHA-256 over the values of a table."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return hashlib.sha256(memoryview(sink.getvalue())).hexdigest()


def label_names(tables: dict[str, pa.Table], task: Task, order: list[str] | None) -> list[str]:
    """Label names by id: in the `order` given, else sorted.

    Raises DataError where train has one class only, another split has a label that train lacks, or the
    labels are not those of `order`.
    """
    seen = {split: {label for row in _rows(table) for label in task.labels(row)} for split, table in tables.items()
            if split != "transfer"}
    if len(seen["train"]) < 2:
        raise DataError(f"the train split has one class only ({', '.join(seen['train'])}): nothing to learn")
    if order is None:
        for split, names in seen.items():
            for name in sorted(names - seen["train"]):
                raise DataError(f"label {name!r} of the {split} split is unseen in training, which has "
                                f"{', '.join(sorted(seen['train']))}")
        return sorted(seen["train"])
    unknown = set().union(*seen.values()) - set(order)
    if unknown and not _are_ids(set().union(*seen.values()), order):
        raise DataError(f"the teacher's labels are {', '.join(order)}, but the data also has "
                        f"{', '.join(sorted(unknown))}. Rename the labels in the data, or fine-tune the teacher "
                        "(teacher.finetune)")
    return order


def _are_ids(names: set[str], order: list[str]) -> bool:
    return all(name.isdigit() and int(name) < len(order) for name in names)


def _rows(table: pa.Table) -> Iterator[Row]:
    """One row after another: as Python objects, all of them would take as much memory again."""
    for start in range(0, table.num_rows, _BATCH):
        yield from table.slice(start, _BATCH).to_pylist()


def _check(split: str, table: pa.Table, task: Task) -> None:
    for index, row in enumerate(_rows(table)):
        complaint = task.complaint(row)
        if complaint:
            raise DataError(f"row {index} of the {split} split: {complaint} ({str(row)[:_SHOWN]}...)")


def _cut_missing(tables: dict[str, pa.Table], task: Task, data: DataConfig) -> dict[str, pa.Table]:
    whole = tables["train"].num_rows
    for split, share in (("test", data.test_share), ("validation", data.validation_share)):
        if split not in tables:
            train = tables["train"]
            known = [(task.stratum(row), str(task.item(row))) for row in _rows(train)]
            kept, off = cut([stratum for stratum, _ in known], [text for _, text in known],
                            min(0.5, share * whole / train.num_rows), data.seed)
            tables = {**tables, "train": train.take(kept), split: train.take(off)}
    return tables


def _labelled(tables: dict[str, pa.Table], task: Task, data: DataConfig, tokenizer: str,
              label_order: list[str] | None) -> dict[str, str]:
    """Where there will be rows without labels, `labelled`: the key of the corpus without them."""
    if not (data.phrases or "transfer" in tables):
        return {}
    bare = {split: table for split, table in tables.items() if split != "transfer"}
    return {"labelled": corpus_key(bare, task, data.model_copy(update={"phrases": 0}), tokenizer, label_order)}


def _with_phrases(tables: dict[str, pa.Table], task: Task, data: DataConfig) -> dict[str, pa.Table]:
    """The splits in their order; those without labels have the phrases of train's rows too."""
    wanted = [name for name in tables["train"].column_names if name != task.label_column]
    if "transfer" in tables and tables["transfer"].column_names != wanted:
        raise DataError(f"the rows without labels (data.transfer) have {', '.join(tables['transfer'].column_names)}, "
                        f"but train has {', '.join(wanted)}")
    if data.phrases:
        made = pa.Table.from_pylist([
            task.phrase(row, np.random.default_rng([data.seed, index, number]))
            for index, row in enumerate(_rows(tables["train"])) for number in range(data.phrases)])
        given = [tables["transfer"]] if "transfer" in tables else []
        tables = {**tables, "transfer": pa.concat_tables([*given, made])}
    return {split: tables[split] for split in SPLITS if split in tables}


def _tell_leaks(tables: dict[str, pa.Table], task: Task) -> None:
    texts = {split: np.fromiter((hash(str(task.item(row))) for row in _rows(table)), np.int64, table.num_rows)
             for split, table in tables.items()}
    for split in ("validation", "test"):
        leaks = np.isin(texts[split], texts["train"]).sum()
        if leaks:
            logger.warning("%d of %d %s rows have a text that is in train too: the metrics flatter every model",
                           leaks, tables[split].num_rows, split)


def _write(path: Path, split: str, table: pa.Table, labels: list[str], task: Task, tokenizer: Any,
           max_length: int) -> None:
    writer = None
    try:
        for batch in _batches(split, table, labels, task, tokenizer, max_length):
            writer = writer or pa.ipc.new_file(path, batch.schema)
            writer.write_batch(batch)
    finally:
        if writer is not None:
            writer.close()


@contextmanager
def _all_cores() -> Iterator[None]:
    """Lets the tokenizer's threads share a batch; elsewhere they would compete with what else a process does."""
    kept = os.environ.get(_PARALLEL)
    os.environ[_PARALLEL] = "true"
    try:
        yield
    finally:
        if kept is None:
            del os.environ[_PARALLEL]
        else:
            os.environ[_PARALLEL] = kept


def _batches(split: str, table: pa.Table, labels: list[str], task: Task, tokenizer: Any,
             max_length: int) -> Iterator[pa.RecordBatch]:
    ids = {name: index for index, name in enumerate(labels)}
    report = progress(f"tokenise {split}", table.num_rows)
    for start in range(0, table.num_rows, _BATCH):
        part = table.slice(start, _BATCH).to_pylist()
        with _all_cores():
            encoded = task.encode(tokenizer, part, max_length)
        columns = {name: [row[name] for row in part] for name in part[0]}
        columns |= {"input_ids": pa.array(encoded.input_ids, pa.list_(pa.int32()))}
        if encoded.token_type_ids is not None:
            columns |= {"token_type_ids": pa.array(encoded.token_type_ids, pa.list_(pa.int8()))}
        columns |= {
            "targets": pa.array(encoded.targets, pa.list_(pa.int32())),
            "positions": pa.array(encoded.positions, pa.list_(pa.int32())),
            "labels": pa.array([[UNLABELLED] * (max(units, default=-1) + 1) for units in encoded.targets]
                               if split == "transfer" else
                               [[ids[name] if name in ids else int(name) for name in task.labels(row)]
                                for row in part], pa.list_(pa.int32())),
        }
        yield pa.record_batch(columns)
        report.advance(len(part))
    report.close()

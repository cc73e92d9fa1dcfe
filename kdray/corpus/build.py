"""Pieces of raw rows become the corpus artefact: checked, cut, labelled and tokenised, an Arrow file a piece.

Knows nothing about models; the labels' order may be given, as a teacher knows it. Pieces are worked on one after
another, or side by side on a Ray cluster; a process holds one of them, unless splits are cut off train.
"""

import hashlib
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from kdray.config import PLACES, DataConfig
from kdray.corpus.labels import fixed, label_ids
from kdray.corpus.oddities import tell
from kdray.corpus.pieces import Each, Known, Phrases, Piece, Seen, by, cut_up, one_by_one, see, starts, whole
from kdray.corpus.rows import KIND
from kdray.corpus.splits import cut
from kdray.corpus.survey import check, rows_of, survey_all
from kdray.corpus.tokenizer import load_tokenizer, tokenisation
from kdray.errors import DataError
from kdray.progress import progress
from kdray.storage import Store, content_key, folder_at
from kdray.tasks import TASKS, Encoded, Row, Task

logger = logging.getLogger("kdray")
SPLITS = ("train", "validation", "test", "transfer")
"""`transfer` is the rows without labels; a corpus need not have it."""
_BATCH = 1000
_PARALLEL = "TOKENIZERS_PARALLELISM"

Splits = dict[str, Sequence[Known]]


@dataclass(frozen=True)
class Recipe:
    """How a piece becomes a part of a corpus: names and numbers, no data."""

    storage: str
    key: str
    task: str
    ids: dict[str, int]
    """Of each label, as it is written."""
    labels: int
    max_length: int
    tokenizer: str
    """Where every machine finds the tokenizer's files."""


def see_splits(pieces: Mapping[str, Sequence[Piece]], each: Each = one_by_one) -> dict[str, list[Seen]]:
    """Reads every piece once. Raises DataError where the pieces of a split differ in their columns."""
    seen = {split: list(by(each, parts)(see, [(piece,) for piece in parts], f"read {split}"))
            for split, parts in pieces.items()}
    tell(oddity for parts in seen.values() for part in parts for oddity in part.oddities)
    for split, parts in seen.items():
        for part in parts:
            if part.columns != parts[0].columns:
                raise DataError(f"{part.piece} of the {split} split has {', '.join(part.columns)}, but "
                                f"{parts[0].piece} has {', '.join(parts[0].columns)}")
    return seen


def corpus_key(seen: dict[str, list[Seen]], task: Task, data: DataConfig, tokenizer: str,
               label_order: list[str] | None, vocabulary: str | None = None) -> str:
    """Content key of a corpus: its raw rows, the cut, the label order and the tokenisation.

    `tokenizer` is what the tokens of the task's rows depend on, `vocabulary` the same of the one whose words are in
    phrases, where it is another.
    """
    phrases = {"phrases": [data.phrases, vocabulary or tokenizer]} if data.phrases else {}
    return content_key({
        **phrases, "rows": {split: [part.digest for part in parts] for split, parts in seen.items()},
        "cut": [data.validation_share, data.test_share, data.seed], "layout": 3,
        "task": task.name, "tokenizer": tokenizer, "max_length": data.max_length, "labels": label_order,
    })


def build_corpus(store: Store, key: str, seen: dict[str, list[Seen]], task: Task, data: DataConfig,
                 tokenizer: str, label_order: list[str] | None, each: Each = one_by_one,
                 vocabulary: str | None = None) -> dict[str, Any]:
    """Publishes the corpus under `key` and returns its manifest; parts that an attempt before has written are kept.

    `tokenizer` is the place of its files, `vocabulary` that of the one whose words are in phrases, where it is another:
    both must be found wherever `each` calls. Raises DataError that names the split, the row and what is wrong with it.
    """
    folder = folder_at(tokenizer)
    pad = load_tokenizer(folder).pad_token_id
    known = _labelled(seen, task, data, folder, label_order)
    _check_transfer(seen, task)
    pieces = _cut_missing(dict(seen), task, data)
    found, traits = survey_all(pieces, task, each)
    fewest = task.output.fewest
    labels = (fixed(task.names, label_order, found["train"], fewest) if task.names else
              label_ids(found, label_order, fewest))
    for level, text in task.remarks(labels.names, traits):
        logger.log(level, text)
    pieces = _with_phrases(pieces, task, data, vocabulary or tokenizer)
    recipe = Recipe(store.uri, key, task.name, labels.ids, len(labels.names), data.max_length, tokenizer)
    parts = {split: _write(recipe, split, pieces[split], each) for split in pieces}
    return store.seal(KIND, key, {
        **known, "parents": {}, "task": task.name, "labels": labels.names, "max_length": data.max_length,
        "pad_token_id": pad, "rows": {split: sum(part["rows"] for part in found) for split, found in parts.items()},
        "parts": parts, "data": {**{name: getattr(data, name) for name in PLACES}, "phrases": data.phrases},
    })


def _cut_missing(pieces: Splits, task: Task, data: DataConfig) -> Splits:
    """The splits, with those that are missing cut off train, which is then in memory."""
    missing = [(split, share) for split, share in (("test", data.test_share), ("validation", data.validation_share))
               if split not in pieces]
    if not missing:
        return pieces
    train = whole(pieces["train"])
    check(train, "train", 0, task)
    count, off = train.num_rows, dict[str, Sequence[Known]]()
    for split, share in missing:
        known = [(task.stratum(row), task.labels(row) if task.output.named else (), task.group(row))
                 for row in rows_of(train)]
        strata, labels, texts = zip(*known, strict=True)
        kept, taken = cut(strata, labels, texts, min(0.5, share * count / train.num_rows), data.seed)
        off[split], train = cut_up(train.take(taken)), train.take(kept)
    return {**pieces, **off, "train": cut_up(train)}


def _labelled(seen: dict[str, list[Seen]], task: Task, data: DataConfig, tokenizer: Path,
              label_order: list[str] | None) -> dict[str, str]:
    """Where there will be rows without labels, `labelled`: the key of the corpus without them."""
    if not (data.phrases or "transfer" in seen):
        return {}
    bare = {split: parts for split, parts in seen.items() if split != "transfer"}
    bare_data = data.model_copy(update={"phrases": 0})
    return {"labelled": corpus_key(bare, task, bare_data, tokenisation(tokenizer, task), label_order)}


def _check_transfer(seen: dict[str, list[Seen]], task: Task) -> None:
    wanted = [name for name in seen["train"][0].columns if name != task.label_column]
    if task.labelled and "transfer" in seen and list(seen["transfer"][0].columns) != wanted:
        raise DataError(f"the rows without labels (data.transfer) have {', '.join(seen['transfer'][0].columns)}, "
                        f"but train has {', '.join(wanted)}")


def _with_phrases(pieces: Splits, task: Task, data: DataConfig, vocabulary: str) -> Splits:
    """The splits in their order; those without labels have the phrases of train's rows too."""
    if data.phrases:
        train = pieces["train"]
        made = [Phrases(part, first, number, data.seed, task.name, vocabulary) for number in range(data.phrases)
                for part, first in zip(train, starts(train), strict=True)]
        pieces = {**pieces, "transfer": [*pieces.get("transfer", ()), *made]}
    return {split: pieces[split] for split in SPLITS if split in pieces}


def _write(recipe: Recipe, split: str, pieces: Sequence[Known], each: Each) -> list[dict[str, Any]]:
    """Writes the parts of a split; what the manifest says of each."""
    arguments = [(recipe, split, number, piece) for number, piece in enumerate(pieces)]
    if by(each, pieces) is not one_by_one:
        return list(each(write_part, arguments, f"tokenise {split}"))
    report = progress(f"tokenise {split}", sum(piece.rows for piece in pieces))
    with _all_cores():
        parts = [write_part(*those, report.advance) for those in arguments]
    report.close()
    return parts


def write_part(recipe: Recipe, split: str, number: int, piece: Known,
               told: Callable[[int], None] = lambda rows: None) -> dict[str, Any]:
    """Writes a piece as a part of the corpus, where it is not there, and returns what the manifest says of it.

    `told` hears of rows as they are done. Raises DataError where the piece has changed.
    """
    store, name = Store(recipe.storage), f"{split}-{number:06d}.arrow"
    if store.exists(KIND, recipe.key, name):
        data = pa.py_buffer(store.read(KIND, recipe.key, name))
        told(piece.rows)
    else:
        data = _encoded(recipe, split, piece.read(), told)
        store.write(memoryview(data), KIND, recipe.key, name)
    rows = pa.ipc.open_file(data).read_all().num_rows
    return {"file": name, "rows": rows, "bytes": data.size, "sha256": hashlib.sha256(data).hexdigest()}


def _encoded(recipe: Recipe, split: str, table: pa.Table, told: Callable[[int], None]) -> pa.Buffer:
    sink, writer = pa.BufferOutputStream(), None
    for number, batch in enumerate(_batches(recipe, split, table)):
        writer = writer or pa.ipc.new_file(sink, batch.schema)
        writer.write_batch(batch)
        told(min(_BATCH, table.num_rows - number * _BATCH))
    if writer is not None:
        writer.close()
    return sink.getvalue()


def _gold(recipe: Recipe, split: str, task: Task, part: list[Row], encoded: Encoded) -> pa.Array:
    """The gold of each row's units, flat; in rows without labels that of the units there are targets of is unknown."""
    output, width = task.output, math.prod(task.output.shape(recipe.labels))
    if split == "transfer":
        found = [[output.unknown] * (width * output.units(units)) for units in encoded.targets]
    else:
        found = [output.gold(task.labels(row), recipe.ids, recipe.labels) for row in part]
    return pa.array(found, pa.list_(pa.int32() if output.whole else pa.float32()))


@lru_cache(maxsize=1)
def _tokenizer(place: str) -> Any:
    return load_tokenizer(folder_at(place))


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


def _batches(recipe: Recipe, split: str, table: pa.Table) -> Iterator[pa.RecordBatch]:
    task, tokenizer = TASKS[recipe.task], _tokenizer(recipe.tokenizer)
    for start in range(0, table.num_rows, _BATCH):
        part = [one for row in table.slice(start, _BATCH).to_pylist() for one in task.rows(row)]
        encoded = task.encode(tokenizer, part, recipe.max_length)
        columns = {name: [row[name] for row in part] for name in part[0]}
        columns |= {"input_ids": pa.array(encoded.input_ids, pa.list_(pa.int32()))}
        if encoded.token_type_ids is not None:
            columns |= {"token_type_ids": pa.array(encoded.token_type_ids, pa.list_(pa.int8()))}
        if encoded.entries is not None:
            columns |= {"entries": pa.array(encoded.entries, pa.list_(pa.int32()))}
        columns |= {
            "targets": pa.array(encoded.targets, pa.list_(pa.int32())),
            "positions": pa.array(encoded.positions, pa.list_(pa.int32())),
            "labels": _gold(recipe, split, task, part, encoded),
        }
        yield pa.record_batch(columns)

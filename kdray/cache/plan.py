"""The rows of a corpus become a plan of shards: which rows are in which, and every shard's key.

Knows nothing about who fills the plan. A plan of 10^6 shards is one array of keys; slots are made when asked for.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain
from typing import Any, overload

import numpy as np

from kdray.cache.shard import Schema, shard_key
from kdray.corpus.pieces import ROWS, Each, one_by_one
from kdray.corpus.rows import Part, Rows, parts_among
from kdray.storage import Store, content_key

KIND = "plans"
_KEYS = "keys.npy"
KEY = np.dtype("S32")


@dataclass(frozen=True)
class Slot:
    """A place for one shard: rows `start` to `stop` of a split."""

    split: str
    start: int
    stop: int
    key: str

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start

    def __str__(self) -> str:
        return f"rows {self.start} to {self.stop - 1} of the {self.split} split"


@dataclass(frozen=True)
class Plan(Sequence[Slot]):
    """The slots of all splits, in order."""

    schema: Schema
    rows_per_shard: int
    rows: dict[str, int]
    """Rows of each split."""
    keys: np.ndarray
    """(slots,): content key of each slot's shard."""

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, index: int) -> Slot: ...

    @overload
    def __getitem__(self, index: slice) -> list[Slot]: ...

    def __getitem__(self, index: int | slice) -> Slot | list[Slot]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        split = next(split for split, part in self.parts.items() if part.start <= index < part.stop)
        start = (index - self.parts[split].start) * self.rows_per_shard
        return Slot(split, start, min(start + self.rows_per_shard, self.rows[split]), self.keys[index].decode())

    def __iter__(self) -> Iterator[Slot]:
        return (self[index] for index in range(len(self)))

    @cached_property
    def parts(self) -> dict[str, range]:
        """Indices of each split's slots."""
        return slot_ranges(self.rows, self.rows_per_shard)

    @cached_property
    def sizes(self) -> np.ndarray:
        """(slots,): rows of each slot."""
        sizes = np.full(len(self), self.rows_per_shard)
        for split, part in self.parts.items():
            if len(part):
                sizes[part.stop - 1] = self.rows[split] - (len(part) - 1) * self.rows_per_shard
        return sizes

    @cached_property
    def key(self) -> str:
        """Content key of the cache with these slots."""
        return content_key({"rows": list(self.rows.items()), "keys": hashlib.sha256(self.keys.tobytes()).hexdigest()})


def slot_ranges(rows: dict[str, int], rows_per_shard: int) -> dict[str, range]:
    """Indices of each split's slots, from the rows of each split in their order."""
    ranges, first = {}, 0
    for split, count in rows.items():
        last = first - (-count // rows_per_shard)
        ranges[split], first = range(first, last), last
    return ranges


def make_plan(schema: Schema, rows: dict[str, int], digests: Iterable[str], rows_per_shard: int) -> Plan:
    """Cuts splits of so many `rows` into slots; `digests` are those of the slots' rows, in the order of slots."""
    return Plan(schema, rows_per_shard, rows, np.array([shard_key(schema, digest) for digest in digests], KEY))


def kept_plan(store: Store, corpus: dict[str, Any], schema: Schema, rows_per_shard: int,
              each: Each = one_by_one) -> tuple[str, Plan]:
    """Key and plan of a corpus, whose manifest it is, kept in storage so that its rows are hashed once."""
    key = content_key({"corpus": corpus["key"], "schema": asdict(schema), "rows_per_shard": rows_per_shard})
    try:
        return key, read_plan(store, key)
    except FileNotFoundError:
        spans = list(_spans(store, corpus, rows_per_shard))
        found = (each if len(spans) > len(corpus["rows"]) else one_by_one)(span_digests, spans, "plan")
        plan = make_plan(schema, corpus["rows"], chain.from_iterable(found), rows_per_shard)
        write_plan(store, key, plan, corpus["key"])
        return key, plan


def _spans(store: Store, corpus: dict[str, Any], rows_per_shard: int) -> Iterator[tuple[Any, ...]]:
    """Arguments of `span_digests` that cover all slots, about a part of the corpus each."""
    most = rows_per_shard * max(1, ROWS // rows_per_shard)
    for split, rows in corpus["rows"].items():
        for start in range(0, rows, most):
            stop = min(start + most, rows)
            among = parts_among(corpus["parts"][split], start, stop)
            yield store.uri, corpus["key"], *among, start, stop, rows_per_shard


def span_digests(storage: str, corpus: str, parts: list[Part], first: int, start: int, stop: int,
                 rows_per_shard: int) -> list[str]:
    """Digests of the slots of rows `start` to `stop` of a split, which are in `parts`, whose first row is `first`."""
    return Rows.of_parts(Store(storage), corpus, parts).digests(start - first, stop - first, rows_per_shard)


def write_plan(store: Store, key: str, plan: Plan, corpus: str) -> None:
    """Publishes the plan of a corpus under `key`."""
    with store.staging(KIND) as folder:
        np.save(folder / _KEYS, plan.keys, allow_pickle=False)
        parents = {"corpus": corpus, "teacher": plan.schema.teacher}
        store.publish(KIND, key, folder, {
            "parents": parents, "schema": asdict(plan.schema), "rows_per_shard": plan.rows_per_shard,
            "rows": plan.rows, "cache": plan.key})


def read_plan(store: Store, key: str) -> Plan:
    """The plan that was published under `key`. Raises FileNotFoundError where there is none."""
    made: dict[str, Any] | None = store.manifest(KIND, key)
    if made is None:
        raise FileNotFoundError(store.path(KIND, key))
    keys = np.load(store.fetch(KIND, key) / _KEYS, allow_pickle=False)
    return Plan(parse_schema(made["schema"]), made["rows_per_shard"], made["rows"], keys)


def parse_schema(fields: dict[str, Any]) -> Schema:
    """A schema as a manifest holds it."""
    return Schema(**{**fields, "labels": tuple(fields["labels"])})

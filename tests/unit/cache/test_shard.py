"""A shard is named by what it was made from, and gives back exactly what was written, or an error."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from kdray.cache.shard import (
    Receipt,
    Schema,
    ShardView,
    encode_shard,
    find_shard,
    open_shard,
    shard_key,
    shard_path,
    write_shard,
)
from kdray.errors import CacheError
from kdray.storage import Store

SCHEMA = Schema("fingerprint", "token-classification", ("a", "b"), 128, "float32")


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path))


def ragged(seed: int = 0, rows: int = 20) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Logits (targets, 2) and units of rows with 0 to 5 targets."""
    random = np.random.default_rng(seed)
    counts = [0, *random.integers(0, 6, rows - 1)]
    return ([random.normal(size=(count, 2)).astype(np.float32) for count in counts],
            [np.sort(random.choice(9, count, replace=False)) for count in counts])


def written(store: Store, seed: int = 0, schema: Schema = SCHEMA) -> Receipt:
    return write_shard(store, "ab12", encode_shard(*ragged(seed), schema))


def opened(store: Store, receipt: Receipt) -> pa.Table:
    return open_shard(store, receipt.key, receipt.sha256, receipt.bytes)


def file(store: Store) -> Path:
    """The only shard."""
    (found,) = Path(store.path("shards", "ab")).iterdir()
    return found


def found(store: Store, rows: int = 20) -> Receipt | None:
    return find_shard(store, file(store).stem, rows)


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("codec, apart", [("float32", 0), ("float16", 2e-3), ("int8", 1e-2)])
def test_a_shard_gives_back_what_was_written(store, codec, apart, compression):
    view = ShardView(opened(store, written(store, 0, replace(SCHEMA, codec=codec, compression=compression))), 2)
    logits, units = ragged()
    for row in range(20):
        found_units, found = view[row]
        assert found_units.tolist() == units[row].tolist()
        assert found.dtype == np.float32 and found.shape == logits[row].shape
        assert np.abs(found - logits[row]).max(initial=0) <= apart


def test_a_receipt_says_what_the_codec_changed(store):
    logits, _ = ragged()
    exact, small = (write_shard(store, codec, encode_shard(*ragged(), replace(SCHEMA, codec=codec))).loss
                    for codec in ("float32", "float16"))
    assert exact.targets == small.targets == sum(map(len, logits))
    assert exact.largest == 0 and exact.kl == (0, 0, 0, 0)
    assert 0 < small.largest < 1e-2 and all(abs(kl) < 1e-2 for kl in small.kl)


def test_a_receipt_is_that_of_the_file_whoever_finds_it(store):
    receipt = written(store)
    assert receipt == found(store) and file(store) == Path(store.path(*shard_path("ab12", receipt.sha256)))
    assert (receipt.rows, receipt.bytes) == (20, file(store).stat().st_size)


def test_a_key_covers_everything_that_a_shard_depends_on():
    changes = [{}, {"teacher": "other"}, {"task": "sequence-classification"}, {"labels": ("b", "a")},
               {"labels": ("a", "b", "c")}, {"max_length": 64}, {"precision": "bfloat16"}, {"codec": "int8"},
               {"compression": "zstd"}]
    keys = [shard_key(replace(SCHEMA, **change), "rows") for change in changes] + [shard_key(SCHEMA, "other rows")]
    assert len(set(keys)) == len(keys)
    assert keys[0] == shard_key(replace(SCHEMA), "rows")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused_with_their_row(value):
    logits, units = ragged()
    row = next(i for i, part in enumerate(logits) if len(part) > 1 and i > 3)
    logits[row][1, 0] = value
    with pytest.raises(CacheError, match=rf"row {row} of the shard .*not finite \({value}\)"):
        encode_shard(logits, units, SCHEMA)


def truncate(data: bytes) -> bytes:
    return data[:-20]


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1:]


def empty(data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("spoil", [truncate, flip, empty])
def test_a_spoilt_shard_is_corrupt_when_opened(store, spoil):
    receipt = written(store)
    file(store).write_bytes(spoil(file(store).read_bytes()))
    with pytest.raises(CacheError, match=r"ab12-\w{16}.arrow is corrupt.*only this shard is computed anew"):
        opened(store, receipt)


def test_a_missing_shard_is_missing_when_opened(store):
    receipt = written(store)
    file(store).unlink()
    with pytest.raises(CacheError, match=r"ab12-\w{16}.arrow is missing"):
        opened(store, receipt)


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("spoil", [truncate, flip, empty, lambda data: b"not arrow at all"])
def test_a_torn_shard_is_not_found(store, spoil, compression):
    written(store, 0, replace(SCHEMA, compression=compression))
    file(store).write_bytes(spoil(file(store).read_bytes()))
    assert found(store) is None


def test_a_shard_of_other_rows_or_none_is_not_found(store):
    assert find_shard(store, "ab12-0123456789abcdef", 20) is None
    written(store)
    assert found(store, 19) is None


def test_a_whole_shard_under_the_name_of_another_is_not_found(store):
    written(store)
    file(store).rename(file(store).with_name("ab12-0123456789abcdef.arrow"))
    assert found(store) is None


def test_of_two_writers_whose_last_bits_differ_neither_replaces_what_the_other_has_a_receipt_of(store):
    first, second = written(store, 0), written(store, 1)
    assert first.sha256 != second.sha256
    for receipt in (first, second):
        assert opened(store, receipt).num_rows == 20
        assert find_shard(store, Path(shard_path("ab12", receipt.sha256)[-1]).stem, 20) == receipt


def test_a_shard_that_was_written_before_names_had_checksums_is_taken(store):
    receipt = written(store)
    file(store).rename(file(store).with_name("ab12.arrow"))
    assert find_shard(store, "ab12", 20) == receipt
    assert opened(store, receipt).num_rows == 20


def test_a_writer_replaces_a_torn_file_under_a_reader_that_keeps_it(store):
    table = opened(store, written(store))
    before = table.column("logits").to_pylist()
    path = file(store)
    path.with_name("torn").write_bytes(b"torn")
    path.with_name("torn").replace(path)
    assert opened(store, written(store)).column("logits").to_pylist() == table.column("logits").to_pylist() == before


def test_an_opened_shard_is_mapped_and_not_copied(store):
    receipt = written(store)
    before = pa.total_allocated_bytes()
    table = opened(store, receipt)
    assert table.num_rows == 20 and pa.total_allocated_bytes() == before

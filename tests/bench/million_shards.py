"""A cache of 1,000,000 shards: resume, manifest and reading, with real files for the shards.

    python tests/bench/million_shards.py [--shards 1000000] [--folder /tmp]

All shards are the same few rows, so this measures planning, bookkeeping and mapping, not a teacher. Prints seconds, the
peak memory of the process that resumes, and how many shards it has mapped after reading a row of each in no order.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from kdray.cache.manifest import KIND, make_manifest, missing_shards
from kdray.cache.plan import KEY, Plan, kept_plan, write_plan
from kdray.cache.reader import SoftTargets
from kdray.cache.receipts import FILLS, Journal, encode_table, table_of
from kdray.cache.shard import Schema, encode_shard, shard_path, write_shard
from kdray.storage import Store, content_key

SCHEMA = Schema("stand-in", "sequence-classification", ("negative", "positive"), 128, "bfloat16")
ROWS = 4
CORPUS = "corpus-on-paper"


def main() -> None:
    """Lays out the storage, then resumes in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=1_000_000)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as storage:
        started = time.perf_counter()
        lay_out(Store(storage), options.shards)
        print(f"{options.shards} files and receipts laid out in {time.perf_counter() - started:.0f} s", flush=True)
        process = multiprocessing.get_context("spawn").Process(target=resume, args=(storage,))
        process.start()
        process.join()
        raise SystemExit(process.exitcode)


def lay_out(store: Store, count: int) -> None:
    """A plan whose every shard but the last is in storage and in a journal."""
    keys = np.array([content_key(number) for number in range(count)], KEY)
    plan = Plan(SCHEMA, ROWS, {"train": count * ROWS}, keys)
    write_plan(store, plan_key(), plan, CORPUS)
    for folder in np.unique(keys.astype("S2")):
        Path(store.path("shards", folder.decode())).mkdir(parents=True)
    receipt = write_shard(store, keys[0].decode(), shard())
    data = shard().to_pybytes()
    for key in keys[1:-1]:
        Path(store.path(*shard_path(key.decode(), receipt.sha256))).write_bytes(data)
    receipts = np.repeat(table_of([(receipt, 1.0)]), count - 1)
    receipts["key"] = keys[:-1]
    for number, part in enumerate(np.array_split(receipts, 1000)):
        store.write(memoryview(encode_table(part)), FILLS, plan.key, f"{number:020d}.arrow")


def shard() -> pa.Buffer:
    """What every shard is."""
    logits = [np.float32([[row, -row]]) for row in range(ROWS)]
    return encode_shard(logits, [np.zeros(1, np.int32)] * ROWS, SCHEMA)


def plan_key() -> str:
    """Where kept_plan looks for the plan."""
    return content_key({"corpus": CORPUS, "schema": asdict(SCHEMA), "rows_per_shard": ROWS})


def resume(storage: str) -> None:
    """What `kdray cache fill` does before the first lease, then what it and its readers do after the last."""
    from kdray.teacher.fill import unfilled

    store = Store(storage)
    started = time.perf_counter()
    key, plan = kept_plan(store, {"key": CORPUS}, SCHEMA, ROWS)
    journal = Journal(store, plan, key)
    missing = unfilled(store, plan, journal)
    print(f"resume: {time.perf_counter() - started:.2f} s until the {len(missing)} missing of {len(plan)} shards is "
          f"known; peak memory {peak():.2f} GiB", flush=True)
    assert [slot.key for slot in missing] == [plan[len(plan) - 1].key]
    last = table_of([(write_shard(store, missing[0].key, shard()), 1.0)])
    known = np.concatenate([journal.receipts(), last])
    started = time.perf_counter()
    with store.staging(KIND) as folder:
        made = store.publish(KIND, plan.key, folder, make_manifest(plan, np.sort(known, order="key"), folder, {}))
    size = sum(path.stat().st_size for path in Path(store.path(KIND, plan.key)).iterdir())
    print(f"manifest: {time.perf_counter() - started:.2f} s, {size / 2**20:.0f} MiB", flush=True)
    started = time.perf_counter()
    assert missing_shards(store, made) == []
    print(f"finding it whole again: {time.perf_counter() - started:.2f} s", flush=True)
    started = time.perf_counter()
    soft = SoftTargets(store, plan.key, "train")
    print(f"a reader of {len(soft)} rows is ready in {time.perf_counter() - started:.2f} s; "
          f"peak memory {peak():.2f} GiB", flush=True)
    started = time.perf_counter()
    for number in np.random.default_rng(0).permutation(len(plan)).tolist():
        _, logits = soft[number * ROWS + 1]
        assert logits.tolist() == [[1, -1]]
    seconds, maps = time.perf_counter() - started, Path("/proc/self/maps").read_text().count(".arrow")
    print(f"a row of each shard in no order: {1e6 * seconds / len(plan):.0f} microseconds each; {maps} shards are "
          f"mapped; peak memory {peak():.2f} GiB", flush=True)


def peak() -> float:
    """GiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()

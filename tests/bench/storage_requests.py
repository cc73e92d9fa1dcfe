"""Requests that shards cost an object storage: written, listed and read, counted on the wire.

    python tests/bench/storage_requests.py [--shards 64]

Against an S3 server on this machine (the tests' extra: moto), through a proxy that counts.
"""

import argparse
import os
import tempfile
from collections import Counter

import numpy as np

from kdray.cache.plan import KEY
from kdray.cache.receipts import list_shards, open_listed, table_of
from kdray.cache.shard import Schema, encode_shard, write_shard
from kdray.storage import Store, content_key
from tests.integration.conftest import s3_server
from tests.integration.test_object_storage import KEYS, Proxy, empty_bucket

SCHEMA = Schema("stand-in", "sequence-classification", ("negative", "positive"), 128, "bfloat16")


def main() -> None:
    """Writes, lists and reads as a fill and a reader do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=64)
    options = parser.parse_args()
    with s3_server() as url, Proxy(url) as proxy, tempfile.TemporaryDirectory() as machine:
        empty_bucket(proxy.url)
        os.environ.update(KEYS, AWS_ENDPOINT_URL=proxy.url)
        tempfile.tempdir = machine
        count(Store("s3://bucket/kdray"), proxy, options.shards)


def count(store: Store, proxy: Proxy, shards: int) -> None:
    """The figures of each act."""
    data = encode_shard([np.zeros((1, 2), np.float32)] * 8, [np.zeros(1, np.int32)] * 8, SCHEMA)
    keys = [content_key(number) for number in range(shards)]
    receipts = [write_shard(store, key, data) for key in keys]
    tell(proxy, "written", shards)
    list_shards(store, np.array(keys, KEY))
    tell(proxy, "looked for in a resume", shards)
    for shard in table_of((receipt, 0.0) for receipt in receipts):
        open_listed(store, shard)
    tell(proxy, "read by a machine", shards)


def tell(proxy: Proxy, act: str, shards: int) -> None:
    """Requests a shard since the last call, by method; the bucket's own are few."""
    found = Counter(method for method, path, _ in proxy.seen if "kdray" in path)
    each = ", ".join(f"{count / shards:.2f} {method}" for method, count in sorted(found.items()))
    print(f"{act}: {sum(found.values()) / shards:.2f} requests a shard ({each})", flush=True)
    proxy.seen.clear()


if __name__ == "__main__":
    main()

"""The verbs of `kdray cache` that look at caches, and what they print.

Knows nothing about configs: a cache is named by the beginning of its key, in a storage.
"""

import time
from typing import Any

from kdray.cache.difference import fields_apart, logits_apart, shards_shared
from kdray.cache.garbage import garbage, remove
from kdray.cache.manifest import KIND, find_cache, missing_shards
from kdray.cache.summary import Described, summarise
from kdray.errors import CacheError
from kdray.storage import MANIFEST, Store
from kdray.tasks import TASKS

_BAR = 40


def list_caches(uri: str) -> None:
    """A line a cache, newest last."""
    store = Store(uri)
    found = []
    for key in store.names(KIND):
        made = store.manifest(KIND, key)
        if made is not None:
            names, _, changed = store.files(KIND, key)
            found.append((changed[names.index(MANIFEST)], made))
    if not found:
        print(f"no cache in {store.uri}")
        return
    print(f"{'key':14}{'made':18}{'task':24}{'rows':>11}{'shards':>9}{'size':>10}  {'precision':10}{'codec':9}teacher")
    for when, made in sorted(found, key=lambda pair: pair[0]):
        schema = made["schema"]
        what = f"ensemble of {len(made['members'])}" if "members" in made else made["teacher_model"]
        print(f"{made['key'][:12]:14}{time.strftime('%Y-%m-%d %H:%M', time.localtime(when)):18}{schema['task']:24}"
              f"{sum(made['rows'].values()):>11,}{made['shards']:>9,}{size(made['bytes']):>10}  "
              f"{schema['precision']:10}{schema['codec']:9}{what}")


def show_cache(uri: str, start: str) -> None:
    """Key parts, lineage and a summary of the teacher."""
    store, cache = _find(uri, start)
    for name, value in _facts(cache):
        print(f"{name:14}{value}")
    missing = missing_shards(store, cache)
    if missing:
        raise CacheError(f"{len(missing)} of its shards are gone or torn, first {missing[0]}: run `kdray cache fill` "
                         "again")
    for split in cache["rows"]:
        seen = summarise(store, cache, split)
        if seen is not None:
            _print_summary(split, seen)


def verify_cache(uri: str, start: str, rows: int, seed: int, teacher: str | None) -> None:
    """Every checksum, and a sample of rows through the teacher. Raises CacheError where something is wrong."""
    from kdray.teacher.verify import check_shards, rerun

    store, cache = _find(uri, start)
    complaints = check_shards(store, cache)
    for complaint in complaints[:20]:
        print(complaint)
    print(f"checksums: {cache['shards'] - len(complaints):,} of {cache['shards']:,} shards are as they were written")
    if complaints:
        raise CacheError(f"{len(complaints)} shards of cache {cache['key'][:12]} are missing or corrupt. Delete them "
                         "and fill the cache again: only they are computed anew")
    if rows == 0:
        return
    for key in cache.get("members", [cache["key"]]):
        again = rerun(store, store.manifest(KIND, key) or {}, teacher, rows, seed)
        print(f"teacher, {again.rows} rows again: largest difference of a logit {again.largest:.2g} "
              f"({again.allowed:.2g} allowed), {again.flipped} decisions differ")
        if again.largest > again.allowed:
            raise CacheError(f"the teacher says something else now than cache {key[:12]} holds: a logit differs by "
                             f"{again.largest:.3g}, more than {again.allowed:.3g}")


def diff_caches(uri: str, first: str, second: str) -> None:
    """What separates two caches."""
    store, one = _find(uri, first)
    _, two = _find(uri, second)
    for name, (left, right) in fields_apart(one, two).items():
        print(f"{name}: {left} | {right}")
    shared, left_only, right_only = shards_shared(store, one, two)
    print(f"shards: {shared:,} shared, {left_only:,} of the first alone, {right_only:,} of the second alone")
    for split in one["rows"]:
        apart = logits_apart(store, one, two, split) if split in two["rows"] else None
        if apart is None:
            print(f"{split}: the logits cannot be compared (other labels, rows or targets)")
        else:
            print(f"{split}: {apart.rows:,} rows, largest difference of a logit {apart.largest:.3g}, same decision in "
                  f"{apart.agreement:.2%} of targets, mean KL {apart.kl:.3g}")


def collect_garbage(uri: str, dry_run: bool, hours: float) -> None:
    """Removes shards that nothing names."""
    store = Store(uri)
    found = garbage(store, hours * 3600)
    gone = found if dry_run else remove(store, found, hours * 3600)
    what = "would remove" if dry_run else "removed"
    print(f"{what} {len(gone):,} files, {size(sum(file.bytes for file in gone))}, from {store.uri_of('shards')}")


def size(count: float) -> str:
    """Bytes for people: `1234567` becomes `1.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _find(uri: str, start: str) -> tuple[Store, dict[str, Any]]:
    store = Store(uri)
    cache = store.manifest(KIND, find_cache(store, start))
    assert cache is not None
    return store, cache


def _labels(schema: dict[str, Any]) -> str:
    task, labels = TASKS[schema["task"]], schema["labels"]
    return ", ".join(labels) if task.output.named or task.names else f"{len(labels)} dimensions"


def _facts(cache: dict[str, Any]) -> list[tuple[str, str]]:
    schema = cache["schema"]
    facts = [
        ("cache", cache["key"]), ("task", f"{schema['task']}: {_labels(schema)}"),
        ("teacher", f"{cache['teacher_model']} (fingerprint {schema['teacher']})"),
        ("precision", f"{schema['precision']}, rows of at most {schema['max_length']} tokens"),
        ("rows", ", ".join(f"{split} {rows:,}" for split, rows in cache["rows"].items())),
        ("shards", f"{cache['shards']:,} of {cache['rows_per_shard']:,} rows, {size(cache['bytes'])}"),
        ("corpus", cache["parents"]["corpus"]), ("teacher busy", f"{cache['teacher_seconds']:,.1f} s"),
    ]
    if "members" in cache:
        parts = [f"{weight:.3g} x {key[:12]}" for weight, key in zip(cache["weights"], cache["members"], strict=True)]
        return [*facts, ("ensemble", f"mean of {cache['mean']}: {', '.join(parts)}")]
    error = cache["codec_error"]
    kl = ", ".join(f"{value:.2g} at T = {temperature}" for temperature, value in error["kl"].items())
    return [*facts, ("last fill", f"{cache['rows_computed']:,} rows were new"),
            ("codec", f"{schema['codec']}, compression {schema['compression']}: largest error of a logit "
                      f"{error['largest_logit']:.2g}; KL {kl}")]


def _print_summary(split: str, seen: Described) -> None:
    found = seen.summary
    facts = ", ".join(f"{name} {value:.4f}" for name, value in found.facts.items())
    print(f"\n{split}: {seen.rows:,} rows, {seen.targets:,} targets. {facts[:1].upper()}{facts[1:]}")
    print(f"  {found.axis}")
    for low, high, count in zip(found.edges, found.edges[1:], found.counts, strict=False):
        if count:
            bar = "#" * max(1, round(_BAR * count / max(found.counts)))
            print(f"  {low:.1f} to {high:.1f} {count:>11,}  {bar}")
    if not found.lines:
        return
    width = max(map(len, [*(name for name, _, _ in found.lines), "label"]))
    print(f"  {'label':{width}}{'targets':>12}" + "".join(f"{name:>12}" for name in found.columns))
    for label, count, numbers in found.lines:
        print(f"  {label:{width}}{count:>12,}" + "".join(f"{number:>12.4f}" for number in numbers))

"""A corpus of several files in object storage, worked on by tasks on two nodes, is the one that one process makes."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from kdray.config import parse
from kdray.corpus.rows import Rows
from kdray.errors import DataError
from kdray.pipeline import Pipeline
from tests.integration.conftest import s3_server, small_config
from tests.small import sentences, write_jsonl

FILES = 5
EACH = 40


@dataclass(frozen=True)
class Site:
    """Where the tests run."""

    s3: Any
    """A client of s3://bucket."""
    nodes: str
    """Address of the cluster, which a process joins that has it as RAY_ADDRESS."""
    tmp: Path
    """TMPDIR of all processes."""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """The bucket, whose address this process and the nodes know; two nodes with a CPU each."""
    import boto3

    # A short name: Ray's sockets are in it.
    with s3_server() as url, tempfile.TemporaryDirectory(prefix="kd") as tmp, pytest.MonkeyPatch.context() as patch:
        for name, value in {"AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "a",
                            "AWS_SECRET_ACCESS_KEY": "a", "TMPDIR": tmp}.items():
            patch.setenv(name, value)
        patch.setattr("tempfile.tempdir", None)
        patch.setattr("kdray.corpus.files.PIECE_BYTES", 1000)
        client = boto3.client("s3")
        client.create_bucket(Bucket="bucket")
        nodes = Cluster()
        try:
            nodes.add_node(num_cpus=1, include_dashboard=False)
            nodes.add_node(num_cpus=1)
            yield Site(client, nodes.address, Path(tmp))
        finally:
            ray.shutdown()
            nodes.shutdown()


def upload(client: Any, folder: Path, name: str, rows: list[dict]) -> str:
    """The rows in several files of the bucket; the URI that names all of them."""
    for number in range(FILES):
        part = rows[number * EACH:(number + 1) * EACH]
        client.upload_file(str(write_jsonl(folder / "part.jsonl", part)), "bucket", f"{name}/{number}.jsonl")
    return f"s3://bucket/{name}/*.jsonl"


def pipeline(storage: str, teacher: Path, train: str, **data: Any) -> Pipeline:
    other = train.replace("*", "0")
    return Pipeline(parse(small_config(Path(), Path(), teacher, {
        "storage": storage, "data": {"train": train, "validation": other, "test": other, "max_length": 32, **data},
        "teacher": {"model": str(teacher), "actors": 2, "num_cpus": 1}}), "test"))


def test_a_corpus_made_by_tasks_is_the_one_of_one_process_and_actors_fetch_the_parts_they_need(
        site: Site, tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = sentences(FILES * EACH)
    train = upload(site.s3, tmp_path, "rows", rows)
    alone = pipeline(str(tmp_path / "alone"), teacher, train, phrases=2).corpus
    monkeypatch.setenv("RAY_ADDRESS", site.nodes)
    spread = pipeline("s3://bucket/spread", teacher, train, phrases=2)
    assert spread.corpus == alone
    assert len(alone["parts"]["train"]) == FILES and len(alone["parts"]["transfer"]) == 2 * FILES
    assert alone["rows"]["train"] == FILES * EACH and alone["rows"]["transfer"] == 2 * FILES * EACH
    cache = spread.cache
    assert cache["rows"] == alone["rows"]
    machine = next(site.tmp.glob("kdray-*"))
    assert {f"{part['sha256']}-{part['file']}" for parts in alone["parts"].values() for part in parts} <= {
        path.name for path in (machine / "copies").iterdir()}
    assert not list(machine.glob(f"artefacts/*/{alone['key']}")), "nobody needed the whole"
    texts = Rows.open(Path(spread.store.fetch("corpus", alone["key"])), "train").table.column("text").to_pylist()
    assert texts == [row["text"] for row in rows]


def test_a_wrong_row_of_a_task_is_named_by_its_place_in_the_split(site: Site, tmp_path: Path, teacher: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    rows = sentences(FILES * EACH)
    rows[3 * EACH + 7]["text"] = " "
    monkeypatch.setenv("RAY_ADDRESS", site.nodes)
    broken = pipeline("s3://bucket/broken", teacher, upload(site.s3, tmp_path, "broken-rows", rows))
    with pytest.raises(DataError, match=rf"row {3 * EACH + 7} of the train split: text is empty"):
        assert broken.corpus
    assert broken.store.names("corpus") == []

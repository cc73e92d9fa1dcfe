"""A run on three hosts, one of which loses its network in mid-cache or in mid-training: the result is the same.

Before that, a job whose driver is on another host than the head is followed.
"""

import json
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from tests.hosts import S3, Host, RefusedError, hosts
from tests.integration.conftest import small_config, write_config
from tests.small import WORDS, make_model, sentences, write_jsonl

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROWS = 1500
NOISE = 0.2
"""Share of the rows whose label is drawn anew: no model gets them all right, so that a metric says something."""


@dataclass(frozen=True)
class Outcome:
    """What a run left in its storage, and the seconds that it took."""

    seconds: float
    shards: dict[str, bytes]
    cache: dict[str, Any]
    numbers: dict[str, Any]
    histories: list[list[dict[str, Any]]]


class Site:
    """Three hosts with a CPU each; the teacher's first weights on the driver's host, all else on S3."""

    def __init__(self, machines: list[Host]):
        self.hosts, self.head = machines, machines[0]
        self.s3 = fs.S3FileSystem(endpoint_override=self.head.s3, access_key=S3["AWS_ACCESS_KEY_ID"],
                                  secret_key=S3["AWS_SECRET_ACCESS_KEY"], region="us-east-1",
                                  allow_bucket_creation=True)
        self.s3.create_dir("bucket")
        chance = random.Random(0)
        rows = [{**row, "label": chance.choice(list(WORDS))} if chance.random() < NOISE else row
                for row in sentences(ROWS)]
        with self.s3.open_output_stream("bucket/rows.jsonl") as stream:
            stream.write(write_jsonl(self.head.disc / "rows.jsonl", rows).read_bytes())
        make_model(self.head.disc / "base")

    @property
    def said(self) -> str:
        """What the last run has said."""
        return (self.head.disc / "kdray.log").read_text()

    def begin(self, name: str) -> subprocess.Popen:
        """A run whose storage is bucket/name."""
        write_config(self.head.disc / "c.yaml", self.config(name, str(self.head.tmp / "base")))
        return self.head.kdray("run", str(self.head.tmp / "c.yaml"))

    def config(self, name: str, base: str, changes: dict[str, Any] | None = None) -> dict[str, Any]:
        """Of a run whose storage is bucket/name, from a teacher whose first weights are at `base`."""
        return small_config(Path(), Path(), Path(base), {
            "storage": f"s3://bucket/{name}", "data": {"source": "s3://bucket/rows.jsonl", "max_length": 32},
            "teacher": {"model": base, "actors": 3, "min_actors": 1, "num_cpus": 1,
                        "finetune": {"epochs": 2, "lr": 3e-3, "num_cpus": 1}},
            "cache": {"rows_per_shard": 1}, "search": {"trials": 1},
            "training": {"epochs": 3, "lr": 3e-3, "workers": 2, "num_cpus": 1, "checkpoint_steps": 10},
            **(changes or {})})

    def paths(self, *parts: str) -> list[str]:
        """Files below a folder of the bucket."""
        found = self.s3.get_file_info(fs.FileSelector("/".join(["bucket", *parts]), recursive=True,
                                                      allow_not_found=True))
        return [info.path for info in found if info.is_file]

    def read(self, path: str) -> bytes:
        with self.s3.open_input_file(path) as file:
            return file.read()

    def manifests(self, *parts: str) -> list[dict[str, Any]]:
        """Manifests of the artefacts of a kind, by key."""
        return [json.loads(self.read(path)) for path in sorted(self.paths(*parts)) if path.endswith("/manifest.json")]

    def outcome(self, name: str, seconds: float) -> Outcome:
        (cache,), (evaluation,) = self.manifests(name, "caches"), self.manifests(name, "evaluations")
        return Outcome(seconds, {path.rpartition("/")[2]: self.read(path) for path in self.paths(name, "shards")},
                       cache, evaluation["numbers"],
                       [student["history"] for student in self.manifests(name, "students")])


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    try:
        with hosts(3) as machines:
            for host in machines:
                host.join(cpus=1)
            for host in machines:
                host.wait()
            yield Site(machines)
    except RefusedError as error:
        pytest.skip(f"no network namespaces here: {error}")


@pytest.fixture(scope="module")
def quiet(site: Site) -> Outcome:
    """An undisturbed run."""
    return run(site, "quiet", lambda: None)


def run(site: Site, name: str, disturb: Callable[[], None]) -> Outcome:
    began = time.monotonic()
    driver = site.begin(name)
    disturb()
    assert driver.wait(900) == 0, site.said
    return site.outcome(name, time.monotonic() - began)


def busy(site: Site, title: str) -> Host:
    """A host, not the driver's, on which a process called `title` runs; waits for one."""
    wait_for(lambda: any(host.runs(title) for host in site.hosts[1:]), site)
    return next(host for host in site.hosts[1:] if host.runs(title))


def wait_for(condition: Callable[[], bool], site: Site, seconds: float = 400) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, site.said
        time.sleep(0.1)


def back(host: Host) -> None:
    """A host that was cut off is there again, as a new one."""
    host.leave()
    host.mend()
    host.join(cpus=1)
    host.wait()


def same(one: Any, other: Any) -> bool:
    """Whether nested numbers are the same but for what another order of sums makes."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == pytest.approx(other, rel=0.02, abs=0.02) if isinstance(one, float) else one == other


def disturbed(site: Site, quiet: Outcome, name: str, ready: Callable[[], bool], title: str, before: str,
              tell: Callable[[str], None]) -> Outcome:
    """A run one host of which, where a process called `title` runs, is cut off when `ready`, before it has `before`."""
    lost: list[Host] = []

    def disturb() -> None:
        wait_for(ready, site)
        lost.append(busy(site, title))
        lost[0].cut()
        assert not site.manifests(name, before), "it was cut off too late"

    found = run(site, name, disturb)
    tell(f"undisturbed {quiet.seconds:.0f} s, with a host lost before {before} {found.seconds:.0f} s")
    back(lost[0])
    return found


def test_a_submitted_job_s_log_is_followed_though_its_driver_is_on_another_host(site: Site) -> None:
    for host in site.hosts[1:]:
        shutil.copytree(site.head.disc / "base", host.disc / "base")
    config = site.config("submitted", str(site.head.tmp / "base"), {"cache": {"rows_per_shard": 100}})
    write_config(site.head.disc / "c.yaml", config)
    following = site.head.kdray("submit", str(site.head.tmp / "c.yaml"), "--stage", "cache", "--shared",
                                str(site.head.tmp), "--address", "http://127.0.0.1:8265")
    driver = "python\0-m\0kdray.cli\0cache\0fill"
    wait_for(lambda: any(host.runs(driver) for host in site.hosts), site, 120)
    assert not site.head.runs(driver)
    assert following.wait(300) == 0, site.said
    assert f"teacher: {ROWS}/{ROWS} rows" in site.said, "the driver's own lines"
    assert site.manifests("submitted", "caches")[0]["rows"]["train"] > ROWS // 2


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints a line though pytest captures."""

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}")

    return say


def test_a_host_lost_in_mid_cache_changes_nothing(site: Site, quiet: Outcome, tell: Callable[[str], None]) -> None:
    found = disturbed(site, quiet, "cache", lambda: len(site.paths("cache", "shards")) > ROWS // 10,
                      "ray::TeacherActor.fill", "caches", tell)
    assert "died, its shard is leased again" in site.said
    assert len(found.shards) > ROWS // 2 and found.shards == quiet.shards
    assert found.cache["rows"] == quiet.cache["rows"] and found.cache["key"] == quiet.cache["key"]
    assert same(found.numbers, quiet.numbers) and same(found.histories, quiet.histories)


def test_a_host_lost_in_mid_training_changes_nothing(site: Site, quiet: Outcome, tell: Callable[[str], None]) -> None:
    def saved() -> bool:
        return any("/students-" in path and path.endswith("/state.json") for path in site.paths("training", "train"))

    found = disturbed(site, quiet, "training", saved, "ray::RayTrainWorker", "students", tell)
    assert found.shards == quiet.shards
    assert same(found.numbers, quiet.numbers) and same(found.histories, quiet.histories)

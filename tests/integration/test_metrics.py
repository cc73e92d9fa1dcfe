"""What a run does, as Prometheus reads it at the metrics port of a node: values, not only names."""

import os
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kdray.cache.plan import Slot
from kdray.config import load
from kdray.metrics import ALL
from kdray.pipeline import Pipeline
from kdray.teacher.pool import Pool
from tests.integration.conftest import free_port, small_config, write_config

Sample = tuple[str, dict[str, str], float]


class Scraped:
    """The metrics port of a node, read over and over, as Prometheus does; remembers every value."""

    def __init__(self, port: int):
        self._url, self._ended = f"http://127.0.0.1:{port}/metrics", threading.Event()
        self.now: list[Sample] = []
        self.ever: list[Sample] = []
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        while not self._ended.wait(0.5):
            try:
                text = urllib.request.urlopen(self._url, timeout=5).read().decode()
            except OSError:  # the agent is not up yet
                continue
            self.now = [(sample.name, dict(sample.labels), sample.value)
                        for family in text_string_to_metric_families(text) if family.name.startswith("ray_kdray_")
                        for sample in family.samples if not sample.name.endswith("_created")]
            self.ever += self.now

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def value(self, name: str, **labels: str) -> float:
        """Sum over the series with these labels."""
        return sum(found for series, has, found in self.now if series == f"ray_kdray_{name}"
                   and labels.items() <= has.items())

    def values(self, name: str, **labels: str) -> set[float]:
        """All that a series with these labels has ever been."""
        return {found for series, has, found in self.ever if series == f"ray_kdray_{name}"
                and labels.items() <= has.items()}

    def wait(self, expected: float, name: str, **labels: str) -> None:
        ends = time.monotonic() + 30
        while self.value(name, **labels) != pytest.approx(expected, abs=1e-3):
            assert time.monotonic() < ends, f"{name} {labels} is {self.value(name, **labels)}, not {expected}"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def scraped() -> Iterator[Scraped]:
    """The metrics of a cluster in this process, whose agent is told every second instead of every 10."""
    import ray

    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "RAY_metrics_report_interval_ms", "1000")
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False,
                 _metrics_export_port=port)
        found = Scraped(port)
        yield found
        found.close()
        ray.shutdown()


@pytest.fixture(scope="module")
def pipeline(scraped: Scraped, tmp_path_factory: pytest.TempPathFactory, rows: Path, teacher: Path) -> Pipeline:
    folder = tmp_path_factory.mktemp("metrics")
    made = small_config(folder / "store", rows, teacher, {
        "name": "observed", "training": {"epochs": 3, "lr": 3e-3}, "teacher": {"model": str(teacher), "actors": 1}})
    return Pipeline(load(write_config(folder / "c.yaml", made)))


def test_a_fill_tells_its_rows_shards_and_actors(scraped: Scraped, pipeline: Pipeline) -> None:
    cache = pipeline.cache
    here = {"run": "observed", "stage": "cache"}
    scraped.wait(600, "cache_computed_rows_total", **here)
    shards = sum(-(-rows // 32) for rows in cache["rows"].values())
    scraped.wait(shards, "cache_computed_shards_total", **here)
    scraped.wait(cache["teacher_seconds"], "cache_teacher_seconds_total", **here)
    scraped.wait(600, "cache_rows", **here)
    assert scraped.value("cache_missing_rows") == scraped.value("cache_missing_shards") == 0
    assert {600, 0} <= scraped.values("cache_missing_rows", **here)
    assert 1 in scraped.values("cache_actors", state="up") | scraped.values("cache_actors", state="waiting")
    scraped.wait(0, "cache_actors", state="up")


class Fragile:
    """Stands in for a teacher actor; the first to be given shard 3 dies."""

    def __init__(self, mark: Path):
        self._mark = mark

    def ready(self) -> None: ...

    def fill(self, slot: Slot) -> str:
        if slot.start == 3 and not self._mark.exists():
            self._mark.touch()
            os._exit(1)
        return slot.key


def test_a_shard_whose_actor_died_is_told(scraped: Scraped, tmp_path: Path) -> None:
    import ray

    before, done = scraped.value("cache_leased_again_total"), list[str]()
    slots = [Slot("train", number, number + 1, f"{number:032x}") for number in range(6)]
    Pool(slots, lambda: ray.remote(num_cpus=0)(Fragile).remote(tmp_path / "mark"), 2, 3, done.append).run()
    assert len(done) == 6
    scraped.wait(before + 1, "cache_leased_again_total")


def test_a_sweep_tells_its_trials_and_they_their_training(scraped: Scraped, pipeline: Pipeline) -> None:
    trials: list[dict[str, Any]] = pipeline.sweep["trials"]
    here = {"run": "observed", "stage": "sweep"}
    scraped.wait(sum(trial["epochs"] for trial in trials), "sweep_epochs_total", **here)
    scraped.wait(sum(trial["state"] == "finished" for trial in trials), "sweep_trials", state="finished", **here)
    scraped.wait(2, "sweep_trials_asked", **here)
    assert scraped.value("sweep_trials", state="running") == scraped.value("sweep_trials", state="failed") == 0
    scraped.wait(max(trial["best"] for trial in trials), "sweep_best", role="distilled", student="student", **here)
    train = pipeline.corpus["rows"]["train"]
    scraped.wait(train * sum(trial["epochs"] for trial in trials), "training_rows_total", **here)
    epochs = [entry for trial in trials for entry in trial["history"]]
    for name, facts in (("training_epoch", "epoch"), ("training_agreement", "agreement"), ("training_kl", "kl"),
                        ("training_gradient_ratio", "ratio")):
        seen = scraped.values(name, student="student", **here)
        known = [entry[facts] for entry in epochs if facts in entry]
        assert seen and all(min(abs(value - one) for one in known) < 1e-6 for value in seen), (name, seen, known)
    assert 0 < min(scraped.values("training_step_seconds")) < 60
    for trial, role in zip(pipeline.selection["trials"], ("baseline", "distilled"), strict=True):
        scraped.wait(trial["best"], "sweep_best", role=role, student="student", run="observed", stage="selection")


def test_series_have_few_labels_and_no_more_names_than_are_known(scraped: Scraped) -> None:
    own = {"run", "stage", "student", "state", "role"}
    rays = {"Component", "NodeAddress", "SessionName", "Version", "WorkerId"}
    assert scraped.ever
    for name, labels, _ in scraped.ever:
        assert name in {metric.exported for metric in ALL}
        assert {label for label in labels if not label.startswith("otel_")} <= own | rays
    runs = {labels["run"] for _, labels, _ in scraped.ever}
    assert "observed" in runs

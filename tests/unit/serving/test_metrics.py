"""Replicas of a machine tell their metrics together, without those that are gone."""

import os
import subprocess
import sys
from pathlib import Path

from kdray.serving import metrics

REPLICA = """
import os, signal
from kdray.serving import metrics
metrics.QUEUE.set(5)
metrics.BATCHES.observe(3)
print(metrics.exposition().decode(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def replica(folder: Path) -> str:
    """What a replica tells before it is killed."""
    return subprocess.run([sys.executable, "-c", REPLICA], capture_output=True, text=True,
                          env={**os.environ, metrics.FOLDER: str(folder)}).stdout


def test_gauges_of_a_replica_that_was_killed_are_gone_and_its_counts_stay(tmp_path):
    for count in (1, 2):
        told = replica(tmp_path / "metrics")
        assert "kdray_queue_inputs 5.0" in told and f"kdray_batch_size_count {count}.0" in told


def test_folders_of_services_that_are_gone_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "_BESIDE", str(tmp_path / "kdray-metrics-"))
    dead, empty, alive = (Path(metrics.folder_of(name)) for name in ("dead", "empty", "alive"))
    for folder in (empty, alive):
        folder.mkdir()
    replica(dead)
    (alive / f"counter_{os.getpid()}.db").write_bytes(b"")
    metrics.remove_dead_folders()
    assert not dead.exists() and empty.exists() and alive.exists()

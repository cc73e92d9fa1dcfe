"""All artefacts on S3, over real HTTP against a server on this machine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import fs

from tests.integration.conftest import ROOT, command, environment, free_port, small_config, wait_until_up, write_config

KEYS = {"AWS_ACCESS_KEY_ID": "test-key-id", "AWS_SECRET_ACCESS_KEY": "test-secret", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    port = free_port()
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_up(f"{url}/moto-api/", server)
        yield url
    finally:
        server.terminate()
        server.wait(30)


def test_a_run_on_s3_is_whole_and_is_found_again(endpoint: str, tmp_path: Path, rows: Path, teacher: Path) -> None:
    bucket = fs.S3FileSystem(endpoint_override=endpoint, access_key=KEYS["AWS_ACCESS_KEY_ID"],
                             secret_key=KEYS["AWS_SECRET_ACCESS_KEY"], region="us-east-1", allow_bucket_creation=True)
    bucket.create_dir("bucket")
    config = small_config(tmp_path, rows, teacher, {"storage": "s3://bucket/kdray", "search": {"trials": 1}})
    path = write_config(tmp_path / "c.yaml", config)
    first, second = (run(endpoint, "run", str(path)) for _ in range(2))
    assert "kdray serve s3://bucket/kdray/runs/small-" in first.stdout
    assert "making" not in second.stderr and second.stdout == first.stdout
    for secret in (KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"]):
        assert secret not in first.stdout + first.stderr
        for info in bucket.get_file_info(fs.FileSelector("bucket/kdray", recursive=True)):
            if info.path.endswith(".json"):
                assert secret not in bucket.open_input_stream(info.path).read().decode()


def run(endpoint: str, *arguments: str) -> subprocess.CompletedProcess:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=400, cwd=ROOT,
                          env={**environment(), **KEYS, "AWS_ENDPOINT_URL": endpoint, "TMPDIR": os.environ.get(
                              "TMPDIR", "/tmp")})
    assert done.returncode == 0, done.stderr
    return done

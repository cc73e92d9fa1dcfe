"""Why a cluster was not joined: a message with the remedy instead of what Ray says. Nothing is started."""

from pathlib import Path

import pytest
import ray

from kdray.cluster import _close_token, _refusal, join
from kdray.errors import ClusterError

NO_TOKEN = ("Failed to connect to GCS. Last connection error: Unauthenticated: RPC error: InvalidAuthToken: "
            "Authentication token is missing or incorrect")


@pytest.mark.parametrize("address, words", [
    ("http://127.0.0.1:8265", "takes jobs (ray job submit). To join the cluster as a driver, give"),
    ("127.0.0.1:1", "no Ray cluster answers at RAY_ADDRESS=127.0.0.1:1: Connection refused. Start one"),
    ("head", "Invalid address format: head"),
])
def test_an_address_where_no_cluster_is_says_so_at_once(address: str, words: str) -> None:
    assert not ray.is_initialized()
    with pytest.raises(ClusterError) as refused:
        join(address)
    assert words in str(refused.value)


@pytest.mark.parametrize("mode, words", [
    ("token", "the cluster at h:1 has another token than this process. Give the cluster's token in RAY_AUTH_TOKEN"),
    ("disabled", "the cluster at h:1 wants a token, and RAY_AUTH_MODE is disabled. Export RAY_AUTH_MODE=token"),
    (None, "wants a token, and RAY_AUTH_MODE is not set"),
])
def test_a_cluster_that_does_not_take_the_token(monkeypatch: pytest.MonkeyPatch, mode: str | None, words: str) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE")
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    error = ConnectionError("Failed to connect to Ray cluster at h:1")
    error.__cause__ = RuntimeError(NO_TOKEN)
    assert words in _refusal("h:1", error)


def test_a_cluster_of_another_version() -> None:
    said = _refusal("h:1", RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.60.0\n"))
    assert said.startswith("Version mismatch: The cluster was started with: Ray: 2.60.0 Install what")


def test_a_token_that_ray_wrote_for_all_to_read_is_closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    _close_token()
    token = tmp_path / ".ray" / "auth_token"
    assert token.parent.stat().st_mode & 0o777 == 0o700
    token.write_text("secret")
    token.chmod(0o644)
    _close_token()
    assert token.stat().st_mode & 0o777 == 0o600 and token.read_text() == "secret"
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    _close_token()

"""Keys come from a file and the environment; a request without one of them goes no further than the guard."""

import asyncio
import hmac
import os
from types import SimpleNamespace
from typing import Any

import pytest

from kdray.errors import ConfigError
from kdray.serving import guard
from kdray.serving.guard import VARIABLE, Guard, digest, read_keys, take_keys

OLD, NEW = "the-key-of-last-month", "the-key-of-this-month"


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


def status(made: Guard, method: str = "POST", path: str = "/", header: str | bytes | None = None) -> int:
    """Of the answer to one request; 200 where it was passed on."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [] if header is None else [(b"authorization", header if isinstance(header, bytes) else header.encode())]
    asyncio.run(made({"type": "http", "method": method, "path": path, "headers": headers}, None, send))
    assert sent[0]["status"] == 200 or (b"www-authenticate", b"Bearer") in sent[0]["headers"]
    return sent[0]["status"]


async def behind(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


def guarded(*keys: str) -> Guard:
    return Guard(behind, lambda: [digest(key) for key in keys])


def test_keys_of_the_file_and_of_the_environment_add_up(tmp_path, monkeypatch):
    (tmp_path / "keys").write_text(f"\n  {OLD}  \n\n")
    monkeypatch.setenv(VARIABLE, f"{NEW}, ,the-key-of-somebody")
    assert set(read_keys(str(tmp_path / "keys"))) == {digest(OLD), digest(NEW), digest("the-key-of-somebody")}


def test_a_digest_stands_for_its_key(tmp_path, monkeypatch):
    (tmp_path / "keys").write_text(f"sha256:{digest(OLD).upper()}")
    monkeypatch.setenv(VARIABLE, f"sha256:{digest(NEW)}")
    assert set(read_keys(str(tmp_path / "keys"))) == {digest(OLD), digest(NEW)}


@pytest.mark.parametrize("given", ["sha256:0123456789abcdef", "sha256:" + "g" * 64, "sha256:" + "0" * 65])
def test_what_is_no_digest_is_refused(monkeypatch, given):
    monkeypatch.setenv(VARIABLE, given)
    with pytest.raises(ConfigError, match=r"64 hexadecimal digits after it: printf %s KEY | sha256sum"):
        read_keys(None)


def test_whoever_takes_the_keys_leaves_none_to_the_processes_that_it_starts(monkeypatch):
    monkeypatch.setenv(VARIABLE, NEW)
    assert take_keys(None) == [digest(NEW)] and VARIABLE not in os.environ
    monkeypatch.setenv(VARIABLE, "short")
    with pytest.raises(ConfigError):
        take_keys(None)
    assert VARIABLE not in os.environ


def test_no_file_and_no_variable_are_no_keys():
    assert read_keys(None) == []


def test_a_home_folder_may_be_short(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "keys").write_text(OLD)
    assert read_keys("~/keys") == [digest(OLD)]


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00key"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"serve\.keys: cannot read .*keys"):
        read_keys(str(file))


@pytest.mark.parametrize("where", ["file", "environment"])
def test_a_short_key_is_refused_and_not_shown(tmp_path, monkeypatch, where):
    short = "fifteen-letters"
    (tmp_path / "keys").write_text(OLD + "\n" + (short if where == "file" else ""))
    if where == "environment":
        monkeypatch.setenv(VARIABLE, short)
    with pytest.raises(ConfigError, match=r"fewer than 16 characters.*token_urlsafe") as caught:
        read_keys(str(tmp_path / "keys"))
    assert short not in str(caught.value)


def test_without_keys_everybody_may_ask():
    assert status(guarded()) == 200


@pytest.mark.parametrize("header", [f"Bearer {NEW}", f"bearer {NEW}", f"BEARER  {NEW} "])
def test_a_known_key_is_let_in(header):
    assert status(guarded(OLD, NEW), header=header) == 200


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", NEW, f"Basic {NEW}", f"Bearer {NEW}x",
                                    "Bearer nobodys", f"Bearer {digest(NEW)}", b"Bearer \xff\xfe", f"Bearer{NEW}"])
def test_anything_else_is_turned_away(header):
    assert status(guarded(OLD, NEW), header=header) == 401


def test_keys_change_while_requests_come():
    known = [digest(OLD)]
    made = Guard(behind, lambda: known)
    assert (status(made, header=f"Bearer {OLD}"), status(made, header=f"Bearer {NEW}")) == (200, 401)
    known.append(digest(NEW))
    assert (status(made, header=f"Bearer {OLD}"), status(made, header=f"Bearer {NEW}")) == (200, 200)
    known.remove(digest(OLD))
    assert (status(made, header=f"Bearer {OLD}"), status(made, header=f"Bearer {NEW}")) == (401, 200)


@pytest.mark.parametrize("header", [f"Bearer {OLD}", f"Bearer {NEW}", "Bearer nobodys", None])
def test_every_key_is_compared_in_constant_time_whatever_is_given(monkeypatch, header):
    compared: list[tuple[str, str]] = []

    def compare(one: str, two: str) -> bool:
        compared.append((one, two))
        return hmac.compare_digest(one, two)

    monkeypatch.setattr(guard, "hmac", SimpleNamespace(compare_digest=compare))
    status(guarded(OLD, NEW), header=header)
    assert [two for _, two in compared] == [digest(OLD), digest(NEW)]
    assert all(len(one) == len(two) == 64 for one, two in compared)


@pytest.mark.parametrize("method, path, expected", [
    ("GET", "/", 200), ("GET", "/health", 200), ("GET", "/docs", 200), ("GET", "/v2/health/ready", 200),
    ("POST", "/", 401), ("GET", "/metrics", 401), ("GET", "/v1/model", 401), ("POST", "/health", 401),
    ("GET", "//health", 401), ("GET", "/health/", 401), ("HEAD", "/", 200),
    ("GET", "/-/healthz", 200), ("HEAD", "/v1/model", 401), ("POST", "/v2/models/default/infer", 401)])
def test_only_what_holds_no_data_is_open(method, path, expected):
    assert status(guarded(NEW), method, path) == expected


def test_what_is_not_http_passes():
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    asyncio.run(Guard(app, lambda: [digest(NEW)])({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]

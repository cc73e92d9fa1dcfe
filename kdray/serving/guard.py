"""API keys become their digests, and a request without a known key is turned away.

Knows nothing about what is behind. Nobody holds a key itself but its owner: digests travel to the replicas, and files
and variables may hold digests in the place of keys.
"""

import hashlib
import hmac
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kdray.errors import ConfigError

VARIABLE = "KDRAY_API_KEYS"
_OPEN = {"/", "/health", "/v2/health/live", "/v2/health/ready", "/-/healthz", "/docs", "/openapi.json",
         "/static-offline-docs/swagger-ui-bundle.js", "/static-offline-docs/swagger-ui.css",
         "/static-offline-docs/favicon.png"}
"""What anybody may get: whether the service is up, and pages, which hold no data."""
_SHORTEST = 16
_DIGEST = "sha256:"
_UNKNOWN = b'{"error":"this needs a key: send it as authorization: Bearer KEY"}'


def read_keys(file: str | None) -> list[str]:
    """Digests of the keys in `file`, one a line, and of those in KDRAY_API_KEYS, separated by commas.

    `sha256:` and 64 hexadecimal digits are a digest. Raises ConfigError where the file cannot be read, a digest is none
    or a key is too short to keep anybody out.
    """
    keys = os.environ.get(VARIABLE, "").split(",")
    if file:
        try:
            keys += Path(file).expanduser().read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"serve.keys: cannot read {file}: {error}") from error
    keys = [key.strip() for key in keys if key.strip()]
    if any(len(key) < _SHORTEST for key in keys):
        raise ConfigError(f"an API key has fewer than {_SHORTEST} characters. python -c 'import secrets; "
                          "print(secrets.token_urlsafe(32))' makes one that nobody guesses")
    return [_given(key) if key.startswith(_DIGEST) else digest(key) for key in keys]


def take_keys(file: str | None) -> list[str]:
    """As `read_keys`; takes KDRAY_API_KEYS out of the environment, so that no process started from now on has it."""
    try:
        return read_keys(file)
    finally:
        os.environ.pop(VARIABLE, None)


def digest(key: str) -> str:
    """SHA-256 of a key, hexadecimal."""
    return hashlib.sha256(key.encode()).hexdigest()


def _given(text: str) -> str:
    found = text.removeprefix(_DIGEST).lower()
    if not re.fullmatch("[0-9a-f]{64}", found):
        raise ConfigError(f"an API key that begins with {_DIGEST} must have 64 hexadecimal digits after it: "
                          "printf %s KEY | sha256sum")
    return found


class Guard:
    """ASGI middleware that asks for `Authorization: Bearer KEY` where there are keys."""

    def __init__(self, app: Any, digests: Callable[[], Iterable[str]]):
        """`digests` is asked at every request: keys may change while requests come."""
        self._app, self._digests = app, digests

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Passes the request on, or answers 401."""
        if scope["type"] == "http" and not _is_open(scope) and not self._admits(scope):
            await send({"type": "http.response.start", "status": 401, "headers": [
                (b"content-type", b"application/json"), (b"content-length", str(len(_UNKNOWN)).encode()),
                (b"www-authenticate", b"Bearer")]})
            await send({"type": "http.response.body", "body": _UNKNOWN})
            return
        await self._app(scope, receive, send)

    def _admits(self, scope: Any) -> bool:
        known = list(self._digests())
        if not known:
            return True
        scheme, _, key = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1").partition(" ")
        given = digest(key.strip())
        return sum(hmac.compare_digest(given, one) for one in known) > 0 and scheme.lower() == "bearer"


def _is_open(scope: Any) -> bool:
    return scope["method"] in ("GET", "HEAD") and scope["path"] in _OPEN

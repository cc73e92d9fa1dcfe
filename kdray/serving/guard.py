"""API keys become their digests, and a request without a known key is turned away.

Knows nothing about what is behind. Nobody holds a key itself but its owner: digests travel to the replicas.
"""

import hashlib
import hmac
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kdray.errors import ConfigError

VARIABLE = "KDRAY_API_KEYS"
_OPEN = {("GET", "/"), ("GET", "/health"), ("GET", "/v2/health/live"), ("GET", "/v2/health/ready"),
         ("GET", "/-/healthz"), ("GET", "/-/routes"), ("GET", "/docs"), ("GET", "/openapi.json")}
"""What anybody may ask: whether the service is up, and pages, which hold no data."""
_SHORTEST = 16


def read_keys(file: str | None) -> list[str]:
    """Digests of the keys in `file`, one a line, and of those in KDRAY_API_KEYS, separated by commas.

    Raises ConfigError where the file cannot be read or a key is too short to keep anybody out.
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
    return [digest(key) for key in keys]


def digest(key: str) -> str:
    """SHA-256 of a key, hexadecimal."""
    return hashlib.sha256(key.encode()).hexdigest()


class Guard:
    """ASGI middleware that asks for `Authorization: Bearer KEY` where there are keys."""

    def __init__(self, app: Any, digests: Callable[[], Iterable[str]]):
        """`digests` is asked at every request: keys may change while requests come."""
        self._app, self._digests = app, digests

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Passes the request on, or answers 401."""
        if scope["type"] == "http" and (scope["method"], scope["path"]) not in _OPEN and not self._admits(scope):
            await send({"type": "http.response.start", "status": 401, "headers": [
                (b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]})
            await send({"type": "http.response.body",
                        "body": b'{"error":"this needs a key: send it as authorization: Bearer KEY"}'})
            return
        await self._app(scope, receive, send)

    def _admits(self, scope: Any) -> bool:
        known = list(self._digests())
        if not known:
            return True
        scheme, _, key = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1").partition(" ")
        given = digest(key.strip())
        return sum(hmac.compare_digest(given, one) for one in known) > 0 and scheme.lower() == "bearer"

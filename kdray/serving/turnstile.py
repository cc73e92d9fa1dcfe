"""A request that finds the queue full is refused before anything is made of it.

Under overload, most requests are refused: what a refusal costs is what the others lose. Here it costs the parsing of
its bytes and a write. Knows nothing about what the queue holds.
"""

from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kdray.serving import metrics

MESSAGE = "the queue is full"
_BODY = b'{"error":"%s"}' % MESSAGE.encode()
_HEAD = (b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
         b"content-length: %d\r\n" % len(_BODY))
_STAY, _LEAVE = _HEAD + b"\r\n" + _BODY, _HEAD + b"connection: close\r\n\r\n" + _BODY


class Turnstile(HttpToolsProtocol):
    """A connection of uvicorn's, whose POST requests are refused while `full` says so."""

    def __init__(self, *arguments: Any, full: Callable[[], bool], **options: Any):
        super().__init__(*arguments, **options)
        self._full, self._refusing = full, False

    def on_headers_complete(self) -> None:
        """Decides on the request, which the rest of it waits for."""
        idle = self.cycle is None or self.cycle.response_complete
        self._refusing = idle and self.parser.get_method() == b"POST" and self._full()
        if not self._refusing:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Drops the body of what is refused."""
        if not self._refusing:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Answers what is refused."""
        if not self._refusing:
            super().on_message_complete()
            return
        stays = self.parser.should_keep_alive()
        self.transport.write(_STAY if stays else _LEAVE)
        metrics.REFUSED.inc()
        if stays:
            self.on_response_complete()
        else:
            self.transport.close()

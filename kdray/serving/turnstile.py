"""A request that finds the queue full is refused before anything is made of it; one that does not end is cut off.

Under overload, most requests are refused: what a refusal costs is what the others lose. Here it costs the parsing of
its bytes and a write. Knows nothing about what the queue holds.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kdray.serving import metrics
from kdray.serving.protocol import FULL

_BODY = b'{"error":"%s"}' % FULL.encode()
_HEAD = (b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
         b"content-length: %d\r\n" % len(_BODY))
_STAY, _LEAVE = _HEAD + b"\r\n" + _BODY, _HEAD + b"connection: close\r\n\r\n" + _BODY
_HEAD_BYTES = 2**16
_BYTES_PER_BODY = 8
"""Of a body in small chunks, what may come with each of its bytes."""
_PIPELINED = 64


class _Line:
    """A transport that does nothing more once it is closed: uvloop's raises, and what answers may not know yet."""

    def __init__(self, transport: Any):
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._while_open(self._transport.write, data)

    def pause_reading(self) -> None:
        self._while_open(self._transport.pause_reading)

    def resume_reading(self) -> None:
        self._while_open(self._transport.resume_reading)

    def _while_open(self, act: Callable[..., None], *arguments: Any) -> None:
        if not self._transport.is_closing():
            act(*arguments)


class Turnstile(HttpToolsProtocol):
    """A connection of uvicorn's, whose POST requests are refused while `full` says so.

    It is closed where a request is not whole after `patience` seconds, where more than 64 KiB of it are not its body,
    or where more than 64 of them come before the first is answered.
    """

    def __init__(self, *arguments: Any, full: Callable[[], bool], patience: float, **options: Any):
        super().__init__(*arguments, **options)
        self._full, self._refusing, self._patience = full, False, patience
        self._other = self._body = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Starts to wait for a request."""
        line: Any = _Line(transport)
        super().connection_made(line)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops waiting."""
        self._whole()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes what has come, unless it is too much."""
        if self.transport.is_closing():
            return
        self._other += len(data)
        super().data_received(data)
        if self._other > _HEAD_BYTES + _BYTES_PER_BODY * self._body or len(self.pipeline) > _PIPELINED:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """Starts to wait for the rest of a request."""
        super().on_message_begin()
        self._whole()
        self._wait()

    def on_headers_complete(self) -> None:
        """Decides on the request, which the rest of it waits for."""
        idle = self.cycle is None or self.cycle.response_complete
        self._refusing = idle and self.parser.get_method() == b"POST" and self._full()
        if not self._refusing:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Drops the body of what is refused."""
        self._other -= len(body)
        self._body += len(body)
        if not self._refusing:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Answers what is refused."""
        self._whole()
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

    def _wait(self) -> None:
        self._timer = self.loop.call_later(self._patience, self.transport.abort)

    def _whole(self) -> None:
        self._other = self._body = 0
        if self._timer is not None:
            self._timer.cancel()

"""Running the application: the socket, the HTTP connection, and the end of the server."""

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from torch_linguist.errors import LinguistError
from torch_linguist.runs.platform import reuse_address
from torch_linguist.serve.app import Application
from torch_linguist.serve.batch_engine import Engine
from torch_linguist.serve.limits import Limits, RequestError
from torch_linguist.serve.served_model import ServedModel
from torch_linguist.serve.served_page import served_page


def serve(
    models: Sequence[ServedModel],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    prompt: str = "",
    limits: Limits | None = None,
    listening: Callable[[str], None] | None = None,
) -> None:
    """Serve models until SIGTERM or Ctrl-C; then finish what runs, refuse the rest and return.

    Args:
        models: models to serve, the default one first.
        host: address to listen on.
        port: port to listen on; 0 for any free one.
        token: secret that clients must send; None for none.
        prompt: text that the page begins with.
        limits: limits of the server; None for the defaults.
        listening: called with the URL once clients can connect.

    Raises:
        LinguistError: the address cannot be used.
    """
    limits = limits or Limits()
    page = served_page(models, prompt)
    listener = _listener(host, port)
    engine = Engine(limits)
    # Its warnings are about clients that left in the middle of an answer.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    try:
        application = Application(models, engine, limits, page, token)
        config = uvicorn.Config(
            application.asgi(),
            http=_protocol(limits.body_seconds),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level=logging.CRITICAL,
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
        )
        name = f"[{host}]" if ":" in host else host
        url = f"http://{name}:{listener.getsockname()[1]}/"
        _Server(config, engine, lambda: listening(url) if listening else None).run([listener])
    finally:
        engine.close()
        listener.close()


class _Server(uvicorn.Server):
    """A server whose end by a signal is no error, and begins by refusing what has not begun."""

    def __init__(self, config: uvicorn.Config, engine: Engine, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._engine, self._ready = engine, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._engine.drain()
        await super().shutdown(sockets)


def _listener(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        reuse_address(listener)
        listener.bind(address)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise LinguistError(
            f"{host}:{port}: cannot listen there ({reason}); choose another --host or --port"
        ) from error
    return listener


def _protocol(seconds: float) -> type[asyncio.Protocol]:
    """Return an HTTP protocol that gives a client this many seconds for the head of a request."""

    class Protocol(H11Protocol):
        """uvicorn's protocol, with an answer to requests that are too slow, cut off or no HTTP."""

        _slow: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._slow = self.loop.call_later(seconds, self._too_slow)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_clock()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._stop_clock()
            elif self._slow is None:
                self._slow = self.loop.call_later(seconds, self._too_slow)

        def eof_received(self) -> None:
            has_begun = self.conn.trailing_data[0] or self.conn.their_state is h11.SEND_BODY
            if has_begun and not self.transport.is_closing():
                self._refuse(RequestError(400, "the request ends before it is complete"))

        def send_400_response(self, msg: str) -> None:
            self._refuse(RequestError(400, "not an HTTP request that this server understands"))

        def _stop_clock(self) -> None:
            if self._slow is not None:
                self._slow.cancel()
                self._slow = None

        def _too_slow(self) -> None:
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self._refuse(RequestError(408, f"the request is not complete after {seconds:g} seconds"))

        def _refuse(self, error: RequestError) -> None:
            # Nothing can be said in the middle of an answer.
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                body = json.dumps(error.as_dict()).encode()
                headers: list[Any] = [("content-type", "application/json"), ("connection", "close")]
                headers.append(("content-length", str(len(body))))
                for event in (
                    h11.Response(status_code=error.status, headers=headers),
                    h11.Data(data=body),
                    h11.EndOfMessage(),
                ):
                    self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

    return Protocol

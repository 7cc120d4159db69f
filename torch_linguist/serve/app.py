"""The HTTP side of the server: routes, checks, answers and streams."""

import asyncio
import base64
import binascii
import hmac
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import torch
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from torch import Tensor

from torch_linguist.errors import LinguistError
from torch_linguist.serve.batch_engine import Engine
from torch_linguist.serve.limits import Limits, RequestError
from torch_linguist.serve.protocol import (
    CompletionRequest,
    choice_as_dict,
    find_model,
    parse_completion,
    parse_json,
    token_list,
    usage,
)
from torch_linguist.serve.reading import Distributions
from torch_linguist.serve.served_model import ServedModel
from torch_linguist.serve.text_completion import Piece, TextCompletion

Endpoint = Callable[[Request], Awaitable[Response]]
Result = tuple[int, "Piece | Tensor | RequestError"]

MOST_ROWS = 64
"""Distributions over the vocabulary that the page gets at a time."""

DRAINED = 16
"""Multiple of the largest body that is read, and dropped, before a refusal."""

LEFT = 499
"""Status that the metrics show for a client that left before its answer; nobody receives it."""


class Application:
    """The endpoints and what they share.

    Args:
        models: models that are served, the default one first.
        engine: computes the answers.
        limits: limits of the server.
        page: HTML page of `/`.
        token: secret that clients must send; None for none.
    """

    def __init__(
        self, models: Sequence[ServedModel], engine: Engine, limits: Limits, page: str, token: str | None = None
    ) -> None:
        self._models = {model.name: model for model in models}
        self._engine, self._limits, self._page, self._token = engine, limits, page, token
        self._started = int(time.time())

    def asgi(self) -> Starlette:
        """Return the ASGI application."""
        routes = [
            Route("/", self._endpoint(self._show_page)),
            Route("/health", self._endpoint(self._health, is_open=True)),
            Route("/metrics", self._endpoint(self._show_metrics)),
            Route("/v1/models", self._endpoint(self._list_models)),
            Route("/v1/models/{name:path}", self._endpoint(self._show_model)),
            Route("/v1/completions", self._endpoint(self._complete), methods=["POST"]),
            Route("/page/distributions", self._endpoint(self._distributions), methods=["POST"]),
            Route("/page/model/{name:path}", self._endpoint(self._page_model)),
        ]
        handlers: Any = {HTTPException: self._no_route}
        return Starlette(routes=routes, exception_handlers=handlers)

    def _endpoint(self, work: Endpoint, is_open: bool = False) -> Endpoint:
        """Wrap an endpoint: check the token, turn errors into answers, count."""

        async def guarded(request: Request) -> Response:
            begin = time.monotonic()
            try:
                if not is_open:
                    self._authorize(request)
                response = await work(request)
            except RequestError as error:
                response = _refusal(error)
            except ClientDisconnect:
                # Nobody is left to receive it.
                response = Response(status_code=LEFT)
            if not isinstance(response, StreamingResponse):
                self._engine.metrics.responded(response.status_code, time.monotonic() - begin)
            return response

        return guarded

    def _authorize(self, request: Request) -> None:
        if self._token is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            # A browser asks its user for a password, and sends it with every request.
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                given = ""
        if scheme.lower() not in ("bearer", "basic") or not hmac.compare_digest(given.encode(), self._token.encode()):
            raise RequestError(401, "the token is missing or wrong; send the header Authorization: Bearer TOKEN")

    async def _no_route(self, request: Request, error: HTTPException) -> Response:
        messages = {
            404: f"{request.url.path[:100]}: no such path; see /v1/completions, /v1/models, /health, /metrics and /",
            405: f"{request.method[:20]}: not allowed here",
        }
        self._engine.metrics.responded(error.status_code, 0.0)
        refusal = _refusal(RequestError(error.status_code, messages.get(error.status_code, error.detail)))
        refusal.headers.update(error.headers or {})
        return refusal

    async def _show_page(self, _: Request) -> Response:
        return HTMLResponse(self._page)

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _show_metrics(self, _: Request) -> Response:
        return Response(
            self._engine.metrics.text(self._engine.gauges()), media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    async def _list_models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._described(name) for name in self._models]})

    async def _show_model(self, request: Request) -> Response:
        return JSONResponse(self._described(find_model(request.path_params["name"], self._models).name))

    def _described(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._started, "owned_by": "torch-linguist"}

    async def _complete(self, request: Request) -> Response:
        body = await _json_body(request, self._limits)
        asked = await asyncio.to_thread(parse_completion, body, self._models, self._limits)
        completions = [
            TextCompletion(
                prompt,
                asked.model.tokenizer,
                asked.sampling,
                asked.max_tokens,
                None if asked.seed is None else asked.seed + number,
                asked.stop,
                asked.logprobs,
                asked.echo,
            )
            for prompt in asked.prompts
            for number in range(asked.n)
        ]
        results = self._results(request, asked.model, completions, asked.stream)
        head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": asked.model.name,
        }
        if asked.stream:
            # The first result comes before the status, so that a refusal has a status of its own.
            first = await anext(results)
            return StreamingResponse(self._stream(asked, head, first, results), media_type="text/event-stream")
        pieces = {index: piece async for index, piece in results if isinstance(piece, Piece)}
        choices = [self._choice(asked, index, pieces[index]) for index in sorted(pieces)]
        return JSONResponse(head | {"choices": choices, "usage": usage(asked.prompts, list(pieces.values()))})

    async def _stream(
        self, asked: CompletionRequest, head: dict[str, Any], first: Result, results: AsyncIterator[Result]
    ) -> AsyncIterator[str]:
        """Yield the events of a stream."""
        begin, pieces, status = time.monotonic(), [], LEFT
        try:
            async for index, piece in _chained(first, results):
                assert isinstance(piece, Piece)
                pieces.append(piece)
                yield _event(head | {"choices": [self._choice(asked, index, piece)]})
                # Without a pause, the news that the client has left would wait for an empty queue.
                await asyncio.sleep(0)
            if asked.include_usage:
                yield _event(head | {"choices": [], "usage": usage(asked.prompts, pieces)})
            yield "data: [DONE]\n\n"
            status = 200
        except RequestError as error:
            status = error.status
            yield _event(error.as_dict())
        finally:
            self._engine.metrics.responded(status, time.monotonic() - begin)
            await results.aclose()  # type: ignore[attr-defined]

    @staticmethod
    def _choice(asked: CompletionRequest, index: int, piece: Piece) -> dict[str, Any]:
        scores = None if asked.logprobs is None else piece.scores
        return choice_as_dict(index, piece.text, scores, piece.reason, asked.model.token_names)

    async def _distributions(self, request: Request) -> Response:
        body = await _json_body(request, self._limits)
        model = find_model(body.get("model"), self._models)
        ids = token_list(body.get("tokens"), model.tokenizer.vocab_size, "tokens")
        begin = body.get("begin", 0)
        if type(begin) is not int or not 0 <= begin < len(ids) <= min(begin + MOST_ROWS, self._limits.tokens):
            raise RequestError(400, f"begin: must be one of the last {MOST_ROWS} positions of tokens", "begin")
        async for _, rows in self._results(request, model, [Distributions(ids, begin)], streams=False):
            if isinstance(rows, Tensor):
                content = rows.to(torch.float32).numpy().astype("<f4").tobytes()
        return Response(content, media_type="application/octet-stream")

    async def _page_model(self, request: Request) -> Response:
        model = find_model(request.path_params["name"], self._models)
        try:
            content = await asyncio.to_thread(lambda: model.page_model)
        except LinguistError as error:
            raise RequestError(404, str(error), "model") from error
        return Response(content, media_type="application/json")

    async def _results(
        self, request: Request, model: ServedModel, readings: Sequence[Any], streams: bool
    ) -> AsyncIterator[Result]:
        """Yield what the engine delivers; end its work if the client leaves.

        Raises:
            RequestError: the engine refuses or fails.
            ClientDisconnect: the client has left.
        """
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[Result | None]()

        def deliver(index: int, result: "Piece | Tensor | RequestError") -> None:
            loop.call_soon_threadsafe(queue.put_nowait, (index, result))

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            queue.put_nowait(None)

        job = self._engine.submit(model, readings, deliver, streams)
        # A streaming response watches the client itself.
        watching = None if streams else asyncio.create_task(watch())
        left = len(readings)
        try:
            while left:
                result = await queue.get()
                if result is None:
                    raise ClientDisconnect
                if isinstance(result[1], RequestError):
                    raise result[1]
                left -= not isinstance(result[1], Piece) or result[1].reason is not None
                yield result
        finally:
            if watching is not None:
                watching.cancel()
            if left:
                self._engine.cancel(job)


async def _chained(first: Result, rest: AsyncIterator[Result]) -> AsyncIterator[Result]:
    yield first
    async for result in rest:
        yield result


async def _json_body(request: Request, limits: Limits) -> dict[str, Any]:
    """Read a JSON object from the body.

    Raises:
        RequestError: the body is too large, too slow, or not a JSON object.
        ClientDisconnect: the client has left.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestError(415, "content-type: must be application/json")
    body, size, most = bytearray(), 0, DRAINED * limits.body_bytes
    length = request.headers.get("content-length", "0")
    is_hopeless = len(length) > 18 or int(length) > most
    try:
        async with asyncio.timeout(limits.body_seconds):
            # Many clients read the answer only after they have sent everything.
            while not is_hopeless and size <= most:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                size += len(message["body"])
                if size <= limits.body_bytes:
                    body += message["body"]
                if not message["more_body"]:
                    break
    except TimeoutError:
        raise RequestError(408, f"body: not complete after {limits.body_seconds:g} seconds") from None
    if is_hopeless or size > limits.body_bytes:
        raise RequestError(413, f"body: larger than {limits.body_bytes} bytes")
    return await asyncio.to_thread(parse_json, bytes(body))


def _refusal(error: RequestError) -> JSONResponse:
    headers = {}
    if error.status == 401:
        headers["www-authenticate"] = 'Bearer, Basic realm="torch-linguist"'
    if error.status in (429, 503):
        headers["retry-after"] = "1"
    if error.status in (408, 413):
        # What is left of the body would be read as the next request.
        headers["connection"] = "close"
    return JSONResponse(error.as_dict(), error.status, headers)


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"

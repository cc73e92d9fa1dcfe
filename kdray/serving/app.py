"""A service becomes an HTTP application: Hugging Face's inference protocol, bulk, Open Inference v2, metrics, a page.

Knows nothing about models or Ray. No text of a request is ever logged, and no answer tells of a trace or a path.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.requests import Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import kdray
from kdray.serving import metrics, openinference, protocol, vectors
from kdray.serving.protocol import BulkRequest, InferenceRequest, Refusal, dumps
from kdray.serving.roster import DEFAULT
from kdray.serving.service import Answers, Service, log_bug
from kdray.serving.vectors import EmbeddingsRequest, RerankRequest
from kdray.tasks import TASKS, Task

_PAGE = Path(__file__).with_name("page.html")
_PAGE_HEADERS = {"content-security-policy": "frame-ancestors 'none'", "x-content-type-options": "nosniff"}
_NDJSON = "application/x-ndjson"
_GZIP = 31
"""What zlib calls a gzip stream."""
Ask = Callable[[list[Any], dict[str, Any]], Awaitable[Answers]]
Handler = Callable[[Request], Awaitable[Response]]
Posted = Callable[[Request, bytes], Awaitable[Response]]


class Problem(BaseModel):
    """The body of every answer that is not 200."""

    error: str


class ModelCard(BaseModel):
    """What is served, and what it was made from."""

    name: str
    key: str
    task: str
    labels: list[str]
    shown: str
    numbers: dict[str, Any]
    parents: dict[str, Any]
    lineage: dict[str, Any]
    checks: dict[str, Any]
    students: list[str]
    teacher: bool
    columns: list[str]
    example: Any


def http_app(service: Service) -> FastAPI:
    """The routes and the refusals of a replica."""
    api = FastAPIOffline(
        redoc_url=None, title="kdray", version=kdray.__version__, description="Distilled models behind HTTP.",
        exception_handlers={HTTPException: _http_error})
    routes = _Routes(service)
    asks = _asks(InferenceRequest)
    _add(api, "POST", "/", routes.posted(routes.answer), asks)
    _add(api, "POST", "/models/{name}", routes.posted(routes.answer), asks)
    _add(api, "POST", "/v1/predict", routes.posted(routes.bulk), _asks(BulkRequest))
    _add(api, "POST", "/v1/teacher", routes.posted(routes.teacher), asks)
    _add(api, "POST", "/v1/embeddings", routes.posted(routes.embeddings), _asks(EmbeddingsRequest))
    _add(api, "POST", "/rerank", routes.posted(routes.rerank), _asks(RerankRequest))
    _add(api, "GET", "/v1/model", routes.card,
         {"responses": {200: {"model": ModelCard}}, "parameters": [_name("query")]})
    _add(api, "GET", "/health", routes.health)
    _add(api, "GET", "/metrics", routes.metrics)
    _add(api, "GET", "/", routes.page)
    _add(api, "GET", "/v2", routes.server)
    _add(api, "GET", "/v2/health/live", routes.health)
    _add(api, "GET", "/v2/health/ready", routes.health)
    _add(api, "GET", "/v2/models/{name}", routes.model)
    _add(api, "GET", "/v2/models/{name}/ready", routes.ready)
    _add(api, "POST", "/v2/models/{name}/infer", routes.posted(routes.infer), _asks(openinference.InferRequest))
    api.add_api_route("/-/healthz", _settled(routes.health), include_in_schema=False)
    _describe(api)
    return api


class _Routes:
    """One method a route; its docstring is its description at /docs."""

    def __init__(self, service: Service):
        self.service = service
        self._page = _PAGE.read_text(encoding="utf-8")

    def posted(self, handler: Posted) -> Handler:
        """The handler of a request whose body has come; it is given up when nobody is there for the answer."""

        async def handle(request: Request) -> Response:
            return await _while_connected(request, handler(request, await self._body(request)))

        handle.__doc__, handle.__name__ = handler.__doc__, handler.__name__
        return handle

    async def answer(self, request: Request, body: bytes) -> Response:
        """The answer to a text, in a list of its own where it is a list of labels; to a list, one answer each."""
        name = request.path_params.get("name", DEFAULT)
        return await self._inference(request, body, name, partial(self.service.ask, name))

    async def teacher(self, request: Request, body: bytes) -> Response:
        """The teacher's answers, as the student's would be."""
        return await self._inference(request, body, DEFAULT, self.service.ask_teacher)

    async def _inference(self, request: Request, body: bytes, name: str, ask: Ask) -> Response:
        task = self._task(name)
        inputs, parameters, many = protocol.parse_inference(
            body, request.headers.get("content-type", ""), self.service.limits, task.options)
        nested = task.ranked
        found = protocol.answered((await ask(inputs, parameters)).predictions, many)
        answers: list[Any] = [prediction.answer for prediction in found]
        return _json(answers if many or nested else answers[0])

    async def bulk(self, request: Request, body: bytes) -> Response:
        """Each input's answer or error, in order; as lines while they come, where the request accepts NDJSON."""
        asked: BulkRequest = protocol.parse(BulkRequest, body, request.headers.get("content-type", ""))
        protocol.check_count(len(asked.inputs), self.service.limits.bulk)
        name = asked.model or DEFAULT
        self.service.manifests(name)
        parts = self.service.bulk(name, asked.inputs, asked.parameters or {})
        if _NDJSON in request.headers.get("accept", ""):
            return StreamingResponse(_lines(parts), media_type=_NDJSON)
        async with aclosing(parts):
            return _json({"answers": [told async for part in parts for told in part]})

    async def embeddings(self, request: Request, body: bytes) -> Response:
        """The vectors of texts, as OpenAI's service answers."""
        asked: EmbeddingsRequest = protocol.parse(EmbeddingsRequest, body, request.headers.get("content-type", ""))
        name = self._answering(asked.model, "embeddings")
        inputs, parameters = vectors.embedding_inputs(asked, self.service.limits)
        answers = await self.service.ask(name, inputs, parameters)
        return _json(vectors.embeddings(asked, name, protocol.answered(answers.predictions, many=True)))

    async def rerank(self, request: Request, body: bytes) -> Response:
        """Texts by how well they go with a query, best first, as text-embeddings-inference answers."""
        asked: RerankRequest = protocol.parse(RerankRequest, body, request.headers.get("content-type", ""))
        name = self._answering(asked.model, "rerank")
        answers = await self.service.ask(name, vectors.rerank_inputs(asked, self.service.limits), {})
        return _json(vectors.ranking(asked, protocol.answered(answers.predictions, many=True)))

    def _answering(self, model: str | None, route: str) -> str:
        """Name of a student that a route is for. Raises Refusal (404)."""
        name = model or DEFAULT
        task = self._task(name)
        if route not in task.routes:
            raise Refusal(404, f"{name} is a student of {task.name}, which has no {route}: ask for its answers at /")
        return name

    def _task(self, name: str) -> Task:
        return TASKS[self.service.manifests(name)[0]["task"]]

    async def card(self, request: Request) -> Response:
        """The task, its columns and an example, the labels, the numbers it was accepted with, what it was made from."""
        name = request.query_params.get("name") or DEFAULT
        manifest = self.service.manifests(name)[0]
        task = TASKS[manifest["task"]]
        known: dict[str, Any] = {part: manifest.get(part) or {} for part in ("numbers", "parents", "lineage", "checks")}
        return _json({"name": name, **{part: manifest[part] for part in ("key", "task", "labels")}, **known,
                      "shown": task.shown,
                      "students": list(self.service.roster.slots),
                      "teacher": self.service.has_teacher and name == DEFAULT,
                      "columns": list(task.columns), "example": task.example})

    async def health(self, _: Request) -> Response:
        """Whether it answers: 503 where a model is stuck."""
        return _problem(503, "a model is stuck") if self.service.stuck else _json({"status": "ok"})

    async def metrics(self, _: Request) -> Response:
        """Prometheus metrics of all replicas on this machine."""
        return Response(metrics.exposition(), media_type=metrics.CONTENT_TYPE)

    async def page(self, _: Request) -> Response:
        """A page to try it."""
        return HTMLResponse(self._page, headers=_PAGE_HEADERS)

    async def server(self, _: Request) -> Response:
        """Open Inference Protocol: what the server is."""
        return _json({"name": "kdray", "version": kdray.__version__, "extensions": ["binary_tensor_data"]})

    async def model(self, request: Request) -> Response:
        """Open Inference Protocol: what a student takes and gives."""
        name = request.path_params["name"]
        task, keys = self._task(name), [one["key"] for one in self.service.manifests(name)]
        return _json(openinference.metadata(name, keys, task.ranked, task.fields))

    async def ready(self, request: Request) -> Response:
        """Open Inference Protocol: whether a student is there."""
        self.service.manifests(request.path_params["name"])
        return _json({"name": request.path_params["name"], "ready": True})

    async def infer(self, request: Request, body: bytes) -> Response:
        """Open Inference Protocol: the answers to a tensor of texts."""
        name, limits = request.path_params["name"], self.service.limits
        task = self._task(name)
        asked = openinference.parse_infer(body, request.headers.get(openinference.HEADER), task.fields)
        protocol.check_count(len(asked.inputs), limits.bulk)
        for index, text in enumerate(asked.inputs):
            if problem := protocol.complaint(text, limits):
                raise Refusal(problem[0], f"{protocol.place(True, index)}: {problem[1]}")
        answers = await self.service.ask(name, list(asked.inputs), asked.parameters)
        found = protocol.answered(answers.predictions, many=True)
        return _json(openinference.infer_response(asked, name, answers.package, [one.answer for one in found],
                                                  task.ranked))

    async def _body(self, request: Request) -> bytes:
        """The body, unpacked. Raises Refusal (413) as soon as it is longer than the limit, 415, 422."""
        most = self.service.limits.body
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip", "x-gzip"):
            raise Refusal(415, f"content-encoding: {encoding[:20]!r} is not understood, only gzip")
        unpack = None if encoding == "identity" else zlib.decompressobj(_GZIP)
        parts, length = [], 0
        async for part in request.stream():
            part = _unpacked(unpack, part, most + 1 - length) if unpack else part
            length += len(part)
            if length > most:
                raise Refusal(413, f"the body has more than {most} bytes")
            parts.append(part)
        if unpack and not unpack.eof:
            raise Refusal(422, "the body ends within its gzip stream")
        return b"".join(parts)


def _unpacked(unpack: Any, part: bytes, most: int) -> bytes:
    try:
        return unpack.decompress(part, most)
    except zlib.error:
        raise Refusal(422, "the body is not gzip, which content-encoding says that it is") from None


async def _while_connected(request: Request, work: Any) -> Response:
    """The response that `work` makes. Cancels it, and raises ClientDisconnect, where the client goes before."""
    task: asyncio.Task[Response] = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())  # the body has come: all that may come is the end
    gone.add_done_callback(lambda _: task.cancel())
    try:
        return await task
    except asyncio.CancelledError:
        if gone.done() and not gone.cancelled():
            raise ClientDisconnect from None
        task.cancel()
        raise
    finally:
        gone.cancel()


def _add(api: FastAPI, method: str, path: str, handler: Handler, extra: dict[str, Any] | None = None) -> None:
    problems: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in (
        (401, 404, 413, 415, 422, 500, 503, 504) if method == "POST" else (401, 404, 503))}
    extra = dict(extra or {})
    if "{name}" in path:
        extra["parameters"] = [_name("path")]
    responses = {**problems, **extra.pop("responses", {})}
    api.add_api_route(path, _settled(handler), methods=[method], responses=responses, description=handler.__doc__,
                      name=handler.__name__, operation_id=f"{method.lower()}_{path}", openapi_extra=extra)
    if method == "GET":
        api.add_api_route(path, _settled(handler), methods=["HEAD"], include_in_schema=False)


def _settled(handler: Handler) -> Handler:
    """The handler with its refusals and bugs as answers."""

    async def settle(request: Request) -> Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            response = _problem(refusal.status, str(refusal))
            if refusal.retry is not None:
                response.headers["retry-after"] = str(refusal.retry)
            return response
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as error:
            log_bug(error)
            return _problem(500, "internal error")

    return settle


async def _lines(parts: AsyncIterator[list[dict[str, Any]]]) -> AsyncIterator[bytes]:
    """One line an input. The status is sent by then, so that a bug is the last line."""
    index = 0
    try:
        async with aclosing(parts):  # type: ignore[type-var]  # it is a generator
            async for part in parts:
                yield b"".join(dumps({"index": index + place, **told}) + b"\n" for place, told in enumerate(part))
                index += len(part)
    except Exception as error:
        log_bug(error)
        yield dumps({"index": index, "error": "internal error", "status": 500}) + b"\n"


async def _http_error(_: Request, error: Any) -> Response:
    response = _problem(error.status_code, str(error.detail))
    response.headers.update(error.headers or {})
    return response


def _problem(status: int, message: str) -> Response:
    return Response(dumps({"error": message}), status, media_type="application/json")


def _json(value: Any) -> Response:
    return Response(dumps(value), media_type="application/json")


def _asks(model: type[BaseModel]) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _name(place: str) -> dict[str, Any]:
    return {"name": "name", "in": place, "required": place == "path", "description": "A student of the service.",
            "schema": {"type": "string"}}


def _describe(api: FastAPI) -> None:
    """Adds bodies and keys to the OpenAPI page: FastAPI does not know them, handlers and the guard read them."""
    page = api.openapi()
    page["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    page["security"] = [{}, {"key": []}]
    schemas = page["components"]["schemas"]
    for model in (InferenceRequest, BulkRequest, EmbeddingsRequest, RerankRequest, openinference.InferRequest):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema

"""A service becomes an HTTP application: Hugging Face's inference protocol, bulk, Open Inference v2, metrics, a page.

Knows nothing about models or Ray. No text of a request is ever logged, and no answer tells of a trace or a path.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.requests import Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import kdray
from kdray.serving import metrics, openinference, protocol
from kdray.serving.advice import Ask
from kdray.serving.protocol import BulkRequest, InferenceRequest, Refusal, dumps
from kdray.serving.roster import DEFAULT
from kdray.serving.service import Service, log_bug
from kdray.tasks import TASKS

_PAGE = Path(__file__).with_name("page.html")
_PAGE_HEADERS = {"content-security-policy": "frame-ancestors 'none'", "x-content-type-options": "nosniff"}
_NDJSON = "application/x-ndjson"
_WINDOW = 64
"""Inputs of a streamed bulk request that are in the queue at a time."""
Handler = Callable[[Request], Awaitable[Response]]


class Problem(BaseModel):
    """The body of every answer that is not 200."""

    error: str


class ModelCard(BaseModel):
    """What is served, and what it was made from."""

    name: str
    key: str
    task: str
    labels: list[str]
    numbers: dict[str, Any]
    parents: dict[str, Any]
    lineage: dict[str, Any]
    checks: dict[str, Any]
    students: list[str]
    teacher: bool


def http_app(service: Service) -> FastAPI:
    """The routes and the refusals of a replica."""
    api = FastAPI(title="kdray", version=kdray.__version__, description="Distilled models behind HTTP.",
                  exception_handlers={HTTPException: _http_error})
    routes = _Routes(service)
    asks = _asks(InferenceRequest)
    _add(api, "POST", "/", routes.answer, asks)
    _add(api, "POST", "/models/{name}", routes.answer, asks)
    _add(api, "POST", "/v1/predict", routes.bulk, _asks(BulkRequest))
    _add(api, "POST", "/v1/teacher", routes.teacher, asks)
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
    _add(api, "POST", "/v2/models/{name}/infer", routes.infer, _asks(openinference.InferRequest))
    api.add_api_route("/-/healthz", lambda: Response("success"), include_in_schema=False)
    api.add_api_route("/-/routes", lambda: {"/": "kdray"}, include_in_schema=False)
    _describe(api)
    return api


class _Routes:
    """One method a route; its docstring is its description at /docs."""

    def __init__(self, service: Service):
        self.service = service
        self._page = _PAGE.read_text(encoding="utf-8")

    async def answer(self, request: Request) -> Response:
        """The answer to a text, in a list of its own for text-classification; to a list, one answer each."""
        name = request.path_params.get("name", DEFAULT)
        return await self._inference(request, name, partial(self.service.ask, name))

    async def teacher(self, request: Request) -> Response:
        """The teacher's answers, as the student's would be."""
        return await self._inference(request, DEFAULT, self.service.ask_teacher)

    async def _inference(self, request: Request, name: str, ask: Ask) -> Response:
        inputs, parameters, many = protocol.parse_inference(
            await self._body(request), request.headers.get("content-type", ""), self.service.limits)
        nested = _scored(self.service.manifest(name))
        found = protocol.answered(await ask(inputs, parameters), many)
        answers: list[Any] = [prediction.answer for prediction in found]
        return _json(answers if many or nested else answers[0])

    async def bulk(self, request: Request) -> Response:
        """Each input's answer or error, in order; as lines while they come, where the request accepts NDJSON."""
        asked: BulkRequest = protocol.parse(BulkRequest, await self._body(request),
                                            request.headers.get("content-type", ""))
        protocol.check_count(len(asked.inputs), self.service.limits.bulk)
        name = asked.model or DEFAULT
        self.service.manifest(name)
        windows = self._windows(name, asked)
        if _NDJSON in request.headers.get("accept", ""):
            return StreamingResponse(_lines(windows), media_type=_NDJSON)
        return _json({"answers": [told async for window in windows for told in window]})

    async def _windows(self, name: str, asked: BulkRequest) -> AsyncIterator[list[dict[str, Any]]]:
        for start in range(0, len(asked.inputs), _WINDOW):
            yield await self.service.each(name, asked.inputs[start:start + _WINDOW], asked.parameters)

    async def card(self, request: Request) -> Response:
        """The task, the labels, the numbers it was accepted with, and the artefacts it was made from."""
        name = request.query_params.get("name") or DEFAULT
        manifest = self.service.manifest(name)
        known: dict[str, Any] = {part: manifest.get(part) or {} for part in ("numbers", "parents", "lineage", "checks")}
        return _json({"name": name, **{part: manifest[part] for part in ("key", "task", "labels")}, **known,
                      "students": list(self.service.roster.slots),
                      "teacher": self.service.has_teacher and name == DEFAULT})

    async def health(self, _: Request) -> Response:
        """Whether a student is there."""
        return _json({"status": "ok"})

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
        manifest = self.service.manifest(request.path_params["name"])
        return _json(openinference.metadata(request.path_params["name"], manifest["key"], _scored(manifest)))

    async def ready(self, request: Request) -> Response:
        """Open Inference Protocol: whether a student is there."""
        self.service.manifest(request.path_params["name"])
        return _json({"name": request.path_params["name"], "ready": True})

    async def infer(self, request: Request) -> Response:
        """Open Inference Protocol: the answers to a tensor of texts."""
        name, limits = request.path_params["name"], self.service.limits
        manifest = self.service.manifest(name)
        asked = openinference.parse_infer(await self._body(request), request.headers.get(openinference.HEADER))
        protocol.check_count(len(asked.texts), limits.bulk)
        for index, text in enumerate(asked.texts):
            if problem := protocol.complaint(text, limits):
                raise Refusal(problem[0], f"{protocol.place(True, index)}: {problem[1]}")
        found = protocol.answered(await self.service.ask(name, list(asked.texts), asked.parameters), many=True)
        return _json(openinference.infer_response(asked, name, manifest["key"], [one.answer for one in found],
                                                  _scored(manifest)))

    async def _body(self, request: Request) -> bytes:
        """The body. Raises Refusal (413) as soon as it is longer than the limit."""
        most = self.service.limits.body
        parts, length = [], 0
        async for part in request.stream():
            length += len(part)
            if length > most:
                raise Refusal(413, f"the body has more than {most} bytes")
            parts.append(part)
        return b"".join(parts)


def _add(api: FastAPI, method: str, path: str, handler: Handler, extra: dict[str, Any] | None = None) -> None:
    problems: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in (
        (401, 404, 413, 422, 500, 503, 504) if method == "POST" else (401, 404))}
    extra = dict(extra or {})
    if "{name}" in path:
        extra["parameters"] = [_name("path")]
    responses = {**problems, **extra.pop("responses", {})}
    api.add_api_route(path, _settled(path, handler), methods=[method], responses=responses, description=handler.__doc__,
                      name=handler.__name__, operation_id=f"{method.lower()}_{path}", openapi_extra=extra)


def _settled(path: str, handler: Handler) -> Handler:
    """The handler with its refusals and bugs as answers, and its time measured."""

    async def settle(request: Request) -> Response:
        started = time.perf_counter()
        try:
            response = await handler(request)
        except Refusal as refusal:
            response = _problem(refusal.status, str(refusal))
            if refusal.retry is not None:
                response.headers["retry-after"] = str(refusal.retry)
        except ClientDisconnect:
            response = Response(status_code=499)
        except Exception as error:
            log_bug(error)
            response = _problem(500, "internal error")
        metrics.REQUESTS.labels(path, response.status_code).observe(time.perf_counter() - started)
        return response

    return settle


async def _lines(windows: AsyncIterator[list[dict[str, Any]]]) -> AsyncIterator[bytes]:
    """One line an input. The status is sent by then, so that what ends the stream is its last line."""
    index = 0
    try:
        async for window in windows:
            yield b"".join(dumps({"index": index + place, **told}) + b"\n" for place, told in enumerate(window))
            index += len(window)
    except Refusal as refusal:
        yield dumps({"index": index, "error": str(refusal), "status": refusal.status}) + b"\n"
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


def _scored(manifest: dict[str, Any]) -> bool:
    return TASKS[manifest["task"]].pipeline_tag == "text-classification"


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
    for model in (InferenceRequest, BulkRequest, openinference.InferRequest):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema

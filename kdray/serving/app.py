"""A package becomes an HTTP endpoint that speaks the Hugging Face inference protocol.

Knows nothing about models: a predictor answers, a batcher says when, and Ray Serve carries the requests.
No text of a request is ever logged.
"""

import asyncio
import logging
import signal
import socket
import threading
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.requests import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator
from ray import serve
from starlette.exceptions import HTTPException

from kdray.cluster import check_resources
from kdray.config import ServeConfig
from kdray.errors import ClusterError
from kdray.serving.batcher import Batcher
from kdray.serving.predictor import Answer, Item, Predictor, RefusedError, read_package, resolve_backend
from kdray.tasks import TASKS

logger = logging.getLogger("kdray")

_APP = "kdray"
_LOGGING = {"log_level": "WARNING", "enable_access_log": False}
_ONGOING_REQUESTS = 1024
_TOKENS_PER_ITEM = 16
"""A short input's tokens: what makes a batch of `batch_tokens` from the number of inputs."""

_INPUT: list[Any] = [{"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}}]
_INPUTS = WithJsonSchema({"anyOf": [*_INPUT, {"type": "array", "items": {"anyOf": _INPUT}}]})
_EXAMPLES: list[Any] = [
    {"inputs": "What a lovely film."},
    {"inputs": ["What a lovely film.", "I left after ten minutes."], "parameters": {"top_k": 1}},
    {"inputs": {"text": "A man plays the guitar.", "text_pair": "Somebody makes music."}},
    {"inputs": "Ada Lovelace lived in London.", "parameters": {"aggregation_strategy": "simple"}},
]


class InferenceRequest(BaseModel):
    """The body of a request in the Hugging Face inference protocol."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": _EXAMPLES})

    inputs: Annotated[Any, _INPUTS] = Field(
        description='A text, a pair of texts as {"text": ..., "text_pair": ...}, or a list of either')
    parameters: dict[str, Any] = Field({}, description="text-classification: top_k, function_to_apply; "
                                       "token-classification: aggregation_strategy, ignore_labels")

    @field_validator("inputs")
    @classmethod
    def _hold_text(cls, inputs: Any) -> Any:
        for index, item in enumerate(inputs if isinstance(inputs, list) else [inputs]):
            for text in item.values() if isinstance(item, dict) else [item]:
                if isinstance(text, str) and not text.strip():
                    raise ValueError(f"{_place(inputs, index)}: the text is empty")
        return inputs


class Problem(BaseModel):
    """The body of every answer that is not 200."""

    error: str


class ModelCard(BaseModel):
    """What is served, and what it was made from."""

    key: str
    task: str
    labels: list[str]
    numbers: dict[str, Any]
    parents: dict[str, Any]


class Endpoint:
    """One replica: a predictor, and a batcher in front of it."""

    def __init__(self, folder: str, backend: str, num_gpus: float, threads: int, batch_tokens: int):
        self._manifest = read_package(Path(folder))
        predictor = Predictor(Path(folder), backend, num_gpus, threads, batch_tokens)
        _warm_up(predictor)
        max_items = max(1, batch_tokens // _TOKENS_PER_ITEM)
        self._batcher: Batcher[Item, Answer] = Batcher(predictor.predict, max_items)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return http_app(self._batcher, self._manifest)


def http_app(batcher: Batcher[Item, Answer], manifest: dict[str, Any]) -> FastAPI:
    """The routes and the refusals of a replica."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await batcher.close()

    api = FastAPI(title="kdray", lifespan=lifespan, exception_handlers={
        RequestValidationError: _not_the_protocol, HTTPException: _refusal, Exception: _bug},
        description="A distilled model behind the Hugging Face inference protocol.")
    nested = TASKS[manifest["task"]].pipeline_tag == "text-classification"

    @api.post("/", responses={422: {"model": Problem}, 500: {"model": Problem}})
    async def answer(request: InferenceRequest) -> list[Any]:
        """The answer to a text, in a list of its own for text-classification; to a list, one answer each."""
        many = isinstance(request.inputs, list)
        answers = await _answers(batcher, request)
        return answers if many or nested else answers[0]

    @api.get("/health")
    async def health() -> dict[str, str]:
        """Whether the model is there."""
        return {"status": "ok"}

    @api.get("/v1/model")
    async def model() -> ModelCard:
        """The task, the labels, the numbers it was accepted with, and the artefacts it was made from."""
        return ModelCard.model_validate(manifest)

    return api


async def _answers(batcher: Batcher[Item, Answer], request: InferenceRequest) -> list[Answer]:
    inputs = request.inputs if isinstance(request.inputs, list) else [request.inputs]
    work = (batcher.submit((item, request.parameters)) for item in inputs)
    answers: list[Answer] = []
    for index, answer in enumerate(await asyncio.gather(*work, return_exceptions=True)):
        if isinstance(answer, RefusedError):
            where = _place(request.inputs, index) if answer.field == "inputs" else answer.field
            raise HTTPException(422, f"{where}: {answer}")
        if isinstance(answer, BaseException):
            raise _internal(answer)
        answers.append(answer)
    return answers


async def _not_the_protocol(_: Request, error: Any) -> JSONResponse:
    return JSONResponse({"error": "; ".join(_complaint(item) for item in error.errors())}, 422)


async def _refusal(_: Request, error: Any) -> JSONResponse:
    if error.status_code == 400:
        return JSONResponse({"error": "the body is not JSON in UTF-8"}, 422)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _bug(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": "internal error"}, 500)


def build(package_folder: str, settings: ServeConfig) -> serve.Application:
    """The Serve application for the package in `package_folder`, a path that every node must have."""
    deployment = serve.deployment(
        name="Endpoint", num_replicas=settings.replicas, max_ongoing_requests=_ONGOING_REQUESTS,
        ray_actor_options={"num_cpus": settings.num_cpus, "num_gpus": settings.num_gpus},
        max_constructor_retry_count=2, logging_config=_LOGGING)(serve.ingress()(Endpoint))
    return deployment.bind(package_folder, settings.backend, settings.num_gpus,
                           threads=max(1, int(settings.num_cpus)), batch_tokens=settings.batch_tokens)


def deploy(package_folder: str, settings: ServeConfig, blocking: bool) -> str:
    """Puts a package behind HTTP and returns its URL, once it answers. Ray must be connected.

    With `blocking`, stays until Ctrl-C or SIGTERM and then takes the endpoint down. Raises KdrayError where
    the package cannot be served, the cluster is too small or the port is taken.
    """
    folder = Path(package_folder).expanduser().resolve()
    task = read_package(folder)["task"]
    backend = resolve_backend(folder, settings.backend, settings.num_gpus)
    check_resources(settings.replicas, {"CPU": settings.num_cpus, "GPU": settings.num_gpus}, "serve.replicas")
    if not blocking:
        return _start(folder, settings)
    with _sigterm_is_ctrl_c():
        url = _start(folder, settings)
        logger.info("%s with %s answers at %s", task, backend, url)
        try:
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
        finally:
            take_down()
    return url


def take_down() -> None:
    """Stops the endpoint, and Serve with it where nothing else runs on it."""
    if serve.status().applications.keys() <= {_APP}:
        serve.shutdown()
    else:
        serve.delete(_APP)


def _start(folder: Path, settings: ServeConfig) -> str:
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    running = bool(serve.status().proxies)
    port = settings.port if running else _free_port(settings.host, settings.port)
    try:
        serve.start(http_options={"host": settings.host, "port": port}, logging_config=_LOGGING)
        serve.run(build(str(folder), settings), name=_APP)
    except BaseException as error:
        if not running:
            take_down()
        if isinstance(error, RuntimeError):
            raise ClusterError(f"Ray Serve did not start {folder}: {error} The log of the replica, "
                               "logs/serve in Ray's session folder, says why") from error
        raise
    return _url(settings.host, port)


@contextmanager
def _sigterm_is_ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _free_port(host: str, port: int) -> int:
    """`port`, or any that is free where it is 0."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family) as server:
            return server.getsockname()[1]
    except OSError as error:
        raise ClusterError(f"cannot listen on {host}:{port}: {error.strerror}. Choose another `serve.port` "
                           "or `serve.host`") from error


def _url(host: str, port: int) -> str:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def _warm_up(predictor: Predictor) -> None:
    """The first run is slow, and shows whether the package works at all."""
    for answer in predictor.predict([("ready", {})]):
        if isinstance(answer, Exception):
            raise answer


def _internal(error: BaseException) -> HTTPException:
    """Logs where a bug is. Its message may hold a request's text, so it is left out."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("a request failed with %s\n%s", type(error).__name__, frames)
    return HTTPException(500, "internal error")


def _place(inputs: Any, index: int) -> str:
    return f"inputs[{index}]" if isinstance(inputs, list) else "inputs"


def _complaint(item: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in item["loc"][1:])
    if item["type"] == "json_invalid":
        return f"the body is not JSON: {item['ctx']['error']} at character {item['loc'][-1]}"
    if item["type"] == "extra_forbidden":
        return f"unknown key {where!r}; known are {', '.join(InferenceRequest.model_fields)}"
    if item["type"] == "value_error":
        return item["msg"].removeprefix("Value error, ")
    if not where:
        return "the body must be a JSON object, sent with content-type: application/json"
    return f"{where} is required" if item["type"] == "missing" else f"{where}: {item['msg']}"

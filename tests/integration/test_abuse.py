"""A service that is asked nonsense keeps its head: refusals that tell nothing, no bug, no lost memory or socket.

The nonsense comes from the service's own OpenAPI page (schemathesis) and from a fuzzer that writes bytes to sockets.
"""

import asyncio
import hashlib
import json
import random
import re
import socket
import struct
import sys
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httptools
import hypothesis
import psutil
import pytest
import ray
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from ray import serve

from kdray.config import ServeConfig
from kdray.serving.deploy import deploy
from kdray.serving.guard import digest
from kdray.serving.haproxy import binary
from tests.integration.conftest import ROOT

SEED = 20
KEY = "the key that nobody may see"
SECRET = "zanzibarquokka"
TEXTS = [f"{SECRET} saw a good film", "a bad one", {"text": "this", "text_pair": "and that"}]
OPEN = ("/", "/health", "/v2/health/live", "/v2/health/ready")
TELLING = re.compile(b"|".join([rb"Traceback", rb"[Ee]xception", rb'File "', rb"\.py\b", rb"site-packages",
                                *(re.escape(text.encode()) for text in (
                                    KEY, hashlib.sha256(KEY.encode()).hexdigest(), str(ROOT), sys.prefix,
                                    str(Path.home()) + "/"))]))
"""What no answer may hold: traces, paths, keys."""
LARGEST = 8 * 2**20
AT_ONCE = 16
MIB = 2**20


@dataclass(frozen=True)
class Attack:
    """Bytes for one connection."""

    name: str
    parts: list[bytes]
    answers: int = 0
    """Answers that must come; with 0 none need come."""
    pause: float = 0.0
    """Seconds before each further part."""


@dataclass
class Answers:
    """What came back on a connection; raises where it is not HTTP."""

    statuses: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[bytes, bytes]] = field(default_factory=list)
    complete: int = 0

    def on_message_begin(self) -> None:
        self.headers.append({})
        self.bodies.append(b"")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[-1][name.lower()] = value

    def on_headers_complete(self) -> None:
        self.statuses.append(self.parser.get_status_code())

    def on_body(self, part: bytes) -> None:
        self.bodies[-1] += part

    def on_message_complete(self) -> None:
        self.complete += self.statuses[-1] != 100

    def __post_init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)


class Service:
    """The service, and the processes behind it."""

    def __init__(self, url: str):
        self.url, self.host = url, urllib.parse.urlsplit(url).netloc
        self.replica, self.ingress = child("ray::ServeReplica:kdray:"), child(binary())
        self.logs = Path(ray._private.worker.global_worker.node.get_session_dir_path()) / "logs"

    def told(self) -> list[Any]:
        """The answers to what is no nonsense."""
        return [self._post("/", {"inputs": TEXTS}), self._post("/models/names", {"inputs": TEXTS[:2]})]

    def _post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {
            "content-type": "application/json", "authorization": f"Bearer {KEY}"})
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.loads(response.read())

    def connect(self) -> socket.socket:
        """A client's end of a connection."""
        host, _, port = self.host.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=20)

    def sockets(self) -> int:
        """Connections of clients that the ingress holds."""
        port = int(self.host.rpartition(":")[2])
        return sum(one.laddr.port == port and one.status != "LISTEN" for one in self.ingress.net_connections("tcp"))

    def memory(self) -> float:
        """MiB of the replica and the ingress."""
        return sum(one.memory_info().rss for one in (self.replica, self.ingress)) / MIB

    def output(self) -> str:
        """Everything that the replica has written."""
        files = [*self.logs.glob(f"worker-*-{self.replica.pid}.*"), *self.logs.glob("serve/replica_*")]
        assert files
        return "".join(file.read_text(errors="replace") for file in files)

    def logs_with(self, text: str) -> list[Path]:
        """Logs of Ray, of all its processes, that hold `text`."""
        return [file for file in self.logs.rglob("*") if file.is_file() and text.encode() in file.read_bytes()]


def child(name: str) -> psutil.Process:
    """The process below this one whose command begins so."""
    (found,) = [one for one in psutil.Process().children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE
                and "".join(one.cmdline()[:1]).startswith(name)]
    return found


@pytest.fixture(scope="module")
def service(films: Path, names: Path) -> Iterator[Service]:
    ray.init("local", num_cpus=2, include_dashboard=False)
    try:
        yield Service(deploy({"default": str(films), "names": str(names)},
                             ServeConfig(port=0, max_queue=8192), [digest(KEY), digest("another key, just as long")],
                             blocking=False))
    finally:
        serve.shutdown()
        ray.shutdown()


def test_two_thousand_bad_requests(service: Service) -> None:
    abuse(service, 2_000, SEED)


@pytest.mark.slow
def test_ten_thousand_bad_requests(service: Service) -> None:
    abuse(service, 10_000, SEED + 1)


def abuse(service: Service, count: int, seed: int) -> None:
    """Asks `count` times for nonsense, in halves, and checks what the service made of it."""
    told, written = service.told(), len(service.output())
    abuse_half(service, count // 2, seed)
    memory = service.memory()
    abuse_half(service, count - count // 2, seed + 1000)
    grown = service.memory() - memory
    assert service.told() == told
    assert service.replica.is_running() and service.replica.status() != psutil.STATUS_ZOMBIE
    assert grown < 48, f"the second half of {count} requests left {grown:.0f} MiB, {memory:.0f} were there before"
    until(lambda: service.sockets() == 0, "sockets stay open")
    output = service.output()
    assert not TELLING.search(output[written:].encode()), output[written:][:2000]
    assert len(output) - written < 10_000, "bad requests fill the log"
    assert not service.logs_with(SECRET) and not service.logs_with(KEY)


def abuse_half(service: Service, count: int, seed: int) -> None:
    """The requests of the OpenAPI page come first; the fuzzer fills the number up."""
    asked = asks_from_the_page(service, count // 2, seed)
    rng = random.Random(seed)
    attacks = [KINDS[number % len(KINDS)](rng, service.host) for number in range(count - asked)]
    outcomes = asyncio.run(attack_all(service.host, attacks))
    print(f"{asked} requests from the OpenAPI page, {len(attacks)} from the fuzzer: {dict(outcomes)}")


def until(holds: Callable[[], bool], message: str, seconds: float = 10) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, message
        time.sleep(0.1)


def judge(name: str, status: int, headers: dict[bytes, bytes], body: bytes) -> None:
    """Fails where an answer is a bug's, or tells what it should not."""
    assert status < 500 or (status == 503 and headers[b"retry-after"]), f"{name}: {status} {body[:200]!r}"
    assert len(body) < LARGEST, f"{name}: an answer of {len(body)} bytes"
    for value in (body, *headers.values()):
        found = TELLING.search(value)
        assert not found, f"{name}: the answer holds {found.group()!r}: {value[:500]!r}"


# What the OpenAPI page describes, and what it does not.

def asks_from_the_page(service: Service, most: int, seed: int) -> int:
    """Asks each operation for what its schema allows, and for what it forbids; returns how often it asked."""
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    posts = sum(operation.method == "post" for operation in operations)
    asked = 0
    with requests.Session() as session:
        for operation in operations:
            for mode in schemathesis.GenerationMode:
                examples = most // (2 * posts) - 5 if operation.method == "post" else 5
                asked += ask_operation(session, operation, mode, examples, seed)
    return asked


def ask_operation(session: requests.Session, operation: Any, mode: Any, examples: int, seed: int) -> int:
    """How often it asked: not at all where a schema has nothing to forbid."""
    asked = 0

    @hypothesis.seed(seed)
    @settings(max_examples=examples, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(mode))
    def ask(case: Any) -> None:
        nonlocal asked
        known = asked % 8 > 0
        response = case.call(session=session, headers={"authorization": f"Bearer {KEY}" if known else "Bearer nobody"})
        asked += 1
        headers = {name.encode(): value[0].encode() for name, value in response.headers.items()}
        body = response.content
        for name in (case.path_parameters or {}).values():  # a name may be "exception"
            body = body.replace(repr(name).encode(), b"NAME")
        judge(f"{operation.label} {case.body!r:.200}", response.status_code, headers, body)
        if not known:
            assert response.status_code == 401 or case.path in OPEN, f"{operation.label} answers without a key"

    with suppress(Unsatisfiable):
        ask()
    return asked


# What is written to sockets.

async def attack_all(host: str, attacks: list[Attack]) -> Counter:
    """Statuses that came, and connections that ended without any."""
    outcomes: Counter = Counter()
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(attack: Attack) -> None:
        async with gate:
            answers = await attack_once(host, attack)
        for status, headers, body in zip(answers.statuses, answers.headers, answers.bodies, strict=True):
            judge(attack.name, status, headers, body)
        assert answers.complete >= attack.answers, f"{attack.name}: {answers.complete} answers"
        outcomes.update(answers.statuses or ["none"])

    async with asyncio.TaskGroup() as group:
        for attack in attacks:
            group.create_task(one(attack))
    return outcomes


async def attack_once(host: str, attack: Attack) -> Answers:
    name, _, port = host.rpartition(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    answers = Answers()
    sending = asyncio.create_task(send(writer, attack))
    try:
        await read(reader, attack, answers)
    finally:
        sending.cancel()
        writer.transport.abort()
    return answers


async def send(writer: asyncio.StreamWriter, attack: Attack) -> None:
    try:
        for number, part in enumerate(attack.parts):
            await asyncio.sleep(attack.pause if number else 0)
            writer.write(part)
            await writer.drain()
    except ConnectionError:
        pass


async def read(reader: asyncio.StreamReader, attack: Attack, answers: Answers) -> None:
    """Reads until all answers are there, the service hangs up, or, where none need come, nothing comes for a while."""
    patience = 20.0 if attack.answers else 0.15 + attack.pause * len(attack.parts)
    length = 0
    while not attack.answers or answers.complete < attack.answers:
        try:
            part = await asyncio.wait_for(reader.read(2**18), patience)
        except (TimeoutError, ConnectionError):
            return
        length += len(part)
        assert length < LARGEST, f"{attack.name}: an answer of more than {LARGEST} bytes"
        if not part:
            return
        try:
            answers.parser.feed_data(part)
        except httptools.HttpParserError as error:
            raise AssertionError(f"{attack.name}: the answer is not HTTP: {part[:200]!r}") from error


def head(line: str, *fields: str) -> bytes:
    return "\r\n".join([line, *fields, "", ""]).encode("latin-1")


def call(host: str, path: str, body: bytes, *fields: str, key: str = f"Bearer {KEY}") -> bytes:
    """A request that is right in all but its body."""
    return head(f"POST {path} HTTP/1.1", f"host: {host}", f"authorization: {key}", "content-type: application/json",
                f"content-length: {len(body)}", *fields) + body


def some(rng: random.Random, most: int) -> bytes:
    return rng.randbytes(rng.randint(1, most))


VALID = {
    "/": [{"inputs": TEXTS[0]}, {"inputs": TEXTS, "parameters": {"top_k": 1}}],
    "/models/names": [{"inputs": TEXTS[0], "parameters": {"aggregation_strategy": "none", "ignore_labels": []}}],
    "/v1/predict": [{"inputs": TEXTS, "parameters": {"function_to_apply": "sigmoid"}, "model": "default"}],
    "/v1/teacher": [{"inputs": TEXTS[0]}],
    "/v2/models/default/infer": [{"id": "7", "inputs": [{"name": "text", "shape": [2, 1], "datatype": "BYTES",
                                                         "data": TEXTS[:2]}], "outputs": [{"name": "label"}]}],
}


def valid(rng: random.Random) -> tuple[str, Any]:
    path = rng.choice(list(VALID))
    return path, rng.choice(VALID[path])


def request_line(rng: random.Random, host: str) -> Attack:
    line = rng.choice([
        "GET", "GET /", "GET / HTTP/9.9", "GET / HTTP/1.1 HTTP/1.1", "GET / http/1.1", "get / HTTP/1.1", " / HTTP/1.1",
        "GET  /  HTTP/1.1", "GET\t/\tHTTP/1.1", f"{'A' * 5000} / HTTP/1.1", "GET \0 HTTP/1.1", "GET /\xff\xfe HTTP/1.1",
        "GET /%00%ff%c0%af HTTP/1.1", "GET /../../../../etc/passwd HTTP/1.1", "GET /%2e%2e/%2e%2e/ HTTP/1.1",
        f"GET /{'a' * 70_000} HTTP/1.1", f"GET /?{'a=%ff&' * 5000} HTTP/1.1", "GET http:// HTTP/1.1",
        f"GET http://{host} HTTP/1.1", f"GET http://{host}/v1/model HTTP/1.1", "GET //v1/model HTTP/1.1",
        "CONNECT a:443 HTTP/1.1", "CONNECT / HTTP/1.1", "OPTIONS * HTTP/1.1", "TRACE / HTTP/1.1", "PUT / HTTP/1.1",
        "HEAD / HTTP/1.1", "DELETE /v1/model HTTP/1.1", "PATCH / HTTP/1.1", "PURGE / HTTP/1.1", "QUERY / HTTP/1.1",
        "GET /v1/model?name=%00 HTTP/1.1", f"GET /v1/model?name={'%f0%9f' * 500} HTTP/1.1", "GET /health/ HTTP/1.1",
        "GET /v2/models/%0d%0aset-cookie:a/ready HTTP/1.1", "GET /v2/models/a%2fb/ready/ HTTP/1.1",
        "GET / HTTP/1.0", "GET / HTTP/0.9", "PRI * HTTP/2.0", "SSH-2.0-OpenSSH_9.9", "HTTP/1.1 200 OK",
    ])
    return Attack(line[:60], [head(line, f"host: {host}", f"authorization: Bearer {KEY}", "connection: close")])


def not_http(rng: random.Random, host: str) -> Attack:
    hello = bytes.fromhex("16030100a5010000a10303") + rng.randbytes(160)
    return Attack("not HTTP", [rng.choice([some(rng, 4096), hello, b"\0" * 4096, b"GET /\r\n", b"\r\n" * 2000, b"\n",
                                           b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + rng.randbytes(64),
                                           b"*1\r\n$4\r\nPING\r\n", b'{"inputs": "a"}'])])


def headers(rng: random.Random, host: str) -> Attack:
    fields = rng.choice([
        [f"x-{number}: {number}" for number in range(rng.randint(100, 5000))], [f"x: {'a' * rng.randint(1, 10**6)}"],
        ["no colon here"], [": no name"], ["x : space"], ["x: a", " folded"], ["x: \0"], ["x: \x01\x7f"],
        ["x: caf\xe9"], ["\xff\xfe: a"], [f"{'n' * 70_000}: a"], ["host: other"], ["host: a\r\nhost: b"], ["x:" * 1000],
        ["x-forwarded-for: \xff, , ::::", "x-forwarded-proto: javascript"], ["x-forwarded-for: " + "1," * 5000],
        ["cookie: " + ";" * 5000], ["range: bytes=-1--1"], ["accept: " + ",;q=" * 2000], ["accept-encoding: \x80"],
        ["if-none-match: *", "content-encoding: gzip"], ["te: trailers", "trailer: x"], ["keep-alive: timeout=-1"],
    ])
    path = rng.choice(["/v1/model", "/", "/health", "/docs", "/openapi.json", "/metrics", "/nowhere"])
    lines = [f"GET {path} HTTP/1.1", f"host: {host}", f"authorization: Bearer {KEY}", *fields, "connection: close"]
    return Attack(f"headers {fields[0][:40]!r}", [head(*lines)])


def framing(rng: random.Random, host: str) -> Attack:
    body = json.dumps(valid(rng)[1]).encode()
    size = len(body)
    fields, sent = rng.choice([
        ([f"content-length: {size + rng.randint(1, 100)}"], body), ([f"content-length: {rng.randint(0, size)}"], body),
        (["content-length: -1"], body), (["content-length: 99999999999999999999999"], body),
        (["content-length: 1e3"], body),
        (["content-length: 0x10"], body), (["content-length: "], body), ([f"content-length: +{size}"], body),
        ([f"content-length: {size}", f"content-length: {size}"], body), ([f"content-length: {size}, {size}"], body),
        (["content-length: 5", "content-length: 6"], body), (["content-length: 9223372036854775807"], body), ([], body),
        ([f"content-length: {size}", "transfer-encoding: chunked"], body), (["transfer-encoding: gzip"], body),
        (["transfer-encoding: chunked, chunked"], body), (["transfer-encoding: \x0bchunked"], body),
        (["transfer-encoding: chunked"], b"zz\r\n" + body), (["transfer-encoding: chunked"], b"-1\r\n" + body),
        (["transfer-encoding: chunked"], b"ffffffffffffffffffff\r\n" + body),
        (["transfer-encoding: chunked"], b"%x\r\n" % (size + 5) + body + b"\r\n0\r\n\r\n"),
        (["transfer-encoding: chunked"], b"%x\r\n" % (size - 5) + body + b"\r\n0\r\n\r\n"),
        (["transfer-encoding: chunked"], b"%x;%b\r\n" % (size, b"e" * 20_000) + body + b"\r\n0\r\n\r\n"),
        (["transfer-encoding: chunked"], b"%x\r\n" % size + body + b"\r\n0\r\nx: y\r\ncontent-length: 5\r\n\r\n"),
        (["transfer-encoding: chunked"], b"".join(b"1\r\n%c\r\n" % byte for byte in body)),
        ([f"content-length: {size}", "expect: 100-continue"], b""),
        ([f"content-length: {size}", "expect: a miracle"], body),
        ([f"content-length: {size}", "upgrade: websocket", "connection: upgrade"], body),
        ([f"content-length: {size}", "upgrade: h2c", "connection: upgrade, http2-settings"], body),
        (["content-length: 2000000"], b"[" * rng.choice([10, 2_000_000])),
    ])
    lines = [f"POST {rng.choice(list(VALID))} HTTP/1.1", f"host: {host}", f"authorization: Bearer {KEY}",
             "content-type: application/json", *fields]
    return Attack(f"framing {fields}", [head(*lines) + sent])


def upgrade(rng: random.Random, host: str) -> Attack:
    fields = rng.choice([
        ["sec-websocket-version: 13", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="], ["sec-websocket-version: 99"],
        ["sec-websocket-version: 13", "sec-websocket-key: short"], ["sec-websocket-protocol: \xff"], [],
        ["sec-websocket-version: 13", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
         f"sec-websocket-extensions: {'a;' * 999}"],
    ])
    path = rng.choice(["/", "/v1/model", "/%ff", "/nowhere"])
    lines = [f"GET {path} HTTP/1.1", f"host: {host}", "upgrade: websocket", "connection: upgrade", *fields]
    return Attack(f"upgrade {path} {fields}", [head(*lines) + rng.choice([b"", some(rng, 100)])])


def truncated(rng: random.Random, host: str) -> Attack:
    path, body = valid(rng)
    whole = call(host, path, json.dumps(body).encode())
    return Attack("truncated", [whole[:rng.randint(1, len(whole) - 1)]])


def slow(rng: random.Random, host: str) -> Attack:
    path, body = valid(rng)
    whole = call(host, path, json.dumps(body).encode())
    cuts = sorted(rng.sample(range(1, len(whole)), rng.randint(1, 12)))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    return Attack("slow client", parts, answers=1, pause=rng.choice([0.001, 0.01, 0.05]))


def pipelined(rng: random.Random, host: str) -> Attack:
    count = rng.randint(2, 40)
    asks = [call(host, path, json.dumps(body).encode()) for path, body in (valid(rng) for _ in range(count))]
    if rng.random() < 0.5:
        return Attack("pipelined", [b"".join(asks)], answers=count)
    asks.insert(rng.randrange(count), some(rng, 50))
    return Attack("pipelined with nonsense between", [b"".join(asks)])


def mutated(rng: random.Random, host: str) -> Attack:
    path, body = valid(rng)
    return Attack(f"mutated {path}", [mutate(rng, call(host, path, json.dumps(body).encode()))])


def mutated_body(rng: random.Random, host: str) -> Attack:
    path, body = valid(rng)
    fields = rng.choice([[], ["accept: application/x-ndjson"], ["accept: \xff"]])
    sent = mutate(rng, json.dumps(body, ensure_ascii=rng.random() < 0.5).encode())
    return Attack(f"mutated body at {path}: {sent!r}", [call(host, path, sent, *fields)], answers=1)


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Bytes changed, doubled, moved or gone, in a few places."""
    for _ in range(rng.randint(1, 4)):
        a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        b = min(b, a + 20)
        data = rng.choice([
            data[:a] + some(rng, 3) + data[a + 1:], data[:a] + data[b:], data[:b] + data[a:],
            data[:a] + bytes([rng.choice(b'\0"\\{}[],:\r\n \x7f\xff\xc3')]) + data[a:],
            data[:a] + data[a:b][::-1] + data[b:],
            data[:a] + rng.choice([b"null", b"-0", b"1e999", b"NaN", b"\\ud800", b"\\u0000", b"[[", b"{}"]) + data[b:],
        ]) or b" "
    return data


JSON = [
    b"", b" ", b"\0", b"null", b"true", b"NaN", b"-Infinity", b"[]", b"{}", b'"', b"{", b'{"inputs":',
    b"\xef\xbb\xbf{}", b'{"inputs": "\xff\xfe"}', b'{"inputs": "\xed\xa0\x80"}',
    b'{"inputs": "\xc0\x80"}', b'{"inputs": "\\ud800"}',
    b'{"inputs": "\\udc00\\ud800"}', b'{"inputs": ["\\ud83d"]}', b'{"inputs": NaN}', b'{"inputs": [Infinity]}',
    b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"[" * 500_000, b'{"a":' * 100_000,
    b'{"inputs": "a", "parameters": {"a": ' + b'{"a":' * 150 + b"1" + b"}" * 150 + b"}}",
    b'{"inputs": ' + b"9" * 100_000 + b"}", b'{"inputs": 1e400}', b'{"inputs": -1e-400}',
    b'{"inputs": "a", "inputs": "b"}', b'{"inputs": "a", "inputs": 5}',
    b'{"inputs": "a", "parameters": {"top_k": ' + b"9" * 5000 + b"}}",
    b'{"inputs": "a", "parameters": {"top_k": 1e400}}', b'{"inputs": "a", "parameters": {"top_k": NaN}}',
    b'{"inputs": "a", "parameters": {"top_k": -0}}', b'{"inputs": "a", "parameters": {"function_to_apply": ["none"]}}',
    b'{"inputs": "a", "parameters": {"function_to_apply": "' + b"x" * 900_000 + b'"}}',
    b'{"inputs": "a", "parameters": {"ignore_labels": [[[]]], "aggregation_strategy": {}}}',
    b'{"inputs": [' + b"[]," * 300_000 + b"[]]}", b'{"inputs": [' + b"[]," * 1_000_000 + b"[]]}",
    b'{"inputs": [' + b"0," * 400_000 + b"0]}", b'{"inputs": [' + b'"a",' * 200_000 + b'"a"]}',
    b'{"inputs": {' + b",".join(b'"%d":"a"' % n for n in range(60_000)) + b"}}",
    b'{"inputs": "a", ' + b",".join(b'"%d":0' % n for n in range(90_000)) + b"}",
    b'{"inputs": "' + b"a" * 1_000_000 + b'"}', b'{"inputs": "' + b"a" * 3_000_000 + b'"}',
    b'{"inputs": "' + b"\\u0000" * 3000 + b'"}',
    b'{"inputs": "' + "".join(map(chr, range(0x80, 0xA0))).encode() + b'"}',
    b'{"inputs": "' + "\u202e\u200b\ufeff\U000e0001".encode() * 500 + b'"}', b'{"inputs": "\\u0001\\u0002\\u001f"}',
    b'{"inputs": "' + ("e" + "\u0301" * 5000).encode() + b'"}', b'{"inputs": "' + b"a " * 9_000 + b'"}',
    b'{"inputs": ["\\u0000", "\\u200b", "\\ufffd", "\\uffff"]}', b'{"inputs": {"text": "a", "text_pair": "\\u0000"}}',
    b'{"inputs": {"text": {"text": "a"}}}', b'{"inputs": {"text": null}}', b'{"inputs": [{"text": "a"}, "a", 5, null]}',
    b'{"inputs": "a", "parameters": null}', b'{"inputs": "a", "__proto__": {}, "": 0, "\\ud800": 1}',
    b'{"inputs": ["a"], "model": "\\u0000"}', b'{"inputs": ["a"], "model": "' + b"m" * 100_000 + b'"}',
    b'{"inputs": "a"}' * 2, b'{"inputs": "a"} // comment', b"{'inputs': 'a'}", b"inputs=a", b"<inputs>a</inputs>",
    '{"inputs": "a"}'.encode("utf-16"), '{"inputs": "a"}'.encode("utf-32"), b"\x1f\x8b\x08\0\0\0\0\0",
    b"\x80\x04]\x94.",
]


def json_body(rng: random.Random, host: str) -> Attack:
    body, path = rng.choice(JSON), rng.choice(list(VALID))
    fields = rng.choice([[], ["accept: application/x-ndjson"]])
    return Attack(f"JSON {body[:60]!r} at {path}", [call(host, path, body, *fields)], answers=1)


def infer(rng: random.Random, host: str) -> Attack:
    """The Open Inference Protocol, whose body may go on in binary."""
    tensor: dict[str, Any] = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}
    tensor |= rng.choice([
        {}, {"shape": [10**30]}, {"shape": [-1]}, {"shape": []}, {"shape": [1] * 9000}, {"shape": ["1"]},
        {"datatype": "FP32"}, {"datatype": "x" * 90_000}, {"data": [None]}, {"data": [[["a"]]]}, {"data": [""]},
        {"data": "a"}, {"data": None}, {"data": {"a": 1}}, {"data": ["a"] * 5000, "shape": [5000]},
        {"data": ["a" * 30_000]}, {"name": "n" * 90_000}, {"parameters": 5}])
    body: dict[str, Any] = {"inputs": [tensor] * rng.choice([0, 1, 1, 1, 1, 1, 2])}
    body |= rng.choice([
        {}, {}, {"id": "i" * 9000}, {"id": 5}, {"outputs": []}, {"outputs": [{}]}, {"outputs": [{"name": [1]}]},
        {"outputs": [{"name": "x" * 9000}]}, {"outputs": [{"name": "answer"}] * 50_000}, {"parameters": []},
        {"inputs": [0] * 200_000}, {"inputs": [{}] * 100_000}])
    text = json.dumps(body).encode()
    length = rng.choice([None, len(text), 0, len(text) + 10**6, -1, "9" * 5000, "\xb2", "", "1_0", " 7 ", "0x7", "1e2"])
    binary = rng.choice([b"", struct.pack("<I", 1) + b"a", struct.pack("<I", 2**32 - 1) + b"a", b"\0\0", b"\0" * 40_000,
                         struct.pack("<I", 2) + b"\xff\xfe", some(rng, 200)])
    fields = [] if length is None else [f"inference-header-content-length: {length}"]
    path = rng.choice(["/v2/models/default/infer", "/v2/models/names/infer", "/v2/models/nobody/infer"])
    return Attack(f"infer {text[:60]!r} {fields}"[:200], [call(host, path, text + binary, *fields)], answers=1)


def wild(rng: random.Random, host: str) -> Attack:
    """JSON of a random shape in the place of a field that is known."""
    path, body = valid(rng)
    changed = {**body, rng.choice([*body, "inputs", "parameters", "model", "x"]): value(rng, 4)}
    if rng.random() < 0.3:
        name = rng.choice(["top_k", "function_to_apply", "aggregation_strategy", "ignore_labels"])
        changed["parameters"] = {name: value(rng, 2)}
    sent = json.dumps(changed).encode()
    return Attack(f"wild {sent[:200]!r} at {path}", [call(host, path, sent)], answers=1)


def value(rng: random.Random, depth: int) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: None, lambda: rng.random() < 0.5, lambda: rng.randint(-2**80, 2**80),
        lambda: rng.choice([1e308, -0.0, 0.5]),
        lambda: "".join(chr(rng.choice([rng.randrange(32), rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)]))
                        for _ in range(rng.randint(0, 30)))]
    if depth:
        kinds += [lambda: [value(rng, depth - 1) for _ in range(rng.randint(0, 5))],
                  lambda: {str(value(rng, 0)): value(rng, depth - 1) for _ in range(rng.randint(0, 4))}]
    return rng.choice(kinds)()


def keys(rng: random.Random, host: str) -> Attack:
    """Keys that are none: what they ask for must not come."""
    key = rng.choice(["", "Bearer", "Bearer ", f"Basic {KEY}", f"Bearer {KEY[:-1]}", f"Bearer {KEY}x", f"Bearer{KEY}",
                      "Bearer " + "k" * 70_000, "Bearer \xff\xfe", f"Bearer {KEY},{KEY}", f"Token {KEY}", KEY,
                      f"Bearer {KEY.upper()}", f"Bearer {hashlib.sha256(KEY.encode()).hexdigest()}"])
    path, body = valid(rng)
    return Attack("a wrong key", [call(host, path, json.dumps(body).encode(), key=key)], answers=1)


def content_type(rng: random.Random, host: str) -> Attack:
    path, body = valid(rng)
    fields = [f"content-type: {kind}" for kind in rng.choice([
        [], ["text/plain"], ["application/json; charset=utf-16"], ["\xff"], [";"], ["multipart/form-data; boundary="],
        ["application/json", "text/plain"], ["application/json" * 5000], ["application/x-www-form-urlencoded"]])]
    sent = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", f"host: {host}", f"authorization: Bearer {KEY}",
             f"content-length: {len(sent)}", *fields]
    return Attack(f"content type {fields}"[:100], [head(*lines) + sent], answers=1)


KINDS = [request_line, not_http, headers, framing, upgrade, truncated, slow, pipelined, mutated, mutated_body,
         json_body, infer, wild, keys, content_type, mutated_body, json_body, wild]


def test_a_wrong_key_gets_nothing(service: Service) -> None:
    rng = random.Random(SEED)
    outcomes = asyncio.run(attack_all(service.host, [keys(rng, service.host) for _ in range(200)]))
    assert outcomes.keys() == {401, 400} and outcomes[401] > 150  # HAProxy takes no head of 64 KiB


def test_an_idle_crowd_leaves_no_socket(service: Service) -> None:
    """Clients that connect, say half a word and go away."""
    told = service.told()
    crowd = [service.connect() for _ in range(500)]
    for number, one in enumerate(crowd):
        one.send(b"POST / HTTP/1.1\r\n"[:number % 17])
    until(lambda: service.sockets() >= 500, "not all are let in")
    assert service.told() == told
    for one in crowd:
        one.close()
    until(lambda: service.sockets() == 0, "sockets stay open")
    assert service.told() == told


CHUNKED = head("POST / HTTP/1.1", "host: a", f"authorization: Bearer {KEY}", "transfer-encoding: chunked")


@pytest.mark.parametrize("start, more", [
    (b"GET /", b"a" * 2**16), (b"GET / HTTP/1.1\r\nhost: a\r\n", b"x: yyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 2500),
    (b"GET / HTTP/1.1\r\nhost: a\r\nx: ", b"y" * 2**16), (b"", b"GET /health HTTP/1.1\r\n\r\n" * 3000),
    pytest.param(CHUNKED + b"5;", b"e" * 2**16, marks=pytest.mark.slow),
    pytest.param(CHUNKED + b"0\r\n", b"x: yyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 2500, marks=pytest.mark.slow),
], ids=["path", "headers", "header", "pipeline", "chunk", "trailers"])
def test_what_does_not_end_is_cut_off_or_not_read(service: Service, start: bytes, more: bytes) -> None:
    memory = service.memory()
    with service.connect() as client, pytest.raises((ConnectionError, TimeoutError)):
        client.settimeout(5)
        client.sendall(start)
        for _ in range(512):
            client.sendall(more)
    assert service.memory() - memory < 32
    until(lambda: service.sockets() == 0, "the socket stays open", seconds=45)


@pytest.mark.slow
@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nhost:", CHUNKED + b"100\r\n{"],
                         ids=["silent", "head", "body"])
def test_who_does_not_go_on_is_sent_away(service: Service, start: bytes) -> None:
    with service.connect() as client:
        client.sendall(start)
        client.settimeout(60)
        client.recv(1000)
    until(lambda: service.sockets() == 0, "the socket stays open")

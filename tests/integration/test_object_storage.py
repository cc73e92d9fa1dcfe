"""All artefacts on S3, over real HTTP against a server on this machine, which may fail, be slow and hang up."""

import http.client
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import pytest
from pyarrow import fs

from kdray.cache.reader import SoftTargets
from kdray.copies import copies
from kdray.corpus.tokenizer import load_tokenizer
from kdray.errors import CacheError, StorageError
from kdray.inspection import verify_cache
from kdray.models.folder import at, fingerprint, share
from kdray.storage import Store
from kdray.teacher.verify import check_shards
from tests.integration.conftest import (
    ROOT,
    Command,
    command,
    environment,
    s3_server,
    small_config,
    write_config,
)

KEYS = {"AWS_ACCESS_KEY_ID": "test-key-id", "AWS_SECRET_ACCESS_KEY": "test-secret", "AWS_DEFAULT_REGION": "us-east-1"}
URI = "s3://bucket/kdray"
SHARDS = "/bucket/kdray/shards/"
SLOW_SECONDS = 0.15
READ = """
import hashlib, sys
from kdray.cache.reader import SoftTargets
from kdray.storage import Store

soft = SoftTargets(Store(sys.argv[1]), sys.argv[2], "train")
print(hashlib.sha256(b"".join(soft[row][1].tobytes() for row in range(len(soft)))).hexdigest())
"""
FETCH = """
import sys
from kdray.storage import Store

print(Store(sys.argv[1]).fetch("things", "k"))
"""
Fault = Callable[[str, str], str]
"""What happens to a request, given its method and path: one of FAULTS, or "" where it is answered."""
FAULTS = {"500": 0.04, "503": 0.04, "drop": 0.03, "torn": 0.03, "slow": 0.05}
"""The share of requests that are refused, not answered, answered by half after they were done, or delayed."""


class Proxy(ThreadingHTTPServer):
    """Passes requests on to an S3 server but for those at fault; remembers (method, path, fault) of each."""

    daemon_threads = True

    def __init__(self, upstream: str, fault: Fault = lambda method, path: ""):
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream, self.fault = urlsplit(upstream).netloc, fault
        self.seen: list[tuple[str, str, str]] = []
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> "Proxy":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *reason: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, address: object) -> None:
        """A client that hangs up is nobody's fault."""

    def judge(self, method: str, path: str) -> str:
        with self.lock:
            self.seen.append((method, path, self.fault(method, path)))
            return self.seen[-1][2]

    def count(self, method: str, start: str) -> Counter[str]:
        """How often each path that begins with `start` was asked for."""
        return Counter(path for found, path, _ in self.seen if found == method and path.startswith(start))


class Handler(BaseHTTPRequestHandler):
    """One request: its Host and everything else that is signed goes on as it came."""

    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        body = self._body()
        fault = self.server.judge(self.command, self.path)
        if fault == "slow":
            time.sleep(SLOW_SECONDS)
        if fault == "drop":
            self.close_connection = True
        elif fault.isdigit():
            self._send(int(fault), {"Content-Length": "0"}, b"")
        else:
            self._pass_on(body, half=fault == "torn")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _pass_on(self, body: bytes, half: bool) -> None:
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=60)
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "expect", "transfer-encoding", "content-length"):
                upstream.putheader(name, value)
        upstream.putheader("Content-Length", str(len(body)))
        upstream.endheaders(body)
        response = upstream.getresponse()
        data = response.read()
        upstream.close()
        headers = {name: value for name, value in response.getheaders()
                   if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server")}
        length = response.headers.get("Content-Length") if self.command == "HEAD" else None
        self._send(response.status, {**headers, "Content-Length": length or str(len(data))}, data, half)

    def _send(self, status: int, headers: dict[str, str], data: bytes, half: bool = False) -> None:
        if half and not data:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[:len(data) // 2] if half else data)
        self.close_connection |= half


def some(seed: int) -> Fault:
    """FAULTS by chance, the same ones for the same seed."""
    draw = random.Random(seed)
    kinds, shares = ["", *FAULTS], [1 - sum(FAULTS.values()), *FAULTS.values()]
    return lambda method, path: draw.choices(kinds, shares)[0]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture(scope="module")
def new_machine() -> Iterator[Callable[[], Path]]:
    """Makes folders for TMPDIR: what has one to itself is a machine, as far as local copies go."""
    made: list[Path] = []

    def make() -> Path:
        made.append(Path(tempfile.mkdtemp(prefix="kd", dir="/tmp")))  # short: Ray's sockets have their names from it
        return made[-1]

    yield make
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def bucket(endpoint: str) -> fs.S3FileSystem:
    return empty_bucket(endpoint)


def empty_bucket(endpoint: str) -> fs.S3FileSystem:
    found = fs.S3FileSystem(endpoint_override=endpoint, access_key=KEYS["AWS_ACCESS_KEY_ID"],
                            secret_key=KEYS["AWS_SECRET_ACCESS_KEY"], region="us-east-1", allow_bucket_creation=True)
    found.create_dir("bucket")
    return found


def here(url: str, machine: Path) -> dict[str, str]:
    """The environment of a process on `machine` that reaches S3 at `url`."""
    return {**environment(), **KEYS, "AWS_ENDPOINT_URL": url, "TMPDIR": str(machine)}


def run(url: str, machine: Path, *arguments: str) -> subprocess.CompletedProcess:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=400, cwd=ROOT,
                          env=here(url, machine))
    assert done.returncode == 0, done.stderr
    return done


def start(url: str, machine: Path, code: str, *arguments: str, **more: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT,
                            env={**here(url, machine), **more})


def ended(*processes: subprocess.Popen) -> list[str]:
    """What processes printed; each must have ended well."""
    printed = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return printed


def test_a_run_on_s3_is_whole_and_is_found_again(
        endpoint: str, bucket: fs.S3FileSystem, tmp_path: Path, new_machine: Callable[[], Path], rows: Path,
        teacher: Path) -> None:
    uri, machine = "s3://bucket/whole", new_machine()
    config = small_config(tmp_path, rows, teacher, {"storage": uri, "search": {"trials": 1}})
    path = write_config(tmp_path / "c.yaml", config)
    first, second = (run(endpoint, machine, "run", str(path)) for _ in range(2))
    assert f"kdray serve {uri}/runs/small-" in first.stdout
    assert "making" not in second.stderr and second.stdout == first.stdout
    assert list(machine.glob("ray/session_*/logs/runtime_env_agent.log"))
    assert_no_secret(first.stdout + first.stderr, bucket, "bucket/whole", machine)


def assert_no_secret(said: str, bucket: fs.S3FileSystem, folder: str, *local: Path) -> None:
    """Neither what was printed, nor an object below `folder`, nor a file in a `local` folder has the credentials."""
    objects = [info for info in bucket.get_file_info(fs.FileSelector(folder, recursive=True)) if info.is_file]
    assert objects
    places = {"output": said.encode()}
    places |= {info.path: bucket.open_input_file(info.path).read() for info in objects}
    places |= {str(path): path.read_bytes() for root in local for path in root.rglob("*") if path.is_file()}
    secret = re.compile("|".join(KEYS[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")).encode())
    assert [name for name, data in places.items() if secret.search(data)] == []


@dataclass(frozen=True)
class Filled:
    """The same cache, filled on a local folder and on S3 through a faulty proxy."""

    config: Path
    key: str
    folder: Path
    said: str
    machine: Path
    seen: list[tuple[str, str, str]]

    @property
    def shards(self) -> dict[str, bytes]:
        """Bytes of the local shards by path below the storage."""
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in self.folder.glob("shards/*/*.arrow")}


@pytest.fixture(scope="module")
def filled(endpoint: str, tmp_path_factory: pytest.TempPathFactory, new_machine: Callable[[], Path], rows: Path,
           teacher: Path) -> Filled:
    empty_bucket(endpoint)
    tmp_path, machine = tmp_path_factory.mktemp("filled"), new_machine()
    config = small_config(tmp_path / "local", rows, teacher, {"cache": {"rows_per_shard": 16}})
    path = write_config(tmp_path / "c.yaml", config)
    local = run(endpoint, new_machine(), "cache", "fill", str(path))
    with Proxy(endpoint, some(seed=17)) as proxy:
        remote = run(proxy.url, machine, "cache", "fill", str(path), f"storage={URI}")
    key = local.stdout.split("/caches/")[1].split(" ")[0]
    assert f"{URI}/caches/{key} (600 rows)" in remote.stdout
    return Filled(path, key, tmp_path / "local", remote.stdout + remote.stderr, machine, proxy.seen)


def test_a_cache_filled_over_a_faulty_network_is_the_one_of_a_local_folder(
        filled: Filled, bucket: fs.S3FileSystem) -> None:
    faults = Counter(fault for *_, fault in filled.seen)
    assert all(faults[fault] for fault in FAULTS), faults
    assert any(fault in ("500", "503", "drop", "torn") and method == "PUT" and path.startswith(SHARDS)
               for method, path, fault in filled.seen)
    found = {info.path.removeprefix("bucket/kdray/"): bucket.open_input_file(info.path).read()
             for info in bucket.get_file_info(fs.FileSelector("bucket/kdray/shards", recursive=True)) if info.is_file}
    assert len(filled.shards) >= 600 // 16 and found == filled.shards


def test_a_second_fill_computes_nothing(filled: Filled, endpoint: str, new_machine: Callable[[], Path]) -> None:
    with Proxy(endpoint, some(seed=24)) as proxy:
        again = run(proxy.url, new_machine(), "cache", "fill", str(filled.config), f"storage={URI}")
    assert f"{URI}/caches/{filled.key} (600 rows)" in again.stdout
    assert "making" not in again.stderr and any(fault for *_, fault in proxy.seen)
    assert not proxy.count("PUT", "/") and not proxy.count("POST", "/") and not proxy.count("GET", SHARDS)


def test_processes_of_a_machine_download_each_shard_once(
        filled: Filled, endpoint: str, new_machine: Callable[[], Path]) -> None:
    machine, local = new_machine(), ended(start(endpoint, new_machine(), READ, str(filled.folder), filled.key))
    with Proxy(endpoint, lambda method, path: "slow" if method == "GET" else "") as proxy:
        assert ended(*(start(proxy.url, machine, READ, URI, filled.key) for _ in range(2))) == local * 2
        asked, table = (proxy.count("GET", start) for start in (SHARDS, f"/bucket/kdray/caches/{filled.key}/shards-"))
        assert set(asked.values()) == {1} and len(asked) == -(-480 // 16)
        assert set(table.values()) == {1}
        proxy.seen.clear()
        assert ended(start(proxy.url, machine, READ, URI, filled.key)) == local
        assert {path for _, path, _ in proxy.seen} == {f"/bucket/kdray/caches/{filled.key}/manifest.json"}


def test_copies_stay_within_their_bound_while_processes_evict_each_other_s(
        filled: Filled, endpoint: str, new_machine: Callable[[], Path]) -> None:
    machine, local = new_machine(), ended(start(endpoint, new_machine(), READ, str(filled.folder), filled.key))
    bound = 4 * max(map(len, filled.shards.values()))
    with Proxy(endpoint) as proxy:
        readers = [start(proxy.url, machine, READ, URI, filled.key, KDRAY_LOCAL_GIB=str(bound / 2**30))
                   for _ in range(2)]
        assert ended(*readers) == local * 2
    kept = [path.stat().st_size for path in machine.glob("kdray-*/copies/*.arrow")]
    assert kept and sum(kept) <= bound


def test_verify_reads_the_storage_and_not_this_machines_copies(
        filled: Filled, bucket: fs.S3FileSystem, monkeypatch: pytest.MonkeyPatch, new_machine: Callable[[], Path],
        reachable: Callable[[Proxy], Store], endpoint: str) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(new_machine()))
    name = min(filled.shards)
    whole, path = filled.shards[name], f"bucket/kdray/{name}"
    with Proxy(endpoint) as proxy:
        soft = SoftTargets(reachable(proxy), filled.key, "train")
        assert [soft[row] for row in range(len(soft))] and list(copies().glob("*.arrow"))
        verify_cache(URI, filled.key, 0, 0, None)
        for spoil, said in ((lambda: write(bucket, path, bytes(len(whole))), "corrupt"),
                            (lambda: bucket.delete_file(path), "missing")):
            spoil()
            complaints = check_shards(Store(URI), Store(URI).manifest("caches", filled.key) or {})
            assert complaints and all(f"{name} is {said}" in complaint for complaint in complaints)
            with pytest.raises(CacheError, match=r"shards of cache .* are missing or corrupt"):
                verify_cache(URI, filled.key, 0, 0, None)
    write(bucket, path, whole)


def write(bucket: fs.S3FileSystem, path: str, data: bytes) -> None:
    with bucket.open_output_stream(path) as stream:
        stream.write(data)


def test_credentials_are_written_nowhere(filled: Filled, bucket: fs.S3FileSystem) -> None:
    assert list(filled.machine.glob("ray/session_*/logs/*.log"))
    assert_no_secret(filled.said, bucket, "bucket/kdray", filled.machine)


@pytest.fixture
def reachable(monkeypatch: pytest.MonkeyPatch) -> Callable[[Proxy], Store]:
    """A store of this process that reaches S3 through a proxy."""

    def reach(proxy: Proxy) -> Store:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": proxy.url}.items():
            monkeypatch.setenv(name, value)
        return Store(URI)

    return reach


def test_a_server_that_is_away_for_seconds_is_asked_again(
        endpoint: str, bucket: fs.S3FileSystem, reachable: Callable[[Proxy], Store]) -> None:
    back = time.monotonic() + 9
    with Proxy(endpoint, lambda method, path: "503" if time.monotonic() < back else "") as proxy:
        store = reachable(proxy)
        store.write(b"x", "away")
        assert store.read("away") == b"x" and "away" in store.names()


def test_a_slow_answer_is_waited_for(endpoint: str, bucket: fs.S3FileSystem, monkeypatch: pytest.MonkeyPatch,
                                     reachable: Callable[[Proxy], Store]) -> None:
    monkeypatch.setattr("tests.integration.test_object_storage.SLOW_SECONDS", 4)
    with Proxy(endpoint, lambda method, path: "slow" if method == "GET" else "") as proxy:
        store = reachable(proxy)
        store.write(b"x", "slow")
        assert store.read("slow") == b"x"
    assert proxy.count("GET", "/") == {"/bucket/kdray/slow": 1}


def test_a_process_never_tires_of_asking_again(
        endpoint: str, bucket: fs.S3FileSystem, reachable: Callable[[Proxy], Store]) -> None:
    turns = iter(range(10**6))
    with Proxy(endpoint, lambda method, path: "" if next(turns) % 2 else "500") as proxy:
        store = reachable(proxy)
        store.write(b"x", "tired")
        assert {store.size("tired") for _ in range(150)} == {1}
    assert sum(fault == "500" for *_, fault in proxy.seen) > 150


def test_a_fetch_killed_half_way_leaves_nothing_that_is_taken_for_an_artefact(
        endpoint: str, bucket: fs.S3FileSystem, new_machine: Callable[[], Path], tmp_path: Path,
        reachable: Callable[[Proxy], Store]) -> None:
    machine, files = new_machine(), {f"{number}.bin": os.urandom(3_000_000) for number in range(3)}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with Proxy(endpoint, lambda method, path: "slow" if method == "GET" else "") as proxy:
        store = reachable(proxy)
        store.publish("things", "k", tmp_path, {})
        killed = start(proxy.url, machine, FETCH, URI)
        while not list(machine.glob("kdray-*/artefacts/*/.tmp-k/*.bin")):
            assert killed.poll() is None
            time.sleep(0.01)
        killed.kill()
        killed.communicate()
        assert not list(machine.glob("kdray-*/artefacts/*/k"))
        proxy.seen.clear()
        folders = ended(*(start(proxy.url, machine, FETCH, URI) for _ in range(2)))
    folder = Path(folders[0])
    assert folders[1] == folders[0] and folder.is_relative_to(machine)
    assert {name: (folder / name).read_bytes() for name in files} == files
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["k"]
    assert proxy.count("GET", "/bucket/kdray/things/k/0.bin") == {"/bucket/kdray/things/k/0.bin": 3}


def test_what_is_not_published_is_not_fetched_and_what_is_published_anew_is(
        endpoint: str, bucket: fs.S3FileSystem, tmp_path: Path, new_machine: Callable[[], Path],
        monkeypatch: pytest.MonkeyPatch, reachable: Callable[[Proxy], Store]) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(new_machine()))
    with Proxy(endpoint) as proxy:
        store = reachable(proxy)
        store.write(b"half", "things", "later", "file")
        with pytest.raises(FileNotFoundError):
            store.fetch("things", "later")
        for text in ("first", "second"):
            (tmp_path / "file").write_text(text)
            store.publish("things", "later", tmp_path, {"text": text})
            assert (store.fetch("things", "later") / "file").read_text() == text


def test_an_object_whose_name_leads_upwards_is_refused_and_writes_nothing(
        endpoint: str, bucket: fs.S3FileSystem, tmp_path: Path, new_machine: Callable[[], Path],
        monkeypatch: pytest.MonkeyPatch, reachable: Callable[[Proxy], Store]) -> None:
    """An HTTP client shortens the name and finds the second object; the local copy would be in a folder above."""
    machine = new_machine()
    monkeypatch.setattr(tempfile, "tempdir", str(machine))
    with Proxy(endpoint) as proxy:
        store = reachable(proxy)
        (tmp_path / "file").write_text("good")
        store.publish("things", "k", tmp_path, {})
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test-key-id",
                              aws_secret_access_key="test-secret")
        for name in ("kdray/things/k/../../../planted", "planted"):
            client.put_object(Bucket="bucket", Key=name, Body=b"bad")
        for fetch in (lambda: store.fetch("things", "k"), lambda: store.download(tmp_path, "things", "k")):
            with pytest.raises(StorageError, match=r"'\.\./\.\./\.\./planted' leads out of s3://bucket/kdray/things/k"):
                fetch()
    assert not list(machine.rglob("planted")) and not list(tmp_path.parent.rglob("planted"))


def test_a_model_that_one_machine_has_is_on_all(
        endpoint: str, bucket: fs.S3FileSystem, base: Path, new_machine: Callable[[], Path],
        monkeypatch: pytest.MonkeyPatch, reachable: Callable[[Proxy], Store]) -> None:
    key, hub = fingerprint(base), new_machine() / "snapshot"
    hub.mkdir()
    for file in base.iterdir():
        (hub / file.name).symlink_to(file)  # as the hub's cache lays it out
    (hub / "optimizer.pt").write_bytes(b"not of the model")
    with Proxy(endpoint) as proxy:
        store = reachable(proxy)
        place = share(store, hub, key)
        assert place == share(store, hub, key) == f"{URI}/models/{key}"
        assert not any("optimizer" in path for _, path, _ in proxy.seen)
        proxy.seen.clear()
        for machine in (new_machine(), new_machine()):
            monkeypatch.setattr(tempfile, "tempdir", str(machine))
            folders = [at(place) for _ in range(2)]
            assert folders[0] == folders[1] and folders[0].is_relative_to(machine)
            assert fingerprint(folders[0]) == key and load_tokenizer(folders[0])
    assert set(proxy.count("GET", f"/bucket/kdray/models/{key}/model.safetensors").values()) == {2}


@pytest.mark.parametrize("arguments", [("config", "c.yaml"), ("run", "c.yaml"), ("cache", "ls", "--storage", "URI")])
def test_a_storage_uri_with_credentials_is_refused_without_repeating_them(
        kdray: Command, tmp_path: Path, rows: Path, base: Path, arguments: tuple[str, ...]) -> None:
    uri = "s3://AKIDEXAMPLE:hush/hush@bucket/x"
    path = write_config(tmp_path / "c.yaml", {**small_config(tmp_path, rows, base), "storage": uri})
    done = kdray(*({"c.yaml": str(path), "URI": uri}.get(argument, argument) for argument in arguments))
    assert done.returncode == 1 and not done.stdout
    assert "AWS_SECRET_ACCESS_KEY" in done.stderr and "Traceback" not in done.stderr
    assert "hush" not in done.stderr and "AKIDEXAMPLE" not in done.stderr
    assert arguments[0] == "cache" or f"{path}: storage: the s3:// URI carries credentials" in done.stderr

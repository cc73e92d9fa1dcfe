"""A storage URI and a content key become artefacts that are whole or absent.

Knows nothing about what an artefact holds. An artefact is a folder `<kind>/<key>` whose
`manifest.json` is published last: no manifest means not there.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pwd
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import pyarrow as pa
import pyarrow.fs as pafs

from kdray import kept
from kdray.errors import StorageError

T = TypeVar("T")
MANIFEST = "manifest.json"
MANIFEST_VERSION = 2
_S3_RETRIES = 11
"""After waits of 0, 0.05, 0.1, 0.2 seconds and so on, 51 in all."""
_S3_CONNECT, _S3_SILENCE = 10.0, 30.0
"""Seconds without a connection, or a byte of an answer, after which a request is sent again."""
_COPIES = 8
"""Files of a folder that are downloaded side by side."""
_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
"""Of a place where no folder can be, or none of this user's."""
_LONGEST = 255
"""Bytes that file systems give to a name."""
_TRIES = 100
"""At a folder that another process removes again and again."""
_SECRET = re.compile("key|secret|token|password|signature", re.IGNORECASE)


def content_key(inputs: Any) -> str:
    """Name for what is made from `inputs` (JSON-able): the first 32 hex digits of their SHA-256."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def absolute_uri(uri: str) -> str:
    """`uri` with a scheme unchanged; a local path with `~` expanded and made absolute.

    Raises StorageError where the URI carries credentials, and does not repeat them, or a folder's name is too long.
    """
    if "://" not in uri:
        path = Path(uri).expanduser().resolve()
        for name in path.parts:
            if len(os.fsencode(name)) > _LONGEST:
                raise StorageError(f"{name[:40]}... has {len(os.fsencode(name))} bytes, the name of a folder at most "
                                   f"{_LONGEST}. Choose another `storage`")
        return str(path)
    if _carries_credentials(uri):
        raise StorageError(
            f"the {uri.partition(':')[0]}:// URI carries credentials, which would be written to manifests and logs. "
            "Take them out; give the environment variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile "
            "(AWS_PROFILE) or an instance role instead")
    return uri.rstrip("/")


def _carries_credentials(uri: str) -> bool:
    """Whether a URI has a user's password (in `s3://`, any user), or what looks like a secret in its query."""
    scheme, _, rest = uri.partition("://")
    place, _, query = rest.partition("?")
    authority = place.partition("/")[0]
    public = r"[^:@]*" if scheme.lower() == "s3" else r"([^:@]*@)?[^:@]*(:\d*)?"
    return not re.fullmatch(public, authority) or any(
        _SECRET.search(name) or "@" in value for name, value in parse_qsl(query, keep_blank_values=True))


def file_digest(path: str | Path) -> str:
    """SHA-256 of a local file as hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def storage_errors(uri: str, setting: str = "`storage`") -> Iterator[None]:
    """Turns the operating system's refusals into a StorageError that names `uri` and what `setting` to change."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StorageError(f"no space left on the device that holds {uri}. Free some, then run again: "
                               "finished artefacts and shards are kept, nothing half-written stays.") from error
        if error.errno in _REFUSALS:
            raise StorageError(f"cannot write to {uri}: {error.strerror}. Choose another {setting}.") from error
        raise


def machine_folder() -> Path:
    """Where this user's processes on this machine keep what others must not plant: copies, addresses, compiled code.

    Raises StorageError as `own_folder`.
    """
    return own_folder(Path(tempfile.gettempdir()) / f"kdray-{os.getuid()}")


def own_folder(folder: Path) -> Path:
    """`folder`, made where it is missing, which this user alone may look into; its parent may be everybody's.

    Raises StorageError where it is another user's, others may write to it, or it is no folder, such as a link to one.
    """
    with storage_errors(str(folder), "TMPDIR"):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700, parents=True)
        found = folder.lstat()
        if wrong := _not_own(found):
            raise StorageError(f"{folder} {wrong}: what is in it may be planted. Remove it, or set TMPDIR to a folder "
                               "of your own")
        if found.st_mode & 0o077:
            folder.chmod(0o700)
    return folder


def _not_own(found: os.stat_result) -> str | None:
    if not stat.S_ISDIR(found.st_mode):
        return f"is no folder, and belongs to {_user(found.st_uid)}"
    if found.st_uid != os.getuid():
        return f"belongs to {_user(found.st_uid)}, and not to {_user(os.getuid())}"
    if found.st_mode & 0o022:
        return f"may be written to by others (mode {stat.S_IMODE(found.st_mode):o})"
    return None


def _user(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


@contextmanager
def machine_lock(path: Path) -> Iterator[None]:
    """Lets one thread of all processes on this machine in at a time; one that is killed lets go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough where a fork has the file too


def artefact(uri: str, kind: str) -> tuple["Store", str] | None:
    """The storage and the name of what `uri` names below `kind`; None where it names no such thing."""
    where, query = _without_query(absolute_uri(uri))
    root, _, name = where.rpartition(f"/{kind}/")
    return (Store(f"{root}{query}"), name) if root else None


def fetch(uri: str) -> Path:
    """A local folder with the files of the artefact `uri`, as `Store.uri_of` names it. Raises FileNotFoundError."""
    where, query = _without_query(uri)
    root, kind, key = where.rsplit("/", 2)
    return Store(f"{root}{query}").fetch(kind, key)


def _without_query(uri: str) -> tuple[str, str]:
    """A URI and its query, with the question mark; of a path, in which that is a sign like any other, all of it."""
    where, mark, query = uri.partition("?") if "://" in uri else (uri, "", "")
    return where, mark + query


def folder_at(place: str) -> Path:
    """The local folder at a place that other machines find too: a path, or an artefact's URI, which is fetched."""
    return fetch(place) if "://" in place else Path(place)


class Store:
    """Artefacts below one URI: a local folder, or whatever `pyarrow.fs` opens (`s3://`, `gs://`)."""

    def __init__(self, uri: str):
        self.uri = absolute_uri(uri)
        self.file_system, self.root = _file_system(self.uri)
        self.local = isinstance(self.file_system, pafs.LocalFileSystem)

    def __reduce__(self) -> tuple[type["Store"], tuple[str]]:
        return Store, (self.uri,)

    def path(self, *parts: str) -> str:
        """Path of `parts` below the root, as the file system spells it. Raises StorageError where one leads upwards."""
        for part in parts:
            _check_below(part, self.uri)
        return "/".join([self.root, *parts])

    def uri_of(self, *parts: str) -> str:
        """URI of `parts` below the storage's."""
        where, query = _without_query(self.uri)
        return f"{'/'.join([where, *parts])}{query}"

    def exists(self, *parts: str) -> bool:
        """Whether a file or folder is there."""
        return self.file_system.get_file_info(self.path(*parts)).type != pafs.FileType.NotFound

    def size(self, *parts: str) -> int | None:
        """Bytes of a file, None where there is none."""
        info = self.file_system.get_file_info(self.path(*parts))
        return info.size if info.type == pafs.FileType.File else None

    def read(self, *parts: str) -> bytes:
        """All bytes of a file. Raises FileNotFoundError."""
        if self.local:
            return Path(self.path(*parts)).read_bytes()
        # One request; a stream asks for 256 KiB at a time.
        with self.file_system.open_input_file(self.path(*parts)) as file:
            return file.read()

    def names(self, *parts: str) -> list[str]:
        """Sorted names in a folder, hidden ones left out; empty where there is no folder."""
        return sorted(info.base_name for info in self._listed(*parts) if not info.base_name.startswith("."))

    def files(self, *parts: str, hidden: bool = False) -> tuple[list[str], list[int], list[float]]:
        """Names, bytes and times of the last change (seconds since 1970) of a folder's files; none without a folder.

        Hidden files, which a writer that died may leave, are listed on request, and then they alone.
        """
        found = [info for info in self._listed(*parts) if info.type == pafs.FileType.File
                 and info.base_name.startswith(".") == hidden]
        return ([info.base_name for info in found], [info.size for info in found],
                [info.mtime_ns / 1e9 for info in found])

    def _listed(self, *parts: str) -> list[pafs.FileInfo]:
        selector = pafs.FileSelector(self.path(*parts), allow_not_found=True)
        return _while_folders_go(lambda: self.file_system.get_file_info(selector))

    def write(self, data: bytes | memoryview, *parts: str) -> None:
        """Publishes one file atomically: readers see the old one or all of the new one."""
        target = self.path(*parts)
        with storage_errors(self.uri):
            if self.local:
                _write_local(data, Path(target))
            else:
                with self.file_system.open_output_stream(target) as stream:
                    stream.write(data)

    def delete(self, *parts: str) -> None:
        """Removes one file; nothing happens where there is none."""
        with contextlib.suppress(FileNotFoundError):
            if self.exists(*parts):
                self.file_system.delete_file(self.path(*parts))

    def delete_folder(self, *parts: str) -> None:
        """Removes a folder and what is in it, at once where storage is a folder; nothing happens where there is none.

        Who writes a file into it at the same moment makes it anew.
        """
        with contextlib.suppress(FileNotFoundError):
            if self.local:
                _remove_local(Path(self.path(*parts)))
            elif self.exists(*parts):
                self.file_system.delete_dir(self.path(*parts))

    def upload(self, folder: Path, *parts: str) -> None:
        """Copies the local `folder` to a folder here; a reader may see a part of it."""
        with storage_errors(self.uri):
            self.file_system.create_dir(self.path(*parts))
            pafs.copy_files(str(folder), self.path(*parts), destination_filesystem=self.file_system)

    def download(self, folder: Path, *parts: str) -> None:
        """Copies a folder that is here into the local `folder`. Raises StorageError where a name leads upwards."""
        source = self.path(*parts)
        found = self.file_system.get_file_info(pafs.FileSelector(source, recursive=True))
        names = [info.path.removeprefix(f"{source}/") for info in found if info.type == pafs.FileType.File]
        for name in names:
            _check_below(name, self.uri_of(*parts))

        def copy(name: str) -> None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            pafs.copy_files(f"{source}/{name}", str(folder / name), source_filesystem=self.file_system)

        with ThreadPoolExecutor(_COPIES) as copies:
            list(copies.map(copy, names))

    def manifest(self, kind: str, key: str) -> dict[str, Any] | None:
        """An artefact's manifest, None where the artefact is not there.

        Raises StorageError where the file is not a manifest or is of another version.
        """
        try:
            data = self.read(kind, key, MANIFEST)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return parse_manifest(data, self.path(kind, key, MANIFEST))

    @contextmanager
    def staging(self, kind: str) -> Iterator[Path]:
        """A local folder to fill before `publish`; gone afterwards, whatever happens."""
        with storage_errors(self.uri):
            folder = self._staged(kind)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _staged(self, kind: str) -> Path:
        if not self.local:
            return Path(tempfile.mkdtemp(prefix="kdray-staging-"))
        folder = _hidden(Path(self.path(kind)))
        _while_folders_go(lambda: folder.mkdir(parents=True))
        return folder

    def publish(self, kind: str, key: str, folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
        """Makes the staged `folder` the artefact `kind/key`, in one act; returns its whole manifest.

        Of two writers of one key either may win: both made it from the same inputs.
        """
        whole = {"version": MANIFEST_VERSION, "kind": kind, "key": key, **manifest}
        with storage_errors(self.uri):
            if self.local:
                self._publish_local(kind, key, folder, _json(whole))
            else:
                pafs.copy_files(str(folder), self.path(kind, key), destination_filesystem=self.file_system)
                self.write(_json(whole), kind, key, MANIFEST)
        return whole

    def republish(self, kind: str, key: str, folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
        """Puts the staged files, then the manifest, into an artefact that is there: what it points at has changed."""
        for path in folder.iterdir():
            self.write(path.read_bytes(), kind, key, path.name)
        return self.seal(kind, key, manifest)

    def seal(self, kind: str, key: str, manifest: dict[str, Any]) -> dict[str, Any]:
        """Makes files that are in the folder of `kind/key` an artefact; returns its whole manifest."""
        whole = {"version": MANIFEST_VERSION, "kind": kind, "key": key, **manifest}
        self.write(_json(whole), kind, key, MANIFEST)
        return whole

    def _publish_local(self, kind: str, key: str, folder: Path, manifest: bytes) -> None:
        _write_local(manifest, folder / MANIFEST)
        target = Path(self.path(kind, key))
        while True:
            try:
                os.rename(folder, target)
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            if (target / MANIFEST).exists():
                return
            with contextlib.suppress(FileNotFoundError):
                _remove_local(target)
        _sync_folder(target.parent)

    def fetch(self, kind: str, key: str) -> Path:
        """A local folder with the artefact's files; where storage is remote, a copy that all of a machine share.

        The copy stays as long as this process lives. Raises FileNotFoundError where storage has no such artefact.
        """
        if self.local:
            return Path(self.path(kind, key))
        manifest = self.read(kind, key, MANIFEST)
        place = machine_folder() / kept.ARTEFACTS / content_key([self.uri, kind, manifest.decode()])
        target = place / key
        with storage_errors(str(target), "TMPDIR"), machine_lock(place / kept.LOCK):
            kept.use(place)
            there = (target / MANIFEST).exists()
            if not there:
                self._download(kind, key, target)
        if not there:
            kept.evict(machine_folder())
        return target

    def _download(self, kind: str, key: str, target: Path) -> None:
        """Needs the lock: a folder that is half there is then that of a process that was killed."""
        partial = target.with_name(f".tmp-{key}")
        for folder in (partial, target):
            shutil.rmtree(folder, ignore_errors=True)
        try:
            partial.mkdir()
            self.download(partial, kind, key)
            os.rename(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _file_system(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a URI, and the path in it.

    What `from_uri` makes of `s3://` asks again for 6 s, bears 3 s of silence and needs three requests to write a small
    file. AwsStandardS3RetryStrategy would be worse: it never asks again once it has done so 100 times.
    """
    try:
        found, path = pafs.FileSystem.from_uri(uri)
    except pa.ArrowInvalid as error:
        raise StorageError(f"cannot open {uri}: {error}") from error
    if isinstance(found, pafs.S3FileSystem):
        _, (options,) = found.__reduce__()  # all of them, those of the query and the environment too
        found = pafs.S3FileSystem(**{
            **options, "connect_timeout": _S3_CONNECT, "request_timeout": _S3_SILENCE, "allow_delayed_open": True,
            "retry_strategy": pafs.AwsDefaultS3RetryStrategy(max_attempts=_S3_RETRIES)})
    return found, path


def parse_manifest(data: bytes, origin: str) -> dict[str, Any]:
    """The manifest in `data`, read from `origin`. Raises StorageError where it is torn or of another version."""
    try:
        manifest = json.loads(data)
    except ValueError as error:
        raise StorageError(f"{origin} is not a manifest ({error}). Delete its folder and run again.") from error
    version = manifest.get("version") if isinstance(manifest, dict) else None
    if version != MANIFEST_VERSION:
        raise StorageError(f"{origin} has manifest version {version!r}, this kdray reads {MANIFEST_VERSION}. "
                           "Use the kdray that wrote it, or another `storage`.")
    return manifest


def _check_below(name: str, uri: str) -> None:
    """Names come from listings and manifests too: object storage takes `..` in one, a local copy would go up by it."""
    if ".." in name.split("/"):
        raise StorageError(f"{name!r} leads out of {uri}: kdray writes no such name, somebody else has. Remove it, and "
                           "see who may write there")


def _json(manifest: dict[str, Any]) -> bytes:
    return json.dumps(manifest, indent=1, ensure_ascii=False).encode()


def _write_local(data: bytes | memoryview, target: Path) -> None:
    partial = _hidden(target.parent)

    def write() -> None:
        _make_folder(target.parent)
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)

    try:
        _while_folders_go(write)
    finally:
        partial.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    """`mkdir -p`, for a folder that another process may remove at any moment.

    `Path.mkdir(exist_ok=True)` raises where the folder is gone again by the time it looks whether it is one.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir(parents=True)


def _while_folders_go(act: Callable[[], T]) -> T:
    """What `act` returns; tries again where another process has removed a folder under its hands.

    Raises StorageError where that does not end, as where the system makes no folders.
    """
    for _ in range(_TRIES - 1):
        with contextlib.suppress(FileNotFoundError):
            return act()
    try:
        return act()
    except FileNotFoundError as error:
        raise StorageError(f"no folder can be made, or stays, where it should: {error}. Choose another `storage`."
                           ) from error


def _remove_local(folder: Path) -> None:
    """Removes a folder in one act. Raises FileNotFoundError where it is gone."""
    hidden = _hidden(folder.parent)
    os.rename(folder, hidden)
    for _ in range(_TRIES):  # who was about to make a file in it may do so until it is gone
        shutil.rmtree(hidden, ignore_errors=True)
        if not hidden.exists():
            break


def _hidden(parent: Path) -> Path:
    """A new name in `parent` that no reader sees."""
    return parent / f".tmp-{uuid.uuid4().hex}"


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

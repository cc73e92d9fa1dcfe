"""A storage URI and a content key become artefacts that are whole or absent.

Knows nothing about what an artefact holds. An artefact is a folder `<kind>/<key>` whose
`manifest.json` is published last: no manifest means not there.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from kdray.errors import StorageError

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1


def content_key(inputs: Any) -> str:
    """Name for what is made from `inputs` (JSON-able): the first 32 hex digits of their SHA-256."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def absolute_uri(uri: str) -> str:
    """`uri` with a scheme unchanged; a local path with `~` expanded and made absolute."""
    if "://" in uri:
        return uri.rstrip("/")
    return str(Path(uri).expanduser().resolve())


def file_digest(path: str | Path) -> str:
    """SHA-256 of a local file as hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Turns the operating system's refusals into a StorageError that names `uri` and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StorageError(f"no space left on the device that holds {uri}. Free some, then run again: "
                               "finished artefacts and shards are kept, nothing half-written stays.") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StorageError(f"cannot write to {uri}: {error.strerror}. Choose another `storage`.") from error
        raise


class Store:
    """Artefacts below one URI: a local folder, or whatever `pyarrow.fs` opens (`s3://`, `gs://`)."""

    def __init__(self, uri: str):
        self.uri = absolute_uri(uri)
        self._fs, self.root = pafs.FileSystem.from_uri(self.uri)
        self.local = isinstance(self._fs, pafs.LocalFileSystem)

    def __reduce__(self) -> tuple[type["Store"], tuple[str]]:
        return Store, (self.uri,)

    def path(self, *parts: str) -> str:
        """Path of `parts` below the root, as the file system spells it."""
        return "/".join([self.root, *parts])

    def exists(self, *parts: str) -> bool:
        """Whether a file or folder is there."""
        return self._fs.get_file_info(self.path(*parts)).type != pafs.FileType.NotFound

    def size(self, *parts: str) -> int | None:
        """Bytes of a file, None where there is none."""
        info = self._fs.get_file_info(self.path(*parts))
        return info.size if info.type == pafs.FileType.File else None

    def read(self, *parts: str) -> bytes:
        """All bytes of a file. Raises FileNotFoundError."""
        if self.local:
            return Path(self.path(*parts)).read_bytes()
        with self._fs.open_input_stream(self.path(*parts)) as stream:
            return stream.read()

    def names(self, *parts: str) -> list[str]:
        """Sorted names in a folder, hidden ones left out; empty where there is no folder."""
        selector = pafs.FileSelector(self.path(*parts), allow_not_found=True)
        names = (info.base_name for info in self._fs.get_file_info(selector))
        return sorted(name for name in names if not name.startswith("."))

    def files(self, *parts: str, hidden: bool = False) -> dict[str, tuple[int, float]]:
        """Bytes and time of the last change (seconds since 1970) of each file in a folder; empty where there is none.

        Hidden files, which a writer that died may leave, are listed on request, and then they alone.
        """
        if self.local:
            return _local_files(self.path(*parts), hidden)
        selector = pafs.FileSelector(self.path(*parts), allow_not_found=True)
        return {info.base_name: (info.size, info.mtime_ns / 1e9) for info in self._fs.get_file_info(selector)
                if info.type == pafs.FileType.File and info.base_name.startswith(".") == hidden}

    def write(self, data: bytes | memoryview, *parts: str) -> None:
        """Publishes one file atomically: readers see the old one or all of the new one."""
        target = self.path(*parts)
        with storage_errors(self.uri):
            if self.local:
                _write_local(data, Path(target))
            else:
                with self._fs.open_output_stream(target) as stream:
                    stream.write(data)

    def delete(self, *parts: str) -> None:
        """Removes one file; nothing happens where there is none."""
        if self.exists(*parts):
            self._fs.delete_file(self.path(*parts))

    def delete_folder(self, *parts: str) -> None:
        """Removes a folder and what is in it; nothing happens where there is none."""
        if self.exists(*parts):
            self._fs.delete_dir(self.path(*parts))

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
        parent = Path(self.path(kind)) if self.local else Path(tempfile.gettempdir())
        with storage_errors(self.uri):
            parent.mkdir(parents=True, exist_ok=True)
            folder = parent / f".tmp-{uuid.uuid4().hex}"
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def publish(self, kind: str, key: str, folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
        """Makes the staged `folder` the artefact `kind/key`, in one act; returns its whole manifest.

        Of two writers of one key either may win: both made it from the same inputs.
        """
        whole = {"version": MANIFEST_VERSION, "kind": kind, "key": key, **manifest}
        text = json.dumps(whole, indent=1, ensure_ascii=False).encode()
        with storage_errors(self.uri):
            if self.local:
                self._publish_local(kind, key, folder, text)
            else:
                pafs.copy_files(str(folder), self.path(kind, key), destination_filesystem=self._fs)
                self.write(text, kind, key, MANIFEST)
        return whole

    def _publish_local(self, kind: str, key: str, folder: Path, manifest: bytes) -> None:
        _write_local(manifest, folder / MANIFEST)
        target = Path(self.path(kind, key))
        try:
            os.rename(folder, target)
        except OSError:
            if (target / MANIFEST).exists():
                return
            shutil.rmtree(target, ignore_errors=True)
            os.rename(folder, target)
        _sync_folder(target.parent)

    def fetch(self, kind: str, key: str) -> Path:
        """A local folder with the artefact's files; downloaded once a machine where storage is remote."""
        if self.local:
            return Path(self.path(kind, key))
        target = Path(tempfile.gettempdir()) / "kdray" / content_key(self.uri) / kind / key
        if not (target / MANIFEST).exists():
            partial = target.parent / f".tmp-{uuid.uuid4().hex}"
            partial.mkdir(parents=True)
            pafs.copy_files(self.path(kind, key), str(partial), source_filesystem=self._fs)
            try:
                os.rename(partial, target)
            except OSError:
                shutil.rmtree(partial, ignore_errors=True)
        return target


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


def _write_local(data: bytes | memoryview, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f".tmp-{uuid.uuid4().hex}"
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _local_files(folder: str, hidden: bool) -> dict[str, tuple[int, float]]:
    files = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # published under its name, or deleted, since
                if (entry.name[0] == ".") == hidden and entry.is_file():
                    facts = entry.stat()
                    files[entry.name] = facts.st_size, facts.st_mtime
    return files


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Paths, globs and URIs of files become pieces: small files together, a large one alone.

Knows nothing about splits, labels or tokens.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from kdray.config import DataConfig
from kdray.corpus.columns import asked, task_columns
from kdray.corpus.naming import SPLIT_NAMES
from kdray.corpus.oddities import Told, unheard
from kdray.corpus.pieces import Piece
from kdray.corpus.reading import kind_of, read_file, splits_in
from kdray.errors import DataError
from kdray.storage import absolute_uri
from kdray.tasks import Task

PIECE_BYTES = 64 << 20
"""Bytes of the files of a piece, unless one file alone has more."""
PATH_LIKE = ("/", ".", "~")


@dataclass(frozen=True)
class Files:
    """Rows of some of the files that `source` names."""

    source: str
    paths: tuple[str, ...]
    """As the file system of `source` spells them."""
    split: str
    data: DataConfig
    task: Task

    @property
    def anywhere(self) -> bool:
        """Whether the files are in storage that is no machine's own."""
        return not is_local(self.source)

    def read(self, told: Told = unheard) -> pa.Table:
        """The task's columns of the files' rows, in the files' order."""
        (file_system, _), columns = _file_system(self.source), asked(self.split, self.data, self.task)
        found = [(path, read_file(file_system, path, self.data.path, self.split, columns, told)) for path in self.paths]
        tables = [task_columns(raw, self.split, self.data, self.task, path, told) for path, raw in found if raw.rows]
        if not tables:
            raise DataError(f"the {self.split} split is empty: {self} has no rows")
        try:
            return pa.concat_tables(tables, promote_options="permissive")
        except pa.ArrowInvalid as error:
            raise DataError(f"the files of {self.source} have different columns: {error}") from error

    def __str__(self) -> str:
        return self.paths[0] if len(self.paths) == 1 else f"one of {len(self.paths)} files of {self.source}"


def file_splits(source: str, data: DataConfig) -> dict[str, list[Any]]:
    """Rows of the splits, by name, of a JSON document that has several; none of other files. Raises DataError."""
    (file_system, _), found = _file_system(source), find_files(source)
    lists = splits_in(file_system, found[0].path, data.path) if len(found) == 1 else {}
    asked_for = data.train or data.validation or data.test
    return lists if asked_for or "train" in map(SPLIT_NAMES.get, lists) else {}


def is_local(source: str) -> bool:
    """Whether a source is a path or glob of this machine, and no URI, package or dataset of the hub."""
    if source.startswith("package:") or "://" in source:
        return source.startswith("file://")
    return is_file(source) or source.startswith(PATH_LIKE) or Path(source).expanduser().is_dir()


def is_file(source: str) -> bool:
    """Whether a source is a path, glob or URI of files."""
    return not source.startswith("package:") and kind_of(source) is not None


def find_files(source: str) -> list[pafs.FileInfo]:
    """The files that a path, glob or URI matches, in the order of their names. Raises DataError where none is."""
    file_system, path = _file_system(source)
    found = _matches(file_system, path)
    if not found:
        raise DataError(f"no file matches {source}")
    return found


def file_pieces(source: str, split: str, data: DataConfig, task: Task) -> list[Piece]:
    """The files of a source as pieces, in the order of their names. Raises DataError where there is no file."""
    return _grouped(find_files(source), source, split, data, task)


def folder_pieces(source: str, paths: list[str], split: str, data: DataConfig, task: Task) -> list[Piece]:
    """Some of the files of a folder of this machine as pieces."""
    file_system, _ = _file_system(source)
    return _grouped(file_system.get_file_info(paths), source, split, data, task)


def _grouped(files: list[pafs.FileInfo], source: str, split: str, data: DataConfig, task: Task) -> list[Piece]:
    groups, total = list[list[str]](), 0
    for info in files:
        if not groups or total + info.size > PIECE_BYTES:
            groups.append([])
            total = 0
        groups[-1].append(info.path)
        total += info.size
    return [Files(source, tuple(paths), split, data, task) for paths in groups]


def _file_system(source: str) -> tuple[pafs.FileSystem, str]:
    return pafs.FileSystem.from_uri(absolute_uri(source))


def _matches(file_system: pafs.FileSystem, path: str) -> list[pafs.FileInfo]:
    info = file_system.get_file_info(path)  # which may have the signs of a glob in its name
    if info.type == pafs.FileType.File or not any(sign in path for sign in "*?["):
        return [info] if info.type == pafs.FileType.File else []
    folder = path[:min(path.index(sign) for sign in "*?[" if sign in path)].rpartition("/")[0] or "/"
    found = file_system.get_file_info(pafs.FileSelector(folder, recursive=True, allow_not_found=True))
    pattern = _pattern(path)
    return sorted((info for info in found if info.type == pafs.FileType.File and pattern.fullmatch(info.path)),
                  key=lambda info: info.path)


def _pattern(path: str) -> re.Pattern[str]:
    """The glob as a regular expression: * and ? stay within a folder, **/ is any folders or none."""
    signs = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|[*?]|\[[^]]+\])", path)
    return re.compile("".join(signs.get(part) or (part.replace("[!", "[^") if part[:1] == "[" and part[-1] == "]"
                                                  else re.escape(part)) for part in parts))

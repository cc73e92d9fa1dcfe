"""Paths, globs and URIs of files become pieces: small files together, a large one alone.

Knows nothing about splits, labels or tokens.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from kdray.config import DataConfig
from kdray.corpus.pieces import Piece, task_columns
from kdray.errors import DataError
from kdray.storage import absolute_uri
from kdray.tasks import Task

FORMATS = {".csv": "csv", ".tsv": "tsv", ".json": "json", ".jsonl": "json", ".ndjson": "json",
           ".parquet": "parquet", ".pq": "parquet"}
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

    def read(self) -> pa.Table:
        """The task's columns of the files' rows, in the files' order."""
        file_system, _ = pafs.FileSystem.from_uri(absolute_uri(self.source))
        tables = [_read_file(file_system, path, FORMATS[_suffix(path)], self.data, self.task) for path in self.paths]
        try:
            table = pa.concat_tables(tables, promote_options="permissive")
        except pa.ArrowInvalid as error:
            raise DataError(f"the files of {self.source} have different columns: {error}") from error
        return task_columns(table, self.split, self.data, self.task)

    def __str__(self) -> str:
        return self.paths[0] if len(self.paths) == 1 else f"one of {len(self.paths)} files of {self.source}"


def is_local(source: str) -> bool:
    """Whether a source is a path or glob of this machine, and no URI, package or dataset of the hub."""
    if source.startswith("package:") or "://" in source:
        return source.startswith("file://")
    return is_file(source) or source.startswith(PATH_LIKE) or Path(source).expanduser().is_dir()


def is_file(source: str) -> bool:
    """Whether a source is a path, glob or URI of files."""
    return not source.startswith("package:") and _suffix(source) in FORMATS


def find_files(source: str) -> list[pafs.FileInfo]:
    """The files that a path, glob or URI matches, in the order of their names. Raises DataError where none is."""
    file_system, path = pafs.FileSystem.from_uri(absolute_uri(source))
    found = _matches(file_system, path)
    if not found:
        raise DataError(f"no file matches {source}")
    return found


def file_pieces(source: str, split: str, data: DataConfig, task: Task) -> list[Piece]:
    """The files of a source as pieces, in the order of their names. Raises DataError where there is no file."""
    groups, total = list[list[str]](), 0
    for info in find_files(source):
        if not groups or total + info.size > PIECE_BYTES:
            groups.append([])
            total = 0
        groups[-1].append(info.path)
        total += info.size
    return [Files(source, tuple(paths), split, data, task) for paths in groups]


def _suffix(source: str) -> str:
    name = source.removesuffix(".gz")
    return "." + name.rpartition(".")[2].lower() if "." in name else ""


def _matches(file_system: pafs.FileSystem, path: str) -> list[pafs.FileInfo]:
    if not any(sign in path for sign in "*?["):
        info = file_system.get_file_info(path)
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


def _read_file(file_system: pafs.FileSystem, path: str, kind: str, data: DataConfig, task: Task) -> pa.Table:
    try:
        with file_system.open_input_stream(path) if kind != "parquet" else file_system.open_input_file(path) as file:
            table = _parsed(file, kind, data, task)
        table.validate(full=True)  # JSON and Parquet are not looked through for text that is none
        return table
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeDecodeError) as error:
        said = str(error).replace("\0", "\\0")
        hint = ". Save it as UTF-8" if "utf" in said.lower() or "\\0" in said else ""
        raise DataError(f"cannot read {path} as {kind}: {said}{hint}") from error


def _parsed(file: pa.NativeFile, kind: str, data: DataConfig, task: Task) -> pa.Table:
    from pyarrow import csv, json, parquet

    if kind == "parquet":
        return parquet.read_table(file)
    if kind == "json":
        return json.read_json(file, json.ReadOptions(block_size=1 << 26), json.ParseOptions(newlines_in_values=False))
    return csv.read_csv(
        file,
        parse_options=csv.ParseOptions(delimiter="\t" if kind == "tsv" else ",", newlines_in_values=True,
                                       quote_char=False if kind == "tsv" else '"'),
        convert_options=csv.ConvertOptions(
            column_types={data.columns.get(name, name): pa.string() for name in task.columns}))

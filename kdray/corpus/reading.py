"""A file of a known kind, compressed or not, becomes the columns that are asked for.

Knows nothing about where files are found, nor about what their rows mean.
"""

import csv
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
from pyarrow import parquet

from kdray.corpus.column_files import read_columns
from kdray.corpus.columns import Asked, Raw, chosen
from kdray.corpus.csv_files import read_csv
from kdray.corpus.hub import with_names
from kdray.corpus.json_files import has_lines, lists, read_json
from kdray.corpus.oddities import Told
from kdray.errors import DataError

FORMATS = {".csv": "csv", ".tsv": "tsv", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet",
           ".pq": "parquet", ".conll": "columns", ".bio": "columns", ".iob": "columns", ".txt": "columns"}
_PACKED = {".gz": "gzip", ".bz2": "bz2", ".zip": None}
_WHOLE = tuple(suffix for suffix, kind in FORMATS.items() if kind == "parquet")
_HEAD = 1 << 20
"""Bytes that show whether JSON is lines."""


def kind_of(name: str) -> str | None:
    """What the name of a file says that it holds; None where it says nothing that is known."""
    bare = name.lower()
    for suffix in _PACKED:
        bare = bare.removesuffix(suffix)
    return FORMATS.get(f".{bare.rpartition('.')[2]}") or ("zip" if name.lower().endswith(".zip") else None)


def read_file(file_system: pafs.FileSystem, path: str, at: str | None, split: str, columns: Asked, told: Told) -> Raw:
    """The `columns` of a file that are there; `at` is where a JSON document has its rows, and which `split` they are.

    Raises DataError, which names the file and its line where it can, where it is not what its name says.
    """
    with _understood(path):
        if path.lower().endswith(_WHOLE):
            with file_system.open_input_file(path) as file:  # of which only the columns are fetched
                return _read_parquet(file, columns)
        kind, data = _contents(file_system, path)
        if at is not None and kind != "json":
            raise ValueError("data.path is for JSON documents: leave it out")
        if kind == "parquet":
            return _read_parquet(pa.BufferReader(data), columns)
        if kind == "json":
            return read_json(data, at, split, columns)
        if kind == "columns":
            return read_columns(data, columns)
        return read_csv(data, kind, columns, path, told)


def splits_in(file_system: pafs.FileSystem, path: str, at: str | None) -> dict[str, list[Any]]:
    """Lists of rows by name, where a file is a JSON document with several, at `at`; else none. Raises DataError."""
    with _understood(path):
        if kind_of(path) != "json":
            return {}
        if at is None:
            with file_system.open_input_stream(path, _packing(path)) as file:
                if has_lines(file.read(_HEAD)):
                    return {}
        _, data = _contents(file_system, path)
        return {} if at is None and has_lines(data) else lists(data, at)


def _contents(file_system: pafs.FileSystem, path: str) -> tuple[str, bytes]:
    """What is in a file, and of which kind it is; an archive must have one file of a known kind."""
    with file_system.open_input_file(path) as file:
        data = file.read()  # at once: a stream asks for 256 KiB at a time
    if not path.lower().endswith(".zip"):
        packing = _packing(path)
        unpacked = pa.input_stream(pa.BufferReader(data), compression=packing).read() if packing else data
        return str(kind_of(path)), unpacked
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [name for name in archive.namelist() if kind_of(name) and not name.startswith("__MACOSX/")]
        if len(names) != 1:
            raise ValueError(f"the archive must have one file of a known kind, and has "
                             f"{', '.join(names) or 'none'}: {', '.join(archive.namelist())}")
        return str(kind_of(names[0])), archive.read(names[0])


def _packing(path: str) -> str | None:
    return next((packing for suffix, packing in _PACKED.items() if path.lower().endswith(suffix)), None)


def _read_parquet(data: pa.NativeFile, columns: Asked) -> Raw:
    file = parquet.ParquetFile(data)
    names = file.schema_arrow.names
    table = file.read(columns=chosen(columns, names))
    table.validate(full=True)  # Parquet is not looked through for text that is none
    return Raw(file.metadata.num_rows, with_names(table), names)


@contextmanager
def _understood(path: str) -> Iterator[None]:
    """Turns what readers raise into a DataError that names the file."""
    try:
        yield
    except (ValueError, TypeError, OSError, RuntimeError, csv.Error, zipfile.BadZipFile) as error:
        said = str(error).replace("\0", "\\0")
        hint = ". Save it as UTF-8" if "utf" in said.lower() or "\\0" in said else ""
        raise DataError(f"cannot read {path} as {kind_of(path)}: {said}{hint}") from error

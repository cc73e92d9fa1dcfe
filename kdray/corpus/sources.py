"""Files, a hub dataset, a folder or a function become pieces of the task's columns, by split.

Knows nothing about labels or tokens.
"""

import contextlib
import importlib
import io
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kdray.config import DataConfig
from kdray.corpus.files import FORMATS, PATH_LIKE, file_pieces, is_file
from kdray.corpus.pieces import Piece, cut_up, task_columns
from kdray.errors import DataError
from kdray.tasks import Task

logger = logging.getLogger("kdray")

SPLIT_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "dev": "validation",
               "val": "validation", "test": "test"}


def read_splits(data: DataConfig, task: Task) -> dict[str, Sequence[Piece]]:
    """Pieces by split; a `source` without splits of its own is all `train`. Files are found, and read when a piece is.

    `transfer`, the rows without labels, has all columns but that of the labels. Raises DataError where a dataset,
    function or file is missing, or a column of what was read.
    """
    found: dict[str, Sequence[Piece]]
    if data.source is None:
        named = {"train": data.train, "validation": data.validation, "test": data.test}
        found = {name: _one(source, name, data, task) for name, source in named.items() if source}
    elif is_file(data.source):
        found = {"train": file_pieces(data.source, "train", data, task)}
    else:
        tables = _with_labels(_read(data.source, data), data, task)
        found = {name: cut_up(task_columns(table, name, data, task)) for name, table in tables.items()}
    if data.transfer:
        found["transfer"] = _one(data.transfer, "transfer", data, task)
    return found


def _one(source: str, split: str, data: DataConfig, task: Task) -> Sequence[Piece]:
    """The pieces of a source that has no splits of its own."""
    if is_file(source):
        return file_pieces(source, split, data, task)
    tables = _read(source, data)
    if len(tables) != 1:
        remedy = "data.transfer is one table of rows" if split == "transfer" else "name it as data.source"
        raise DataError(f"{source} has splits of its own ({', '.join(tables)}): {remedy}")
    return cut_up(task_columns(next(iter(tables.values())), split, data, task))


def _with_labels(tables: dict[str, pa.Table], data: DataConfig, task: Task) -> dict[str, pa.Table]:
    """Without splits other than train whose labels are withheld, as in the test splits of benchmarks."""
    column = data.columns.get(task.label_column, task.label_column)
    withheld = [name for name, table in tables.items() if name != "train" and table.num_rows
                and column in table.column_names and table.column(column).null_count == table.num_rows]
    for name in withheld:
        logger.warning("the %s split of %s has no labels: it is left out, and cut off train instead", name, data.source)
    return {name: table for name, table in tables.items() if name not in withheld}


def _read(source: str, data: DataConfig) -> dict[str, pa.Table]:
    if source.startswith("package:"):
        return {"train": _from_function(source, data.arguments)}
    if Path(source).expanduser().is_dir() or not source.startswith(PATH_LIKE):
        return _from_hub(source, data.subset)
    raise DataError(f"{source} is neither a folder nor a file of a known kind ({', '.join(FORMATS)})")


def _from_function(source: str, arguments: dict[str, Any]) -> pa.Table:
    function = _function(source)
    with contextlib.redirect_stdout(io.StringIO()):
        rows = function(**arguments)
    try:
        return _as_table(rows)
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, AttributeError) as error:
        raise DataError(f"{source} returned {type(rows).__name__}, not rows: it must return a list of dicts, a dict "
                        f"of equally long columns, an Arrow table, or a tuple of columns named 0, 1, ... ({error})"
                        ) from error


def _function(source: str) -> Callable[..., Any]:
    """What `package:MODULE:FUNCTION` names. Raises DataError where there is none, or it is Python's own."""
    parts = source.split(":")
    if len(parts) != 3 or not all(map(str.isidentifier, parts[1].split("."))):
        raise DataError(f"{source} must look like package:MODULE:FUNCTION")
    _check_foreign(source, parts[1])
    try:
        function = getattr(importlib.import_module(parts[1]), parts[2], None)
    except ModuleNotFoundError as error:
        raise DataError(f"{source}: {error}. Install the package that holds it"
                        " (the quickstart's: pip install 'kdray[quickstart]')") from error
    if not callable(function):
        raise DataError(f"{source}: module {parts[1]} has no function {parts[2]}")
    written = getattr(function, "func", function)  # of functools.partial
    _check_foreign(source, getattr(written, "__module__", None) or "")
    return function


def _check_foreign(source: str, module: str) -> None:
    """A config is trusted as code is. But Python's own functions give no rows, whatever they do."""
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise DataError(f"{source} is a function of {module}, a part of Python itself: name one that returns rows")


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

"""Data sets of the hub, of a folder or saved to disk become tables by split, with names for the ids of their classes.

Knows nothing about the task.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kdray.corpus.columns import Asked, Raw, chosen
from kdray.errors import DataError

_ON_DISK = ("state.json", "dataset_dict.json")
_FEATURES = b"huggingface"
"""Key of the metadata in which `datasets` keeps what columns are."""


def load_splits(source: str, subset: str | None) -> dict[str, Any]:
    """The splits of a data set; one that was saved to disk by itself is train. Raises DataError where there is none."""
    import datasets

    datasets.utils.logging.set_verbosity_error()
    folder = Path(source).expanduser()
    try:
        if any((folder / name).is_file() for name in _ON_DISK):
            loaded = datasets.load_from_disk(str(folder))
        else:
            loaded = datasets.load_dataset(source, subset)
    except Exception as error:
        raise DataError(f"cannot load the dataset {source!r} from the hub or a folder: {error}") from error
    return loaded if isinstance(loaded, dict) else {"train": loaded}


def split_files(folder: Path) -> dict[str, list[str]]:
    """Files of a folder by the splits that their names say, as `datasets` finds them; none where the folder says more.

    That is a saved data set, or one with a description of its splits and features in its README.
    """
    from datasets.data_files import DataFilesDict, get_data_patterns

    readme = folder / "README.md"
    described = readme.is_file() and readme.read_bytes().startswith(b"---")
    if described or any((folder / name).is_file() for name in _ON_DISK):
        return {}
    try:
        patterns = get_data_patterns(str(folder.resolve()))
    except FileNotFoundError:
        return {}
    return {str(split): list(files) for split, files in
            DataFilesDict.from_patterns(patterns, str(folder.resolve())).items()}


def of_dataset(part: Any, columns: Asked) -> Raw:
    """The columns that are asked for of a split."""
    names = chosen(columns, part.column_names)
    table = part.select_columns(names).with_format("arrow")[:] if names else pa.table({})
    return Raw(len(part), _with_names(table, part.features), part.column_names)


def with_names(table: pa.Table) -> pa.Table:
    """A table from a file that `datasets` wrote, as from the data set itself; any other as it is."""
    if _FEATURES not in (table.schema.metadata or {}):
        return table
    import datasets

    return _with_names(table, datasets.Features.from_arrow_schema(table.schema))


def _with_names(table: pa.Table, features: Any) -> pa.Table:
    for place, name in enumerate(table.column_names):
        feature = features[name]
        names = getattr(getattr(feature, "feature", feature), "names", None)
        if names is None:
            continue
        column = table.column(name).combine_chunks()
        lookup = pa.array(names)
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            column = pa.ListArray.from_arrays(column.offsets.cast(pa.int32()), lookup.take(_known(column.values)))
        else:
            column = lookup.take(_known(column))
        table = table.set_column(place, name, column)
    return table


def _known(ids: pa.Array) -> pa.Array:
    """Label ids with null for -1, which datasets write where a label is not known."""
    return pc.if_else(pc.less(ids, 0), pa.scalar(None, ids.type), ids)

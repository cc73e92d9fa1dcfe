"""Values of Python and of Arrow become text; what is not a number becomes nothing.

Knows nothing about columns.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kdray.errors import DataError


def texts_of(values: list[Any]) -> pa.Array:
    """Python values as Arrow: texts, or lists and objects of texts. Raises TypeError where one cannot be."""
    try:
        return pa.array(values, pa.string())
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return pa.array([_written(value) for value in values])


def _written(value: Any) -> Any:
    """A value with text for every number in it, as JSON has it, and nothing for what is not a number."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return [_written(part) for part in value]
    if isinstance(value, Mapping):
        return {name: _written(part) for name, part in value.items()}
    if isinstance(value, float):
        return None if value != value else str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, (int, Decimal)):
        return str(value)
    if hasattr(value, "tolist"):  # an array, or a number of NumPy
        return _written(value.tolist())
    raise TypeError(f"{value!r:.60} is no text")


def as_text(column: Any, what: str) -> Any:
    """An Arrow column as text, or lists of texts. Raises DataError, which says `what` it is, where it is neither."""
    kind = column.type
    many = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), None, column)
    try:
        return pc.cast(column, pa.list_(pa.string()) if many else pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{what} is neither text nor a list of texts: {error}") from error


def separated(column: Any, between: str) -> Any:
    """An Arrow column of texts, or of numbers, as lists: of what stands between `between`; of nothing, an empty one."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return column
    texts = pc.cast(column, pa.string()).to_pylist()
    return pa.array([[part.strip() for part in text.split(between)] if text and text.strip() else []
                     for text in texts], pa.list_(pa.string()))

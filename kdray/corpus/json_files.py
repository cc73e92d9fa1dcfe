"""JSON lines or one JSON document become the columns that are asked for, with every text and number as it stands.

Left to itself, Arrow's reader takes texts that look like dates for dates, and stops where a column that nobody asked
for changes its kind. So it is told what is text, and where something is not, Python reads.
"""

import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyarrow import json as arrow_json

from kdray.corpus.columns import Asked, Raw, expected, of_rows, those_there
from kdray.corpus.naming import SPLIT_NAMES
from kdray.corpus.spans import unwrapped
from kdray.tasks.squad import are_several

_decode = json.JSONDecoder(parse_int=str, parse_float=lambda text: text.removesuffix(".0"),
                           parse_constant=lambda text: None).decode
_SOMETHING = re.compile(rb"\S")
_MARK = b"\xef\xbb\xbf"
"""The byte order mark of UTF-8."""
_SHOWN = 60


def read_json(data: bytes, path: str | None, split: str, columns: Asked) -> Raw:
    """The rows in `data`, at `path` in it, or where they can only be.

    Raises ValueError, which names the line, where it is no JSON, and says what there is where there are no rows.
    """
    data = data.removeprefix(_MARK)
    if path is not None or not has_lines(data):
        return of_rows(iter(_rows(_document(data, path), split, columns)), columns)
    return _read_texts(data, columns) or of_rows(_lines(data), columns)


def lists(data: bytes, path: str | None) -> dict[str, list[Any]]:
    """Lists by name, where a document is, at `path`, an object that holds some. Raises ValueError."""
    value = _document(data.removeprefix(_MARK), path)
    return {name: rows for name, rows in value.items() if isinstance(rows, list)} if isinstance(value, dict) else {}


def has_lines(data: bytes) -> bool:
    """Whether the first line is a value, and there are more: then each is a row."""
    first = _SOMETHING.search(data)
    end = data.find(b"\n", first.start()) if first else -1
    if first is None or end < 0 or _SOMETHING.search(data, end) is None:
        return False
    try:
        return isinstance(_decode(data[first.start():end].decode()), (dict, list))
    except ValueError:
        return False


def _read_texts(data: bytes, columns: Asked) -> Raw | None:
    """The rows of JSON lines as Arrow reads them, four times as fast; None where not all that is asked for is text."""
    first: Any = next(_lines(data))
    if not isinstance(first, dict) or unwrapped(first) is not first or are_several(first):
        return None
    schema = pa.schema([(name, pa.list_(pa.string()) if isinstance(first.get(name), list) else pa.string())
                        for name in expected(columns, first)])
    try:
        table = arrow_json.read_json(
            pa.BufferReader(data), arrow_json.ReadOptions(block_size=1 << 26),
            arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"))
        table.validate(full=True)  # it is not looked through for text that is none
    except pa.ArrowInvalid:
        return None
    return those_there(table.num_rows, table, columns, first)


def _lines(data: bytes) -> Iterator[Any]:
    for number, line in enumerate(io.BytesIO(data), 1):
        if not line.isspace():
            try:
                yield _decode(line.decode())
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number}: {error.msg} at character {error.colno}") from error


def _document(data: bytes, path: str | None) -> Any:
    """What is at `path`, keys with dots between."""
    try:
        value = _decode(data.decode())
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: {error.msg} at character {error.colno}") from error
    for key in path.split(".") if path else ():
        if not isinstance(value, dict) or key not in value:
            there = f"only {', '.join(value)}" if isinstance(value, dict) else f"{value!r:.{_SHOWN}}"
            raise ValueError(f"data.path = {path} is not in it: where {key!r} should be, there is {there}")
        value = value[key]
    return value


def _rows(value: Any, split: str, columns: Asked) -> list[Any]:
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        raise ValueError("it is a value, and not a list of rows")
    if any(name in value for name in next(iter(columns.values()))):
        return [value]
    found = {name: part for name, part in value.items() if isinstance(part, list)}
    named = [part for name, part in found.items() if SPLIT_NAMES.get(name) == split]
    if len(named or found) != 1:
        raise ValueError(f"it is one object, with {', '.join(value) or 'nothing in it'}. Say where its rows are: "
                         f"data.path: {next(iter(found or value), 'KEY')}")
    return (named or list(found.values()))[0]

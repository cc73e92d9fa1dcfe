"""CSV and TSV become the columns that are asked for, all of them as text.

Arrow reads the rows; Python's csv reads the header and judges what is odd, such as quotes that are not doubled.
"""

import codecs
import csv
import io
import logging
import re
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import csv as arrow_csv

from kdray.corpus.columns import Asked, Raw, chosen
from kdray.corpus.oddities import Oddity, Told

csv.field_size_limit(1 << 30)
_SEPARATORS = {"csv": (",", ";", "\t", "|"), "tsv": ("\t",)}
_HEAD = 1 << 16
"""Bytes in which the header is."""
_SHOWN = 60


@dataclass(frozen=True)
class _Shape:
    """How a file is written."""

    separator: str
    quoted: bool
    names: list[str]
    """The first line."""
    headless: bool
    """Whether that is a row, too."""
    places: dict[str, list[int]]
    """Numbers of the columns that have a name that is asked for."""

    def reader(self, data: bytes, strict: bool = False) -> Any:
        """Python's reader of the whole."""
        text = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="")
        return csv.reader(text, delimiter=self.separator, strict=strict,
                          quoting=csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE)


def read_csv(data: bytes, kind: str, columns: Asked, where: str, told: Told) -> Raw:
    """The rows in `data`, whose `kind` is csv, separated as its header is, or tsv, which has no quotes.

    Raises ValueError, which names the line, where a row is not as the header says.
    """
    data = data.lstrip(b"\r\n") if data[:1] in (b"\r", b"\n") else data
    if not data:
        raise ValueError("it is empty")
    shape = _shape(data, kind, columns)
    if not shape.places:
        return Raw(data.strip().count(b"\n"), pa.table({}), shape.names, numbered=True)
    if shape.separator != _SEPARATORS[kind][0]:
        told(Oddity(f"columns are separated by {shape.separator!r}", where, level=logging.INFO))
    table = _table(_with_doubled_quotes(data, shape, where, told) if shape.quoted else data, shape)
    for name, (first, *others) in shape.places.items():
        if any(not table.column(str(first)).equals(table.column(str(other))) for other in others):
            raise ValueError(f"{1 + len(others)} columns that differ are called {name!r}. Rename one in the header, or "
                             f"ask for one by its number, from 0 (data.columns: {{{name}: {first}}})")
        if others:
            told(Oddity(f"{1 + len(others)} columns are called {name!r}, and are the same", where))
    found = {name: table.column(str(numbers[0])) for name, numbers in shape.places.items()}
    return Raw(table.num_rows, pa.table(found), shape.names, numbered=True)


def _shape(data: bytes, kind: str, columns: Asked) -> _Shape:
    """The one in which most of the columns are."""
    head = codecs.getincrementaldecoder("utf-8-sig")().decode(data[:_HEAD])
    return max((_separated(head, separator, kind == "csv", columns) for separator in _SEPARATORS[kind]),
               key=lambda shape: len(shape.places))


def _separated(head: str, separator: str, quoted: bool, columns: Asked) -> _Shape:
    line = next(csv.reader(io.StringIO(head, newline=""), delimiter=separator,
                           quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE))
    names = [name.strip() for name in line]
    named = {name: [number for number, other in enumerate(names) if other == name]
             for name in chosen(columns, names)}
    numbered = {known[0]: [int(known[0])] for known in columns.values()
                if known[0] not in names and known[0].isdecimal() and int(known[0]) < len(names)}
    return _Shape(separator, quoted, names, not named, named | numbered)


def _table(data: bytes, shape: _Shape) -> pa.Table:
    """The columns that were asked for, under their numbers."""
    names = [str(number) for number in range(len(shape.names))]
    used = sorted({number for numbers in shape.places.values() for number in numbers})
    try:
        return arrow_csv.read_csv(
            pa.BufferReader(data),
            arrow_csv.ReadOptions(column_names=names, skip_rows_after_names=0 if shape.headless else 1),
            arrow_csv.ParseOptions(delimiter=shape.separator, quote_char='"' if shape.quoted else False,
                                   newlines_in_values=True),
            arrow_csv.ConvertOptions(include_columns=[names[number] for number in used],
                                     column_types=dict.fromkeys(names, pa.string())))
    except pa.ArrowInvalid as error:
        reader = shape.reader(data)
        for row in filter(None, reader):
            if len(row) != len(names):
                raise ValueError(f"line {reader.line_num} has {len(row)} columns, and the first {len(names)}, with "
                                 f"{shape.separator!r} between them ({row!s:.{_SHOWN}}...)") from error
        raise


def _with_doubled_quotes(data: bytes, shape: _Shape, where: str, told: Told) -> bytes:
    """The data with quotes within quotes doubled, where they are escaped with backslashes.

    A quote behind a backslash, or neither doubled nor at a column's end, is a reason to look what tells the two apart.
    """
    sign = re.escape(shape.separator.encode())
    odd = re.search(rb'"(?:(?<=\\")|(?<=[^%b"\r\n]")(?=[^%b"\r\n]))' % (sign, sign), data)
    line = _malformed(data, shape) if odd else None
    if line is None:
        return data
    doubled = re.sub(rb'\\(["\\])', lambda match: b'""' if match[1] == b'"' else match[1], data)
    if _malformed(doubled, shape) is not None:
        raise ValueError(f'line {line}: there is text behind a closing quote. Double the quotes within a text ("")')
    told(Oddity('quotes within texts are escaped (\\"), not doubled, and are read so', f"{where}, line {line}"))
    return doubled


def _malformed(data: bytes, shape: _Shape) -> int | None:
    """The first line with text behind a closing quote, or a quote that nothing closes."""
    reader = shape.reader(data, strict=True)
    try:
        for _ in reader:
            pass
    except csv.Error:
        return reader.line_num
    return None

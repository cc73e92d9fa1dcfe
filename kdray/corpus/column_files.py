"""A word a line, its tag in another column, and an empty line behind each sentence, become rows of words and tags.

The files of CoNLL-2003 and their like. Knows nothing about schemes of tags.
"""

from collections.abc import Iterator

import pyarrow as pa

from kdray.corpus.columns import Asked, Raw

_DOCUMENT = "-DOCSTART-"
_DEFAULT = {"tokens": 0, "tags": -1}
_SHOWN = 60
Fields = list[str]


def read_columns(data: bytes, columns: Asked) -> Raw:
    """The sentences in `data`: words in the first column and tags in the last, unless they are asked for by number.

    Columns have a tab between them, or spaces. Comments (#) before a sentence and lines that begin a document are left
    out. Raises ValueError, which names the line, where the columns are not the same all through.
    """
    if "tokens" not in columns:
        raise ValueError("a word a line is what token-classification reads; give this task a file with a row a line, "
                         "such as CSV")
    lines = data.decode("utf-8-sig").split("\n")
    separator, width = _shape(lines)
    if width < len(columns):
        raise ValueError(f"its first line has {width} columns, and {len(columns)} are needed: a word and its tag")
    places = {name: _place(name, known[0], width) for name, known in columns.items()}
    found: dict[str, list[Fields]] = {name: [] for name in places}
    for sentence in _sentences(lines, separator, width):
        for name, place in places.items():
            found[name].append([fields[place] for fields in sentence])
    table = pa.table({columns[name][0]: pa.array(rows, pa.list_(pa.string())) for name, rows in found.items()})
    return Raw(table.num_rows, table, [str(number) for number in range(width)], numbered=True)


def _shape(lines: list[str]) -> tuple[str, int]:
    """What is between columns, and how many there are: as in the first line that can be no comment."""
    first = next((line for line in lines if line.strip() and not line.startswith(("#", _DOCUMENT))), "")
    separator = "\t" if "\t" in first.strip() else " "
    return separator, len(_fields(first, separator))


def _place(name: str, known: str, width: int) -> int:
    if known == name:
        return _DEFAULT[name]
    if not known.removeprefix("-").isdecimal() or not -width <= int(known) < width:
        raise ValueError(f"data.columns.{name} = {known} is none of its {width} columns, which have no names: give a "
                         "number, from 0; -1 is the last")
    return int(known)


def _sentences(lines: list[str], separator: str, width: int) -> Iterator[list[Fields]]:
    sentence: list[Fields] = []
    for number, line in enumerate([*lines, ""], 1):
        fields = _fields(line, separator)
        if not line.strip():
            if sentence:
                yield sentence
            sentence = []
        elif fields[0] == _DOCUMENT or (not sentence and line.startswith("#") and _is_comment(fields, width)):
            continue
        elif len(fields) != width:
            raise ValueError(f"line {number} has {len(fields)} columns, and those before it {width}: {line:.{_SHOWN}}")
        else:
            sentence.append(fields)


def _fields(line: str, separator: str) -> Fields:
    fields = line.rstrip().split(separator)
    return fields if separator == "\t" else list(filter(None, fields))


def _is_comment(fields: Fields, width: int) -> bool:
    return len(fields) != width or "=" in fields[-1]

"""CSV in the shapes that users have is read as it was meant, or the line and the remedy are named."""

import csv
import io
import random

import pytest

from kdray.config import DataConfig
from kdray.corpus.columns import asked
from kdray.corpus.csv_files import read_csv
from kdray.corpus.files import file_pieces
from kdray.errors import DataError
from kdray.tasks import TASKS

TASK = TASKS["sequence-classification"]


def read(text: str | bytes, kind: str = "csv", split: str = "train", **data) -> tuple[list[dict], list[str]]:
    """The rows, and what is said of them."""
    told: list[str] = []
    columns = asked(split, DataConfig(source="x", **data), TASK)
    content = text.encode() if isinstance(text, str) else text
    raw = read_csv(content, kind, columns, "FILE", lambda oddity: told.append(f"{oddity.where}: {oddity.what}"))
    return raw.table.to_pylist(), told


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_what_separates_the_header_separates_the_rows(separator):
    rows, told = read(f"id{separator}text{separator}label\n1{separator}a, b{separator}x\n")
    assert rows == [{"text": "a, b", "label": "x"}]
    assert told == [f"FILE: columns are separated by {separator!r}"]


def test_commas_win_where_both_would_do():
    assert read("text,label\na;b,x\n") == ([{"text": "a;b", "label": "x"}], [])
    assert read("text\nfine; so\n", split="transfer") == ([{"text": "fine; so"}], [])


def test_names_may_have_spaces_around_and_a_mark_or_empty_lines_before():
    for before in ("", "\ufeff", "\n\n", "\r\n"):
        assert read(f"{before}text ,  label\na,x\n") == ([{"text": "a", "label": "x"}], [])


def test_columns_of_one_name_are_read_where_they_are_the_same():
    rows, told = read("text,label,label\na,x,x\nb,y,y\n")
    assert [row["label"] for row in rows] == ["x", "y"]
    assert told == ["FILE: 2 columns are called 'label', and are the same"]
    assert read("text,text,label,n,n\na,a,x,1,2\n")[0] == [{"text": "a", "label": "x"}]
    with pytest.raises(ValueError, match=r"2 columns that differ are called 'label'. Rename one .*label: 1"):
        read("text,label,label\na,x,x\nb,y,z\n")
    assert read("text,label,label\na,x,x\nb,y,z\n", columns={"text": "text", "label": 2})[0][1]["2"] == "z"


def test_without_a_header_columns_are_numbers():
    rows, _ = read("7;good; so\n8;bad;so\n", columns={"text": 1, "label": 2})
    assert rows == [{"1": "good", "2": " so"}, {"1": "bad", "2": "so"}]
    assert read("0,1\ngood,x\n", columns={"text": 0, "label": 1})[0] == [{"0": "good", "1": "x"}], "a header of numbers"


def test_a_missing_header_is_said_with_the_remedy(tmp_path):
    (tmp_path / "a.csv").write_text("the first row,x\nanother,y\n")
    [piece] = file_pieces(str(tmp_path / "a.csv"), "train", DataConfig(source="x"), TASK)
    with pytest.raises(DataError, match=r"no column 'text' for text, only the first row, x \(.*a.csv\).*Where that is "
                                        r"a row, and there is no header, number the columns: data.columns: "
                                        r"\{text: 0, label: 1\}"):
        piece.read()


@pytest.mark.parametrize("seed", range(5))
def test_quotes_escaped_with_backslashes_are_read_as_python_writes_them(seed):
    chance = random.Random(seed)
    texts = ["".join(chance.choices('ab ",\n', k=12)) for _ in range(200)] + ['say "hi" now']
    written = io.StringIO()
    writer = csv.writer(written, doublequote=False, escapechar="\\", quoting=csv.QUOTE_ALL)
    writer.writerows([("text", "label"), *((text, "x") for text in texts)])
    rows, told = read(written.getvalue())
    assert [row["text"] for row in rows] == texts
    assert len(told) == 1 and "escaped" in told[0]


def test_other_backslashes_stay():
    rows, told = read('text,label\n"a \\"b\\" c\\n d:\\e",x\n"f \\\\ g",y\n')
    assert [row["text"] for row in rows] == ['a "b" c\\n d:\\e', "f \\ g"]
    assert told == ['FILE, line 2: quotes within texts are escaped (\\"), not doubled, and are read so']
    rows, told = read('text,label\n"c:\\dir\\",x\n"said ""b""\\",y\n5" disk\\,z\n')
    assert [row["text"] for row in rows] == ["c:\\dir\\", 'said "b"\\', '5" disk\\'] and told == []


@pytest.mark.parametrize("seed", range(5))
def test_doubled_quotes_are_read_as_python_writes_them(seed):
    chance = random.Random(seed)
    texts = ["".join(chance.choices('ab \\",;\n', k=12)) + "." for _ in range(300)]
    written = io.StringIO()
    csv.writer(written).writerows([("text", "label"), *((text, "x") for text in texts)])
    rows, told = read(written.getvalue())
    assert [row["text"] for row in rows] == texts and told == []


def test_text_behind_a_closing_quote_is_refused_with_its_line():
    with pytest.raises(ValueError, match=r'line 3: there is text behind a closing quote. Double the quotes .*\(""\)'):
        read('text,label\nfine,x\n"Hi" he said,y\n')


def test_a_row_with_other_columns_is_refused_with_its_line():
    with pytest.raises(ValueError, match=r"line 4 has 3 columns, and the first 2, with ',' between them \(\['a', 'b'"):
        read('text,label\n"two\nlines",x\na,b,c\n')


def test_columns_that_nobody_asked_for_may_be_anything():
    body = "".join(f"{number if number < 5000 else 'x'},a,y\n" for number in range(20_000))
    assert len(read(f"id,text,label\n{body}")[0]) == 20_000


def test_texts_longer_than_python_allows_at_first_are_judged_too():
    text = 'a "quoted" word ' * 20_000
    rows, _ = read('text,label\n"' + text.replace('"', '\\"') + '",x\n')
    assert rows[0]["text"] == text

"""The rows on which teacher and winner differ most, as they are told."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from kdray.report.examples import most_different
from kdray.tasks import TASKS


def written(path: Path, rows: list[list[float]], label: int = 0) -> Path:
    """Predictions with these divergences; all models say `label`, the winner another."""
    ids = [[label] * len(row) for row in rows]
    columns = {"gold": ids, "teacher": ids, "winner": [[label + 1] * len(row) for row in rows],
               "teacher_confidence": [[0.9] * len(row) for row in rows],
               "winner_confidence": [[0.6] * len(row) for row in rows], "divergence": rows}
    table = pa.table(columns)
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    return path


def test_texts_come_by_divergence_with_what_both_say(corpus, tmp_path):
    rows = corpus.rows("test")
    divergence = np.random.default_rng(0).permutation(len(rows)) / 10
    file = written(tmp_path / "p.arrow", [[float(value)] for value in divergence])
    found = most_different(file, rows, corpus.task, corpus.labels)
    order = np.argsort(-divergence)[:20]
    assert [one["row"] for one in found] == order.tolist()
    first = found[0]
    assert first["parts"] == [rows.raw(corpus.task).column("text")[int(order[0])].as_py()] and first["mark"] is None
    assert first["divergence"] == max(divergence) and first["truth"] == corpus.labels[0]
    assert first["teacher"] == {"label": corpus.labels[0], "confidence": 0.9}
    assert first["winner"] == {"label": corpus.labels[1], "confidence": 0.6}


def test_the_word_that_is_meant_is_the_one_that_differs_most(token_corpus, tmp_path):
    rows = token_corpus.rows("test")
    divergence = [[0.0] * len(rows.labels[row]) for row in range(len(rows))]
    divergence[3][2], divergence[5] = 7.0, [float("nan")] * len(divergence[5])
    found = most_different(written(tmp_path / "p.arrow", divergence), rows, token_corpus.task, token_corpus.labels)
    words = rows.raw(token_corpus.task).column("tokens")[3].as_py()
    assert found[0]["row"] == 3 and found[0]["parts"] == words and found[0]["mark"] == 2
    assert 5 not in [one["row"] for one in found]


@pytest.mark.parametrize("unit", [0, 30, 59])
def test_long_rows_are_cut_around_what_is_meant(unit):
    from kdray.report.examples import _text

    words = [f"w{index}" for index in range(60)]
    found = _text(TASKS["token-classification"], {"tokens": words}, unit)
    assert found["parts"][found["mark"]] == f"w{unit}" and len(found["parts"]) <= 43
    assert (found["parts"][0] == "…") is (unit == 30 or unit == 59)
    assert (found["parts"][-1] == "…") is (unit == 0 or unit == 30)
    assert [len(part) for part in _text(
        TASKS["regression"], {"text": "x" * 999, "text_pair": "y" * 9}, 0)["parts"]] == [301, 9]

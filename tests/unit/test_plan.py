"""The plan past one machine says what its script prints, and the script reads its options."""

import re
from pathlib import Path

import pytest

from tests.bench.plan import MEASURED, main

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_has_the_tables_that_the_script_prints(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    page = (ROOT / "cluster/PLAN.md").read_text()
    assert page.partition("<!-- plan -->\n")[2] == capsys.readouterr().out


def test_its_constants_are_those_of_benchmarks_that_there_are() -> None:
    assert all((ROOT / "tests/bench" / script).exists() for _, _, script in MEASURED.values())


def test_ten_times_the_rows_take_ten_times_the_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for rows in ("1e8", "1e9"):
        main(["--rows", rows])
        found.append(float(re.findall(r"float32, 100 labels .* (\S+) GB", capsys.readouterr().out)[0]))
    assert found[1] == pytest.approx(10 * found[0], rel=0.02)

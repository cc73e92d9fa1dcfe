"""The page says what report.json says, in words that fit what happened."""

import re

import pytest

from kdray.report.page import draw, span


def words(page: str) -> str:
    """What is to be read, without pictures and tags."""
    page = re.sub(r"<(svg|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_the_head_compares_what_is_served_with_the_teacher_and_the_page_is_the_same_each_time(facts):
    facts["constraint"] = None
    page = draw(facts)
    told = words(page)
    for part in ("100.0 % of the teacher's test accuracy", "12.0x smaller file", "6.0x as many examples/s",
                 "6.0x sooner with one text"):
        assert part in told
    assert "the limit of" not in told and "deviation" not in told and "may be chance" not in told
    assert "on 1 seed that the sweep has not seen: +10.00 points of test accuracy. One seed does not say" in told
    assert "on seeds that it has not seen. seed winner baseline" in told
    assert page == draw(facts)


def test_a_file_that_is_not_served_is_told_with_the_reason(facts):
    assert "Not served" not in words(draw(facts))
    facts["numbers"] |= {"backend": "onnx", "refused": {"int8, weights of 7 bits": "a drop of 0.0300"}}
    told = words(draw(facts))
    assert "Not served, for it does not answer like the student on validation: int8, weights of 7 bits (a drop" in told
    assert "The winner as served (ONNX float32) against the teacher" in told


def test_rows_without_labels_are_told_where_there_are_some(facts):
    assert "without labels" not in words(draw(facts))
    facts["rows"]["transfer"] = 1280
    told = words(draw(facts))
    assert "80 rows for training, 1,280 without labels, 10 for validation" in told
    assert "the rows without labels are not in its epochs, which are shorter." in told


def test_a_constraint_that_nothing_meets_says_by_how_much(facts):
    facts["constraint"] = {"max_mb": 3.2, "max_ms": 9.0, "met": False, "excess": {"max_mb": 0.25}}
    told = words(draw(facts))
    assert "No student is within the constraint." in told
    assert "is 25 % above the limit of 3.2 MB for the file that is served" in told
    assert "is within the limit of 9 ms for one text (p50)." in told


def test_a_constraint_that_is_met_says_so(facts):
    facts["constraint"] = {"max_mb": 3.2, "max_ms": None, "met": True, "excess": {}}
    told = words(draw(facts))
    assert "is within the limit of 3.2 MB" in told and "No student is within" not in told


def test_several_seeds_have_mean_and_deviation_and_an_interval_that_holds_0_may_be_chance(facts):
    seeds = facts["numbers"]["seeds"]
    seeds["pairs"].append({"seed": 8, "winner": 0.92, "baseline": 0.79})
    seeds["difference"] |= {"low": -0.01, "high": 0.18}
    for part, deviation in (("winner", 0.0123), ("baseline", 0.0071), ("difference", 0.0212)):
        seeds[part]["deviation"] = deviation
    told = words(draw(facts))
    assert "deviation 0.0123 0.0071 0.0212" in told
    assert "has not seen: +10.00 points of test accuracy [-1.00, 18.00], which may be chance." in told
    assert "and of each the best on validation is shown above" in told


def test_trials_of_the_pairs_are_no_part_of_the_search(facts):
    assert "and settings searched as those of the winner, in 1 trial. The sweep chose" in words(draw(facts))
    facts["trials"] = [row for row in facts["trials"] if not row["baseline"]]
    facts["trials"] += [{**row, "point": {**row["point"], "alpha": alpha, "seed": 1}, "baseline": alpha == 1}
                        for row, alpha in zip(facts["trials"], (1.0, 0.5), strict=False)]
    told = words(draw(facts))
    assert "11 trials, 2 of them the best one and its baseline again, on seeds that the sweep has not seen." in told
    assert "with the same start and seeds, and the same settings otherwise. The sweep chose settings alone" in told


def test_a_live_teacher_is_estimated_from_the_epochs_that_learned_from_one(facts):
    facts["trials"] = [row | {"history": [], "epochs": 4} for row in facts["trials"][:5]]
    assert [row["baseline"] for row in facts["trials"]] == [True, True, True, False, False]
    facts["trials"][4]["history"] = [{"epoch": 1, "stage": 0}, {"epoch": 2, "stage": 1}]
    assert "3.3 min a live teacher instead, estimated" in words(draw(facts))  # 50 s * 80/100 rows * (4 + 1) epochs


def test_a_teacher_that_ran_beside_the_students_has_no_cost_of_its_own(facts):
    facts["teacher_seconds"] = None
    told = words(draw(facts))
    assert "The teacher ran beside the students" in told and "estimated" not in told


def test_what_the_data_says_stays_text(facts):
    evil = "<script>alert(1)</script>"
    facts["name"] = facts["examples"][0]["parts"][0] = facts["labels"][0] = evil
    facts["trials"][-1] |= {"error": f"a\n{evil}", "name": evil}
    facts["trials"][0]["point"]["loss"] = evil
    page = draw(facts)
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_a_sweep_of_one_student_has_no_front_and_no_names(facts):
    for row in facts["trials"]:
        row["name"] = "only"
    facts["students"] = {"only": facts["students"]["small"]}
    page = draw(facts)
    assert "Pareto" not in page and "<th>student</th>" not in page


def test_a_sweep_of_one_place_has_no_map(facts):
    facts["trials"] = [row | {"point": {"alpha": 1.0} if row["baseline"] else {"lr": 1e-4 * (1 + place)}}
                       for place, row in enumerate(facts["trials"])]
    page = draw(facts)
    assert "Temperature and alpha of all trials" not in page and "Settings of all trials" in page


@pytest.mark.parametrize("seconds, told", [(8.44, "8.4 s"), (186, "3.1 min"), (9000, "2.5 h")])
def test_a_span_has_the_unit_that_fits(seconds, told):
    assert span(seconds) == told

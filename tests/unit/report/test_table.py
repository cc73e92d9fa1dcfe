"""The table that `kdray run` prints."""

from kdray.report.table import text_table


def test_the_table_has_a_line_a_model(facts):
    head, teacher, _, _, served = text_table(facts["numbers"]).splitlines()
    assert head.split("  ")[0] == "model" and "test accuracy [95 %]" in head
    assert teacher.split() == ["teacher", "0.9000", "[0.8500,", "0.9500]", "9.0", "M", "36.0", "MB", "10", "(1.0x)"]
    assert "winner as served (ONNX float32)" in text_table({**facts["numbers"], "backend": "onnx"})
    assert served.startswith("winner as served (ONNX int8)  ") and served.endswith("3.0 MB   60 (6.0x)")

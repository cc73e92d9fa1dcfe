"""Pictures are SVG in the page's colours, of whatever trials and numbers there are."""

import re
import xml.dom.minidom

import pytest

from kdray.report.figure import DATA, INK, SCALE, canvas, svg
from kdray.report.model_plots import confusion, intervals, reliability
from kdray.report.sweep_plots import front, learning_curves, parallel, pareto, trial_map
from tests.sweeps import made_up_sweep

TRAINING = {"temperature": 2.0, "alpha": 0.5, "lr": 1e-4, "loss": "kl"}


def marks(picture: str) -> int:
    """How many parts show data; fails where the picture is not XML, or has a colour that is not the page's."""
    xml.dom.minidom.parseString(picture.replace("xlink:", ""))
    assert not re.findall(r"#f[de]00|(?:fill|stroke): #(?!ffffff)\w{6}", picture)
    return picture.count(f'class="{DATA}"')


def test_a_figure_has_the_pages_colours_and_a_title():
    with canvas(4, 3) as figure:
        area = figure.subplots()
        area.plot([0, 1], [0, 1], color=INK, gid=DATA)
        area.plot([0, 1], [1, 0], color=SCALE(0.5))
        area.set_title("<5 $x_1$ & 日本語")
        picture = svg(figure, 'a "title"')
    assert marks(picture) == 1
    assert "stroke: var(--ink)" in picture and "color-mix(in oklab, var(--best) 50%, var(--worst))" in picture
    assert "&lt;5 $x_1$ &amp; 日本語" in picture and 'aria-label="a &quot;title&quot;"' in picture


def test_a_map_has_a_mark_for_each_trial_whatever_became_of_it():
    sweep = made_up_sweep(40)
    states = {row["state"] for row in sweep["trials"]}
    assert states == {"finished", "stopped", "failed"}
    picture = trial_map(sweep["trials"], sweep["winner"], "accuracy", TRAINING)
    assert marks(picture) == 40
    for word in ("winner", "baseline", "stopped", "failed", "large", "medium", "small"):
        assert f">{word}<" in picture


def test_a_map_takes_what_a_point_lacks_from_the_settings():
    trials = made_up_sweep(8, family=("only",))["trials"]
    for row in trials:
        row["point"].pop("temperature", None)
    assert marks(trial_map(trials, "", "accuracy", TRAINING)) == 8
    for row in trials:
        row["point"].pop("alpha", None)
    assert trial_map(trials, "", "accuracy", TRAINING) is None


def test_a_curve_for_each_trial_that_has_a_history():
    sweep = made_up_sweep(40)
    with_history = sum(bool(row["history"]) for row in sweep["trials"])
    assert with_history < 40
    assert marks(learning_curves(sweep["trials"], sweep["winner"], "accuracy", "accuracy")) == with_history
    distilled = sum(bool(row["history"]) and not row["baseline"] for row in sweep["trials"])
    assert marks(learning_curves(sweep["trials"], sweep["winner"], "agreement", "agreement")) == distilled
    assert learning_curves(sweep["trials"], sweep["winner"], "kl", "KL") is None


def test_a_stopped_trials_curve_is_its_best_so_far():
    trials = made_up_sweep(2, family=("only",))["trials"]
    trials[1]["history"] = [{"epoch": 1, "best": 0.5}]
    assert marks(learning_curves(trials, "", "accuracy", "accuracy")) == 2


def test_parallel_coordinates_have_a_line_a_trial_and_an_upright_a_setting():
    sweep = made_up_sweep(40)
    picture = parallel(sweep["trials"], sweep["winner"], "accuracy", TRAINING)
    assert marks(picture) == 40 and 'class="broad"' in picture
    for word in ("student", "temperature", "alpha", "lr", "loss", "huber", "validation accuracy"):
        assert f">{word}<" in picture


def test_parallel_coordinates_of_nothing_are_none():
    trials = made_up_sweep(3, family=("only",))["trials"]
    assert parallel(trials[:1], "", "accuracy", TRAINING) is None
    assert parallel([row | {"best": None} for row in trials], "", "accuracy", TRAINING) is None


def test_the_front_is_what_nothing_beats():
    assert front([(2, 0.8), (1, 0.7), (3, 0.75), (2, 0.6), (4, 0.9)]) == [(1, 0.7), (2, 0.8), (4, 0.9)]


@pytest.mark.parametrize("measure", ["bytes", "milliseconds"])
def test_a_pareto_plot_names_its_students_and_the_limit(measure):
    students = made_up_sweep(12)["students"]
    picture = pareto(students, measure, 3.5, "accuracy", "small")
    assert marks(picture) == 3 and "limit 3.5" in picture and all(f">{name}<" in picture for name in students)
    assert pareto({"small": students["small"]}, measure, None, "accuracy", "small") is None


def test_intervals_have_a_line_a_model():
    score = {"accuracy": {"value": 0.9, "low": 0.8, "high": 0.95}}
    titles = {name: name for name in ("teacher", "baseline", "winner")} | {"served": "winner as served (ONNX int8)"}
    picture = intervals(dict.fromkeys(titles, score), titles, "accuracy")
    assert marks(picture) == 4 and "winner as served (ONNX int8)" in picture


def test_a_reliability_diagram_has_a_bar_for_each_bin_that_is_used():
    empty = {"count": 0, "confidence": None, "accuracy": None}
    bins = [empty] * 13 + [{"count": 2, "confidence": 0.9, "accuracy": 0.5},
                           {"count": 9, "confidence": 0.98, "accuracy": 1.0}]
    assert marks(reliability("winner", {"ece": 0.1, "bins": bins})) == 2


@pytest.mark.parametrize("count, numbered, named", [(3, True, True), (30, False, True), (80, False, False)])
def test_a_confusion_matrix_of_many_labels_leaves_out_what_is_too_small(count, numbered, named):
    matrix = [[7 if row == column else int(row == 0) for column in range(count)] for row in range(count)]
    picture = confusion("winner", [f"label{index}" for index in range(count)], matrix)
    assert marks(picture) == 1
    assert (">7<" in picture) is numbered and (">label1<" in picture) is named

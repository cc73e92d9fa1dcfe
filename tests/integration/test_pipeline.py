"""`kdray run` from rows to a package and a report, again, and with another search."""

import json
from pathlib import Path

import pytest

from tests.integration.conftest import Command, small_config, write_config


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, rows: Path, teacher: Path) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    return write_config(folder / "c.yaml", small_config(folder / "store", rows, teacher))


@pytest.fixture(scope="module")
def first(kdray: Command, config: Path) -> str:
    done = kdray("run", str(config))
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_folder(printed: str) -> Path:
    return Path(printed.split("kdray serve ")[1].strip().replace("~", str(Path.home()), 1))


def test_run_prints_the_three_models_and_how_to_serve(first: str) -> None:
    for word in ("teacher", "baseline", "winner as served (ONNX int8)", "examples/s", "parameters", "kdray serve "):
        assert word in first


def test_run_names_every_artefact(first: str, config: Path) -> None:
    run = json.loads((run_folder(first) / "run.json").read_text())
    store = config.parent / "store"
    for kind, key in (("corpus", run["lineage"]["corpus"]), ("caches", run["lineage"]["cache"]),
                      ("students", run["lineage"]["student"]), ("sweeps", run["lineage"]["sweep"]),
                      ("packages", run["package"]), ("reports", run["report"])):
        assert json.loads((store / kind / key / "manifest.json").read_text())["key"] == key


def test_winner_and_baseline_are_trained_on_a_seed_that_no_trial_has(first: str, config: Path) -> None:
    run = json.loads((run_folder(first) / "run.json").read_text())
    sweep, chosen = (json.loads((config.parent / "store" / kind / run["lineage"][name] / "manifest.json").read_text())
                     for kind, name in (("sweeps", "sweep"), ("selections", "selection")))
    assert sweep["trials"][0]["point"]["alpha"] == 0.5 and not any(row["baseline"] for row in sweep["trials"])
    plain, won = chosen["trials"]
    best = max(sweep["trials"], key=lambda row: row["best"])
    assert plain["point"] == {"alpha": 1.0, "seed": 1} and won["point"] == {**best["point"], "seed": 1}
    assert [pair["seed"] for pair in chosen["pairs"]] == [1]
    assert (chosen["baseline"], chosen["winner"]) == (plain["student"], won["student"])
    assert run["lineage"]["student"] == won["student"] not in [row["student"] for row in sweep["trials"]]


def test_the_gain_is_told_in_the_same_words_everywhere(first: str, config: Path) -> None:
    run = json.loads((run_folder(first) / "run.json").read_text())
    store = config.parent / "store"
    [words] = [line for line in first.splitlines() if line.startswith("Gain of distillation")]
    assert "on 1 seed that the sweep has not seen" in words and "One seed does not say how far chance goes" in words
    assert words in (store / "reports" / run["report"] / "report.html").read_text()
    assert words in (store / "packages" / run["package"] / "README.md").read_text()


def test_package_loads_with_a_pipeline(first: str, config: Path) -> None:
    from transformers import pipeline

    run = json.loads((run_folder(first) / "run.json").read_text())
    classify = pipeline("text-classification", model=str(config.parent / "store" / "packages" / run["package"]))
    assert [answer["label"] for answer in classify(["the film was great", "the film was awful"])] == [
        "positive", "negative"]


def test_report_is_one_page_with_plots(first: str) -> None:
    page = Path(first.split("report:  ")[1].split("\n")[0]).expanduser().read_text()
    assert page.count("<svg") == 11 and "http-equiv" not in page and "<script src" not in page


def test_second_run_finds_everything(kdray_here: Command, first: str, config: Path) -> None:
    again = kdray_here("run", str(config))
    assert again.returncode == 0 and "making" not in again.stderr
    assert again.stdout == first


def test_another_search_runs_the_sweep_and_what_follows(kdray_here: Command, first: str, config: Path) -> None:
    other = kdray_here("run", str(config), "search.space={temperature: {min: 4, max: 9}, alpha: {values: [0.2, 0.5]}}")
    assert other.returncode == 0, other.stderr
    for stage in ("corpus", "cache"):
        assert f"{stage}: found" in other.stderr and f"{stage}: making" not in other.stderr
    for stage in ("sweep", "selection", "package", "report"):
        assert f"{stage}: making" in other.stderr


def test_with_a_live_teacher_there_is_no_cache(kdray_here: Command, first: str, config: Path) -> None:
    live = kdray_here("run", str(config), "teacher.live=true", "search.trials=1")
    assert live.returncode == 0 and "cache:" not in live.stderr, live.stderr
    run = json.loads((run_folder(live.stdout) / "run.json").read_text())
    cached = json.loads((run_folder(first) / "run.json").read_text())["lineage"]
    assert "cache" not in run["lineage"] and run["lineage"]["teacher"] == cached["teacher"]
    store = config.parent / "store"
    assert len(list((store / "caches").iterdir())) == 1
    student = json.loads((store / "students" / run["lineage"]["student"] / "manifest.json").read_text())
    assert student["parents"]["cache"] is None and student["parents"]["teacher"] == cached["teacher"]
    assert student["history"][-1]["agreement"] > 0.9
    page = (store / "reports" / run["report"] / "report.html").read_text()
    assert page.count("<svg") > 5 and "live" in page

"""Wrong arguments end with status 2 and say what is wrong, before anything is looked at; `bench` as a user calls it."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import transformers

from kdray import console
from kdray.cli import main
from tests.packages import write_package

JOBS = Path(__file__).parents[2] / "jobs"


@pytest.mark.parametrize("arguments, words", [
    (["gc", "--grace", "-1"], "argument --grace: '-1' is not a number of 0 or more"),
    (["gc", "--grace", "nan"], "argument --grace: 'nan' is not a number of 0 or more"),
    (["gc", "--grace", "soon"], "argument --grace: 'soon' is not a number of 0 or more"),
    (["verify", "ab", "--rows", "-5"], "argument --rows: '-5' is not a whole number of 0 or more"),
    (["show"], "required: CACHE"),
])
def test_wrong_arguments_of_the_cache_verbs_are_refused(capsys, arguments, words):
    with pytest.raises(SystemExit) as end:
        main(["cache", *arguments])
    assert end.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.parametrize("script", sorted(path.stem for path in JOBS.glob("*.py") if path.stem != "serve"))
def test_a_job_runs_the_stage_of_its_name(monkeypatch, script):
    told: list[tuple[str, str, int]] = []
    monkeypatch.setattr("kdray.stages.run_stage",
                        lambda stage, config: told.append((stage, config.name, config.search.trials)))
    monkeypatch.setattr(sys, "argv", [f"{script}.py", str(JOBS / "configs" / "sst2.yaml"), "search.trials=9"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(JOBS / f"{script}.py"), run_name="__main__")
    assert end.value.code == 0
    assert told == [("run" if script == "pipeline" else script, "sst2", 9)]


def test_bench_measures_a_runs_winner_on_a_file_and_says_what_to_use(capsys, monkeypatch, run, tmp_path):
    (tmp_path / "mine.txt").write_text("What a film.\n\nNever again.\n")
    out, err = called(capsys, monkeypatch, "bench", str(run), "num_cpus=2", "--texts", str(tmp_path / "mine.txt"))
    assert re.search(r"^onnx-int8 .*<- now$", out, re.MULTILINE) and "torch float32" in out
    assert re.search(r"^use serve\.backend=\S+", out, re.MULTILINE) and err == ""


@pytest.mark.parametrize("arguments, words", [
    ([], "was made from is not in its storage: give texts of your own (--texts FILE)"),
    (["--texts", "no-such-file.txt"], "cannot read no-such-file.txt"),
    (["backend=tpu"], "backend = 'tpu'"),
])
def test_bench_says_what_is_missing(capsys, monkeypatch, run, arguments, words):
    out, err = called(capsys, monkeypatch, "bench", str(run), *arguments, status=1)
    assert out == "" and err.startswith("kdray: ") and words in err


def called(capsys, monkeypatch, *arguments: str, status: int = 0) -> tuple[str, str]:
    """What a command says on standard output and standard error; the log stays out of it."""
    monkeypatch.setattr(console, "log_to_stderr", lambda: None)
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    assert end.value.code == status
    return capsys.readouterr()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with a package and nothing else."""
    storage = tmp_path_factory.mktemp("storage")
    write_package(storage / "packages/films", "sequence-classification", transformers.BertForSequenceClassification,
                  ["bad", "good"])
    config = {"storage": str(storage), "data": {"source": "rows.csv"}, "teacher": {"model": "large"}}
    folder = storage / "runs/films"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"config": json.dumps(config), "package": "films"}))
    return folder
